"""Storage that stops answering in the middle: of a copy from an image, of `docker cp`, of a start.

Nothing of the engine itself may wait for it, whoever asked gets a clear error in time, everybody else notices nothing,
and when it is back nothing is stuck and nothing is half there.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Answer, Engine, engine_below
from tests.support.fuse_server import PIECE_BYTES, SLOW_S, FuseServer, fuse_server
from tests.support.images import busybox_image, docker_archive, file_entry, image, layer

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

TIMEOUT_S = 2
LATE_S = 2.5
"""How much later than the deadline an answer may come, on a busy machine."""
BIG_BYTES = round(1.4 * TIMEOUT_S / SLOW_S) * PIECE_BYTES
"""What takes a slow server longer than the deadline."""
BIG = os.urandom(BIG_BYTES)
WHOLE = {"data/sub/first": b"first", "data/big": BIG, "data/last": b"last"}
HEALTHY = [("GET", "/volumes"), ("GET", "/volumes/cold"), ("GET", "/system/df"), ("GET", "/containers/json?all=1")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all, with an image that fills a volume slowly."""
    environment = {"HOLDFAST_MOUNT_TIMEOUT_S": str(TIMEOUT_S)}
    with engine_below(tmp_path_factory.mktemp("engine"), environment=environment) as engine:
        entries = layer(file_entry(name, content) for name, content in WHOLE.items())
        filling = image([*busybox_image().layers, entries], tags=["filling:latest"])
        assert engine.request("POST", "/images/load?quiet=1", raw=docker_archive([filling])).status == 200
        yield engine


@pytest.fixture
def server(engine: Engine, tmp_path: Path) -> Iterator[FuseServer]:
    """A file server, and the volume `cold` on an empty directory of it."""
    (tmp_path / "fuse").mkdir()
    with fuse_server(tmp_path / "fuse", engine.enter()) as server:
        options = {"type": "none", "device": str(tmp_path / "fuse/sub"), "o": "bind"}
        engine.call("POST", "/volumes/create", {"Name": "cold", "DriverOpts": options})
        yield server
        server.come_back()
        for entry in engine.call("GET", "/containers/json?all=1"):
            engine.call("DELETE", f"/containers/{entry['Id']}?force=1")
        engine.call("DELETE", "/volumes/cold")
        assert workers_of(engine) <= 2, "none is stuck once the server is back"


