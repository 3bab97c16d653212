"""A connection taken over by attach or exec: raw bytes both ways, each side closed on its own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from holdfast.api.output import Output
from holdfast.api.request import ClientGone

_BACKLOG_BYTES = 64 << 10


class Wire(Protocol):
    """What a taken-over stream needs of its connection."""

    def pause_input(self) -> None:
        """Stop reading from the client."""
        ...

    def resume_input(self) -> None:
        """Read from the client again."""
        ...

    def finish(self) -> None:
        """Close once everything queued was sent."""
        ...


class HijackedStream:
    """The stream after a 101 or 200 head.

    A client that closes its writing side still reads: `read()` then gives b"" and writing goes on. `disconnected` is
    done only when the client is gone altogether.
    """

    __slots__ = ("_backlog_bytes", "_chunks", "_closed", "_ended", "_output", "_waiter", "_wire", "disconnected")

    def __init__(self, wire: Wire, output: Output, early: bytes, *, ended: bool) -> None:
        self.disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._output = output
        self._chunks: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._ended = ended
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        if early:
            self.feed(early)

    async def read(self) -> bytes:
        """Give the next bytes from the client; b"" once its writing side is closed and all was read."""
        while not self._chunks:
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._chunks.popleft()
        before = self._backlog_bytes
        self._backlog_bytes -= len(data)
        if before > _BACKLOG_BYTES >= self._backlog_bytes:
            self._wire.resume_input()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client does not read. Raises ClientGone."""
        if self._closed or self.disconnected.done():
            raise ClientGone
        self._output.write(data)
        await self._output.drain()

    def close(self) -> None:
        """Send what is queued, then close both sides. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._wire.finish()

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._chunks.append(data)
        self._backlog_bytes += len(data)
        if self._backlog_bytes > _BACKLOG_BYTES:
            self._wire.pause_input()
        self._wake()

    def feed_end(self) -> None:
        """Note that the client closed its writing side."""
        self._ended = True
        self._wake()

    def lose(self) -> None:
        """Note that the client is gone."""
        self._ended = True
        self._wake()
        if not self.disconnected.done():
            self.disconnected.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
