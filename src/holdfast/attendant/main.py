"""The program: `python -I -m holdfast.attendant.main DIRECTORY FD`, FD being the listening control socket.

It takes up what the files in DIRECTORY say, then does what it is told over the control socket; see `document`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

import dns.message
import dns.rcode

from holdfast.attendant import document, names
from holdfast.attendant.desk import Desk, open_sockets
from holdfast.attendant.proxy import Forwarder
from holdfast.attendant.upstream import HostServers, ask

_LOOK_S: Final = 10.0
"""How often it looks whether its directory is still there: without it nobody will ever come again."""
_IDLE_S: Final = 600.0
"""How long it stays when it has nothing to do."""


class Attendant:
    """Everything that this process does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names = names.Directory()
        self._desks: dict[str, Desk] = {}
        self._forwarders: dict[str, dict[document.Proxy, Forwarder]] = {}
        self._host = HostServers()
        self._busy_until = time.monotonic()
        self.ended = asyncio.Event()

    async def take_up(self) -> None:
        """Serve every container that has a file."""
        for path in sorted(self._directory.iterdir()):
            if path.name != document.CONTROL and not path.name.startswith("."):
                await self._serve(path.name)

    def idle_s(self) -> float:
        """Give for how long there has been nothing to do, in seconds."""
        if self._names.all():
            self._busy_until = time.monotonic()
        return time.monotonic() - self._busy_until

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one engine says until it goes."""
        with contextlib.suppress(OSError, EOFError):
            while line := await reader.readline():
                writer.write(json.dumps(await self._do(json.loads(line))).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _do(self, wish: dict[str, Any]) -> dict[str, object]:
        if wish["do"] == "serve":
            return await self._serve(wish["id"])
        if wish["do"] == "drop":
            self._drop(wish["id"])
            await _closed()
        elif wish["do"] == "end":
            self.ended.set()
        return {"version": document.VERSION}

    async def _serve(self, container_id: str) -> dict[str, object]:
        try:
            wanted = document.read(self._directory / container_id)
        except (OSError, ValueError, TypeError, KeyError) as error:
            self._drop(container_id)
            return {"error": f"cannot read what to serve: {error}"}
        known = self._names.get(container_id)
        self._names.put(wanted)
        troubles = await self._serve_ports(wanted)
        if not wanted.memberships:
            self._close_desk(container_id)
        elif known is None or known.namespace != wanted.namespace or container_id not in self._desks:
            troubles += await self._open_desk(wanted)
        return {"error": "; ".join(troubles)} if troubles else {}

    async def _open_desk(self, wanted: document.Document) -> list[str]:
        container_id = wanted.id
        self._close_desk(container_id)
        try:
            sockets = await asyncio.to_thread(open_sockets, wanted.namespace)
        except OSError as error:
            return [str(error)]

        async def answer(question: bytes, by_stream: bool) -> bytes | None:
            return await self._answer(container_id, question, by_stream=by_stream)

        desk = Desk(answer)
        await desk.open(sockets)
        self._desks[container_id] = desk
        return []

    async def _serve_ports(self, wanted: document.Document) -> list[str]:
        """Serve the proxied ports of a container and no others; gives what cannot be."""
        known = self._forwarders.setdefault(wanted.id, {})
        for gone in known.keys() - set(wanted.proxies):
            known.pop(gone).close()
        await _closed()
        troubles = []
        for proxy in wanted.proxies:
            if proxy not in known:
                forwarder = Forwarder(proxy)
                try:
                    await forwarder.open()
                except OSError as error:
                    troubles.append(f"{proxy.host_ip}:{proxy.host_port}/{proxy.protocol}: {error}")
                else:
                    known[proxy] = forwarder
        return troubles

    def _drop(self, container_id: str) -> None:
        self._names.drop(container_id)
        self._close_desk(container_id)
        for forwarder in self._forwarders.pop(container_id, {}).values():
            forwarder.close()

    def _close_desk(self, container_id: str) -> None:
        desk = self._desks.pop(container_id, None)
        if desk is not None:
            desk.close()

    async def _answer(self, container_id: str, question: bytes, *, by_stream: bool) -> bytes | None:
        query, asker = names.parse(question), self._names.get(container_id)
        if query is None or asker is None:
            return None
        own = names.answer(self._names, asker, query)
        if own is None and asker.asks_outside:
            servers = asker.servers or self._host.get()
            answer = await ask(question, servers, by_stream=by_stream)
            if answer is not None:
                return answer
        return names.pack(query, own or names.failure(query, dns.rcode.SERVFAIL), by_stream=by_stream)


async def _closed() -> None:
    """Let the loop close what it was told to close: it does so at its next turns."""
    for _ in range(2):
        await asyncio.sleep(0)


async def serve(directory: Path, control: socket.socket) -> None:
    """Serve until told to end."""
    attendant = Attendant(directory)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, attendant.ended.set)
    await attendant.take_up()
    server = await asyncio.start_unix_server(attendant.control, sock=control)
    while await asyncio.to_thread(directory.is_dir) and attendant.idle_s() < _IDLE_S:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(attendant.ended.wait(), _LOOK_S)
            break
    server.close()


def main() -> None:
    """Run it."""
    directory, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    os.chdir("/")
    asyncio.run(serve(directory, socket.socket(fileno=descriptor)))


if __name__ == "__main__":
    main()
