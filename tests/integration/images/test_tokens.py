"""Registries that send whoever asks to a token server."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from holdfast.errors import System, Unauthorized
from holdfast.images.login import log_in
from holdfast.images.skopeo import Credentials

GOOD = "Basic " + base64.b64encode(b"me:secret").decode()


class TokenServer(http.server.BaseHTTPRequestHandler):
    """Registry and token server in one."""

    realm = ""

    def do_GET(self) -> None:
        place, authorization = urlsplit(self.path), self.headers.get("Authorization", "")
        if place.path == "/token":
            query = parse_qs(place.query)
            assert (query["service"], query["offline_token"]) == (["here"], ["true"])
            self._give(200 if authorization == GOOD else 401, {"token": "access", "refresh_token": "refresh"})
        elif authorization == "Bearer access":
            self._give(200, {})
        else:
            self._give(401, {}, f'Bearer realm="{self.realm or self._here() + "/token"}",service="here"')

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = form["refresh_token"] == ["refresh"] and form["grant_type"] == ["refresh_token"]
        self._give(200 if known else 401, {"access_token": "access"})

    def _here(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]

    def _give(self, status: int, document: object, challenge: str = "") -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def registry(realm: str = "") -> Iterator[str]:
    handler = type("Handler", (TokenServer,), {"realm": realm})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


def test_tokens() -> None:
    with registry() as address:
        assert log_in(address, Credentials("me", "secret")) == "refresh"
        assert log_in(address, Credentials(identity_token="refresh")) == ""
        for wrong in (Credentials("me", "wrong"), Credentials(identity_token="old"), Credentials()):
            with pytest.raises(Unauthorized, match=rf'^Get "http://{address}/v2/": unauthorized: incorrect username'):
                log_in(address, wrong)


@pytest.mark.parametrize("realm", ["http://example.com/t", "file:///etc/passwd", "ftp://127.0.0.1/t", "x"])
def test_a_password_goes_to_nobody_who_listens(realm: str) -> None:
    why = r"is not reached by https|unsupported protocol scheme"
    with registry(realm) as address, pytest.raises(System, match=why):
        log_in(address, Credentials("me", "secret"))
