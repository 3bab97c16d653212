"""Where the engine listens: parse an address, choose one, connect to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.client.failures import BadAddress, Unreachable

DEFAULT_URL = "unix:///run/holdfast/holdfast.sock"
_PLAIN_PORT, _TLS_PORT = 2375, 2376


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
    if scheme == "tcp":
        authority = rest.rstrip("/")
        host, separator, port = authority.rpartition(":")
        if not separator or authority.endswith("]"):  # the last colon belongs to [::1]
            host, port = authority, str(_TLS_PORT if tls else _PLAIN_PORT)
        if port.isdecimal() and 0 < int(port) < 65536:
            return Address(f"tcp://{authority}", host=host.strip("[]") or "127.0.0.1", port=int(port))
    raise BadAddress(f"invalid engine address {url!r}: want unix:///path/to/socket or tcp://host:port")


def connect(address: Address, tls: Tls | None) -> socket.socket:
    """Connect. Raises Unreachable: what failed, on what, why, and what to do about it, in one line."""
    try:
        if address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(address.path)
            except OSError:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((address.host, address.port), timeout=20)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _wrap(connection, address, tls) if tls else connection
    except OSError as error:
        raise Unreachable(_unreachable_text(address, error)) from error


def _wrap(connection: socket.socket, address: Address, tls: Tls) -> socket.socket:
    import ssl

    context = ssl.create_default_context(cafile=tls.ca if tls.verify else None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if os.path.exists(tls.certificate):
        context.load_cert_chain(tls.certificate, tls.key)
    return context.wrap_socket(connection, server_hostname=address.host)


def _unreachable_text(address: Address, error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        advice = "Run as root, or join the group that owns the socket."
    elif address.path:
        advice = "Is it running? Start it with: holdfast daemon, or systemctl start holdfast"
    else:
        advice = "Is it running, and is this its address?"
    return f"Cannot connect to the Holdfast engine at {address.url}: {reason}. {advice}"
