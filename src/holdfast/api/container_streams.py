"""Attach and logs: the long answers of containers. Docker Engine API, operations ContainerAttach and ContainerLogs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.api.attach import Duplex, Pump, SocketPromise, frame_head, parse_detach_keys
from holdfast.api.events import parse_time
from holdfast.api.request import ClientGone
from holdfast.api.response import Response, StreamResponse
from holdfast.api.status import plain_error
from holdfast.api.websocket import WebSocket, accept
from holdfast.api.worker import in_worker
from holdfast.errors import EngineError, InvalidParameter, Unsupported
from holdfast.runtime.attach import STDERR, STDOUT
from holdfast.runtime.logs import LogEntry, LogFollower, format_time, read_entries

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.containers.container import Container

_NUMBERS = {"stdout": STDOUT, "stderr": STDERR}
_PIECE_BYTES = 64 << 10
_PIECES_AT_ONCE = 2
_SHORT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Limits:
    """Which part of a log is wanted; see `read_entries`."""

    tail: int | None
    since_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class _Look:
    """How log entries are shown; `details` stands before each line, None leaves it out."""

    wanted: frozenset[str]
    tty: bool = False
    timestamps: bool = False
    details: str | None = None


@dataclass(frozen=True, slots=True)
class _Attach:
    """What a client that attaches wants."""

    stream: bool
    logs: bool
    stdin: bool
    stdout: bool
    stderr: bool
    keys: bytes

    @classmethod
    def read(cls, request: Request, *, default: bool = False) -> _Attach:
        """Read a query; `default` is for the streams. Raises InvalidParameter."""
        query = request.query
        stdin, stdout, stderr = (query.flag(name, default) for name in ("stdin", "stdout", "stderr"))
        keys = parse_detach_keys(query.get("detachKeys"))
        return cls(query.flag("stream"), query.flag("logs"), stdin, stdout, stderr, keys)


async def container_attach(request: Request, engine: Engine) -> Response | None:
    """POST /containers/{id}/attach → 101 at once, then the streams. Errors before are plain text. ContainerAttach."""
    async with contextlib.AsyncExitStack() as undo:
        try:
            wishes = _Attach.read(request)
            if request.has_body:
                await request.body()
            container, promise = await undo.enter_async_context(_waiting(request, engine, wishes))
        except EngineError as error:
            return plain_error(error)
        tty = container.record.config.tty
        stream = await request.hijack(request.stream_content_type(tty=tty))
        undo.callback(stream.close)
        await _carry(engine, container, stream, wishes, promise, framed=not tty)
    return None


async def container_attach_ws(request: Request, engine: Engine) -> None:
    """GET /containers/{id}/attach/ws → 101 web socket, all streams as they are. Operation ContainerAttachWebsocket."""
    wishes = _Attach.read(request, default=request.api_version < _WEB_SOCKET_CHOOSES_SINCE)
    engine.containers.get(request.params["id"])
    head = accept(request.headers)
    async with _waiting(request, engine, wishes) as (container, promise):
        web_socket = WebSocket(await request.hijack_with(head))
        if not (wishes.stdin and wishes.stream and container.record.config.open_stdin):
            web_socket.ignore_input()
        try:
            await _carry(engine, container, web_socket, wishes, promise, framed=False)
        finally:
            await web_socket.end()


_WEB_SOCKET_CHOOSES_SINCE = (1, 42)


@contextlib.asynccontextmanager
async def _waiting(
    request: Request, engine: Engine, wishes: _Attach
) -> AsyncIterator[tuple[Container, SocketPromise]]:
    """Find the container and wait for its streams for the length of the block. Raises NotFound, Conflict."""
    promise = SocketPromise()
    cancel: Callable[[], None] = lambda: None  # noqa: E731
    try:
        if wishes.stream:
            container, cancel = await in_worker(engine.containers.attach, request.params["id"], promise.give)
        else:
            container = engine.containers.get(request.params["id"])
        yield container, promise
    finally:
        cancel()
        _close_late(promise)


async def _carry(
    engine: Engine, container: Container, stream: Duplex, wishes: _Attach, promise: SocketPromise, *, framed: bool
) -> None:
    """Carry the log, if it is wanted, and the streams until either side has enough."""
    config = container.record.config
    with contextlib.suppress(ClientGone):
        if wishes.logs and engine.containers.log_rules(container).is_kept:
            wanted = frozenset(
                name for name, wish in (("stdout", wishes.stdout), ("stderr", wishes.stderr)) if wish
            )
            await _replay(stream, engine.containers.log_of(container), _Look(wanted, not framed))
        connection = await _first(promise.future, stream) if wishes.stream else None
        if connection is not None:
            promise.taken = True
            pump = Pump(
                stream,
                connection,
                engine.config.state_root,
                tty=config.tty,
                framed=framed,
                stdin=wishes.stdin and config.open_stdin,
                stdout=wishes.stdout,
                stderr=wishes.stderr,
                detach_keys=wishes.keys,
                stdin_once=config.stdin_once,
            )
            await pump.run()


def _close_late(promise: SocketPromise) -> None:
    """Close a socket that nobody took: one handed over before the client went, or about to be."""
    future = promise.future
    if not future.done():
        future.cancel()
    elif not future.cancelled() and not promise.taken:
        connection = future.result()
        if connection is not None:
            connection.close()


async def _first(
    future: asyncio.Future[socket.socket | None], stream: Duplex
) -> socket.socket | None:
    """Wait for a socket, or for the client to go."""
    await asyncio.wait((future, stream.disconnected), return_when=asyncio.FIRST_COMPLETED)
    if not future.done():
        raise ClientGone
    return future.result()


async def _replay(stream: Duplex, path: Path, look: _Look) -> None:
    async for piece in _read(path, _Limits(None, 0, 0), look):
        await stream.write(piece)


class _Reading:
    """A log that is read to its end, piece by piece, in any thread."""

    def __init__(self, path: Path, limits: _Limits, look: _Look) -> None:
        entries = read_entries(path, tail=limits.tail, since_ns=limits.since_ns, until_ns=limits.until_ns)
        self._pieces = _pieces(entries, look)
        self._guard = threading.Lock()

    def next(self) -> bytes:
        """The next piece; b"" at the end."""
        with self._guard:
            return b"".join(itertools.islice(self._pieces, _PIECES_AT_ONCE))

    def close(self) -> None:
        """Close the files."""
        with self._guard:
            self._pieces.close()


async def _read(path: Path, limits: _Limits, look: _Look) -> AsyncGenerator[bytes, None]:
    """Give the log. A client that is slow, or reads no more, holds a few descriptors but no thread."""
    reading = _Reading(path, limits, look)
    try:
        while piece := await in_worker(reading.next):
            yield piece
    finally:
        await in_worker(reading.close)


async def container_logs(request: Request, engine: Engine) -> StreamResponse:
    """GET /containers/{id}/logs → 200, what it wrote and, with `follow`, what it writes. Operation ContainerLogs."""
    query = request.query
    wanted = frozenset(name for name in ("stdout", "stderr") if query.flag(name))
    if not wanted:
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    container = engine.containers.get(request.params["id"])
    rules = engine.containers.log_rules(container)
    if not rules.is_kept:
        raise Unsupported("configured logging driver does not support reading")
    tty = container.record.config.tty
    limits = _Limits(
        _tail(query.get("tail")), parse_time(query.get("since")) or 0, parse_time(query.get("until")) or 0
    )
    path = engine.containers.log_of(container)
    details = await in_worker(engine.containers.log_details, container) if query.flag("details") else None
    look = _Look(wanted, tty, query.flag("timestamps"), details)
    items: AsyncIterator[bytes]
    if query.flag("follow") and container.state.task is not None:
        items = _follow(container, path, limits, look)
    else:
        items = _read(path, limits, look)
    return StreamResponse(200, {"Content-Type": request.stream_content_type(tty=tty)}, items)


async def _follow(container: Container, path: Path, limits: _Limits, look: _Look) -> AsyncIterator[bytes]:
    """Give the log and what is added to it until the container ends or `until` has passed."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        news.set()

    def tell(_code: int) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(end)

    until_ns = limits.until_ns
    follower = await _open_follower(path, limits)
    cancel = container.wait("next-exit", tell)
    if container.state.task is None:
        ended = True
    loop.add_reader(follower.fileno(), news.set)

    def read() -> tuple[bool, list[bytes]]:
        entries = follower.read()
        return bool(entries), list(_pieces(entries, look))

    try:
        while True:
            last = ended
            news.clear()
            found, pieces = await in_worker(read)
            for piece in pieces:
                yield piece
            if found:
                continue
            if last:
                for piece in _pieces(follower.rest(), look):
                    yield piece
                return
            left_s = until_ns / 1e9 - time.time() if until_ns else None
            if left_s is not None and left_s <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), left_s)
    finally:
        loop.remove_reader(follower.fileno())
        cancel()
        await in_worker(follower.close)


