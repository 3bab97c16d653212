"""The Docker SDK for Python drives containers and execs; `drives` names the endpoints that a test calls."""

from __future__ import annotations

import io
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from tests.support.engine import Engine
from tests.support.hijack import split_frames
from tests.support.sdk import driven, drives, sdk_for, served

pytestmark = pytest.mark.kernel

WAITING = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


@pytest.fixture
def sdk(clean_engine: Engine) -> Iterator[Any]:
    """The SDK's client; a test must call what it is said to drive."""
    with sdk_for(clean_engine) as client:
        yield client


@pytest.fixture
def running(sdk: Any) -> Any:
    """A container that runs until it is told to end."""
    return sdk.containers.run("busybox", WAITING, name="web", detach=True, labels={"tier": "front"})


def tar_of(name: str, data: bytes, **facts: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for fact, value in facts.items():
            setattr(info, fact, value)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_every_route_is_driven() -> None:
    files = sorted(Path(__file__).parent.glob("test_sdk*.py"))
    assert len(files) == 3
    assert sorted(served() - driven(*files)) == []
    assert sorted(driven(*files) - served()) == [], "endpoints that the engine does not have"


@drives("POST /containers/create", "POST /containers/{id}/start", "POST /containers/{id}/wait",
        "GET /containers/{id}/logs", "DELETE /containers/{id}", "GET /containers/{id}/json")  # fmt: skip
def test_run_to_the_end(sdk: Any) -> None:
    assert sdk.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    assert sdk.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stderr=True, remove=True) in (
        b"out\nerr\n", b"err\nout\n",
    )  # fmt: skip
    with pytest.raises(ContainerError) as failed:
        sdk.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"why\n")
    with pytest.raises(ImageNotFound):
        sdk.containers.create("nosuch:image")
    assert sdk.containers.list(all=True) == []


@drives("POST /containers/create", "GET /containers/{id}/json", "GET /containers/json")
def test_create_get_and_list(sdk: Any) -> None:
    made = sdk.containers.create(
        "busybox", "sleep 1000", name="one", environment={"A": "b"}, working_dir="/tmp", user="65534", hostname="box",
        volumes={"data": {"bind": "/data", "mode": "rw"}}, tmpfs={"/scratch": "size=64k"}, mem_limit="64m",
        ports={"80/tcp": None}, cap_drop=["NET_RAW"], read_only=True, labels=["x"], stop_signal="SIGINT", tty=True,
    )  # fmt: skip
    assert made.status == "created"
    found = sdk.containers.get("one")
    assert (found.id, found.short_id, found.labels) == (made.id, made.id[:12], {"x": ""})
    assert found.image.tags == ["busybox:latest"]
    config, host = found.attrs["Config"], found.attrs["HostConfig"]
    assert (config["WorkingDir"], config["User"], config["Hostname"], config["Tty"]) == ("/tmp", "65534", "box", True)
    assert (host["Memory"], host["ReadonlyRootfs"], host["CapDrop"]) == (64 << 20, True, ["NET_RAW"])
    assert found.attrs["Mounts"][0]["Name"] == "data"
    assert sdk.containers.list() == []
    assert sdk.containers.list(all=True, filters={"label": "x", "status": "created"}) == [made]
    assert [each["Names"] for each in sdk.api.containers(all=True, size=True, limit=1)] == [["/one"]]
    with pytest.raises(NotFound):
        sdk.containers.get("nosuch")


@drives("POST /containers/{id}/start", "POST /containers/{id}/stop", "POST /containers/{id}/restart",
        "POST /containers/{id}/kill", "POST /containers/{id}/wait", "POST /containers/{id}/pause",
        "POST /containers/{id}/unpause", "POST /containers/{id}/rename", "DELETE /containers/{id}")  # fmt: skip
def test_states(sdk: Any, running: Any) -> None:
    def status() -> str:
        running.reload()
        return str(running.status)

    assert status() == "running"
    running.pause()
    assert status() == "paused"
    running.unpause()
    running.rename("front")
    assert sdk.containers.get("front") == running
    running.restart(timeout=5)
    assert status() == "running"
    running.stop(timeout=5)
    assert (status(), running.attrs["State"]["ExitCode"]) == ("exited", 0)
    running.start()
    running.kill(signal="SIGKILL")
    assert running.wait(timeout=20) == {"StatusCode": 137}
    assert running.wait(condition="not-running") == {"StatusCode": 137}
    with pytest.raises(APIError) as refused:
        running.kill()
    assert refused.value.status_code == 409
    running.start()
    with pytest.raises(APIError) as refused:
        running.remove()
    assert refused.value.status_code == 409
    running.remove(force=True, v=True)
    assert sdk.containers.list(all=True) == []


