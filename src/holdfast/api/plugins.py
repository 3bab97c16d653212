"""Routes of managed plugins, of which this engine has none. Docker Engine API, tag Plugin.

Plugins that run by themselves, found by their sockets, are not listed here, as in Docker: see `info`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.api.filters import decode_filters
from holdfast.api.response import Response, json_response
from holdfast.api.router import Router
from holdfast.errors import InvalidParameter, NotFound

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()

_FILTERS = ("enabled", "capability")


@routes.add_immediate("GET", "/plugins")
def plugin_list(request: Request, _engine: Engine) -> Response:
    """GET /plugins → 200, none. Operation PluginList."""
    for key in decode_filters(request.query.get("filters")):
        if key not in _FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")
    return json_response(200, [])


@routes.add_immediate("GET", "/plugins/{name:.*}/json")
def plugin_inspect(request: Request, _engine: Engine) -> Response:
    """GET /plugins/{name}/json → 404. Operation PluginInspect."""
    raise NotFound(f'plugin "{request.params["name"]}" not found')
