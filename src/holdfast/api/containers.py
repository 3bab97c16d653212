"""Routes of containers. Docker Engine API, tag Container."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from holdfast.api import container_shapes as shapes
from holdfast.api import container_streams as streams
from holdfast.api.filters import Filters, decode_filters, decode_until
from holdfast.api.response import JSON, Response, StreamResponse, empty, json_line, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker, in_worker
from holdfast.containers.container import Container
from holdfast.containers.top import top
from holdfast.errors import EngineError, InvalidParameter, NotFound
from holdfast.wire.containers import ContainerCreate, ContainerUpdate

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()

routes.add("POST", "/containers/{id}/attach")(streams.container_attach)
routes.add("GET", "/containers/{id}/attach/ws")(streams.container_attach_ws)
routes.add("GET", "/containers/{id}/logs")(streams.container_logs)

_START_WITH_BODY = (
    "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
)
_PRUNE_FILTERS = ("until", "label", "label!")


@routes.add("GET", "/containers/json")
async def container_list(request: Request, engine: Engine) -> Response:
    """GET /containers/json → 200 summaries, newest first. Operation ContainerList."""
    query = request.query
    filters = decode_filters(query.get("filters"))
    limit = query.integer("limit", parser="Atoi")
    return json_response(
        200, await in_worker(summaries, engine, filters, query.flag("all"), limit, query.flag("size"))
    )


def summaries(engine: Engine, filters: Filters, everything: bool, limit: int, size: bool) -> list[object]:
    """Give what lists show of the containers that `filters` let through, newest first. Blocks."""
    containers = engine.containers
    names: dict[tuple[str, str], str] = {}
    shown: list[object] = []
    for container in containers.select(filters, everything=everything, limit=limit):
        record = container.record
        key = (record.config.image, record.image_id)
        if key not in names:
            names[key] = _image_name(engine, *key)
        shown.append(shapes.summary(containers, container, names[key], _size(engine, container) if size else None))
    return shown


def _image_name(engine: Engine, name: str, image_id: str) -> str:
    """Give the name a container was made from, or the image's id if the name leads elsewhere by now."""
    try:
        return name if engine.images.resolve(name).id == image_id else image_id
    except EngineError:
        return image_id


def _size(engine: Engine, container: Container) -> tuple[int, int]:
    try:
        changed = engine.containers.size_of(container)
    except (OSError, EngineError):
        changed = 0  # it was removed in the meantime
    try:
        return changed, changed + engine.images.get(container.record.image_id).size_bytes
    except NotFound:
        return changed, changed


@routes.add("POST", "/containers/create")
async def container_create(request: Request, engine: Engine) -> Response:
    """POST /containers/create → 201 Id and Warnings. Operation ContainerCreate."""
    body = await request.json(ContainerCreate)
    if not request.has_body:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    if body == ContainerCreate():
        raise InvalidParameter("config cannot be empty in order to create a container")
    wanted = shapes.create_request(body, request.query.get("name"), request.query.get("platform"), request.api_version)
    container, warnings = await in_patient_worker(engine.containers.create, wanted)
    return json_response(201, {"Id": container.id, "Warnings": list(warnings)})


@routes.add("GET", "/containers/{id}/json")
async def container_inspect(request: Request, engine: Engine) -> Response:
    """GET /containers/{id}/json → 200 everything about it. Operation ContainerInspect."""
    return json_response(200, await in_worker(_inspect, engine, request.params["id"], request.query.flag("size")))


def _inspect(engine: Engine, reference: str, size: bool) -> object:
    container = engine.containers.get(reference)
    return shapes.inspect(engine.containers, container, _size(engine, container) if size else None)


