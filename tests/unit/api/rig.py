"""A server on a real unix socket with routes for tests, and a client that sends and reads raw bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from holdfast.api.engine import Engine
from holdfast.api.request import RAW_STREAM, ClientGone, Request
from holdfast.api.response import Response, StreamResponse, empty, json_response, text_response
from holdfast.api.router import Router
from holdfast.api.server import Server, serve, unix_socket
from holdfast.api.status import plain_error
from holdfast.api.streams import bytes_response, progress_response
from holdfast.api.worker import BodyReader, in_worker
from holdfast.errors import Conflict, NotFound, NotModified

TIMEOUT_S = 20.0


class Named(msgspec.Struct, rename="pascal"):
    """A small body."""

    name: str = ""
    count: int = 0


@dataclass
class Seen:
    """What the handlers noticed."""

    disconnects: list[str] = field(default_factory=list)
    uploaded_bytes: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    written_bytes: int = 0


@dataclass
class Reply:
    """One answer, taken apart; `head` has the bytes up to the blank line."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes


class Client:
    """Raw bytes on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)

    def half_close(self) -> None:
        """Close the writing side."""
        self.writer.write_eof()

    async def close(self) -> None:
        """Close both sides at once."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass

    async def exactly(self, count: int) -> bytes:
        """Read `count` bytes."""
        return await asyncio.wait_for(self.reader.readexactly(count), TIMEOUT_S)

    async def rest(self) -> bytes:
        """Read up to the end."""
        return await asyncio.wait_for(self.reader.read(), TIMEOUT_S)

    async def head(self) -> tuple[int, dict[str, str], bytes]:
        """Read a head."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split(" ")[1]), headers, raw

    async def reply(self, *, head_only: bool = False) -> Reply:
        """Read a whole answer."""
        status, headers, raw = await self.head()
        body = b""
        if head_only or status in {100, 101, 204, 304}:
            pass
        elif "content-length" in headers:
            body = await self.exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while True:
                size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), TIMEOUT_S), 16)
                body += await self.exactly(size)
                assert await self.exactly(2) == b"\r\n"
                if not size:
                    break
        else:
            body = await self.rest()
        return Reply(status, headers, body, raw)


@dataclass
class Rig:
    """The server and how to reach it."""

    path: Path
    server: Server
    seen: Seen
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        """Open a connection."""
        client = Client(*await asyncio.open_unix_connection(str(self.path)))
        self.clients.append(client)
        return client

    async def ask(self, request: bytes) -> Reply:
        """Send a request on a connection of its own; HEAD is read as such."""
        client = await self.connect()
        client.send(request)
        reply = await client.reply(head_only=request.startswith(b"HEAD "))
        await client.close()
        return reply


def get(path: str, method: str = "GET", *headers: str, body: bytes = b"") -> bytes:
    """Write a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def api_test(test: Callable[[Rig], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Run a coroutine against a server that is gone without a trace afterwards."""

    def run(tmp_path: Path) -> None:
        asyncio.run(_run(test, tmp_path / "api.sock"))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def _run(test: Callable[[Rig], Coroutine[Any, Any, None]], path: Path) -> None:
    seen = Seen()
    sock = unix_socket(path, mode=0o600, group="0")
    rig = Rig(path, await serve([sock], cast(Engine, None), _routes(seen)), seen)
    try:
        await asyncio.wait_for(test(rig), TIMEOUT_S)
    finally:
        seen.release.set()
        for client in rig.clients:
            await client.close()
        await rig.server.stop(1.0)
        leftovers = asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}
        if leftovers:
            await asyncio.wait(leftovers, timeout=2.0)
        assert not [task for task in leftovers if not task.done()]
        assert not rig.server.connections


def _routes(seen: Seen) -> Router:
    routes = Router()

    @routes.add("GET", "/_ping")
    async def ping(request: Request, engine: Engine) -> Response:
        return text_response(200, "OK")

    @routes.add("HEAD", "/_ping")
    async def ping_head(request: Request, engine: Engine) -> Response:
        return text_response(200, "OK")

    @routes.add("POST", "/echo")
    async def echo(request: Request, engine: Engine) -> Response:
        return Response(200, {"Content-Type": "x/y"}, await request.body(1 << 20))

    @routes.add("POST", "/named")
    async def named(request: Request, engine: Engine) -> Response:
        body = await request.json(Named, 1 << 10)
        return json_response(201, {"Name": body.name, "Count": body.count})

    @routes.add("GET", "/where/{id}/{rest:.*}")
    async def where(request: Request, engine: Engine) -> Response:
        return json_response(
            200, {"params": request.params, "version": request.api_version, "all": request.query.all("a")}
        )

    @routes.add("GET", "/conflict")
    async def conflict(request: Request, engine: Engine) -> Response:
        raise Conflict("a <b> & \udcff")

    @routes.add("GET", "/unmodified")
    async def unmodified(request: Request, engine: Engine) -> Response:
        raise NotModified("same")

    @routes.add("GET", "/boom")
    async def boom(request: Request, engine: Engine) -> Response:
        raise ZeroDivisionError("first line\nsecond line")

    @routes.add("POST", "/ignore")
    async def ignore(request: Request, engine: Engine) -> Response:
        return empty(204)

    @routes.add("POST", "/upload")
    async def upload(request: Request, engine: Engine) -> Response:
        await seen.release.wait()
        try:
            async for piece in request.stream():
                seen.uploaded_bytes += len(piece)
        except ClientGone:
            seen.disconnects.append("upload")
            raise
        return json_response(200, seen.uploaded_bytes)

    @routes.add("POST", "/upload-to-worker")
    async def upload_to_worker(request: Request, engine: Engine) -> Response:
        body = BodyReader(request.stream())
        try:
            data = await in_worker(body.readall)
        finally:
            await body.aclose()
        return json_response(200, len(data or b""))

    @routes.add("GET", "/sleep")
    async def sleep(request: Request, engine: Engine) -> Response:
        await in_worker(time.sleep, 0.3)
        return text_response(200, "slept")

    @routes.add("GET", "/wait")
    async def wait(request: Request, engine: Engine) -> StreamResponse:
        async def items() -> AsyncIterator[bytes]:
            try:
                await seen.release.wait()
                yield b'{"StatusCode":0}\n'
            finally:
                seen.disconnects.append("wait")

        return StreamResponse(200, {"Content-Type": "application/json"}, items())

    @routes.add("GET", "/flood")
    async def flood(request: Request, engine: Engine) -> StreamResponse:
        async def items() -> AsyncIterator[bytes]:
            while True:
                seen.written_bytes += 65536
                yield bytes(65536)
                await asyncio.sleep(0)

        return StreamResponse(200, {}, items())

    @routes.add("GET", "/broken-stream")
    async def broken(request: Request, engine: Engine) -> StreamResponse:
        async def items() -> AsyncIterator[bytes]:
            yield b"some"
            raise Conflict("late")

        return StreamResponse(200, {}, items())

    @routes.add("GET", "/progress")
    async def progress(request: Request, engine: Engine) -> StreamResponse:
        def work(emit: Callable[[dict[str, Any]], None]) -> None:
            if request.query.flag("early"):
                raise NotFound("no such thing")
            for number in range(100):
                emit({"status": f"step {number}"})
            raise Conflict("late")

        return await progress_response(work)

    @routes.add("GET", "/archive")
    async def archive(request: Request, engine: Engine) -> StreamResponse:
        def work(emit: Callable[[bytes], None]) -> None:
            try:
                while True:
                    emit(bytes(65536))
                    seen.written_bytes += 65536
            except ClientGone:
                seen.disconnects.append("archive")
                raise

        return await bytes_response(work, {"Content-Type": "application/x-tar"})

    @routes.add("POST", "/attach/{how}")
    async def attach(request: Request, engine: Engine) -> Response | None:
        if request.params["how"] == "missing":
            return plain_error(NotFound("No such container: nope"))
        body = await request.body()
        stream = await request.hijack(RAW_STREAM, engine_headers=request.params["how"] == "exec")
        if request.params["how"] == "quiet":
            await stream.disconnected
            seen.disconnects.append("quiet")
            return None
        if request.params["how"] == "flood":
            try:
                while True:
                    await stream.write(bytes(65536))
                    seen.written_bytes += 65536
            except ClientGone:
                seen.disconnects.append("flood")
                return None
        if request.params["how"] == "deaf":
            await seen.release.wait()
        await stream.write(b"[%b]" % body)
        while data := await stream.read():
            await stream.write(data.upper())
        await stream.write(b"after-eof")
        stream.close()
        return None

    return routes
