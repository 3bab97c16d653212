"""A small engine of canned answers on a unix socket, for the command line and its client to talk to."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

Answer = tuple[int, object]
Handler = Callable[["Call"], Answer]


@dataclass(frozen=True)
class Call:
    """One request as it came. `raw` is its connection, for handlers that take it over."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    raw: Any = field(repr=False, default=None)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The body's JSON object."""
        decoded = json.loads(self.body)
        assert isinstance(decoded, dict)
        return decoded


class Raw(bytes):
    """A body to be sent as it is, by chunks."""


class Hijacked(bytes):
    """What to send after taking over the connection."""


class FakeEngine:
    """Answers by `METHOD /path`; everything else is 404. `calls` has what was asked, without the pings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.answers: dict[str, Answer | Handler] = {}
        self.calls: list[Call] = []
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [self._socket, *self._connections]:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
        for thread in self._threads:
            thread.join(5)
        self._socket.close()

    def asked(self, start: str) -> list[Call]:
        """The calls whose `METHOD /path` starts so."""
        return [call for call in self.calls if f"{call.method} {call.path}".startswith(start)]

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            while call := self._read(connection, reader):
                try:
                    if not self._answer(call, connection):
                        return
                except OSError:
                    return

    def _read(self, connection: socket.socket, reader: Any) -> Call | None:
        try:
            method, target, _ = reader.readline().decode().split(" ")
        except (ValueError, OSError):
            return None
        headers: dict[str, str] = {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(reader.readline() or b"0", 16):
                body += reader.read(size)
                reader.readline()
            reader.readline()
        else:
            body = reader.read(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        path = re.sub(r"^/v1\.\d+", "", unquote(parts.path))
        call = Call(method, path, parse_qs(parts.query), body, (connection, reader), headers)
        if path != "/_ping":
            self.calls.append(call)
        return call

    def _answer(self, call: Call, connection: socket.socket) -> bool:
        answer = self.answers.get(f"{call.method} {call.path}")
        if call.path == "/_ping":
            answer = (200, Raw(b"OK"))
        if callable(answer):
            answer = answer(call)
        status, body = answer or (404, {"message": "page not found"})
        if isinstance(body, Hijacked):
            kind = "application/vnd.docker.multiplexed-stream"
            upgrade = f"Content-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            connection.sendall(f"HTTP/1.1 101 UPGRADED\r\n{upgrade}".encode())
            connection.sendall(body)
            return False
        head = f"HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nOstype: linux\r\n"
        if isinstance(body, Raw):
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            if call.method == "HEAD":
                data = b""
        elif body is None:
            data = b""
            head += "" if status in {204, 304} else "Content-Length: 0\r\n"
        else:
            data = json.dumps(body).encode()
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        connection.sendall(head.encode() + b"\r\n" + data)
        return True


def frame(stream: int, data: bytes) -> bytes:
    """One frame of output without a terminal."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data