@routes.add("POST", "/containers/{id}/start")
async def container_start(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/start → 204, 304 if it runs. Operation ContainerStart."""
    if request.has_body and (await request.body()).strip() not in (b"", b"{}", b"null"):
        raise InvalidParameter(_START_WITH_BODY)
    await in_patient_worker(engine.containers.start, request.params["id"])
    return empty(204)


@routes.add("POST", "/containers/{id}/stop")
async def container_stop(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/stop → 204, 304 if it does not run. Operation ContainerStop."""
    name, signal = request.params["id"], request.query.get("signal")
    await in_patient_worker(engine.containers.stop, name, _timeout(request), signal)
    return empty(204)


@routes.add("POST", "/containers/{id}/restart")
async def container_restart(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/restart → 204. Operation ContainerRestart."""
    name, signal = request.params["id"], request.query.get("signal")
    await in_patient_worker(engine.containers.restart, name, _timeout(request), signal)
    return empty(204)


@routes.add("POST", "/containers/{id}/kill")
async def container_kill(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/kill → 204. Operation ContainerKill."""
    await in_patient_worker(engine.containers.kill, request.params["id"], request.query.get("signal"))
    return empty(204)


@routes.add("POST", "/containers/{id}/pause")
async def container_pause(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/pause → 204. Operation ContainerPause."""
    await in_patient_worker(engine.containers.pause, request.params["id"])
    return empty(204)


@routes.add("POST", "/containers/{id}/unpause")
async def container_unpause(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/unpause → 204. Operation ContainerUnpause."""
    await in_patient_worker(engine.containers.unpause, request.params["id"])
    return empty(204)


@routes.add("POST", "/containers/{id}/rename")
async def container_rename(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/rename?name= → 204. Operation ContainerRename."""
    await in_patient_worker(engine.containers.rename, request.params["id"], request.query.get("name"))
    return empty(204)


@routes.add("POST", "/containers/{id}/update")
async def container_update(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/update → 200 Warnings. Operation ContainerUpdate."""
    asked = shapes.host_config(await request.json(ContainerUpdate))
    warnings = await in_patient_worker(engine.containers.update, request.params["id"], asked)
    return json_response(200, {"Warnings": list(warnings) or None})


@routes.add("POST", "/containers/{id}/resize")
async def container_resize(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/resize?h=&w= → 200. Operation ContainerResize."""
    rows, columns = streams.size_of_terminal(request)
    await in_worker(engine.containers.resize, request.params["id"], rows, columns)
    return empty(200)


@routes.add("GET", "/containers/{id}/top")
async def container_top(request: Request, engine: Engine) -> Response:
    """GET /containers/{id}/top?ps_args= → 200 Titles and Processes. Operation ContainerTop."""
    container = engine.containers.get(request.params["id"])
    titles, rows = await in_worker(
        top, engine.containers, container, request.query.get("ps_args") or "-ef"
    )
    return json_response(200, {"Titles": titles, "Processes": rows})


@routes.add("POST", "/containers/{id}/wait")
async def container_wait(request: Request, engine: Engine) -> StreamResponse:
    """POST /containers/{id}/wait?condition= → 200 at once, the exit code when it is there. Operation ContainerWait."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def settle(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def tell(code: int) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, code)

    cancel = engine.containers.wait(request.params["id"], request.query.get("condition"), tell)

    async def body() -> AsyncIterator[bytes]:
        try:
            yield json_line({"StatusCode": await ended})
        finally:
            cancel()

    return StreamResponse(200, {"Content-Type": JSON}, body())


@routes.add("DELETE", "/containers/{id}")
async def container_delete(request: Request, engine: Engine) -> Response:
    """DELETE /containers/{id}?force=&v= → 204. Operation ContainerDelete."""
    query = request.query
    if query.flag("link"):
        raise InvalidParameter("links are not supported")
    await in_patient_worker(
        engine.containers.remove, request.params["id"], force=query.flag("force"), volumes=query.flag("v")
    )
    return empty(204)


@routes.add("POST", "/containers/prune", since=(1, 25))
async def container_prune(request: Request, engine: Engine) -> Response:
    """POST /containers/prune → 200 what went and how much that was. Operation ContainerPrune."""
    filters = decode_filters(request.query.get("filters"), _PRUNE_FILTERS)
    pruned = await in_patient_worker(engine.containers.prune, filters, decode_until(filters))
    return json_response(200, {"ContainersDeleted": list(pruned.ids) or None, "SpaceReclaimed": pruned.reclaimed_bytes})


def _timeout(request: Request) -> int | None:
    return request.query.integer("t", parser="Atoi") if request.query.get("t") else None
