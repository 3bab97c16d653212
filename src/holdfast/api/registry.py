"""Routes that ask a registry something. Docker Engine API, tags System (`/auth`), Distribution, Image (`/search`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from holdfast.api.filters import decode_filters
from holdfast.api.response import Response, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker
from holdfast.errors import InvalidParameter, Unsupported
from holdfast.wire.images import decode_credentials, decode_login, encode_distribution

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()

_SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})
_SEARCH_MAX = 100
_TRUE_OR_FALSE = frozenset({"1", "0", "true", "false"})


@routes.add("POST", "/auth")
async def auth(request: Request, engine: Engine) -> Response:
    """POST /auth → 200 Status and IdentityToken. Operation SystemAuth."""
    server, credentials = decode_login(await request.body())
    token = await in_patient_worker(engine.images.registries.log_in, server, credentials)
    return json_response(200, {"IdentityToken": token, "Status": "Login Succeeded"})


@routes.add("GET", "/distribution/{name:.*}/json", since=(1, 30))
async def distribution_inspect(request: Request, engine: Engine) -> Response:
    """GET /distribution/{name}/json → 200 DistributionInspect. Operation DistributionInspect."""
    credentials = decode_credentials(request.headers.get("x-registry-auth", ""))
    found = await in_patient_worker(engine.images.registries.distribution, request.params["name"], credentials)
    return json_response(200, encode_distribution(found))


@routes.add("GET", "/images/search")
async def image_search(request: Request, _engine: Engine) -> Response:
    """GET /images/search → 501 once the request makes sense. Operation ImageSearch."""
    limit = request.query.get("limit")
    if limit:
        if not re.fullmatch(r"[+-]?[0-9]+", limit):
            raise InvalidParameter(f'invalid limit specified: strconv.Atoi: parsing "{limit}": invalid syntax')
        if int(limit) and not 1 <= int(limit) <= _SEARCH_MAX:
            raise InvalidParameter(f"limit {int(limit)} is outside the range of [1, {_SEARCH_MAX}]")
    filters = decode_filters(request.query.get("filters"))
    for key, values in filters.items():
        if key not in _SEARCH_FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")
        for value in values:
            if key == "stars" and not value.isdecimal():
                why = f'strconv.Atoi: parsing "{value}": invalid syntax'
                raise InvalidParameter(f"invalid filter 'stars={value}': {why}")
            if key != "stars" and value not in _TRUE_OR_FALSE:
                raise InvalidParameter(f"invalid filter '{key}=[{' '.join(values)}]'")
    raise Unsupported("search is a service of Docker Hub that this engine does not use; see https://hub.docker.com")
