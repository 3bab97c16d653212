"""Connections that the kernel remembers, where they stand in the way of a port published just now.

UDP has no end of a connection: a client that kept sending while the port led nowhere, or to a container that is gone,
has an entry that its own packets keep alive, and new rules do not look at packets that have one. So entries for the
port are deleted. TCP needs none of this. Source: linux/netfilter/nfnetlink_conntrack.h; moby does the same for UDP.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Final

from holdfast.network.links import as_os_error

if TYPE_CHECKING:
    from pyroute2.conntrack import Conntrack, ConntrackEntry

_FEW: Final = 16
"""Up to so many ports are asked for one by one; for more, all of UDP is read once."""


def forget_udp(ports: Collection[int], own: Collection[IPv4Address], subnet: IPv4Network) -> int:
    """Delete the UDP entries for `ports` that go to an address in `own` or to a container in `subnet`; give how many.

    Entries that merely pass through this host stay. Raises OSError where the kernel does not show its connections.
    """
    from pyroute2.conntrack import Conntrack, NFCTAttrTuple

    # The kernel picks entries from Linux 5.8 on; before, pyroute2 does.
    asked = list(ports) if len(ports) <= _FEW else [None]
    filters = [NFCTAttrTuple(proto=socket.IPPROTO_UDP, dport=port) for port in asked]
    deleted = 0
    with as_os_error("forget connections"), Conntrack() as kernel:
        for wanted in filters:
            for entry in list(kernel.dump_entries(tuple_orig=wanted)):
                if entry.tuple_orig.dport in ports and in_the_way(entry, own, subnet):
                    deleted += _delete(kernel, entry)
    return deleted


def in_the_way(entry: ConntrackEntry, own: Collection[IPv4Address], subnet: IPv4Network) -> bool:
    """Whether a connection is with one of our containers, or with this host itself and nobody else."""
    destination = IPv4Address(entry.tuple_orig.daddr)
    answered_by = IPv4Address(entry.tuple_reply.saddr)
    return answered_by in subnet or (answered_by == destination and destination in own)


def _delete(kernel: Conntrack, entry: ConntrackEntry) -> int:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        kernel.entry("del", tuple_orig=entry.tuple_orig)
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return 0
        raise
    return 1
