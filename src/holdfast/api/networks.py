"""Routes of networks. Docker Engine API, tag Network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from holdfast.api.container_shapes import endpoint_config
from holdfast.api.filters import Filters, decode_filters, decode_until, matches_exactly, matches_labels
from holdfast.api.response import Response, empty, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker, in_worker
from holdfast.errors import InvalidParameter, NotFound
from holdfast.wire.networks import NetworkConnect, NetworkCreate, NetworkDisconnect, encode_network, network_request

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.network.model import NetworkInfo

routes = Router()

_LIMIT_BYTES = 1 << 20
_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})
_TYPES = frozenset({"builtin", "custom"})


@routes.add("GET", "/networks")
async def network_list(request: Request, engine: Engine) -> Response:
    """GET /networks → 200 the networks. Operation NetworkList."""
    filters = decode_filters(request.query.get("filters"), _FILTERS)
    networks = await in_worker(engine.network.list)
    shapes = [encode_network(network, with_endpoints=False) for network in select(networks, filters)]
    return json_response(200, shapes)


@routes.add("POST", "/networks/create")
async def network_create(request: Request, engine: Engine) -> Response:
    """POST /networks/create → 201 Id and Warning. Operation NetworkCreate."""
    body = await request.json(NetworkCreate, _LIMIT_BYTES)
    network = await in_worker(engine.network.create, network_request(body))
    return json_response(201, {"Id": network.id, "Warning": ""})


@routes.add("POST", "/networks/prune", since=(1, 25))
async def network_prune(request: Request, engine: Engine) -> Response:
    """POST /networks/prune → 200 what went. Operation NetworkPrune."""
    filters = decode_filters(request.query.get("filters"), _PRUNE_FILTERS)
    before = decode_until(filters)
    unwanted = filters.get("label!", [])

    def fits(network: NetworkInfo) -> bool:
        labels = network.settings.labels
        return (
            matches_labels(filters.get("label", []), labels)
            and not (unwanted and matches_labels(unwanted, labels))
            and (before is None or network.created_at < before)
        )

    removed = await in_worker(engine.network.prune, fits)
    return json_response(200, {"NetworksDeleted": list(removed) or None})


@routes.add("GET", "/networks/{id}")
async def network_inspect(request: Request, engine: Engine) -> Response:
    """GET /networks/{id} → 200 Network. Operation NetworkInspect."""
    name = request.params["id"]
    request.query.flag("verbose")  # more is shown of swarm networks only
    if request.query.get("scope") not in ("", "local"):
        raise NotFound(f"network {name} not found")
    network = await in_worker(engine.network.get, name)
    return json_response(200, encode_network(network, with_endpoints=True))


@routes.add("DELETE", "/networks/{id}")
async def network_delete(request: Request, engine: Engine) -> Response:
    """DELETE /networks/{id} → 204. Operation NetworkDelete."""
    await in_worker(engine.network.remove, request.params["id"])
    return empty(204)


@routes.add("POST", "/networks/{id}/connect")
async def network_connect(request: Request, engine: Engine) -> Response:
    """POST /networks/{id}/connect → 200. Operation NetworkConnect."""
    body = await request.json(NetworkConnect, _LIMIT_BYTES)
    wanted = endpoint_config(body.endpoint_config) if body.endpoint_config else None
    await in_patient_worker(engine.containers.connect, body.container, request.params["id"], wanted)
    return empty(200)


@routes.add("POST", "/networks/{id}/disconnect")
async def network_disconnect(request: Request, engine: Engine) -> Response:
    """POST /networks/{id}/disconnect → 200. Operation NetworkDisconnect."""
    body = await request.json(NetworkDisconnect, _LIMIT_BYTES)
    await in_patient_worker(engine.containers.disconnect, body.container, request.params["id"], force=body.force)
    return empty(200)


def select(networks: Iterable[NetworkInfo], filters: Filters) -> Sequence[NetworkInfo]:
    """Give the networks that pass every filter. Raises InvalidParameter for a value that makes no sense.

    `name` and `id` are patterns that match any part. Source: moby, daemon/network, filter.go.
    """
    for value in filters.get("type", []):
        if value not in _TYPES:
            raise InvalidParameter(f"invalid filter: 'type'='{value}'")
    dangling = _dangling(filters)
    return [
        network
        for network in networks
        if _matches(network, filters)
        and (dangling is None or dangling == (not network.built_in and not network.endpoints))
    ]


def _dangling(filters: Filters) -> bool | None:
    """Read the filter that asks for networks in use or not. Raises InvalidParameter."""
    values = filters.get("dangling")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter('got more than one value for filter key "dangling"')
    if values[0] in ("true", "1"):
        return True
    if values[0] in ("false", "0"):
        return False
    raise InvalidParameter('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")')


def _matches(network: NetworkInfo, filters: Filters) -> bool:
    return (
        matches_exactly(filters, "driver", network.driver)
        and matches_exactly(filters, "scope", "local")
        and matches_exactly(filters, "type", "builtin" if network.built_in else "custom")
        and matches_labels(filters.get("label", []), network.settings.labels)
        and _fits_pattern(filters, "name", network.name)
        and _fits_pattern(filters, "id", network.id)
    )


def _fits_pattern(filters: Filters, name: str, text: str) -> bool:
    """Whether one of the values is a pattern found in `text`, or is part of it where it is no pattern."""
    values = filters.get(name)
    return not values or any(_found(value, text) for value in values)


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern in text
