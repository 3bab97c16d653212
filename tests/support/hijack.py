"""Connections taken over by attach and exec, byte by byte; and other things that a well-bred client never sends."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

HEADER = struct.Struct(">BxxxL")


@dataclass(slots=True)
class Head:
    """The head of an answer."""

    status: int
    reason: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class RawConnection:
    """A connection to the API; a context manager that closes it."""

    path: Path
    timeout_s: float = 20
    sock: socket.socket = field(init=False)
    _early: bytes = b""

    def __post_init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout_s)
        folder = os.open(self.path.parent, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, method: str, target: str, *, body: bytes = b"", **headers: str) -> None:
        """Send a request; `Content_Type="a/b"` becomes a header. Content-Length is added."""
        lines = [f"{method} {target} HTTP/1.1", "Host: docker", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def upgrade(self, target: str, *, body: bytes = b"") -> Head:
        """Ask for the connection, as the stock client does."""
        kind = "application/json" if body else "text/plain"
        self.send("POST", target, body=body, Connection="Upgrade", Upgrade="tcp", Content_Type=kind)
        return self.head()

    def head(self) -> Head:
        """Read the head of an answer; what follows stays to be read."""
        data = self._early
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError(f"closed within the head: {data!r}")
            data += more
        text, _, self._early = data.partition(b"\r\n\r\n")
        first, *rest = text.decode("latin-1").split("\r\n")
        _, status, reason = first.split(" ", 2)
        return Head(int(status), reason, dict(line.split(": ", 1) for line in rest))

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def read(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end."""
        while len(self._early) < size and (more := self.sock.recv(65536)):
            self._early += more
        data, self._early = self._early[:size], self._early[size:]
        return data

    def read_some(self) -> bytes:
        """Read what there is; b"" at the end."""
        data, self._early = self._early or self.sock.recv(65536), b""
        return data

    def read_all(self) -> bytes:
        """Read to the end."""
        parts = []
        while data := self.read_some():
            parts.append(data)
        return b"".join(parts)

    def frames(self) -> list[tuple[int, bytes]]:
        """Read to the end and take apart; neighbours of one stream are joined."""
        return split_frames(self.read_all())


def split_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Take a multiplexed stream apart; neighbours of one stream are joined."""
    found: list[tuple[int, bytes]] = []
    while data:
        number, size = HEADER.unpack_from(data)
        part, data = data[8 : 8 + size], data[8 + size :]
        assert len(part) == size, "the last frame is cut short"
        if found and found[-1][0] == number:
            found[-1] = (number, found[-1][1] + part)
        else:
            found.append((number, part))
    return found
