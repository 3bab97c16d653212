"""Where the engine listens: parse an address, choose one, connect to it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.client.failures import BadAddress, Unreachable
from holdfast.client.stream import Stream

DEFAULT_URL = "unix:///run/holdfast/holdfast.sock"
_PLAIN_PORT, _TLS_PORT = 2375, 2376
_CONNECT_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of mutual TLS. With `verify` off the engine's certificate is not checked, as docker's bare `--tls`."""

    ca: str
    certificate: str
    key: str
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed engine address: `path` of a unix socket, or else `host` and `port`."""

    url: str
    path: str = ""
    host: str = ""
    port: int = 0


def choose_url(flag: str | None, environment: Mapping[str, str]) -> str:
    """The flag, else HOLDFAST_HOST, else the socket that HOLDFAST_SOCKET names, else the default.

    DOCKER_HOST is left to docker: it usually names an engine that is not ours.
    """
    if flag:
        return flag
    if host := environment.get("HOLDFAST_HOST"):
        return host
    if path := environment.get("HOLDFAST_SOCKET"):
        return f"unix://{path}"
    return DEFAULT_URL


def parse_url(url: str, *, tls: bool = False) -> Address:
    """Parse `unix:///path`, `tcp://host[:port]`, a bare absolute path or a bare `host:port`.

    The port is 2376 with TLS and 2375 without when not given. Raises BadAddress.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = ("unix" if url.startswith("/") else "tcp"), url
    if scheme == "unix" and rest.startswith("/"):
        return Address(f"unix://{rest}", path=rest)
    if scheme == "tcp" and rest:
        authority = rest.rstrip("/")
        host, separator, port = authority.rpartition(":")
        if not separator or authority.endswith("]"):  # the last colon belongs to [::1]
            host, port = authority, str(_TLS_PORT if tls else _PLAIN_PORT)
        if port.isdecimal() and 0 < int(port) < 65536:
            return Address(f"tcp://{authority}", host=host.strip("[]") or "127.0.0.1", port=int(port))
    raise BadAddress(f"invalid engine address {url!r}: want unix:///path/to/socket or tcp://host:port")


def connect(address: Address, tls: Tls | None) -> Stream:
    """Connect. Raises Unreachable: what failed, on what, why, and what to do about it, in one line."""
    try:
        if address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(address.path)
            except OSError:
                connection.close()
                raise
            return Stream(connection)
        return _connect_tcp(address, tls)
    except OSError as error:
        raise Unreachable(_unreachable_text(address, error)) from error


def _connect_tcp(address: Address, tls: Tls | None) -> Stream:
    connection = socket.create_connection((address.host, address.port), timeout=_CONNECT_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        if not tls:
            return Stream(connection)
        from holdfast.client.tls import TlsStream, client_context

        return TlsStream(connection, client_context(tls), address.host)
    except OSError:
        connection.close()
        raise
    finally:
        if connection.fileno() >= 0:
            connection.settimeout(None)


def _unreachable_text(address: Address, error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        advice = "Run as root, or join the group that owns the socket."
    elif address.path:
        advice = "Is it running? Start it with: holdfast daemon, or systemctl start holdfast"
    else:
        advice = "Is it running, and is this its address?"
    return f"Cannot connect to the Holdfast engine at {address.url}: {reason}. {advice}"
