"""Routes of volumes. Docker Engine API, tag Volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.api.filters import decode_filters
from holdfast.api.response import Response, empty, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker, in_worker
from holdfast.errors import InvalidParameter, Unavailable
from holdfast.wire.trash import VolumeRelabel
from holdfast.wire.volumes import VolumeCreate, encode_pruned, encode_volume

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()

_LIMIT_BYTES = 1 << 20
_NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)


@routes.add("GET", "/volumes")
async def volume_list(request: Request, engine: Engine) -> Response:
    """GET /volumes → 200 Volumes and Warnings. Operation VolumeList."""
    try:
        filters = decode_filters(request.query.get("filters"))
    except InvalidParameter as error:
        raise InvalidParameter("error reading volume filters: invalid filter") from error
    volumes, warnings = await in_worker(engine.volumes.look, filters)
    shown = [encode_volume(volume) for volume in volumes]
    return json_response(200, {"Volumes": shown, "Warnings": list(warnings) or None})


@routes.add("POST", "/volumes/create")
async def volume_create(request: Request, engine: Engine) -> Response:
    """POST /volumes/create → 201 Volume, also if it was there. Operation VolumeCreate."""
    body = await request.json(VolumeCreate, _LIMIT_BYTES)
    if body.cluster_volume_spec is not None and request.api_version >= (1, 42):
        raise Unavailable(_NOT_A_MANAGER)
    volume = await in_patient_worker(engine.volumes.create, body.name, body.driver, body.driver_opts, body.labels)
    return json_response(201, encode_volume(volume))


@routes.add("POST", "/volumes/prune", since=(1, 25))
async def volume_prune(request: Request, engine: Engine) -> Response:
    """POST /volumes/prune → 200 what went and how much that was. Operation VolumePrune."""
    filters = decode_filters(request.query.get("filters"))
    pruned = await in_patient_worker(engine.volumes.prune, filters, request.api_version)
    return json_response(200, encode_pruned(pruned))


@routes.add("GET", "/volumes/{name:.*}")
async def volume_inspect(request: Request, engine: Engine) -> Response:
    """GET /volumes/{name} → 200 Volume. Operation VolumeInspect."""
    name = request.params["name"]
    local = engine.volumes.is_local(name)
    volume = engine.volumes.get(name) if local else await in_patient_worker(engine.volumes.inspect, name)
    return json_response(200, encode_volume(volume))


@routes.add("PUT", "/volumes/{name:.*}", since=(1, 42))
async def volume_update(request: Request, engine: Engine) -> Response:
    """PUT /volumes/{name} → 200. Operation VolumeUpdate.

    Docker's body, a `Spec`, is for cluster volumes: 503. Ours, `{"Labels": {...}}`, replaces the labels of any volume.
    """
    body = await request.json(VolumeRelabel, _LIMIT_BYTES)
    if body.labels is None:
        raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")
    await in_patient_worker(engine.volumes.relabel, request.params["name"], body.labels)
    return empty(200)


@routes.add("DELETE", "/volumes/{name:.*}")
async def volume_delete(request: Request, engine: Engine) -> Response:
    """DELETE /volumes/{name} → 204. Operation VolumeDelete."""
    await in_patient_worker(engine.volumes.remove, request.params["name"], force=request.query.flag("force"))
    return empty(204)
