"""Ports of the host: taken by holding a socket on them, so that no other program can take them as well."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Final

from holdfast.errors import InvalidParameter, System, Unavailable
from holdfast.network.model import ANY_ADDRESS, PROTOCOLS, PortRequest, PublishedPort

_TYPES: Final = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_UDP_BUFFER_BYTES: Final = 256
"""Nobody reads from the reserving sockets; what does reach one should not pile up."""

_Key = tuple[str, str, int]


class PortTable:
    """The ports that this engine's containers hold. Safe from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sockets: dict[_Key, socket.socket | None] = {}

    def reserve(self, requests: Sequence[PortRequest]) -> tuple[PublishedPort, ...]:
        """Take a host port for each request: all of them or none.

        Raises System in Docker's words where one is taken, InvalidParameter where a request makes no sense.
        """
        with self._guard, contextlib.ExitStack() as undo:
            published = []
            for request in requests:
                port = self._reserve_one(request)
                undo.callback(self._release_one, port)
                published.append(port)
            undo.pop_all()
        return tuple(published)

    def reserve_again(self, ports: Iterable[PublishedPort]) -> list[PublishedPort]:
        """Take ports that containers had before the engine was restarted; give those that others took meanwhile.

        The latter are held all the same: what comes in from outside still goes to the container.
        """
        lost = []
        with self._guard:
            for port in ports:
                try:
                    self._sockets[_key(port)] = _hold(port.protocol, port.host_ip, port.host_port)
                except OSError:
                    self._sockets[_key(port)] = None
                    lost.append(port)
        return lost

    def release(self, ports: Iterable[PublishedPort]) -> None:
        """Give ports back; others can take them at once."""
        with self._guard:
            for port in ports:
                self._release_one(port)

    def close(self) -> None:
        """Give everything back."""
        with self._guard:
            for holder in self._sockets.values():
                if holder is not None:
                    holder.close()
            self._sockets.clear()

    def _reserve_one(self, request: PortRequest) -> PublishedPort:
        if request.protocol not in PROTOCOLS:
            raise InvalidParameter(f"invalid protocol: {request.protocol}")
        host_ip = _host_ip(request.host_ip)
        first, last = request.host_port, max(request.host_port, request.host_port_last)
        for host_port in range(first, last + 1):
            if host_port and self._is_ours(request.protocol, host_ip, host_port):
                continue
            try:
                holder = _hold(request.protocol, host_ip, host_port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and first != last:
                    continue
                why = (os.strerror(error.errno) if error.errno else str(error)).lower()
                raise System(f"failed to bind host port {host_ip}:{host_port}/{request.protocol}: {why}") from error
            if not host_port:
                host_port = _chosen_port(holder)
            port = PublishedPort(request.container_port, request.protocol, host_ip, host_port)
            self._sockets[_key(port)] = holder
            return port
        if first != last:
            raise System(f"Bind for {host_ip}:{first}-{last} failed: all ports are allocated")
        raise System(f"Bind for {host_ip}:{first} failed: port is already allocated")

    def _release_one(self, port: PublishedPort) -> None:
        holder = self._sockets.pop(_key(port), None)
        if holder is not None:
            holder.close()

    def _is_ours(self, protocol: str, host_ip: str, host_port: int) -> bool:
        for held_protocol, held_ip, held_port in self._sockets:
            if (held_protocol, held_port) == (protocol, host_port) and (
                held_ip == host_ip or ANY_ADDRESS in (held_ip, host_ip)
            ):
                return True
        return False


def _host_ip(text: str) -> str:
    try:
        address = ip_address(text or ANY_ADDRESS)
    except ValueError as error:
        raise InvalidParameter(f"invalid host IP address: {text}") from error
    if isinstance(address, IPv6Address):
        raise InvalidParameter(
            f"cannot publish on {text}: the default bridge has IPv4 only", hint="publish on an IPv4 address"
        )
    return str(address)


def _key(port: PublishedPort) -> _Key:
    return port.protocol, port.host_ip, port.host_port


def _hold(protocol: str, host_ip: str, host_port: int) -> socket.socket | None:
    """Bind a socket there; None for a protocol that this kernel does not speak itself but can forward."""
    kind, number = _TYPES[protocol]
    try:
        holder = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if protocol == "sctp" and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if kind == socket.SOCK_STREAM:
            # Connections that ended a moment ago do not count as users of the port; a listener does.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
        holder.bind((host_ip, host_port))
        if kind == socket.SOCK_STREAM:
            holder.listen(1)
    except OSError:
        holder.close()
        raise
    return holder


def _chosen_port(holder: socket.socket | None) -> int:
    if holder is None:
        raise Unavailable("this kernel has no SCTP to choose a port with", hint="name the host's port")
    port: int = holder.getsockname()[1]
    return port
