"""Routes of networks. Docker Engine API, tag Network. The three built-in networks can be looked at, not changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from holdfast.api.filters import (
    Filters,
    boolean_filter,
    decode_filters,
    invalid_filter,
    matches_exactly,
    matches_labels,
)
from holdfast.api.response import Response, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_worker
from holdfast.errors import Forbidden, Unsupported
from holdfast.wire.networks import encode_network

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.network.model import NetworkInfo

routes = Router()

_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})
_TYPES = frozenset({"builtin", "custom"})
_HINT = "use the networks bridge, host and none"


@routes.add("GET", "/networks")
async def network_list(request: Request, engine: Engine) -> Response:
    """GET /networks → 200 the networks. Operation NetworkList."""
    filters = decode_filters(request.query.get("filters"), _FILTERS)
    networks = await in_worker(engine.network.list)
    shapes = [encode_network(network, with_endpoints=False) for network in select(networks, filters)]
    return json_response(200, shapes)


@routes.add("POST", "/networks/create")
async def network_create(request: Request, engine: Engine) -> Response:
    """POST /networks/create → 501. Operation NetworkCreate."""
    raise Unsupported("creating networks is not supported yet", hint=_HINT)


@routes.add("POST", "/networks/prune", since=(1, 25))
async def network_prune(request: Request, engine: Engine) -> Response:
    """POST /networks/prune → 200; built-in networks are never pruned. Operation NetworkPrune."""
    decode_filters(request.query.get("filters"), _PRUNE_FILTERS)
    return json_response(200, {"NetworksDeleted": None})


@routes.add("GET", "/networks/{id}")
async def network_inspect(request: Request, engine: Engine) -> Response:
    """GET /networks/{id} → 200 Network. Operation NetworkInspect."""
    network = await in_worker(engine.network.get, request.params["id"])
    return json_response(200, encode_network(network, with_endpoints=True))


@routes.add("DELETE", "/networks/{id}")
async def network_delete(request: Request, engine: Engine) -> Response:
    """DELETE /networks/{id} → 403 for a built-in network, and there are no others. Operation NetworkDelete."""
    network = await in_worker(engine.network.get, request.params["id"])
    raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")


@routes.add("POST", "/networks/{id}/connect")
async def network_connect(request: Request, engine: Engine) -> Response:
    """POST /networks/{id}/connect → 501. Operation NetworkConnect."""
    network = await in_worker(engine.network.get, request.params["id"])
    raise Unsupported(f"connecting a container to network {network.name} is not supported yet", hint=_HINT)


@routes.add("POST", "/networks/{id}/disconnect")
async def network_disconnect(request: Request, engine: Engine) -> Response:
    """POST /networks/{id}/disconnect → 501. Operation NetworkDisconnect."""
    network = await in_worker(engine.network.get, request.params["id"])
    raise Unsupported(f"disconnecting a container from network {network.name} is not supported yet", hint=_HINT)


def select(networks: Iterable[NetworkInfo], filters: Filters) -> Sequence[NetworkInfo]:
    """Give the networks that pass every filter. Raises InvalidParameter for a value that makes no sense.

    `name` and `id` match any part. Source: moby, daemon/network, filter.go.
    """
    types = filters.get("type", [])
    if any(value not in _TYPES for value in types):
        raise invalid_filter("type", types)
    if types and "builtin" not in types:
        return []
    if not matches_labels(filters.get("label", []), {}):
        return []
    kept = [network for network in networks if _matches(network, filters)]
    if "dangling" in filters:
        # Built-in networks count as in use.
        return [] if boolean_filter(filters, "dangling", default=False) else kept
    return kept


def _matches(network: NetworkInfo, filters: Filters) -> bool:
    return (
        matches_exactly(filters, "driver", network.driver)
        and matches_exactly(filters, "scope", "local")
        and _contains(filters, "name", network.name)
        and _contains(filters, "id", network.id)
    )


def _contains(filters: Filters, name: str, text: str) -> bool:
    values = filters.get(name)
    return not values or any(value in text for value in values)
