"""Listening: sockets made or handed over, connections accepted, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import select
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import log
from holdfast.api.http import Connection
from holdfast.api.tls import TlsTransport
from holdfast.errors import Conflict, InvalidParameter, System

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.router import Router

logger = log.get(__name__)

BACKLOG = 512
_PROBE_S = 2.0
_TURN_S = 0.02
_FLUSH_TURNS = 25


class Server:
    """The listening sockets and every open connection. All methods belong to the event loop's thread."""

    def __init__(self, engine: Engine, routes: Router) -> None:
        self.engine = engine
        self.routes = routes
        self.connections: set[Connection] = set()
        self.stopping = False
        self.hangups = Hangups()
        self._listeners: list[asyncio.Server] = []

    async def listen(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Accept on `sockets`; those that are not unix sockets need `tls`. Raises InvalidParameter."""
        loop = asyncio.get_running_loop()
        if (tls is None or tls.verify_mode != ssl.CERT_REQUIRED) and any(
            sock.family != socket.AF_UNIX for sock in sockets
        ):
            raise InvalidParameter("refusing to listen on TCP without TLS client verification")

        def plain() -> Connection:
            return Connection(self, loop)

        def encrypted() -> TlsTransport:
            assert tls is not None
            return TlsTransport(tls, Connection(self, loop), loop)

        for sock in sockets:
            sock.setblocking(False)
            factory: Callable[[], asyncio.Protocol] = plain if sock.family == socket.AF_UNIX else encrypted
            self._listeners.append(await loop.create_server(factory, sock=sock, backlog=BACKLOG))

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, give running requests `grace_s` seconds, then close every connection.

        Open-ended streams (events, logs, wait, attach) are not waited for.
        """
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self.connections):
            connection.close_when_idle()
        deadline = asyncio.get_running_loop().time() + grace_s
        while any(connection.is_busy for connection in self.connections):
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(_TURN_S)
        for connection in tuple(self.connections):
            connection.close_when_idle()
        for _ in range(_FLUSH_TURNS):
            if not self.connections:
                break
            await asyncio.sleep(_TURN_S)
        for connection in tuple(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # connection_lost() is called in the next turn of the loop
        self.hangups.close()


async def serve(
    sockets: Sequence[socket.socket], engine: Engine, routes: Router, *, tls: ssl.SSLContext | None = None
) -> Server:
    """Answer the API on bound sockets: ours, or those of socket activation.

    Raises InvalidParameter for TCP without TLS.
    """
    server = Server(engine, routes)
    await server.listen(sockets, tls)
    return server


class Hangups:
    """Tells when a client that has half-closed its side is gone altogether.

    Reading cannot tell the two apart, and the event loop asks for nothing else. An epoll of its own, with an empty
    mask, reports EPOLLHUP alone; the loop watches that epoll's descriptor. Source: epoll_ctl(2).
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[], None]] = {}

    def watch(self, transport: asyncio.BaseTransport, gone: Callable[[], None]) -> None:
        """Call `gone` once when both directions of the transport's socket are closed by the client."""
        fd = _fileno(transport)
        if fd < 0 or fd in self._watched:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._report)
        self._epoll.register(fd, 0)
        self._watched[fd] = gone

    def forget(self, transport: asyncio.BaseTransport) -> None:
        """Watch no longer; harmless for what is not watched."""
        self._unregister(_fileno(transport))

    def _unregister(self, fd: int) -> Callable[[], None] | None:
        gone = self._watched.pop(fd, None)
        if gone is not None and self._epoll is not None:
            self._epoll.unregister(fd)
        return gone

    def _report(self) -> None:
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            gone = self._unregister(fd)
            if gone is not None:
                gone()

    def close(self) -> None:
        """Give back the descriptor."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        self._watched.clear()


def _fileno(transport: asyncio.BaseTransport) -> int:
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def unix_socket(path: Path, *, mode: int, group: str) -> socket.socket:
    """Make a listening unix socket that appears at `path` with its mode and group already set.

    A socket there that nobody answers on is replaced. Raises Conflict if an engine answers there or if `path` is
    something else, InvalidParameter for an unknown group, System if the directory refuses.
    """
    try:
        _clear_stale(path)
        gid = _group_id(group)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Bound under another name and renamed: nobody can connect before owner and mode are right.
            hidden = path.with_name(f".{path.name}.{os.getpid()}")
            hidden.unlink(missing_ok=True)
            old_umask = os.umask(0o177)
            try:
                sock.bind(str(hidden))
            finally:
                os.umask(old_umask)
            if gid is not None:
                os.chown(hidden, -1, gid)
            hidden.chmod(mode)
            sock.listen(BACKLOG)
            hidden.rename(path)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise System(f"cannot listen on {path}: {error.strerror}") from error
    return sock


def _clear_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(f"cannot listen on {path}: there is something else of that name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in {errno.ECONNREFUSED, errno.ENOENT}:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                return
            raise
    raise Conflict(f"cannot listen on {path}: another engine answers there")


def _group_id(group: str) -> int | None:
    """Give the id of the group that owns the socket; with no name: holdfast, else docker, else none."""
    for name in (group,) if group else ("holdfast", "docker"):
        if name.isdigit():
            return int(name)
        with contextlib.suppress(KeyError):
            return grp.getgrnam(name).gr_gid
    if group:
        raise InvalidParameter(f"group {group} of the API socket does not exist")
    return None


def tcp_sockets(address: str) -> list[socket.socket]:
    """Bind `host:port` (or `[v6]:port`); an empty host means every address. Raises InvalidParameter, System."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise InvalidParameter(f"invalid TCP address {address}: want host:port")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets: list[socket.socket] = []
        for family, kind, protocol, _, where in found:
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
    except OSError as error:
        raise System(f"cannot listen on {address}: {error.strerror}") from error
    return sockets
