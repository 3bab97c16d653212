"""Route of the check of a volume's storage: our own extension below `/holdfast`, which Docker's API does not use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.api.response import Response, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker
from holdfast.wire.checks import encode_check

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

routes = Router()


@routes.add("POST", "/holdfast/volumes/{name:.*}/check")
async def volume_check(request: Request, engine: Engine) -> Response:
    """POST /holdfast/volumes/{name}/check → 200 the steps from its options to its data, up to the first that fails."""
    name = request.params["name"]
    return json_response(200, encode_check(name, await in_patient_worker(engine.volumes.check, name)))
