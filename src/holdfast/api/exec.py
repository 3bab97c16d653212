"""Routes of execs. Docker Engine API, tag Exec."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from holdfast.api import container_shapes as shapes
from holdfast.api.attach import Pump, frame, parse_detach_keys
from holdfast.api.container_streams import size_of_terminal
from holdfast.api.request import ClientGone
from holdfast.api.response import Response, empty, json_response
from holdfast.api.router import Router
from holdfast.api.worker import in_patient_worker, in_worker
from holdfast.containers.exec import Exec
from holdfast.errors import EngineError
from holdfast.runtime.attach import STDOUT
from holdfast.wire.exec import ExecCreate, ExecStart, encode_id

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.hijack import HijackedStream
    from holdfast.api.request import Request

routes = Router()


@routes.add("POST", "/containers/{id}/exec")
async def exec_create(request: Request, engine: Engine) -> Response:
    """POST /containers/{id}/exec → 201 Id. Operation ContainerExec."""
    body = await request.json(ExecCreate)
    parse_detach_keys(body.detach_keys, what="escape")
    if body.user:
        await in_worker(engine.containers.execs.check_user, request.params["id"], body.user)
    made = engine.containers.execs.create(request.params["id"], shapes.exec_config(body))
    return json_response(201, encode_id(made.id))


@routes.add("POST", "/exec/{id}/start")
async def exec_start(request: Request, engine: Engine) -> Response | None:
    """POST /exec/{id}/start → 101 and the streams, or 200 once it runs with Detach. Operation ExecStart."""
    body = await request.json(ExecStart)
    execs = engine.containers.execs
    found = execs.check_startable(request.params["id"], shapes.console_size(body.console_size))
    if body.detach:
        await in_worker(execs.start, found, attach=False)
        return empty(200)
    stream = await request.hijack(request.stream_content_type(tty=found.config.tty), engine_headers=True)
    try:
        try:
            connection = await in_worker(execs.start, found, attach=True)
        except EngineError as error:
            text = f"{error}\r\n".encode()
            await stream.write(text if found.config.tty else frame(STDOUT, text))
            return None
        assert connection is not None, "an attached exec has a socket"
        await _pump(stream, connection, found, engine)
    except ClientGone:
        pass
    finally:
        stream.close()
    return None


async def _pump(stream: HijackedStream, connection: socket.socket, found: Exec, engine: Engine) -> None:
    """Carry the streams; the exit code is final when the client's stream ends, as clients ask for it at once."""
    config = found.config
    pump = Pump(
        stream,
        connection,
        engine.config.state_root,
        tty=config.tty,
        stdin=config.attach_stdin,
        stdout=config.attach_stdout,
        stderr=config.attach_stderr,
        detach_keys=parse_detach_keys(config.detach_keys),
        stdin_once=config.attach_stdin,
    )
    try:
        if await pump.run():
            await _ended(found, stream)
    finally:
        engine.containers.execs.let_go(found)


async def _ended(found: Exec, stream: HijackedStream) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle)

    found.when_ended(tell)
    await asyncio.wait((ended, stream.disconnected), return_when=asyncio.FIRST_COMPLETED)


@routes.add("POST", "/exec/{id}/resize")
async def exec_resize(request: Request, engine: Engine) -> Response:
    """POST /exec/{id}/resize?h=&w= → 200. Operation ExecResize."""
    rows, columns = size_of_terminal(request)
    await in_patient_worker(engine.containers.execs.resize, request.params["id"], rows, columns)
    return empty(200)


@routes.add_immediate("GET", "/exec/{id}/json")
def exec_inspect(request: Request, engine: Engine) -> Response:
    """GET /exec/{id}/json → 200 what it is and how it ended. Operation ExecInspect."""
    return json_response(200, shapes.exec_inspect(engine.containers.execs.get(request.params["id"])))
