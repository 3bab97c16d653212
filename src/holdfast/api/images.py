"""Routes of images. Docker Engine API, tag Image."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from holdfast.api import registry
from holdfast.api.container_shapes import container_config
from holdfast.api.filters import decode_filters
from holdfast.api.response import Response, StreamResponse, empty, json_response
from holdfast.api.router import Router
from holdfast.api.streams import bytes_response, progress_response
from holdfast.api.worker import BodyReader, in_patient_worker, in_worker
from holdfast.containers.commit import CommitRequest
from holdfast.errors import EngineError, InvalidParameter, Unsupported
from holdfast.images import reference
from holdfast.images.importing import NewImage
from holdfast.wire.containers import ContainerConfig
from holdfast.wire.images import (
    decode_credentials,
    decode_platform,
    encode_history,
    encode_inspect,
    encode_pruned,
    encode_summary,
)

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.images.progress import Progress
    from holdfast.images.tarstream import Readable

routes = Router()
routes.include(registry.routes)

_TAR = {"Content-Type": "application/x-tar"}
_READ_AHEAD_BYTES = 256 << 10


@routes.add("GET", "/images/json")
async def image_list(request: Request, engine: Engine) -> Response:
    """GET /images/json → 200 [ImageSummary]. Operation ImageList."""
    filters = decode_filters(request.query.get("filters"))
    if request.api_version < (1, 25) and request.query.get("filter"):
        filters.setdefault("reference", []).append(request.query.get("filter"))
    shared_size = request.query.flag("shared-size") and request.api_version >= (1, 42)
    everything = request.query.flag("all")
    listed = await in_worker(engine.images.list, filters, everything=everything, shared_size=shared_size)
    return json_response(200, [encode_summary(each, request.api_version) for each in listed])


@routes.add("POST", "/images/create")
async def image_create(request: Request, engine: Engine) -> StreamResponse:
    """POST /images/create → 200 stream: pull (`fromImage`) or import (`fromSrc=-`). Operation ImageCreate."""
    query = request.query
    platform = query.get("platform") if request.api_version >= (1, 32) else ""
    if query.get("fromImage"):
        credentials = decode_credentials(request.headers.get("x-registry-auth", ""))
        name, tag = query.get("fromImage"), query.get("tag")
        everything = not tag and reference.parse(name) != reference.parse(name).tagged()
        pull: Callable[..., object] = engine.images.registries.pull_all if everything else engine.images.registries.pull
        names = (name,) if everything else (name, tag)
        with _telling_of_buildkit(name):
            return await progress_response(
                lambda emit: pull(*names, platform=platform, credentials=credentials, progress=emit)
            )
    source = query.get("fromSrc")
    wanted = NewImage(
        query.get("repo"), query.get("tag"), query.get("message"), tuple(query.all("changes")), platform
    )
    if source not in ("", "-"):
        url = source if "://" in source else f"http://{source}"
        return await progress_response(lambda emit: engine.images.import_url(url, wanted, emit))
    return await _with_body(request, lambda body, emit: engine.images.import_(body, wanted, emit))


@contextlib.contextmanager
def _telling_of_buildkit(name: str) -> Iterator[None]:
    """Where the image cannot be had that clients run BuildKit in, say how to build without it.

    Compose and buildx want it once `POST /grpc` was refused, and do not show that refusal.
    """
    try:
        yield
    except EngineError as error:
        if name.removeprefix("docker.io/").partition(":")[0] == "moby/buildkit":
            raise error.within("build with DOCKER_BUILDKIT=0, as there is no image to run BuildKit from") from error
        raise


@routes.add("POST", "/images/load")
async def image_load(request: Request, engine: Engine) -> StreamResponse:
    """POST /images/load → 200 stream. Operation ImageLoad."""
    quiet = request.query.flag("quiet", default=True)
    platform = decode_platform(request.query.get("platform"))
    load = functools.partial(engine.images.load, quiet=quiet, platform=platform)
    return await _with_body(request, load, always_ok=True)


@routes.add("GET", "/images/get")
async def image_save_many(request: Request, engine: Engine) -> StreamResponse:
    """GET /images/get → 200 tar. Operation ImageGetAll."""
    names = request.query.all("names")
    if not names:
        raise InvalidParameter("no images given: names is empty")
    return await _saved(request, engine, names)


@routes.add("POST", "/images/prune", since=(1, 25))
async def image_prune(request: Request, engine: Engine) -> Response:
    """POST /images/prune → 200 ImagePruneResponse. Operation ImagePrune."""
    filters = decode_filters(request.query.get("filters"))
    return json_response(200, encode_pruned(*await in_worker(engine.images.prune, filters)))


@routes.add("GET", "/images/{name:.*}/get")
async def image_save(request: Request, engine: Engine) -> StreamResponse:
    """GET /images/{name}/get → 200 tar. Operation ImageGet."""
    return await _saved(request, engine, [request.params["name"]])


@routes.add("POST", "/commit")
async def image_commit(request: Request, engine: Engine) -> Response:
    """POST /commit → 201 Id. Operation ImageCommit."""
    query = request.query
    if not query.get("container"):
        raise InvalidParameter('invalid name or ID supplied: ""')
    body = await request.json(ContainerConfig) if request.has_body else None
    wanted = CommitRequest(
        container=query.get("container"),
        repository=query.get("repo"),
        tag=query.get("tag"),
        comment=query.get("comment"),
        author=query.get("author"),
        pause=query.flag("pause") if query.get("pause") else True,
        changes=tuple(query.all("changes")),
        config=None if body is None or body == ContainerConfig() else container_config(body),
    )
    return json_response(201, {"Id": await in_patient_worker(engine.containers.commit, wanted)})


@routes.add("GET", "/images/{name:.*}/history")
async def image_history(request: Request, engine: Engine) -> Response:
    """GET /images/{name}/history → 200 [HistoryResponseItem]. Operation ImageHistory."""
    platform = decode_platform(request.query.get("platform")) if request.api_version >= (1, 48) else ""
    _, steps = await in_worker(engine.images.history, request.params["name"], platform)
    return json_response(200, encode_history(steps))


@routes.add("GET", "/images/{name:.*}/json")
async def image_inspect(request: Request, engine: Engine) -> Response:
    """GET /images/{name}/json → 200 ImageInspect. Operation ImageInspect."""
    platform = decode_platform(request.query.get("platform")) if request.api_version >= (1, 49) else ""
    if platform and request.query.flag("manifests"):
        raise InvalidParameter("conflicting options: manifests and platform options cannot both be set")
    image = await in_worker(engine.images.resolve_for, request.params["name"], platform)
    return json_response(200, encode_inspect(image, engine.images.layers_of(image), request.api_version))


@routes.add("POST", "/images/{name:.*}/push")
async def image_push(request: Request, engine: Engine) -> StreamResponse:
    """POST /images/{name}/push → 200 stream. Operation ImagePush."""
    name, tag = request.params["name"], request.query.get("tag")
    platform = decode_platform(request.query.get("platform")) if request.api_version >= (1, 46) else ""
    credentials = decode_credentials(request.headers.get("x-registry-auth", ""))
    return await progress_response(
        lambda emit: engine.images.registries.push(name, tag, platform=platform, credentials=credentials, progress=emit)
    )


@routes.add("POST", "/images/{name:.*}/tag")
async def image_tag(request: Request, engine: Engine) -> Response:
    """POST /images/{name}/tag → 201. Operation ImageTag."""
    query = request.query
    if not query.get("repo"):
        return empty(200)  # nothing to do, and Docker looks no further
    await in_worker(engine.images.tag, request.params["name"], query.get("repo"), query.get("tag"))
    return empty(201)


@routes.add("DELETE", "/images/{name:.*}")
async def image_delete(request: Request, engine: Engine) -> Response:
    """DELETE /images/{name} → 200 [ImageDeleteResponseItem]. Operation ImageDelete."""
    if request.query.get("platforms"):
        raise Unsupported("an image is for one platform here, and is removed whole")
    force, noprune = request.query.flag("force"), request.query.flag("noprune")
    records = await in_worker(engine.images.remove, request.params["name"], force=force, noprune=noprune)
    return json_response(200, records)


async def _saved(request: Request, engine: Engine, names: list[str]) -> StreamResponse:
    platform = decode_platform(request.query.get("platform")) if request.api_version >= (1, 48) else ""
    return await bytes_response(lambda emit: engine.images.save(names, emit, platform=platform), _TAR)


async def _with_body(
    request: Request, work: Callable[[Readable, Progress], Any], *, always_ok: bool = False
) -> StreamResponse:
    """Stream the messages of blocking `work` that reads the request's body as a file; see `progress_response`."""
    loop = asyncio.get_running_loop()
    reader = BodyReader(request.stream())

    def run(emit: Progress) -> None:
        try:
            work(io.BufferedReader(reader, _READ_AHEAD_BYTES), emit)
        finally:
            asyncio.run_coroutine_threadsafe(reader.aclose(), loop)

    try:
        return await progress_response(run, always_ok=always_ok)
    except BaseException:
        await reader.aclose()
        raise
