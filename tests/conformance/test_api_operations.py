"""Statistics, changes, exports and updates of containers: what does not fit into a transcript."""

from __future__ import annotations

import io
import itertools
import json
import socket
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine
from tests.support.hijack import RawConnection

pytestmark = pytest.mark.kernel

MIB = 1 << 20


def make(engine: Engine, name: str, *command: str, start: bool = True, **host: Any) -> str:
    body = {"Image": "busybox", "Cmd": list(command) or ["sleep", "1000"], "HostConfig": host}
    identity = str(engine.call("POST", f"/containers/create?name={name}", body)["Id"])
    if start:
        engine.call("POST", f"/containers/{name}/start")
    return identity


def samples(engine: Engine, name: str, count: int) -> list[dict[str, Any]]:
    """That many of a stream of statistics."""
    with RawConnection(engine.socket_path) as connection:
        connection.send("GET", f"/containers/{name}/stats")
        assert connection.head().status == 200
        text = b""
        while len(lines := [line for line in text.split(b"\r\n") if line.startswith(b"{")]) < count + 1:
            text += connection.read_some()
    return [json.loads(line) for line in lines[:count]]


def test_a_stream_of_statistics(clean_engine: Engine) -> None:
    make(clean_engine, "busy", "sh", "-c", "while :; do :; done", Memory=64 * MIB)
    found = samples(clean_engine, "busy", 3)
    for before, after in itertools.pairwise(found):
        assert after["preread"] == before["read"] < after["read"]
        assert after["precpu_stats"] == before["cpu_stats"]
        used = [each["cpu_usage"]["total_usage"] for each in (after["precpu_stats"], after["cpu_stats"])]
        assert used[0] < used[1]
    assert found[-1]["memory_stats"]["limit"] == 64 * MIB
    assert 0 < found[-1]["memory_stats"]["usage"] < 64 * MIB
    assert found[-1]["pids_stats"]["current"] == 1


def test_a_stream_outlives_the_run_and_ends_with_the_container(clean_engine: Engine) -> None:
    make(clean_engine, "brief")
    with RawConnection(clean_engine.socket_path) as connection:
        connection.send("GET", "/containers/brief/stats")
        connection.head()
        assert b'"read":"0001' not in connection.read_some()
        clean_engine.call("POST", "/containers/brief/kill")
        while b'"read":"0001' not in (text := connection.read_some()):
            assert text
        clean_engine.call("DELETE", "/containers/brief")
        text = b""
        while not text.endswith(b"0\r\n\r\n"):
            text = connection.read_some()


def test_many_streams_and_a_slow_reader_hold_up_nobody(clean_engine: Engine) -> None:
    make(clean_engine, "watched")
    connections = [RawConnection(clean_engine.socket_path) for _ in range(50)]
    for connection in connections:
        connection.send("GET", "/containers/watched/stats")
        connection.head()
    time.sleep(1)
    began = time.monotonic()
    assert clean_engine.call("GET", "/containers/watched/stats?stream=0&one-shot=1")["pids_stats"]["current"] == 1
    clean_engine.call("POST", "/containers/watched/kill")
    assert time.monotonic() - began < 5
    for connection in connections:
        connection.sock.close()


def test_statistics_at_once(clean_engine: Engine) -> None:
    make(clean_engine, "box", NetworkMode="none")
    began = time.monotonic()
    shown = clean_engine.call("GET", "/containers/box/stats?stream=false&one-shot=true")
    assert time.monotonic() - began < 0.9
    assert shown["preread"].startswith("0001")
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert "networks" not in shown
    clean_engine.call("POST", "/containers/box/pause")
    assert clean_engine.call("GET", "/containers/box/stats?stream=0")["pids_stats"]["current"] == 1


# --- changes and exports ----------------------------------------------------------------------------------------------

BUSY = (
    "mkdir -p /a/b; echo x > /a/b/f; rm -rf /var; rm /bin/vi; echo hi > /etc/passwd; ln -s x /link; "
    "rm -rf /usr; mkdir -p /usr/new; rm -rf /tmp; echo file > /tmp; mknod /pipe p; "
    "echo 1 > /data/in-a-volume; touch /scratch/in-memory"
)
CHANGES = [
    ("/a", 1), ("/a/b", 1), ("/a/b/f", 1), ("/bin", 0), ("/bin/vi", 2), ("/data", 1), ("/etc", 0), ("/etc/passwd", 0),
    ("/link", 1), ("/pipe", 1), ("/scratch", 1), ("/tmp", 0), ("/usr", 0), ("/usr/bin", 2),
    ("/usr/lib", 2), ("/usr/new", 1), ("/usr/sbin", 2), ("/var", 2),
]  # fmt: skip


