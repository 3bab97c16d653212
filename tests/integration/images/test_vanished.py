"""Clients and registries that go away in the middle: nothing is left of what they began."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast.errors import EngineError, NotFound, System
from holdfast.images.importing import Description, NewImage
from tests.integration.images.conftest import Shelf
from tests.support import images as make
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
NOISE = make.layer([make.file_entry("noise", os.urandom(3_000_000))])


class Gone(ConnectionError):
    """What a reader or a listener raises once its client went away."""


class Cut(io.BytesIO):
    """A body whose client goes away after so many bytes."""

    def __init__(self, data: bytes, after: int) -> None:
        super().__init__(data)
        self._after = after

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._after:
            raise Gone
        return super().read(size)


def leave_at(text: str) -> Callable[[dict[str, object]], None]:
    def progress(message: dict[str, object]) -> None:
        if message.get("status") == text:
            raise Gone

    return progress


class Odd(http.server.BaseHTTPRequestHandler):
    """A registry with one image, in whose blobs something is wrong: they stall, end early or are others'."""

    blobs: ClassVar[dict[str, bytes]] = {}
    manifest = b""
    fault = ""

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.path == "/v2/":
            self._answer(b"{}", "application/json")
        elif "/manifests/" in self.path:
            self._answer(self.manifest, MANIFEST)
        elif name in self.blobs:
            self._blob(self.blobs[name])
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - its caller's name

    def _blob(self, data: bytes) -> None:
        big = len(data) > 100_000
        sent = bytes(len(data)) if self.fault == "other" and big else data
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if self.fault == "stall" and big:
            self.wfile.write(sent[:50_000])
            self.wfile.flush()
            time.sleep(20)
        elif self.fault == "short" and big:
            self.wfile.write(sent[:50_000])
            self.close_connection = True
        else:
            self.wfile.write(sent)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", make.digest(body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def odd_registry(fault: str) -> Iterator[tuple[str, make.TestImage]]:
    image = make.image([NOISE, make.layer([make.file_entry("small")])])
    handler = type("Handler", (Odd,), {"fault": fault})
    handler.blobs = {make.digest(data): data for data in (image.config, *image.layers)}  # type: ignore[attr-defined]
    described = [{"digest": make.digest(data), "size": len(data), "mediaType": "x"} for data in image.layers]
    handler.manifest = json.dumps(  # type: ignore[attr-defined]
        {"schemaVersion": 2, "mediaType": MANIFEST, "layers": described,
         "config": {"digest": image.id, "size": len(image.config), "mediaType": "x"}}
    ).encode()  # fmt: skip
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", image
        finally:
            server.shutdown()
            thread.join(5)


def test_nothing_wrong(shelf: Shelf, tool: Callable[[str], Path]) -> None:
    tool("skopeo")
    with odd_registry("") as (address, image):
        assert shelf.images.registries.pull(f"{address}/x") == image.id
    assert shelf.on_disk() == (4, 2, 0)


@pytest.mark.parametrize(
    ("fault", "at", "error"),
    [("stall", "Downloading", Gone), ("", "Pulling fs layer", Gone), ("", "Download complete", Gone),
     ("", "Pull complete", Gone), ("short", "", System), ("other", "", System)],
)  # fmt: skip
def test_pull(shelf: Shelf, tool: Callable[[str], Path], fault: str, at: str, error: type[Exception]) -> None:
    tool("skopeo")
    began = time.monotonic()
    with odd_registry(fault) as (address, _), pytest.raises(error):
        shelf.images.registries.pull(f"{address}/x", progress=leave_at(at))
    assert (shelf.images.count(), shelf.on_disk()) == (0, (0, 0, 0))
    assert time.monotonic() - began < 10


def test_what_is_here_is_not_fetched(shelf: Shelf, tool: Callable[[str], Path]) -> None:
    tool("skopeo")
    base = make.image([NOISE], tags=["base:1"])
    shelf.images.load(io.BytesIO(make.docker_archive([base])))
    said: list[dict[str, object]] = []
    with odd_registry("other") as (address, image):  # the layer that is here would come wrong
        assert shelf.images.registries.pull(f"{address}/x", progress=said.append) == image.id
    told = [(message["status"], message.get("id")) for message in said if message.get("id") != "latest"]
    assert told[0] == ("Already exists", make.digest(NOISE)[7:19])
    assert list(dict.fromkeys(status for status, _ in told[1:-2])) == [
        "Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Pull complete",
    ]  # fmt: skip


@pytest.mark.parametrize("after", [0, 600, 1_000_000])
def test_load_and_import(shelf: Shelf, after: int) -> None:
    archive = make.docker_archive([make.image([NOISE], tags=["a:1"])])
    with pytest.raises(Gone):
        shelf.images.load(Cut(archive, after))
    with pytest.raises(Gone):
        shelf.images.import_(Cut(NOISE, after), NewImage("a", "2"))
    assert (shelf.images.count(), shelf.on_disk()) == (0, (0, 0, 0))


def test_commit(shelf: Shelf) -> None:
    base = make.image([NOISE], tags=["base:1"])
    shelf.images.load(io.BytesIO(make.docker_archive([base])))

    def vanish(write: Callable[[bytes], object]) -> None:
        write(NOISE[:5000])
        raise Gone

    before = shelf.on_disk()
    for source in (vanish, lambda write: write(NOISE[:5120])):
        with pytest.raises((Gone, EngineError)):
            shelf.images.commit(base.id, source, "made", "1", Description())
    assert (shelf.images.count(), shelf.on_disk()) == (1, before)


def test_a_registry_that_is_not_there_any_more(shelf: Shelf) -> None:
    base = make.image([NOISE], tags=["127.0.0.1:1/base:1"])
    shelf.images.load(io.BytesIO(make.docker_archive([base])))
    with pytest.raises(System, match="connection refused"):
        shelf.images.registries.push("127.0.0.1:1/base", "1")
    with pytest.raises(NotFound, match=r"^tag does not exist: 127\.0\.0\.1:1/base:2$"):
        shelf.images.registries.push("127.0.0.1:1/base", "2")
    assert shelf.on_disk() == (2, 1, 0)


def test_clients_of_a_running_engine(engine: Engine) -> None:
    """A client that sends half an archive, and one that reads a piece of one and is gone."""
    import socket

    archive = make.docker_archive([make.image([NOISE], tags=["half:1"])])

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        folder = os.open(engine.socket_path.parent, os.O_PATH)
        connection.connect(f"/proc/self/fd/{folder}/{engine.socket_path.name}")
        os.close(folder)
        return connection

    head = "POST /images/{} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n"
    for path in ("load", "create?fromSrc=-&repo=half"):
        with connect() as client:
            client.sendall(head.format(path, len(archive)).encode() + archive[: len(archive) // 2])
            time.sleep(0.2)
    with connect() as client:
        client.sendall(b"GET /images/get?names=busybox HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    tmp = engine.state_root / "images" / "tmp"
    deadline = time.monotonic() + 10
    while list(tmp.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp.iterdir()) == []
    assert [each["RepoTags"] for each in engine.call("GET", "/images/json?all=1")] == [["busybox:latest"]]
    assert hashlib.sha256(engine.request("GET", "/images/get?names=busybox").body).digest()
