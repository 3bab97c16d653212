"""One client's connection: requests in, answers out, one at a time and in order."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, cast

from holdfast import log
from holdfast.api.framing import HEAD_LIMIT_BYTES, BadRequest, Body, body_of, parse_head
from holdfast.api.hijack import HijackedStream
from holdfast.api.lent import LentBody
from holdfast.api.output import Output
from holdfast.api.peer import peer_of
from holdfast.api.request import RAW_STREAM, ClientGone, Request
from holdfast.api.response import Response, StreamResponse, encode_head, encode_hijack_head
from holdfast.api.router import Handler, ImmediateHandler, ImmediateRoute, Match
from holdfast.api.status import error_response, message_response
from holdfast.errors import EngineError

if TYPE_CHECKING:
    from holdfast.api.framing import Head
    from holdfast.api.server import Server

logger = log.get(__name__)

HEAD_DEADLINE_S = 60.0
_LINGER_S = 2.0
_HELD_BYTES = 64 << 10


class Connection(asyncio.Protocol):
    """HTTP/1.1 on one socket.

    A request runs as a task, or at once where its handler waits for nothing. Bytes behind its body wait until it is
    answered, or go to the stream that it takes over.
    """

    __slots__ = (
        "_body",
        "_closing",
        "_expects_continue",
        "_head",
        "_head_timer",
        "_held",
        "_input_ended",
        "_input_paused",
        "_lent",
        "_lingering",
        "_loop",
        "_lost",
        "_output",
        "_request",
        "_scanned",
        "_server",
        "_stream",
        "_streaming",
        "_task",
        "_transport",
    )

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport
        self._output: Output
        self._held = b""  # not yet taken: a partial head, or what came behind the request in progress
        self._scanned = 0
        self._head: Head | None = None
        self._request: Request | None = None
        self._body: Body | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: HijackedStream | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._lent: LentBody | None = None
        self._expects_continue = False
        self._streaming = False
        self._closing = False
        self._lingering = False
        self._lost = False
        self._input_ended = False
        self._input_paused = False

    # -- what the event loop tells us ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._output = Output(self._transport, self._loop)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on to whom they belong."""
        if self._lingering:
            return
        if self._stream is not None:
            self._stream.feed(data)
        elif self._body is not None:
            self._take_body(data)
        else:
            self._held += data
            if self._request is None:
                self._next_request()
            elif len(self._held) > _HELD_BYTES:
                self.pause_input()

    def eof_received(self) -> bool:
        """Note that the client closed its writing side; the other stays open for answers."""
        self._input_ended = True
        if self._lingering:
            self._transport.close()
        elif self._stream is not None:
            self._stream.feed_end()
            self._server.hangups.watch(self._transport, self._hung_up)
        elif self._request is None:
            self._transport.close()
        else:
            if self._body is not None:
                self._request.fail(ClientGone())
            self._note_disconnect()
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        """End everything that hangs on this connection."""
        self._lost = True
        self._server.connections.discard(self)
        self._server.hangups.forget(self._transport)
        if self._head_timer is not None:
            self._head_timer.cancel()
        if self._request is not None:
            self._request.fail(ClientGone())
            self._note_disconnect()
        if self._lent is not None:
            self._lent.cut()
        if self._stream is not None:
            self._stream.lose()
        self._output.lose()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._output.pause()

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        self._output.resume()

    # -- requests ------------------------------------------------------------------------------------------------------

    def _next_request(self) -> None:
        """Start what has come whole, one request after the other."""
        while self._request is None and self._held and not self._lingering and self._start_one():
            pass

    def _start_one(self) -> bool:
        """Start the next request if its head is complete, and tell whether it was."""
        if self._held[:1] in {b"\r", b"\n"}:
            self._scanned = 0
            self._held = self._held.lstrip(b"\r\n")  # RFC 9112 section 2.2: some clients put a blank line after a body
        end = self._held.find(b"\r\n\r\n", self._scanned)
        if end > HEAD_LIMIT_BYTES or (end < 0 and len(self._held) > HEAD_LIMIT_BYTES):
            self._refuse(431, "Request Header Fields Too Large")
            return False
        if end < 0:
            self._scanned = max(0, len(self._held) - 3)
            if self._held and self._head_timer is None:
                self._head_timer = self._loop.call_later(HEAD_DEADLINE_S, self._refuse, 408, "Request Timeout")
            return False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._scanned = 0
        data = self._held[: end + 4]
        self._held = self._held[end + 4 :]
        try:
            head = parse_head(data)
            body = body_of(head)
        except BadRequest as refused:
            self._refuse(refused.status, str(refused))
            return False
        self._begin(head, body)
        return True

    def _begin(self, head: Head, body: Body | None) -> None:
        target = head.target
        if not target.startswith("/") and "://" in target:  # absolute form, RFC 9112 section 3.2.2
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query_text = target.partition("?")
        request = Request(
            self,
            head.method,
            path,
            query_text,
            head.headers,
            disconnected=self._loop.create_future(),
            has_body=body is not None,
        )
        self._head = head
        self._request = request
        self._output.began = False
        self._expects_continue = body is not None and head.headers.get("expect", "").lower() == "100-continue"
        if body is not None:
            self._body = body
            if self._held:
                data, self._held = self._held, b""
                self._take_body(data)
        match = self._server.routes.resolve(head.method, path, query_text)
        if isinstance(match, Match):
            request.params = match.params
            request.api_version = match.api_version
            if isinstance(match.route, ImmediateRoute):
                self._answer_at_once(request, match.route.handler)
                return
            work = self._run(request, match.route.handler)
        else:
            work = self._answer(request, match)
        self._run_as_task(request, work)

    def _answer_at_once(self, request: Request, handler: ImmediateHandler) -> None:
        """Answer without a task, unless the client is so slow that it has to be waited for."""
        try:
            answer = handler(request, self._server.engine)
        except EngineError as error:
            answer = error_response(error)
        self._send(request, answer)
        if self._output.is_paused:
            self._run_as_task(request, self._output.drain())
        else:
            self._settle(clean=True)

    def _run_as_task(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(functools.partial(self._finished, request))

    def _take_body(self, data: bytes) -> None:
        body, request = self._body, self._request
        assert body is not None
        assert request is not None
        try:
            payload, rest = body.feed(data)
        except BadRequest as error:
            self._body = None
            self._closing = True
            request.fail(error)
            return
        self._expects_continue = False
        if body.done:
            self._body = None
            self._held = rest
        request.feed(payload, done=body.done)

    async def _run(self, request: Request, handler: Handler) -> None:
        try:
            answer = await handler(request, self._server.engine)
        except EngineError as error:
            answer = error_response(error)
        except BadRequest as error:
            answer = message_response(error.status, str(error))
        if answer is not None and self._stream is None:
            await self._answer(request, answer)

    async def _answer(self, request: Request, answer: Response | StreamResponse) -> None:
        if isinstance(answer, Response):
            if not self._lost:
                self._send(request, answer)
                await self._output.drain()
            return
        assert self._head is not None
        chunked = not self._head.is_http_1_0
        self._closing = self._closing or not chunked
        self._streaming = True
        try:
            if not self._lost:
                await self._output.stream(
                    answer,
                    connection=self._connection_header(),
                    chunked=chunked,
                    head_only=request.method == "HEAD",
                    stop=request.disconnected,
                )
        finally:
            self._streaming = False
            self._closing = self._closing or request.disconnected.done()
            await answer.close()

    def _send(self, request: Request, answer: Response) -> None:
        self._output.send(answer, connection=self._connection_header(), head_only=request.method == "HEAD")

    def _connection_header(self) -> str:
        assert self._head is not None
        if self._body is not None or not self._head.keep_alive or self._server.stopping:
            self._closing = True
        if self._closing:
            return "Connection: close\r\n"
        return "Connection: keep-alive\r\n" if self._head.is_http_1_0 else ""

    def _finished(self, request: Request, task: asyncio.Task[None]) -> None:
        """Look at how a request ended and go on with the next."""
        error = None if task.cancelled() else task.exception()
        clean = not task.cancelled() and error is None
        if error is not None and not isinstance(error, ClientGone):
            logger.error(
                "request failed unexpectedly",
                extra={"method": request.method, "path": request.path},
                exc_info=(type(error), error, error.__traceback__),
            )
            if not (self._lost or self._output.began or self._stream is not None):
                text = str(error).partition("\n")[0] or type(error).__name__
                self._send(request, message_response(500, text))
                clean = True
        self._settle(clean=clean)
        if self._lost or self._transport.is_closing():
            return
        self._next_request()
        if self._input_ended and self._request is None:
            self._transport.close()

    def _settle(self, *, clean: bool) -> None:
        """Bring the connection into the state that follows an answer."""
        self._request = None
        self._task = None
        if self._lost:
            return
        if self._stream is not None:
            self._stream.close()
        elif not clean:
            self._transport.abort()
        elif self._body is not None:
            self._linger()
        elif self._closing or self._server.stopping:
            self._transport.close()
        else:
            self.resume_input()

    def _refuse(self, status: int, text: str) -> None:
        """Answer what is not a request, and close. The text form is Go's."""
        body = f"{status} {text}".encode()
        head = encode_head(
            status,
            {"Content-Type": "text/plain; charset=utf-8"},
            f"Content-Length: {len(body)}\r\nConnection: close\r\n",
            engine_headers=False,
        )
        self._held = b""
        self._transport.write(head + body)
        self._linger()

    def _linger(self) -> None:
        """Close, but first let a client that is still sending find our answer instead of a reset."""
        self._body = None
        self._held = b""
        self._lingering = True
        if self._input_ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self.resume_input()
        self._loop.call_later(_LINGER_S, self._transport.close)

    # -- what requests and streams ask of us ---------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        return peer_of(self._transport)

    def continue_body(self) -> None:
        """Let the client send its body."""
        if self._expects_continue:
            self._expects_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.resume_input()

    def pause_body(self) -> None:
        """Hold the client back."""
        self.pause_input()

    def lend_body(self, first: Iterable[bytes]) -> LentBody | None:
        """Lend the socket of a local connection that has more of a body to give."""
        sock = self._transport.get_extra_info("socket")
        if self._body is None or self._lost or self._input_ended or sock is None or sock.family != socket.AF_UNIX:
            return None
        self.continue_body()
        self.pause_input()
        self._lent = LentBody(socket.socket(fileno=os.dup(sock.fileno())), self._body, first)
        return self._lent

    def take_body_back(self, request: Request, lent: LentBody) -> None:
        """Go on with what follows the body; one that was not read to its end is read off before closing."""
        self._lent = None
        lent.close()
        if lent.done and request is self._request:
            self._body = None
            self._held = lent.rest
            request.feed(b"", done=True)

    async def take_over(
        self, request: Request, content_type: str, *, engine_headers: bool, head: bytes = b""
    ) -> HijackedStream:
        """End HTTP here, with `head` if there is one; the bytes held behind the request are the stream's first."""
        if self._lost:
            raise ClientGone
        assert self._body is None, "read the body before taking over the connection"
        assert request is self._request
        assert self._stream is None
        early, self._held = self._held, b""
        if not request.wants_upgrade:
            content_type = RAW_STREAM  # whatever is in it. Source: moby, container/attach.go, postContainersAttach
        self._transport.write(
            head or encode_hijack_head(content_type, upgrade=request.wants_upgrade, engine_headers=engine_headers)
        )
        self._stream = HijackedStream(self, self._output, early, ended=self._input_ended)
        if self._input_ended:
            self._server.hangups.watch(self._transport, self._hung_up)
        elif len(early) <= _HELD_BYTES:
            self.resume_input()
        return self._stream

    def pause_input(self) -> None:
        """Stop reading from the client."""
        if not self._input_paused and not self._lost and not self._input_ended:
            self._input_paused = True
            self._transport.pause_reading()

    def resume_input(self) -> None:
        """Read from the client again."""
        if self._input_paused and not self._lost:
            self._input_paused = False
            self._transport.resume_reading()

    def finish(self) -> None:
        """Close once everything queued was sent."""
        if not self._lost:
            self._linger()

    # -- the end -------------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a request is running that is not an open-ended stream."""
        return self._request is not None and not self._streaming and self._stream is None

    def close_when_idle(self) -> None:
        """Close now, or after the answer that is being made."""
        if not self.is_busy and not self._lost:
            self._abandon()

    def _abandon(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is queued."""
        if self._task is not None:
            self._task.cancel()
        if not self._lost:
            self._transport.abort()

    def _hung_up(self) -> None:
        if not self._lost:
            self._transport.abort()

    def _note_disconnect(self) -> None:
        if self._request is not None and not self._request.disconnected.done():
            self._request.disconnected.set_result(None)
