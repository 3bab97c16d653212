"""Statistics of containers. Docker Engine API, operation ContainerStats."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from holdfast.api.response import JSON, Response, StreamResponse, json_line, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_worker
from holdfast.containers.stats import INTERVAL_S
from holdfast.errors import InvalidParameter
from holdfast.kernel.usage import NOT_RUNNING, Moment
from holdfast.wire.stats import encode_stats

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.containers.container import Container

routes = Router()

_ONE_SHOT_SINCE = (1, 41)


@routes.add("GET", "/containers/{id}/stats")
async def container_stats(request: Request, engine: Engine) -> Response | StreamResponse:
    """GET /containers/{id}/stats?stream=&one-shot= → 200 once or every second. Operation ContainerStats.

    Once means after a second, so that there is something to compare with, or at once and without that: `one-shot`.
    """
    stream = request.query.flag("stream", True)
    one_shot = request.api_version >= _ONE_SHOT_SINCE and request.query.flag("one-shot")
    if stream and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    container = engine.containers.get(request.params["id"])
    if stream:
        return StreamResponse(200, {"Content-Type": JSON}, _stream(engine, container))
    before = NOT_RUNNING
    now = await in_worker(engine.containers.stats.sample, container)
    if not one_shot and now.usage is not None:
        await asyncio.sleep(INTERVAL_S)
        before, now = now, await in_worker(engine.containers.stats.sample, container)
    return json_response(200, encode_stats(container.name, container.id, now, before))


async def _stream(engine: Engine, container: Container) -> AsyncIterator[bytes]:
    """Give a sample now and each that follows; a reader that is behind gets the newest when it is ready."""
    newest = _Newest()
    cancel = engine.containers.stats.watch(container, newest.give)
    try:
        before = NOT_RUNNING
        now: Moment | None = await in_worker(engine.containers.stats.sample, container)
        while now is not None:
            yield json_line(encode_stats(container.name, container.id, now, before))
            before, now = now, await newest.take()
    finally:
        cancel()


class _Newest:
    """The last thing that another thread has given, until it is taken."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._there = asyncio.Event()
        self._moment: Moment | None = None

    def give(self, moment: Moment | None) -> None:
        """Replace it; from any thread, never blocks."""
        with contextlib.suppress(RuntimeError):  # the loop has ended with the engine
            self._loop.call_soon_threadsafe(self._settle, moment)

    def _settle(self, moment: Moment | None) -> None:
        self._moment = moment
        self._there.set()

    async def take(self) -> Moment | None:
        """Wait for the next one and give it."""
        await self._there.wait()
        self._there.clear()
        return self._moment
