"""Routes of undo and protection: our own extension below `/holdfast`, which Docker's API does not use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.api.response import Response, empty, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker, in_worker
from holdfast.wire.trash import TrashRestore, encode_trash
from holdfast.wire.volumes import encode_volume

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()


@routes.add("GET", "/holdfast/trash")
async def trash_list(request: Request, engine: Engine) -> Response:
    """GET /holdfast/trash → 200 the removed volumes that can be had back, the last removed first."""
    return json_response(200, [encode_trash(entry) for entry in await in_worker(engine.volumes.trash.list)])


@routes.add("DELETE", "/holdfast/trash")
async def trash_empty(request: Request, engine: Engine) -> Response:
    """DELETE /holdfast/trash?volume= → 200 what is deleted for good: those named, else all."""
    gone = await in_worker(engine.volumes.trash.empty, request.query.all("volume"))
    return json_response(200, [encode_trash(entry) for entry in gone])


@routes.add("POST", "/holdfast/trash/{id}/restore")
async def trash_restore(request: Request, engine: Engine) -> Response:
    """POST /holdfast/trash/{id}/restore → 200 Volume; `id` may also be a name. 409 if the name is taken now."""
    body = await request.json(TrashRestore)
    record = await in_patient_worker(engine.volumes.trash.restore, request.params["id"], body.name)
    return json_response(200, encode_volume(engine.volumes.get(record.name)))


@routes.add("POST", "/holdfast/undo")
async def undo(request: Request, engine: Engine) -> Response:
    """POST /holdfast/undo → 200 the Volumes that came back: all that the last removal took. 409 if a name is taken."""
    records = await in_patient_worker(engine.volumes.trash.undo)
    return json_response(200, [encode_volume(engine.volumes.get(record.name)) for record in records])


@routes.add("POST", "/holdfast/volumes/{name:.*}/protect")
async def volume_protect(request: Request, engine: Engine) -> Response:
    """POST /holdfast/volumes/{name}/protect → 204. Every removal is refused from now on, in the caller's name."""
    await in_patient_worker(engine.volumes.protect, request.params["name"], request.peer)
    return empty(204)


@routes.add("POST", "/holdfast/volumes/{name:.*}/unprotect")
async def volume_unprotect(request: Request, engine: Engine) -> Response:
    """POST /holdfast/volumes/{name}/unprotect → 204."""
    await in_patient_worker(engine.volumes.unprotect, request.params["name"])
    return empty(204)
