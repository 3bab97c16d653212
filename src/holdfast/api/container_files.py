"""What a container changed, and all of its files. Docker Engine API, operations ContainerChanges, ContainerExport."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from holdfast.api.response import JSON, Response, StreamResponse
from holdfast.api.router import Router
from holdfast.api.status import printable
from holdfast.api.streams import bytes_response
from holdfast.api.worker import in_worker

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()


@routes.add("GET", "/containers/{id}/changes")
async def container_changes(request: Request, engine: Engine) -> Response:
    """GET /containers/{id}/changes → 200 paths and kinds, null if there are none. Operation ContainerChanges."""
    name = request.params["id"]

    def work() -> bytes:  # there may be a million, which the event loop shall not encode
        found = engine.containers.changes(name)
        return msgspec.json.encode([{"Path": printable(change.path), "Kind": change.kind} for change in found] or None)

    return Response(200, {"Content-Type": JSON}, await in_worker(work) + b"\n")


@routes.add("GET", "/containers/{id}/export")
async def container_export(request: Request, engine: Engine) -> StreamResponse:
    """GET /containers/{id}/export → 200 tar of the root, without volumes. Operation ContainerExport."""
    name = request.params["id"]

    def work(emit: Callable[[bytes], None]) -> None:
        engine.containers.export(name, emit)

    return await bytes_response(work, {"Content-Type": "application/octet-stream"})
