"""Ports of the host: taken by holding a socket on them, so that no other program can take them as well."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from holdfast.attendant.document import Proxy
from holdfast.attendant.proxy import bound_socket
from holdfast.errors import InvalidParameter, System, Unavailable
from holdfast.network.model import ANY_ADDRESS, ANY_ADDRESS6, PROTOCOLS, PortRequest, PublishedPort

_TYPES: Final = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_UDP_BUFFER_BYTES: Final = 256
"""Nobody reads from the reserving sockets; what does reach one should not pile up."""

_ANY: Final = {False: ANY_ADDRESS, True: ANY_ADDRESS6}
IPV4_ONLY: Final = frozenset({4})
_RANDOM_ATTEMPTS: Final = 8
_NO_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

_Key = tuple[str, str, int]


class PortTable:
    """The ports that this engine's containers hold. Safe from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sockets: dict[_Key, socket.socket | None] = {}

    def reserve(
        self, requests: Sequence[PortRequest], *, versions: frozenset[int] = IPV4_ONLY, both: bool = False
    ) -> tuple[PublishedPort, ...]:
        """Take a host port for each request: all of them or none.

        `versions` are the IP versions that the container speaks. With `both` a request for every address means those
        of IPv6, too, where the host has any: one port, published twice. Raises System in Docker's words where a port
        is taken, InvalidParameter where a request makes no sense.
        """
        published: list[PublishedPort] = []
        with self._guard, contextlib.ExitStack() as undo:
            for request in requests:
                for port in self._reserve_one(request, versions, both=both):
                    undo.callback(self._release_one, port)
                    published.append(port)
            undo.pop_all()
        return tuple(published)

    def reserve_again(
        self, ports: Iterable[PublishedPort], *, versions: frozenset[int] = IPV4_ONLY
    ) -> list[PublishedPort]:
        """Take ports that containers had before the engine was restarted; give those that others took meanwhile.

        The latter are held all the same: what comes in from outside still goes to the container.
        """
        lost = []
        with self._guard:
            for port in ports:
                try:
                    self._sockets[_key(port)] = _hold(port, shared=port.is_proxied(versions))
                except OSError:
                    self._sockets[_key(port)] = None
                    lost.append(port)
        return lost

    def hand_over(self, ports: Iterable[PublishedPort]) -> None:
        """Close the sockets of ports that somebody else serves now; they stay taken."""
        with self._guard:
            for port in ports:
                holder = self._sockets.get(_key(port))
                if holder is not None:
                    holder.close()
                    self._sockets[_key(port)] = None

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

    def _reserve_one(self, request: PortRequest, versions: frozenset[int], *, both: bool) -> tuple[PublishedPort, ...]:
        if request.protocol not in PROTOCOLS:
            raise InvalidParameter(f"invalid protocol: {request.protocol}")
        host_ips = _host_ips(request, both=both)
        first, last = request.host_port, max(request.host_port, request.host_port_last)
        attempts: Iterable[int] = range(first, last + 1) if first else [0] * _RANDOM_ATTEMPTS
        for host_port in attempts:
            if host_port and any(self._is_ours(request.protocol, host_ip, host_port) for host_ip in host_ips):
                continue
            try:
                return self._take(request, host_ips, host_port, versions)
            except _Refused as refused:
                error = refused.error
                if error.errno == errno.EADDRINUSE and (first != last or not first):
                    continue
                why = (os.strerror(error.errno) if error.errno else str(error)).lower()
                where = f"{shown_address(refused.host_ip)}:{refused.host_port}"
                raise System(f"failed to bind host port {where}/{request.protocol}: {why}") from error
        where = shown_address(host_ips[0])
        if first != last:
            raise System(f"Bind for {where}:{first}-{last} failed: all ports are allocated")
        raise System(f"Bind for {where}:{first} failed: port is already allocated")

    def _take(
        self, request: PortRequest, host_ips: Sequence[str], host_port: int, versions: frozenset[int]
    ) -> tuple[PublishedPort, ...]:
        """Hold one port at each address; a chosen one is the same everywhere. Raises _Refused."""
        taken: list[PublishedPort] = []
        with contextlib.ExitStack() as undo:
            for host_ip in host_ips:
                port = PublishedPort(request.container_port, request.protocol, host_ip, host_port)
                shared = port.is_proxied(versions)
                try:
                    if shared:
                        _check_free(port)
                    holder = _hold(port, shared=shared)
                except OSError as error:
                    if host_ip == ANY_ADDRESS6 and taken and error.errno in _NO_IPV6:
                        continue
                    raise _Refused(error, host_ip, host_port) from error
                if not host_port:
                    host_port = _chosen_port(holder)
                    port = replace(port, host_port=host_port)
                self._sockets[_key(port)] = holder
                undo.callback(self._release_one, port)
                taken.append(port)
            undo.pop_all()
        return tuple(taken)

    def _release_one(self, port: PublishedPort) -> None:
        holder = self._sockets.pop(_key(port), None)
        if holder is not None:
            holder.close()

    def _is_ours(self, protocol: str, host_ip: str, host_port: int) -> bool:
        for held_protocol, held_ip, held_port in self._sockets:
            if (
                (held_protocol, held_port) == (protocol, host_port)
                and (held_ip == host_ip or _ANY[":" in host_ip] in (held_ip, host_ip))
                and (":" in held_ip) == (":" in host_ip)
            ):
                return True
        return False