@drives("GET /containers/{id}/logs")
def test_logs(sdk: Any) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo last >&2"
    said = sdk.containers.run("busybox", ["sh", "-c", script], detach=True)
    stream = said.logs(stream=True, follow=True)
    assert b"".join(stream) == b"".join(b"line %d\n" % number for number in range(1, 6)) + b"last\n"
    assert said.logs(tail=1) == b"last\n"
    assert said.logs(stdout=False) == b"last\n"
    assert said.logs(stderr=False, tail=2) == b"line 5\n", "the lines of both streams count"
    stamp, _, text = said.logs(tail=1, timestamps=True).partition(b" ")
    assert (text, stamp[-1:]) == (b"last\n", b"Z")
    assert said.logs(until=int(time.time()) - 3600) == b""
    assert said.logs(since=int(time.time()) - 3600, stderr=False) == b"".join(said.logs(stream=True, stderr=False))


@drives("POST /containers/{id}/exec", "POST /exec/{id}/start", "GET /exec/{id}/json", "POST /exec/{id}/resize")
def test_exec(sdk: Any, running: Any) -> None:
    assert running.exec_run(["sh", "-c", "echo out; exit 4"]) == (4, b"out\n")
    assert running.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True) == (0, (b"out\n", b"err\n"))
    assert running.exec_run(["sh", "-c", "test -t 1 && echo tty"], tty=True) == (0, b"tty\r\n")
    shown = running.exec_run(["sh", "-c", "echo $A; pwd; id -u"], environment={"A": "b"}, workdir="/etc", user="65534")
    assert shown.output == b"b\n/etc\n65534\n"
    assert b"".join(running.exec_run(["seq", "3"], stream=True).output) == b"1\n2\n3\n"
    assert running.exec_run(["touch", "/made"], detach=True).output in ("", b"")
    made = sdk.api.exec_create(running.id, ["sh", "-c", "cat; exit 2"], stdin=True)["Id"]
    taken = sdk.api.exec_start(made, socket=True)
    taken._sock.sendall(b"typed\n")
    taken._sock.shutdown(socket.SHUT_WR)
    assert split_frames(taken.read()) == [(1, b"typed\n")]
    taken.close()
    shown = sdk.api.exec_inspect(made)
    assert (shown["ExitCode"], shown["Running"], shown["ContainerID"]) == (2, False, running.id)
    made = sdk.api.exec_create(running.id, ["sh", "-c", "sleep 0.3; stty size"], tty=True)["Id"]
    output = sdk.api.exec_start(made, tty=True, stream=True)
    sdk.api.exec_resize(made, height=31, width=101)
    assert b"".join(output) == b"31 101\r\n"


@drives("POST /containers/{id}/attach")
def test_attach(sdk: Any) -> None:
    container = sdk.containers.create("busybox", ["sh", "-c", "read a; echo got $a; echo err >&2"], stdin_open=True)
    streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    taken = container.attach_socket(params=streams)
    container.start()
    taken._sock.sendall(b"word\n")
    assert sorted(split_frames(taken.read())) == [(1, b"got word\n"), (2, b"err\n")]
    taken.close()
    assert container.attach(stdout=True, stderr=True, logs=True, stream=False, demux=True) == (b"got word\n", b"err\n")
    talker = sdk.containers.create("busybox", ["sh", "-c", "sleep 0.3; echo 1; echo 2"])
    output = talker.attach(stream=True)
    talker.start()
    assert b"".join(output) == b"1\n2\n"


