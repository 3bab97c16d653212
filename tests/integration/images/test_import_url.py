"""`docker import` of what lies on a web server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.errors import InvalidParameter, NotFound, System
from holdfast.images.importing import NewImage
from tests.integration.images.conftest import Shelf
from tests.support import images as make

pytestmark = pytest.mark.kernel

TAR = make.layer([make.file_entry("etc/x", b"x")], compress=True)


class Server(http.server.BaseHTTPRequestHandler):
    """A few paths, each with a behaviour of its own."""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self._head(302, 0, Location="/good")
        elif self.path == "/elsewhere":
            self._head(302, 0, Location="ftp://127.0.0.1/good")
        elif self.path == "/short":
            self._head(200, len(TAR) + 1)
            self.wfile.write(TAR)
            self.close_connection = True
        elif self.path in ("/good", "/bad"):
            body = TAR if self.path == "/good" else b"x" * 5000
            self._head(200, len(body))
            self.wfile.write(body)
        else:
            self._head(404, 5)
            self.wfile.write(b"lost\n")

    def _head(self, status: int, size: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join(5)


@pytest.mark.parametrize("path", ["good", "moved"])
def test_fetched(shelf: Shelf, server: str, path: str) -> None:
    said: list[dict[str, object]] = []
    image_id = shelf.images.import_url(f"{server}/{path}", NewImage("fetched", "1"), said.append)
    image = shelf.images.resolve("fetched:1")
    assert (image.id, image.config["comment"]) == (image_id, f"Imported from {server}/{path}")
    assert (shelf.images.layers_of(image)[0] / "etc/x").read_bytes() == b"x"
    assert said[-1] == {"status": image_id}


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("/nope", NotFound, "failed to GET {}/nope with status 404 Not Found: lost"),
        ("/elsewhere", System, "failed to GET {}/elsewhere with status 302 Found: "),
        ("/short", System, 'Get "{}/short": unexpected EOF'),
        ("/bad", InvalidParameter, "invalid layer: tar: This does not look like a tar archive"),
    ],
)
def test_refused(shelf: Shelf, server: str, path: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as refused:
        shelf.images.import_url(server + path, NewImage("x"))
    assert str(refused.value) == message.format(server)
    assert (shelf.images.count(), shelf.on_disk()) == (0, (0, 0, 0))
