"""Bytes to one client: answers written, streams chunked, writers held back while the client does not read."""

from __future__ import annotations

import asyncio

from holdfast.api.request import ClientGone
from holdfast.api.response import Response, StreamResponse, encode_head

_BACKLOG_BYTES = 256 << 10
_COPIED_BYTES = 64 << 10


class Output:
    """The writing side of a connection."""

    __slots__ = ("_loop", "_lost", "_paused", "_transport", "_waiter", "began")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        transport.set_write_buffer_limits(high=_BACKLOG_BYTES)
        self._transport = transport
        self._loop = loop
        self._lost = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self.began = False
        """Whether the head of an answer to the present request is out. Set back by the owner."""

    def write(self, data: bytes) -> None:
        """Queue bytes; to a client that is gone, drop them."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until little is queued. Raises ClientGone."""
        if self._lost:
            raise ClientGone
        if self._paused:
            if self._waiter is None or self._waiter.done():
                self._waiter = self._loop.create_future()
            # Several writers may wait for the same moment; one that is cancelled must not take the future with it.
            await asyncio.shield(self._waiter)

    @property
    def is_paused(self) -> bool:
        """Whether the client is behind with reading."""
        return self._paused

    def pause(self) -> None:
        """Note that the client does not read."""
        self._paused = True

    def resume(self) -> None:
        """Note that the client reads again."""
        self._paused = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lose(self) -> None:
        """Note that the client is gone."""
        self._lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ClientGone())
            self._waiter.exception()  # there may be no writer left to ask

    def send(self, answer: Response, *, connection: str, head_only: bool) -> None:
        """Queue a whole answer. `connection` is the Connection header's line, or nothing."""
        status, body = answer.status, answer.body
        bodiless = status in {204, 304}
        framing = connection if bodiless else f"Content-Length: {len(body)}\r\n{connection}"
        head = encode_head(status, answer.headers, framing)
        self.began = True
        if bodiless or head_only:
            self._transport.write(head)
        elif len(body) <= _COPIED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def stream(
        self,
        answer: StreamResponse,
        *,
        connection: str,
        chunked: bool,
        head_only: bool,
        stop: asyncio.Future[None],
    ) -> None:
        """Send the head at once and then the items, until they end or `stop` is done. Raises what the items raise."""
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
        self._transport.write(encode_head(answer.status, answer.headers, framing + connection))
        self.began = True
        if head_only:
            return
        # The items may wait for anything, so it is the task around them that `stop` cancels.
        pump = self._loop.create_task(self._pump(answer, chunked=chunked))
        try:
            await asyncio.wait((pump, stop), return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        finally:
            if not pump.done():
                pump.cancel()
                await asyncio.wait((pump,))
                if not pump.cancelled():
                    pump.exception()  # nobody is left to tell; asking keeps asyncio from reporting it

    async def _pump(self, answer: StreamResponse, *, chunked: bool) -> None:
        async for item in answer.items:
            if item:
                self._transport.write(b"%x\r\n%b\r\n" % (len(item), item) if chunked else item)
                if self._paused:
                    await self.drain()
        if chunked:
            self._transport.write(b"0\r\n\r\n")
