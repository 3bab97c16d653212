"""Questions that the world outside answers: passed on as they came, from the host's network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Final

HOST_RESOLV_CONF: Final = Path("/etc/resolv.conf")
PORT: Final = 53
_TIMEOUT_S: Final = 4.0
_ROUNDS: Final = 2
_ID_BYTES: Final = 2


class HostServers:
    """The host's own name servers, read again whenever their file changes."""

    def __init__(self, path: Path = HOST_RESOLV_CONF) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def get(self) -> tuple[str, ...]:
        """Give their addresses; none where there is no file."""
        try:
            found = self._path.stat()
            seen = found.st_mtime_ns, found.st_ino
            if seen != self._seen:
                words = [line.split() for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines()]
                self._servers = tuple(line[1] for line in words if len(line) > 1 and line[0] == "nameserver")
                self._seen = seen
        except OSError:
            return ()
        return self._servers


async def ask(question: bytes, servers: tuple[str, ...], *, by_stream: bool) -> bytes | None:
    """Ask each server in turn until one answers; None if nobody does.

    Over a datagram the question gets an id of our own, so that an answer cannot be guessed from what the container
    chose.
    """
    for _ in range(_ROUNDS):
        for server in servers:
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                async with asyncio.timeout(_TIMEOUT_S):
                    return await (_ask_by_stream if by_stream else _ask_by_datagram)(question, server)
    return None


class _Reply(asyncio.DatagramProtocol):
    """Waits for the datagram with the right id."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted = wanted
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, address: object) -> None:  # noqa: ARG002
        """Take an answer; the socket is connected, so it comes from the server."""
        if data[:_ID_BYTES] == self._wanted and not self.received.done():
            self.received.set_result(data)

    def error_received(self, error: Exception) -> None:
        """The server is not there."""
        if not self.received.done():
            self.received.set_exception(error)


async def _ask_by_datagram(question: bytes, server: str) -> bytes:
    own_id = secrets.token_bytes(_ID_BYTES)
    transport, reply = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Reply(own_id), remote_addr=(server, PORT)
    )
    try:
        transport.sendto(own_id + question[_ID_BYTES:])
        answer = await reply.received
    finally:
        transport.close()
    return question[:_ID_BYTES] + answer[_ID_BYTES:]


async def _ask_by_stream(question: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(len(question).to_bytes(2, "big") + question)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.close()