@drives("GET /containers/{id}/attach/ws")
def test_attach_by_web_socket(sdk: Any, clean_engine: Engine) -> None:
    """The SDK itself finds no web socket behind a unix socket, so it only makes the container."""
    container = sdk.containers.create("busybox", ["sh", "-c", "read a; echo got $a"], stdin_open=True)
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(20)
        plain.connect(str(clean_engine.socket_path))
        path = f"/v1.51/containers/{container.id}/attach/ws?stream=1&stdin=1&stdout=1"
        taken = websocket.create_connection(f"ws://docker{path}", socket=plain, timeout=20)
        container.start()
        taken.send("word\n")
        received = b""
        while not received.endswith(b"got word\n"):
            part = taken.recv()
            received += part.encode() if isinstance(part, str) else part
        taken.shutdown()
    sdk.api.get(sdk.api._url("/containers/{0}/attach/ws", container.id))


@drives("PUT /containers/{id}/archive", "GET /containers/{id}/archive", "HEAD /containers/{id}/archive")
def test_archives(sdk: Any, running: Any) -> None:
    assert running.put_archive("/tmp", tar_of("note", b"text", mode=0o640, uid=7)) is True
    assert running.exec_run(["stat", "-c", "%a %u %s", "/tmp/note"]).output == b"640 7 4\n"
    chunks, facts = running.get_archive("/tmp/note")
    assert (facts["name"], facts["size"], facts["mode"]) == ("note", 4, 0o640)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        assert archive.extractfile("note").read() == b"text"  # type: ignore[union-attr]
    assert len(b"".join(running.get_archive("/etc", encode_stream=True)[0])) > 0
    with pytest.raises(NotFound):
        running.get_archive("/nosuch")
    head = sdk.api.head(sdk.api._url("/containers/{0}/archive", running.id), params={"path": "/tmp/note"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["X-Docker-Container-Path-Stat"]


@drives("GET /containers/{id}/stats", "GET /containers/{id}/top")
def test_what_it_uses(sdk: Any, running: Any) -> None:
    once = running.stats(stream=False)
    assert (once["id"], once["name"]) == (running.id, "/web")
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    stream = running.stats(decode=True)
    first, second = next(stream), next(stream)
    stream.close()
    assert second["read"] > first["read"]
    assert sdk.api.stats(running.id, stream=False, one_shot=True)["pids_stats"] is not None
    top = running.top()
    assert "PID" in top["Titles"] and len(top["Processes"]) >= 1
    assert running.top(ps_args="-o pid,args")["Titles"] == ["PID", "COMMAND"]


@drives("GET /containers/{id}/changes", "GET /containers/{id}/export", "POST /commit")
def test_what_it_changed(sdk: Any) -> None:
    box = sdk.containers.create("busybox", ["sh", "-c", "echo x >/made; rm /etc/passwd"])
    box.start()
    box.wait()
    changes = {change["Path"]: change["Kind"] for change in box.diff()}
    assert (changes["/made"], changes["/etc"], changes["/etc/passwd"]) == (1, 0, 2)
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as archive:
        names = archive.getnames()
    assert "made" in names and "etc/passwd" not in names
    image = box.commit("kept", "1", message="why", author="me", changes=["CMD [\"cat\", \"/made\"]"])
    assert image.tags == ["kept:1"]
    assert (image.attrs["Author"], image.attrs["Comment"]) == ("me", "why")
    assert sdk.containers.run("kept:1", remove=True) == b"x\n"


@drives("POST /containers/{id}/update", "POST /containers/{id}/resize")
def test_update_and_resize(sdk: Any) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    container = sdk.containers.create("busybox", ["sh", "-c", script], tty=True, stdin_open=True, mem_limit="64m")
    output = container.attach(stream=True)
    container.start()
    assert next(output)
    answer = container.update(mem_limit="96m", memswap_limit="192m", restart_policy={"Name": "on-failure"})
    assert not answer["Warnings"]
    container.reload()
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["RestartPolicy"]["Name"]) == (96 << 20, "on-failure")
    container.resize(height=40, width=90)
    assert b"".join(output).endswith(b"40 90\r\n")


@drives("POST /containers/prune")
def test_prune_containers(sdk: Any, running: Any) -> None:
    gone = sdk.containers.create("busybox", "true")
    kept = sdk.containers.create("busybox", "true", labels={"keep": "yes"})
    pruned = sdk.containers.prune(filters={"label!": ["keep"]})
    assert pruned == {"ContainersDeleted": [gone.id], "SpaceReclaimed": 0}
    assert {each.id for each in sdk.containers.list(all=True)} == {running.id, kept.id}
    assert sdk.containers.prune()["ContainersDeleted"] == [kept.id]
