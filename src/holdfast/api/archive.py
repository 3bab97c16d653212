"""Routes of `docker cp`. Docker Engine API, operations ContainerArchiveInfo, ContainerArchive, PutContainerArchive."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, cast

from holdfast.api.framing import BadRequest
from holdfast.api.request import ClientGone
from holdfast.api.response import Response, StreamResponse, empty
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker, stream_from_worker
from holdfast.containers.archive_paths import PathStat
from holdfast.errors import InvalidParameter
from holdfast.wire.archive import encode_path_stat

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()

_STAT_HEADER = "X-Docker-Container-Path-Stat"
_WINDOW_BITS = {"gzip": 31, "deflate": -15}
_FAST = 1
_AHEAD_BYTES = 4 << 20


@routes.add("HEAD", "/containers/{id}/archive")
async def archive_info(request: Request, engine: Engine) -> Response:
    """HEAD /containers/{id}/archive?path= → 200, the path's description in a header. Operation ContainerArchiveInfo."""
    found = await in_patient_worker(engine.containers.archives.stat, request.params["id"], _path(request))
    return empty(200, {_STAT_HEADER: _describe(found)})


@routes.add("GET", "/containers/{id}/archive")
async def archive_get(request: Request, engine: Engine) -> StreamResponse:
    """GET /containers/{id}/archive?path= → 200 tar. Operation ContainerArchive."""
    reference, path = request.params["id"], _path(request)
    encoding = choose_encoding(request.headers.get("accept-encoding", ""))

    def work(emit: Callable[[PathStat | bytes], None]) -> None:
        with engine.containers.archives.read(reference, path) as reading:
            emit(reading.stat)
            if not encoding:
                reading.write(emit)
                return
            packer = zlib.compressobj(_FAST, zlib.DEFLATED, _WINDOW_BITS[encoding])
            reading.write(lambda data: emit(packer.compress(data)))
            emit(packer.flush())

    items = stream_from_worker(work)
    found = await anext(items)
    assert isinstance(found, PathStat)
    headers = {"Content-Type": "application/x-tar", _STAT_HEADER: _describe(found)}
    if encoding:
        headers["Content-Encoding"] = encoding
    return StreamResponse(200, headers, cast("AsyncGenerator[bytes, None]", items))


@routes.add("PUT", "/containers/{id}/archive")
async def archive_put(request: Request, engine: Engine) -> Response:
    """PUT /containers/{id}/archive?path=&noOverwriteDirNonDir=&copyUIDGID= → 200. Operation PutContainerArchive."""
    query, reference, path = request.query, request.params["id"], _path(request)
    keep_kinds, own = query.flag("noOverwriteDirNonDir"), query.flag("copyUIDGID")
    with request.lent_body() as lent:
        body = lent or _Body(request.stream())

        def work(_emit: Callable[[None], None]) -> None:
            engine.containers.archives.extract(reference, path, body, keep_kinds=keep_kinds, own=own)

        try:
            async for _ in stream_from_worker(work):  # it emits nothing; the lane of streams is where it may take long
                pass
        finally:
            if isinstance(body, _Body):
                await body.close()
    return empty(200)


def choose_encoding(accepted: str) -> str:
    """Choose between gzip, deflate and "" (as it is) by an Accept-Encoding header; the first wins a tie. Pure.

    Source: RFC 9110 section 12.5.3; Docker, `NegotiateContentEncoding`.
    """
    best, chosen = 0.0, ""
    weights: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        name, _, parameters = entry.partition(";")
        weight = parameters.strip().removeprefix("q=") if parameters else "1"
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            continue
    for name in ("gzip", "deflate"):
        weight_of = weights.get(name, weights.get("*", 0.0))
        if weight_of > best:
            best, chosen = weight_of, name
    return chosen if best >= weights.get("identity", 0.0) else ""


class _Body:
    """A request's body, read ahead while blocking code works on what has come, and handed on without copying it.

    Made and closed in the event loop, read in a worker.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._current = memoryview(b"")
        self._ended = False
        self._error: ClientGone | BadRequest | None = None
        self._room = asyncio.Event()
        self._task = self._loop.create_task(self._fill(pieces))

    async def _fill(self, pieces: AsyncIterator[bytes]) -> None:
        try:
            async for piece in pieces:
                with self._changed:
                    self._waiting.append(piece)
                    self._waiting_bytes += len(piece)
                    full = self._waiting_bytes > _AHEAD_BYTES
                    if full:
                        self._room.clear()
                    self._changed.notify()
                if full:
                    await self._room.wait()
        except (ClientGone, BadRequest) as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def read(self, size: int) -> memoryview:
        """Give what has come, at most `size` bytes, waiting for at least one; nothing at the end. Raises ClientGone."""
        if not self._current:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    if self._error is not None:
                        raise self._error
                    return self._current
                self._current = memoryview(self._waiting.popleft())
                before = self._waiting_bytes
                self._waiting_bytes -= len(self._current)
                make_room = before > _AHEAD_BYTES >= self._waiting_bytes
            if make_room and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._room.set)
        piece, self._current = self._current[:size], self._current[size:]
        return piece

    async def close(self) -> None:
        """Stop: a later read raises ClientGone."""
        if not self._task.done():
            self._error = ClientGone()
            self._task.cancel()
            await asyncio.wait((self._task,))


def _path(request: Request) -> str:
    path = request.query.get("path")
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")  # Docker's own spelling
    return path


def _describe(found: PathStat) -> str:
    return encode_path_stat(found.name, found.size_bytes, found.mode, found.mtime_ns, found.link_target)