class _Refused(Exception):
    """The kernel does not give us a port."""

    def __init__(self, error: OSError, host_ip: str, host_port: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.host_ip = host_ip
        self.host_port = host_port


def shown_address(host_ip: str) -> str:
    """Give an address as it stands before a port."""
    return f"[{host_ip}]" if ":" in host_ip else host_ip


def _host_ips(request: PortRequest, *, both: bool) -> tuple[str, ...]:
    """Give the addresses to publish at; none given means every one. Raises InvalidParameter."""
    text = request.host_ip
    if not text:
        return (ANY_ADDRESS, ANY_ADDRESS6) if both and request.protocol != "sctp" else (ANY_ADDRESS,)
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid host IP address: {text}") from error
    if address.version == 6 and request.protocol == "sctp":
        raise InvalidParameter(f"cannot publish SCTP on {text}", hint="publish on an IPv4 address")
    return (str(address),)


def _key(port: PublishedPort) -> _Key:
    return port.protocol, port.host_ip, port.host_port


def _check_free(port: PublishedPort) -> None:
    """Raise OSError where anybody has the port, even one who would share it."""
    with contextlib.closing(_socket(port)) as trial:
        trial.bind((port.host_ip, port.host_port))


def _hold(port: PublishedPort, *, shared: bool) -> socket.socket | None:
    """Bind a socket there; None for a protocol that this kernel does not speak itself but can forward.

    A `shared` one leaves room for the process that will serve the port. Raises OSError.
    """
    if shared:
        return bound_socket(Proxy(port.protocol, port.host_ip, port.host_port, "", 0))
    try:
        holder = _socket(port)
    except OSError as error:
        if port.protocol == "sctp" and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if port.protocol == "udp":
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
        holder.bind((port.host_ip, port.host_port))
        if port.protocol != "udp":
            holder.listen(1)
    except OSError:
        holder.close()
        raise
    return holder


def _socket(port: PublishedPort) -> socket.socket:
    kind, number = _TYPES[port.protocol]
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    opened = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind == socket.SOCK_STREAM:
        # Connections that ended a moment ago do not count as users of the port; a listener does.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return opened


def _chosen_port(holder: socket.socket | None) -> int:
    if holder is None:
        raise Unavailable("this kernel has no SCTP to choose a port with", hint="name the host's port")
    port: int = holder.getsockname()[1]
    return port