@pytest.mark.parametrize("running", [False, True])
def test_changes(clean_engine: Engine, running: bool) -> None:
    command = f"{BUSY}; touch /data/done; exec sleep 1000" if running else BUSY
    make(clean_engine, "box", "sh", "-c", command, Binds=["data:/data"], Tmpfs={"/scratch": ""})
    if running:
        while clean_engine.request("HEAD", "/containers/box/archive?path=/data/done").status != 200:
            time.sleep(0.05)
    else:
        clean_engine.call("POST", "/containers/box/wait")
    found = clean_engine.call("GET", "/containers/box/changes")
    assert sorted((change["Path"], change["Kind"]) for change in found) == CHANGES


def test_nothing_changed(clean_engine: Engine) -> None:
    make(clean_engine, "box", start=False)
    assert clean_engine.request("GET", "/containers/box/changes").json() is None
    clean_engine.call("POST", "/containers/box/start")
    clean_engine.docker("exec", "box", "sh", "-c", "touch -d 2001-01-01 /etc && chmod 755 /bin && cat /etc/passwd")
    assert clean_engine.request("GET", "/containers/box/changes").json() is None


def exported(body: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {member.name: member for member in archive}


@pytest.mark.parametrize("state", ["created", "running", "paused", "exited"])
def test_an_export(clean_engine: Engine, state: str) -> None:
    make(clean_engine, "box", start=state != "created", Binds=["data:/data"])
    if state != "created":
        clean_engine.docker("exec", "box", "sh", "-c", "echo 1 > /data/in-a-volume; echo mine > /mine; ln /mine /too")
    if state == "paused":
        clean_engine.call("POST", "/containers/box/pause")
    if state == "exited":
        clean_engine.call("POST", "/containers/box/kill")
        clean_engine.call("POST", "/containers/box/wait")
    answer = clean_engine.request("GET", "/containers/box/export")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    found = exported(answer.body)
    assert {"bin/busybox", ".dockerenv", "etc/hostname", "dev", "proc"} <= found.keys()
    assert not any(name.startswith(("/", "./")) or name in (".", "data/in-a-volume") for name in found)
    if state != "created":
        assert found["too"].islnk()
        assert found["mine"].size == 5


def slow_export(engine: Engine, name: str) -> socket.socket:
    """An export of which nobody reads more than its beginning."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(engine.socket_path))
    connection.sendall(f"GET /containers/{name}/export HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def big(engine: Engine) -> None:
    make(engine, "big", "sh", "-c", "[ -e /f ] || dd if=/dev/zero of=/f bs=1M count=64; touch /full; exec sleep 1000")
    while engine.request("HEAD", "/containers/big/archive?path=/full").status != 200:
        time.sleep(0.05)


@pytest.mark.parametrize("running", [False, True])
def test_a_reader_that_does_not_read(clean_engine: Engine, running: bool) -> None:
    """A container with a slow export starts, changes, stops and starts; it does not see two roots."""
    engine = clean_engine
    big(engine)
    if not running:
        engine.call("POST", "/containers/big/stop?t=0")
    with slow_export(engine, "big"):
        began = time.monotonic()
        if running:
            engine.call("POST", "/containers/big/stop?t=0")
        engine.call("POST", "/containers/big/start")
        engine.docker("exec", "big", "sh", "-c", "echo 1 > /new")
        engine.call("POST", "/containers/big/stop?t=0")
        assert {"Path": "/new", "Kind": 1} in engine.call("GET", "/containers/big/changes")
        assert engine.request("GET", "/containers/big/archive?path=/new").status == 200
        engine.call("POST", "/containers/big/start")
        assert engine.docker("exec", "big", "cat", "/new").stdout == "1\n"
        engine.call("POST", "/containers/big/stop?t=0")
        assert time.monotonic() - began < 20
    if not isinstance(engine, DockerEngine):
        deadline = time.monotonic() + 10
        while "merged" in (table := engine.inside("cat", "/proc/self/mounts").stdout) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "merged" not in table


def test_a_container_removed_while_it_is_exported(clean_engine: Engine) -> None:
    if isinstance(clean_engine, DockerEngine):
        pytest.skip("Docker ends such an archive as if it were whole")
    big(clean_engine)
    with slow_export(clean_engine, "big") as connection:
        began = time.monotonic()
        clean_engine.call("DELETE", "/containers/big?force=1")
        assert time.monotonic() - began < 10
        body = b""
        while data := connection.recv(1 << 20):
            body = body[-16:] + data
        assert not body.endswith(b"0\r\n\r\n"), "nobody may take that for the whole"


# --- updates ----------------------------------------------------------------------------------------------------------

# What is asked for, of a container with 64 MiB: status and message. Docker ignores what is marked None.
UPDATES: list[tuple[dict[str, Any], int, str | None]] = [
    ({}, 200, ""),
    ({"Memory": 1}, 400, "Minimum memory limit allowed is 6MB"),
    ({"Memory": 64 * MIB, "MemorySwap": 32 * MIB}, 400,
     "Minimum memoryswap limit should be larger than memory limit, see usage"),
    ({"Memory": 256 * MIB}, 409, "Cannot update container <id>: Memory limit should be smaller than already set "
                                 "memoryswap limit, update the memoryswap at the same time"),
    ({"MemoryReservation": 1024}, 400, "Minimum memory reservation allowed is 6MB"),
    ({"NanoCpus": 10**9, "CpuQuota": 1000}, 400,
     "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
    ({"CpuQuota": 10}, 400, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ({"CpuPeriod": 10}, 400,
     "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
    ({"CpusetCpus": "a"}, 400, "Invalid value a for cpuset cpus: invalid format: a"),
    ({"CpusetMems": "x"}, 400, "Invalid value x for cpuset mems: invalid format: x"),
    ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}, 400,
     "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
    ({"Memory": "x"}, 400,
     "invalid JSON: json: cannot unmarshal string into Go struct field UpdateConfig.Memory of type int64"),
    ({"Binds": ["/a:/b"]}, 400, None),
    ({"Devices": [{"PathOnHost": "/dev/null"}]}, 400, None),
    ({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}]}, 400, None),
    ({"OomKillDisable": True}, 400, None),
    ({"KernelMemory": 64 * MIB}, 400, None),
    ({"MemorySwappiness": 50}, 400, None),
    ({"Init": True}, 400, None),
    ({"MemoryReservation": 512 * MIB}, 400, None),
    ({"CpuShares": 1}, 400, None),
    ({"Devices": [], "Init": None, "Binds": None, "ShmSize": 0, "OomKillDisable": False}, 200, ""),
]  # fmt: skip


@pytest.mark.parametrize("running", [False, True])
def test_updates(clean_engine: Engine, running: bool) -> None:
    identity = make(clean_engine, "box", start=running, Memory=64 * MIB)
    before = clean_engine.call("GET", "/containers/box/json")["HostConfig"]
    wrong = []
    for body, status, text in UPDATES:
        if text is None and isinstance(clean_engine, DockerEngine):
            continue
        answer = clean_engine.request("POST", "/containers/box/update", body)
        said = answer.json().get("message", "").replace(identity, "<id>")
        if answer.status != status or text not in (None, said):
            wrong.append(f"{body}: {answer.status} {said!r}")
    assert wrong == []
    if not isinstance(clean_engine, DockerEngine):
        assert clean_engine.call("GET", "/containers/box/json")["HostConfig"] == before


def test_an_update_of_what_removes_itself(clean_engine: Engine) -> None:
    identity = make(clean_engine, "box", AutoRemove=True)
    answer = clean_engine.request("POST", "/containers/box/update", {"RestartPolicy": {"Name": "always"}})
    assert (answer.status, answer.json()["message"]) == (
        409,
        f"Cannot update container {identity}: "
        "Restart policy cannot be updated because AutoRemove is enabled for the container",
    )
    assert clean_engine.call("POST", "/containers/box/update", {"RestartPolicy": {"Name": "no"}}) == {"Warnings": None}


def test_a_new_restart_policy_holds(clean_engine: Engine) -> None:
    make(clean_engine, "box")
    clean_engine.call("POST", "/containers/box/update", {"RestartPolicy": {"Name": "always"}})
    pid = clean_engine.call("GET", "/containers/box/json")["State"]["Pid"]
    clean_engine.inside("kill", "-9", str(pid))
    deadline = time.monotonic() + 10
    while clean_engine.call("GET", "/containers/box/json")["RestartCount"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_child_that_takes_too_much_memory(clean_engine: Engine) -> None:
    """It is told at once, though the container goes on, and once a run by us."""
    make(clean_engine, "starved", "sh", "-c", "tail /dev/zero; exec sleep 1000", Memory=16 * MIB, MemorySwap=16 * MIB)
    deadline = time.monotonic() + 20
    while not (state := clean_engine.call("GET", "/containers/starved/json")["State"])["OOMKilled"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert state["Running"]
    clean_engine.call("POST", "/containers/starved/kill")
    clean_engine.call("POST", "/containers/starved/wait")
    query = f"since=1&until={time.time() + 1:.0f}&filters=" + '{"container":["starved"]}'
    lines = clean_engine.request("GET", f"/events?{query}").body.splitlines()
    actions = [json.loads(line)["Action"] for line in lines]
    assert actions.index("oom") < actions.index("kill")
    if not isinstance(clean_engine, DockerEngine):
        assert actions.count("oom") == 1


def test_an_engine_that_ends_while_a_stop_waits(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    try:
        engine.start()
        engine.load_busybox()
        make(engine, "box", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
        answers: list[int] = []
        waiting = threading.Thread(
            target=lambda: answers.append(engine.request("POST", "/containers/box/stop?t=100").status)
        )
        waiting.start()
        time.sleep(0.5)
        began = time.monotonic()
        assert engine.stop() == 0
        assert time.monotonic() - began < 4
        waiting.join(5)
        assert answers == [503]
        engine.start()
        assert engine.call("GET", "/containers/box/json")["State"]["Running"]
    finally:
        engine.close()


# --- web sockets ------------------------------------------------------------------------------------------------------

HANDSHAKE = (
    "GET /containers/{name}/attach/ws?{query} HTTP/1.1\r\nHost: docker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)


def web_socket(engine: Engine, name: str, query: str, more: str = "") -> tuple[socket.socket, bytes]:
    """A connection after its handshake, and the head of the answer."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(engine.socket_path))
    connection.sendall(HANDSHAKE.format(name=name, query=query, more=more).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return connection, head


def client_frame(opcode: int, data: bytes) -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(data))) + bytes(4) + data