async def _open_follower(path: Path, limits: _Limits) -> LogFollower:
    """Begin to follow a log; if the client goes meanwhile, what was opened for it is closed."""
    opening = asyncio.ensure_future(
        in_worker(LogFollower, path, tail=limits.tail, since_ns=limits.since_ns, until_ns=limits.until_ns)
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: asyncio.Future[LogFollower]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _pieces(entries: Iterable[LogEntry], look: _Look) -> Generator[bytes, None, None]:
    """Encode log entries, several at a time."""
    pieces: list[bytes] = []
    heads: dict[tuple[str, int], bytes] = {}
    size = 0
    before, plain = (look.details + " ").encode() if look.details is not None else b"", not look.timestamps
    for stream, time_ns, data in entries:
        if stream not in look.wanted:
            continue
        if before or not plain:
            data = b"".join((b"" if plain else format_time(time_ns).encode() + b" ", before, data))
        length = len(data)
        if not look.tty:
            head = heads.get((stream, length))
            if head is None:
                head = frame_head(_NUMBERS[stream], length)
                if length < _SHORT_BYTES:
                    heads[stream, length] = head
            pieces.append(head)
        pieces.append(data)
        size += length
        if size >= _PIECE_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)


def _tail(text: str) -> int | None:
    """Read `tail`: a number of lines; anything else, `all` too, is all of them. Source: moby, daemon/logs.go."""
    return int(text) if text.isascii() and text.isdigit() else None


def size_of_terminal(request: Request) -> tuple[int, int]:
    """Give rows and columns of a resize. Raises InvalidParameter in Docker's words."""
    sizes = []
    for name, what in (("h", "height"), ("w", "width")):
        text = request.query.get(name)
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidParameter(f'invalid resize {what} "{text}": invalid syntax')
        if digits != text or int(text) >= 1 << 32:
            raise InvalidParameter(f'invalid resize {what} "{text}": value out of range')
        sizes.append(int(text))
    return sizes[0], sizes[1]
