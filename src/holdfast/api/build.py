"""Routes of builds. Docker Engine API, tag Image: build, its cache, and what belongs to BuildKit."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import threading
import time
from typing import TYPE_CHECKING

from holdfast.api.filters import decode_filters
from holdfast.api.request import ClientGone
from holdfast.api.response import Response, StreamResponse, empty, json_response
from holdfast.api.router import Router
from holdfast.api.streams import progress_response
from holdfast.api.worker import BodyReader, in_worker
from holdfast.errors import InvalidParameter, Unsupported
from holdfast.images.filters import parse_timestamp
from holdfast.wire.build import decode_build, decode_registries, encode_pruned

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.images.progress import Progress

routes = Router()

_READ_AHEAD_BYTES = 256 << 10
_CACHE_FILTERS = ("until", "id", "parent", "type", "description", "inuse", "shared", "private", "label", "label!")
_NO_BUILDKIT = "this engine has no BuildKit; build with DOCKER_BUILDKIT=0"


@routes.add("POST", "/build")
async def build(request: Request, engine: Engine) -> StreamResponse:
    """POST /build → 200 stream; it ends with its client. Operation ImageBuild."""
    query = request.query
    asked = dataclasses.replace(
        decode_build(query.get, query.all, query.flag),
        credentials=decode_registries(request.headers.get("x-registry-config", "")),
    )
    loop = asyncio.get_running_loop()
    stopped, gone = threading.Event(), threading.Event()

    def end(_: object = None) -> None:
        gone.set()
        stopped.set()

    request.disconnected.add_done_callback(end)
    reader = BodyReader(request.stream())

    def run(emit: Progress) -> None:
        def send(message: dict[str, object]) -> None:
            if gone.is_set():
                raise ClientGone
            emit(message)

        try:
            engine.builds.build(asked, io.BufferedReader(reader, _READ_AHEAD_BYTES), send, stopped)
        finally:
            asyncio.run_coroutine_threadsafe(reader.aclose(), loop)

    try:
        return await progress_response(run)
    except BaseException:
        end()
        await reader.aclose()
        raise


@routes.add("POST", "/build/prune", since=(1, 31))
async def build_prune(request: Request, engine: Engine) -> Response:
    """POST /build/prune → 200: the cache goes as a whole. Operation BuildPrune."""
    filters = decode_filters(request.query.get("filters"))
    for name in filters:
        if name not in _CACHE_FILTERS:
            raise InvalidParameter(f"failed to prune build cache: invalid filter '{name}'")
    until = None
    for value in filters.get("until", ()):
        try:
            until = parse_timestamp(value, time.time()).timestamp()
        except InvalidParameter as error:
            what = "\"until\" filter expects a duration (e.g., '24h') or a timestamp"
            raise InvalidParameter(f"failed to prune build cache: {what}: {error}") from error
    keep = _keep_bytes(request)
    ids, freed = await in_worker(engine.builds.prune, until=until, keep_bytes=keep)
    return json_response(200, encode_pruned(ids, freed))


@routes.add("POST", "/build/cancel", since=(1, 39))
async def build_cancel(request: Request, engine: Engine) -> Response:
    """POST /build/cancel → 200, whether the build is there or not. Source: moby, postCancel."""
    build_id = request.query.get("id")
    if not build_id:
        raise InvalidParameter("build ID not provided")
    await in_worker(engine.builds.cancel, build_id)
    return empty(200)


@routes.add("POST", "/session", since=(1, 31))
async def session(_request: Request, _engine: Engine) -> Response:
    """POST /session → 501: BuildKit's. Operation Session."""
    raise Unsupported(_NO_BUILDKIT)


@routes.add("POST", "/grpc", since=(1, 39))
async def grpc(_request: Request, _engine: Engine) -> Response:
    """POST /grpc → 501: BuildKit's."""
    raise Unsupported(_NO_BUILDKIT)


def _keep_bytes(request: Request) -> int:
    """How much of the cache may stay. Raises InvalidParameter in Docker's words."""
    for name in ("reserved-space", "keep-storage"):
        text = request.query.get(name)
        try:
            if text:
                return int(text)
        except ValueError:
            why = f'strconv.Atoi: parsing "{text}": invalid syntax'
            raise InvalidParameter(f"{name} is in bytes and expects an integer, got {text}: {why}") from None
    return 0