def create(engine: Engine, name: str, *binds: str, of: str = "busybox") -> Answer:
    """Create a container that sleeps."""
    body = {"Image": of, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none", "Binds": list(binds)}}
    return engine.request("POST", f"/containers/create?name={name}", body)


def waits_for_storage(engine: Engine) -> list[str]:
    """Threads of the engine itself that wait for the file system's answer: there must never be one."""
    assert engine.process is not None
    found = []
    for task in Path(f"/proc/{engine.process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "wchan").read_text().startswith(("request_wait", "fuse")):
                found.append((task / "syscall").read_text())
    return found


def workers_of(engine: Engine) -> int:
    """How many processes the engine has for storage that may hang."""
    assert engine.process is not None
    children = Path(f"/proc/{engine.process.pid}/task/{engine.process.pid}/children").parent.parent
    found = 0
    for task in children.iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                found += b"storage_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def archive_of(**files: bytes) -> bytes:
    """A tar archive."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def timed(engine: Engine, method: str, path: str, **more: Any) -> tuple[Answer, float]:
    """A request's answer and how long it took."""
    began = time.monotonic()
    answer = engine.request(method, path, **more)
    return answer, time.monotonic() - began


def others_go_on(engine: Engine) -> None:
    """Everything that does not touch the storage is as quick as ever."""
    assert waits_for_storage(engine) == []
    for method, path in HEALTHY:
        answer, took = timed(engine, method, path)
        assert answer.status == 200 and took < 0.5, (path, answer, took)
    assert create(engine, "other", "warm:/data", of="filling").status == 201
    engine.call("POST", "/containers/other/start")
    engine.call("DELETE", "/containers/other?force=1")
    engine.call("DELETE", "/volumes/warm")


def shown(engine: Engine, name: str, path: str) -> dict[str, bytes]:
    """What `docker cp` gives of a directory, by name."""
    answer = engine.request("GET", f"/containers/{name}/archive?path={path}")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_a_server_that_dies_while_a_volume_is_filled(engine: Engine, server: FuseServer) -> None:
    with ThreadPoolExecutor(1) as clients:
        with server.slow():
            began = time.monotonic()
            filling = clients.submit(create, engine, "filled", "cold:/data", of="filling")
            time.sleep(TIMEOUT_S / 2)
            server.hang()
            others_go_on(engine)
            assert not filling.done()
        answer = filling.result()
        assert time.monotonic() - began < TIMEOUT_S * 1.5 + LATE_S
    data = engine.state_root / "volumes/cold/_data"
    message = f"failed to populate volume: error while mounting volume '{data}': connection timed out"
    assert (answer.status, answer.json()["message"]) == (500, message)
    server.come_back()
    assert create(engine, "empty", "cold:/elsewhere").status == 201
    engine.call("POST", "/containers/empty/start")
    assert engine.docker("exec", "empty", "ls", "-A", "/elsewhere").stdout == "", "what was left went before its use"
    assert create(engine, "filled", "cold:/data", of="filling").status == 201
    assert shown(engine, "filled", "/data") == WHOLE


def test_an_engine_that_dies_while_it_fills_a_slow_volume(engine: Engine, server: FuseServer) -> None:
    with ThreadPoolExecutor(1) as clients, server.slow():
        filling = clients.submit(create, engine, "filled", "cold:/data", of="filling")
        time.sleep(TIMEOUT_S / 2)
        engine.kill()
        assert filling.exception() is not None
        engine.start()
    assert create(engine, "empty", "cold:/elsewhere").status == 201
    engine.call("POST", "/containers/empty/start")
    assert engine.docker("exec", "empty", "ls", "-A", "/elsewhere").stdout == ""
    assert create(engine, "filled", "cold:/data", of="filling").status == 201
    assert shown(engine, "filled", "/data") == WHOLE


def test_a_slow_copy_that_gets_on_is_not_cut(engine: Engine, server: FuseServer) -> None:
    with server.slow():
        began = time.monotonic()
        assert create(engine, "filled", "cold:/data", of="filling").status == 201
        assert time.monotonic() - began > TIMEOUT_S, "else this says nothing"
        assert engine.request("PUT", "/containers/filled/archive?path=/data", raw=archive_of(big=BIG)).status == 200
        assert shown(engine, "filled", "/data") == WHOLE
    assert waits_for_storage(engine) == []


@pytest.mark.parametrize("running", [False, True])
def test_a_server_that_dies_in_the_middle_of_docker_cp(engine: Engine, server: FuseServer, running: bool) -> None:
    assert create(engine, "copied", "cold:/data", of="filling").status == 201
    if running:
        engine.call("POST", "/containers/copied/start")
    path = "/containers/copied/archive?path=/data"
    with ThreadPoolExecutor(2) as clients:
        with server.slow():
            calls = [
                clients.submit(timed, engine, "PUT", path, raw=archive_of(more=BIG)),
                clients.submit(timed, engine, "GET", f"{path}/big"),
            ][: 2 if running else 1]
            time.sleep(TIMEOUT_S / 2)
            server.hang()
            others_go_on(engine)
        put, took = calls[0].result()
        assert (put.status, took < TIMEOUT_S * 1.5 + LATE_S) == (500, True), (put, took)
        assert put.json()["message"].endswith("connection timed out")
        if running:
            with contextlib.suppress(Exception):
                got, took = calls[1].result()
                assert len(got.body) < BIG_BYTES and took < TIMEOUT_S * 1.5 + LATE_S
    for method in ("HEAD", "GET"):
        answer, took = timed(engine, method, path)
        assert (answer.status, took < TIMEOUT_S + LATE_S) == (500, True), (answer, took)
    others_go_on(engine)
    server.come_back()
    assert engine.request("HEAD", path).status == 200
    assert {**shown(engine, "copied", "/data"), "data/more": b""} == {**WHOLE, "data/more": b""}
    assert engine.request("PUT", path, raw=archive_of(more=b"again")).status == 200
    assert shown(engine, "copied", "/data/more") == {"more": b"again"}


def test_a_bind_of_a_directory_on_a_dead_server(engine: Engine, server: FuseServer, tmp_path: Path) -> None:
    source = tmp_path / "fuse/sub"
    assert create(engine, "bound", f"{source}:/data").status == 201
    engine.call("POST", "/containers/bound/start")
    engine.call("POST", "/containers/bound/stop?t=0")
    server.hang()
    mount = {"Type": "bind", "Source": str(source), "Target": "/data"}
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}}
    with ThreadPoolExecutor(3) as clients:
        calls = [
            clients.submit(timed, engine, "POST", "/containers/bound/start"),
            clients.submit(timed, engine, "POST", "/containers/create", body=body),
        ]
        others_go_on(engine)
        calls.append(clients.submit(timed, engine, "HEAD", "/containers/bound/archive?path=/data"))
        answers = [call.result() for call in calls]
    for answer, took in answers:
        assert (answer.status, took < 2 * TIMEOUT_S + LATE_S) == (500, True), (answer, took)
    message = answers[0][0].json()["message"]
    assert message == f"bind source path {source}: connection timed out"
    server.come_back()
    engine.call("POST", "/containers/bound/start")


@pytest.mark.parametrize("after_ms", [0, 5, 20])
def test_a_server_that_dies_in_the_middle_of_a_start(engine: Engine, server: FuseServer, after_ms: int) -> None:
    assert create(engine, "started", "cold:/data").status == 201
    with ThreadPoolExecutor(1) as clients:
        starting = clients.submit(timed, engine, "POST", "/containers/started/start")
        time.sleep(after_ms / 1000)
        server.hang()
        others_go_on(engine)
        answer, took = starting.result()
    assert answer.status in (204, 500) and took < TIMEOUT_S + LATE_S, (answer, took)
    if answer.status == 500:
        assert "timed out" in answer.json()["message"], answer
    server.come_back()
    assert engine.request("POST", "/containers/started/start").status in (204, 304)
    engine.call("DELETE", "/containers/started?force=1")
