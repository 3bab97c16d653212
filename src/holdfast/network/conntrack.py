"""Connections that the kernel remembers, where they stand in the way of a port published just now.

UDP has no end of a connection: a client that kept sending while the port led nowhere, or to a container that is gone,
has an entry that its own packets keep alive, and new rules do not look at packets that have one. So entries for the
port are deleted. TCP needs none of this. Source: linux/netfilter/nfnetlink_conntrack.h; moby does the same for UDP.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from holdfast.network.netlink import NETLINK_NETFILTER, NLA_F_NESTED, Message, NetlinkSocket, attribute, attributes

_SUBSYSTEM: Final = 1 << 8
_CT_GET: Final = _SUBSYSTEM | 1
_CT_DELETE: Final = _SUBSYSTEM | 2
_FAMILY: Final = struct.pack("=BBH", socket.AF_INET, 0, 0)

_CTA_TUPLE_ORIG: Final = 1
_CTA_TUPLE_REPLY: Final = 2
_CTA_TUPLE_IP: Final = 1
_CTA_TUPLE_PROTO: Final = 2
_CTA_IP_V4_SRC: Final = 1
_CTA_IP_V4_DST: Final = 2
_CTA_PROTO_NUM: Final = 1
_CTA_PROTO_DST_PORT: Final = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection: where its packets are sent, and who answers, which differs where an address is translated."""

    protocol: int
    destination: IPv4Address
    destination_port: int
    answered_by: IPv4Address
    original: bytes
    """The tuple of the first direction as the kernel gave it, by which the entry is deleted."""


def forget_udp(ports: Collection[int], own: Collection[IPv4Address], subnet: IPv4Network) -> int:
    """Delete the UDP entries for `ports` that go to an address in `own` or to a container in `subnet`; give how many.

    Entries that merely pass through this host stay. Raises OSError where the kernel does not show its connections.
    """
    deleted = 0
    # Most entries are about something else; a search for the port's attribute spares taking them apart.
    needles = [attribute(_CTA_PROTO_DST_PORT, struct.pack("!H", port))[:6] for port in ports]
    with NetlinkSocket(NETLINK_NETFILTER) as kernel:
        for body in kernel.dump(Message("list connections", _CT_GET, 0, _FAMILY)):
            if not any(needle in body for needle in needles):
                continue
            entry = parse_entry(body)
            if entry is None or entry.protocol != socket.IPPROTO_UDP or entry.destination_port not in ports:
                continue
            if entry.answered_by in subnet or (entry.answered_by == entry.destination and entry.destination in own):
                deleted += _delete(kernel, entry)
    return deleted


def parse_entry(body: bytes) -> Entry | None:
    """Decode the body of a conntrack message of IPv4; None where a part is missing."""
    found = attributes(body[len(_FAMILY) :])
    try:
        original, reply = attributes(found[_CTA_TUPLE_ORIG]), attributes(found[_CTA_TUPLE_REPLY])
        protocol = attributes(original[_CTA_TUPLE_PROTO])
        return Entry(
            protocol=protocol[_CTA_PROTO_NUM][0],
            destination=IPv4Address(attributes(original[_CTA_TUPLE_IP])[_CTA_IP_V4_DST]),
            destination_port=struct.unpack("!H", protocol[_CTA_PROTO_DST_PORT])[0],
            answered_by=IPv4Address(attributes(reply[_CTA_TUPLE_IP])[_CTA_IP_V4_SRC]),
            original=found[_CTA_TUPLE_ORIG],
        )
    except KeyError:
        return None


def _delete(kernel: NetlinkSocket, entry: Entry) -> int:
    body = _FAMILY + attribute(_CTA_TUPLE_ORIG | NLA_F_NESTED, entry.original)
    try:
        kernel.ask(Message("delete a connection", _CT_DELETE, 0, body))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return 0
        raise
    return 1
