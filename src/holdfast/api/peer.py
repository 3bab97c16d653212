"""Who is at the other end of a connection, in a word for people."""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct

_UCRED = struct.Struct("3i")


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Name the client: the user that a unix socket's peer runs as, or the common name of a TLS client's certificate.

    Source: unix(7), SO_PEERCRED.
    """
    certificate = transport.get_extra_info("peercert")
    if certificate:
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        return f"certificate {names[0]}" if names else "certificate without a name"
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return "unknown"
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