def server_frame(connection: socket.socket) -> tuple[int, bytes]:
    head = connection.recv(2, socket.MSG_WAITALL)
    return head[0] & 15, connection.recv(head[1], socket.MSG_WAITALL) if head[1] else b""


def test_a_web_socket(clean_engine: Engine) -> None:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "read a; echo got $a; exit 3"], "OpenStdin": True}
    clean_engine.call("POST", "/containers/create?name=box", body)
    connection, head = web_socket(clean_engine, "box", "stream=1&stdin=1&stdout=1")
    with connection:
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        clean_engine.call("POST", "/containers/box/start")
        connection.sendall(client_frame(9, b"there?"))
        assert server_frame(connection) == (10, b"there?")
        connection.sendall(client_frame(1, b"wo") + client_frame(2, b"rd\n"))
        assert server_frame(connection) == (2, b"got word\n")
        assert server_frame(connection)[0] in (8, 0)
    assert clean_engine.call("POST", "/containers/box/wait") == {"StatusCode": 3}


def test_a_web_socket_that_is_closed_and_one_that_is_none(clean_engine: Engine) -> None:
    if isinstance(clean_engine, DockerEngine):
        pytest.skip("Docker answers neither a close nor a bad frame in the protocol's words")
    make(clean_engine, "box")
    connection, _ = web_socket(clean_engine, "box", "stream=1&stdout=1")
    with connection:
        connection.sendall(client_frame(8, b"\x03\xe8bye"))
        assert server_frame(connection) == (8, b"\x03\xe8")
    connection, _ = web_socket(clean_engine, "box", "stream=1&stdout=1")
    with connection:
        connection.sendall(b"\x81\x01a")
        assert server_frame(connection) == (8, b"\x03\xea")
    connection, head = web_socket(clean_engine, "box", "stream=1", "Origin: https://elsewhere.example\r\n")
    with connection:
        assert head.startswith(b"HTTP/1.1 400 ")
    assert clean_engine.request("GET", "/containers/box/attach/ws").status == 400
    assert clean_engine.request("GET", "/containers/nope/attach/ws").status == 404
    assert clean_engine.call("GET", "/containers/box/json")["State"]["Running"]
