"""One request as a handler sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from holdfast.api.query import EMPTY, Query
from holdfast.errors import InvalidParameter
from holdfast.wire.json import decode, require_json_content_type

if TYPE_CHECKING:
    import msgspec

    from holdfast.api.hijack import HijackedStream
    from holdfast.api.lent import LentBody

S = TypeVar("S", bound="msgspec.Struct")

JSON_LIMIT_BYTES = 16 << 20
_BACKLOG_BYTES = 256 << 10

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"


class ClientGone(ConnectionError):
    """The client went away in the middle of the request; nobody is left to answer."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


class Carrier(Protocol):
    """What a request needs of its connection."""

    def continue_body(self) -> None:
        """Let the client send its body: answer `Expect: 100-continue`, read on if reading was paused."""
        ...

    def pause_body(self) -> None:
        """Stop reading from the client for now."""
        ...

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        ...

    def lend_body(self, first: Iterable[bytes]) -> LentBody | None:
        """Lend the connection for the rest of the body, to be read after `first`; None if it cannot be lent."""
        ...

    def take_body_back(self, request: Request, lent: LentBody) -> None:
        """End the lending, whether the body was read to its end or not."""
        ...

    async def take_over(
        self, request: Request, content_type: str, *, engine_headers: bool, head: bytes = b""
    ) -> HijackedStream:
        """End HTTP on this connection and give the raw stream."""
        ...


class Request:
    """One request. `params` holds the path's parameters, `headers` has lower-case names.

    `disconnected` is done once the client has closed or half-closed its side, as for Go's request context: streams end
    then. It is not used for a stream that was taken over, where a half-close is ordinary.
    """

    __slots__ = (
        "_backlog_bytes",
        "_body_done",
        "_broken",
        "_carrier",
        "_chunks",
        "_query",
        "_query_text",
        "_waiter",
        "api_version",
        "disconnected",
        "has_body",
        "headers",
        "method",
        "params",
        "path",
    )

    def __init__(
        self,
        carrier: Carrier,
        method: str,
        path: str,
        query_text: str,
        headers: dict[str, str],
        *,
        disconnected: asyncio.Future[None],
        has_body: bool,
    ) -> None:
        self.method = method
        self.path = path
        self.params: dict[str, str] = {}
        self.headers = headers
        self.api_version: tuple[int, int] = (1, 51)
        self.disconnected = disconnected
        self.has_body = has_body
        self._carrier = carrier
        self._query_text = query_text
        self._query: Query | None = None
        self._chunks: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._body_done = not has_body
        self._broken: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def query(self) -> Query:
        """The decoded query string. Raises InvalidParameter if it cannot be decoded."""
        if self._query is None:
            self._query = Query(self._query_text) if self._query_text else EMPTY
        return self._query

    @property
    def query_text(self) -> str:
        """The query string as it was sent."""
        return self._query_text

    @property
    def wants_upgrade(self) -> bool:
        """Whether the client asked for the `101 UPGRADED` form of a stream."""
        return "upgrade" in self.headers and "upgrade" in self.headers.get("connection", "").lower()

    @property
    def peer(self) -> str:
        """Who asks: the user of the process at the other end of a unix socket, the name in a client certificate."""
        return self._carrier.peer

    async def body(self, limit_bytes: int = JSON_LIMIT_BYTES) -> bytes:
        """Read the whole body. Raises InvalidParameter beyond `limit_bytes`, ClientGone if it never ends."""
        if self._body_done and self._broken is None and len(self._chunks) <= 1:  # all came with the head: no waiting
            data = self._chunks.popleft() if self._chunks else b""
        else:
            pieces: list[bytes] = []
            size_bytes = 0
            async for piece in self.stream():
                size_bytes += len(piece)
                if size_bytes > limit_bytes:
                    break
                pieces.append(piece)
            data = b"".join(pieces)
            if size_bytes > limit_bytes:
                raise InvalidParameter(f"request body is larger than {limit_bytes} bytes")
        if len(data) > limit_bytes:
            raise InvalidParameter(f"request body is larger than {limit_bytes} bytes")
        return data

    async def json(self, shape: type[S], limit_bytes: int = JSON_LIMIT_BYTES) -> S:
        """Read the body as JSON of `shape`, with Docker's checks of Content-Type. Raises InvalidParameter, ClientGone.

        No body gives the shape's defaults. Source: moby, daemon/server/httputils, ReadJSON.
        """
        data = await self.body(limit_bytes)
        require_json_content_type(self.headers.get("content-type", ""), has_body=self.has_body)
        return decode(shape, data if self.has_body else b"{}")

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece as it comes; the client is held back while nobody asks. Raises ClientGone."""
        while True:
            if self._chunks:
                piece = self._chunks.popleft()
                self._backlog_bytes -= len(piece)
                yield piece
                continue
            if self._broken is not None:
                raise self._broken
            if self._body_done:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            self._carrier.continue_body()
            try:
                await self._waiter
            finally:
                self._waiter = None

    @contextlib.contextmanager
    def lent_body(self) -> Iterator[LentBody | None]:
        """Give the body, for as long as the block, to be read by a worker from the socket itself.

        None where that cannot be done, for it has come already or the connection is encrypted: read `stream()` then.
        """
        lent = None if self._body_done else self._carrier.lend_body(self._chunks)
        if lent is None:
            yield None
            return
        self._chunks.clear()
        self._backlog_bytes = 0
        try:
            yield lent
        finally:
            self._carrier.take_body_back(self, lent)

    async def hijack(self, content_type: str = RAW_STREAM, *, engine_headers: bool = False) -> HijackedStream:
        """Answer 101 (if the client asked to upgrade, else 200) and take over the connection.

        Read the body first. Bytes that the client sent behind it are the first that the stream gives. `engine_headers`
        adds the headers of an ordinary answer, as exec does and attach does not. The handler then returns None.
        Source: Docker Engine API, ContainerAttach, and recordings of it.
        """
        return await self._carrier.take_over(self, content_type, engine_headers=engine_headers)

    async def hijack_with(self, head: bytes) -> HijackedStream:
        """Answer with this head and take over the connection, as `hijack` does."""
        return await self._carrier.take_over(self, RAW_STREAM, engine_headers=False, head=head)

    def stream_content_type(self, *, tty: bool) -> str:
        """Give the content type of an attach, exec or logs stream: multiplexed from API 1.42 on, unless a terminal."""
        return MULTIPLEXED_STREAM if not tty and self.api_version >= (1, 42) else RAW_STREAM

    def feed(self, payload: bytes, *, done: bool) -> None:
        """Take a piece of the body from the connection."""
        if payload:
            self._chunks.append(payload)
            self._backlog_bytes += len(payload)
        self._body_done = done
        if self._waiter is not None:
            self._wake()
        elif self._backlog_bytes > _BACKLOG_BYTES and not done:
            self._carrier.pause_body()

    def fail(self, error: Exception) -> None:
        """End a body that will never be complete."""
        if not self._body_done:
            self._broken = error
            self._body_done = True
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
