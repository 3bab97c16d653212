"""Published ports that the kernel cannot translate: [::1], and addresses of a family that the container does not have.

What arrives is passed on to the container over a connection of our own, from the host's network namespace, so that the
container sees the bridge's address. Several processes may bind such a port for a moment, as the engine holds it before
we do: SO_REUSEPORT lets those of one user.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from ipaddress import ip_address
from typing import Final, cast

from holdfast.attendant.document import Proxy

_CHUNK_BYTES: Final = 1 << 16
_CALLERS_MOST: Final = 1024
_IDLE_S: Final = 90.0
"""How long a caller that sends datagrams is remembered; moby's proxy keeps it as long."""


class Forwarder:
    """Serves one proxied port."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._server: asyncio.Server | None = None
        self._datagrams: _Datagrams | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to serve. Raises OSError where the port is taken."""
        opened = bound_socket(self._proxy)
        try:
            if self._proxy.protocol == "tcp":
                self._server = await asyncio.start_server(self._pass_on, sock=opened, limit=_CHUNK_BYTES)
            else:
                self._datagrams = _Datagrams(self._proxy)
                await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: self._datagrams or _Datagrams(self._proxy), sock=opened
                )
        except OSError:
            opened.close()
            raise

    def close(self) -> None:
        """Serve no more; what is under way is cut."""
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()
        for task in self._tasks:
            task.cancel()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError):
                theirs, ours = await asyncio.open_connection(
                    self._proxy.target, self._proxy.target_port, limit=_CHUNK_BYTES
                )
                try:
                    await asyncio.gather(_pump(reader, ours), _pump(theirs, writer))
                finally:
                    ours.close()
        finally:
            writer.close()
            self._tasks.discard(task)


def bound_socket(proxy: Proxy) -> socket.socket:
    """Give a socket bound to the proxied port. Raises OSError."""
    family = socket.AF_INET6 if ip_address(proxy.host_ip).version == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if proxy.protocol == "tcp" else socket.SOCK_DGRAM
    opened = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((proxy.host_ip, proxy.host_port))
    except OSError:
        opened.close()
        raise
    return opened


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass bytes on until their end, and then the end."""
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()


class _Datagrams(asyncio.DatagramProtocol):
    """The port's own socket: a socket of its own for each caller leads to the container."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._transport: asyncio.DatagramTransport | None = None
        self._callers: dict[tuple[object, ...], _Caller] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        caller = self._callers.get(addr)
        if caller is not None:
            caller.send(data)
            return
        self._forget_idle()
        if len(self._callers) >= _CALLERS_MOST:
            return
        caller = _Caller(self, addr, data)
        self._callers[addr] = caller
        task = asyncio.get_running_loop().create_task(self._open(caller, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answer(self, data: bytes, addr: tuple[object, ...]) -> None:
        """Send what the container says to a caller."""
        if self._transport is not None:
            self._transport.sendto(data, addr)

    def close(self) -> None:
        """Forget everybody."""
        if self._transport is not None:
            self._transport.close()
        for caller in self._callers.values():
            caller.close()
        self._callers.clear()

    async def _open(self, caller: _Caller, addr: tuple[object, ...]) -> None:
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: caller, remote_addr=(self._proxy.target, self._proxy.target_port)
            )
        except OSError:
            self._callers.pop(addr, None)

    def _forget_idle(self) -> None:
        limit = time.monotonic() - _IDLE_S
        for addr in [addr for addr, caller in self._callers.items() if caller.used < limit]:
            self._callers.pop(addr).close()


class _Caller(asyncio.DatagramProtocol):
    """One caller's way to the container."""

    def __init__(self, port: _Datagrams, addr: tuple[object, ...], first: bytes) -> None:
        self._port = port
        self._addr = addr
        self._waiting = [first]
        self._transport: asyncio.DatagramTransport | None = None
        self.used = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        for data in self._waiting:
            self._transport.sendto(data)
        self._waiting.clear()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        self.used = time.monotonic()
        self._port.answer(data, self._addr)

    def send(self, data: bytes) -> None:
        """Pass a datagram on, once the way is open."""
        self.used = time.monotonic()
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._waiting) < 16:
            self._waiting.append(data)

    def close(self) -> None:
        """Close the way."""
        if self._transport is not None:
            self._transport.close()
