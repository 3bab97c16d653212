"""Links, addresses and routes by rtnetlink(7).

Written by hand because a container's start waits for it: creating a pair of virtual cards and giving one an address
takes four round trips here and about 1 ms, and costs no memory. Numbers are those of linux/rtnetlink.h,
linux/if_link.h and linux/if_addr.h; they are the same on every architecture.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from holdfast.network.netlink import (
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NetlinkSocket,
    attribute,
    attributes,
)

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_NEWADDR: Final = 20
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_GETROUTE: Final = 26

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_MASTER: Final = 10
IFLA_PROTINFO: Final = 12
IFLA_LINKINFO: Final = 18
IFLA_AF_SPEC: Final = 26
IFLA_NET_NS_FD: Final = 28
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
IFLA_BRPORT_MODE: Final = 4
IFLA_INET6_ADDR_GEN_MODE: Final = 8
IN6_ADDR_GEN_MODE_NONE: Final = 1
VETH_INFO_PEER: Final = 1
IFF_UP: Final = 1

IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_BROADCAST: Final = 4

RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RT_TABLE_MAIN: Final = 254
RTPROT_BOOT: Final = 3
RT_SCOPE_UNIVERSE: Final = 0
RTN_UNICAST: Final = 1

_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Link:
    """A network card: `master` is the index of the bridge it belongs to, 0 for none; `mtu` in bytes."""

    index: int
    name: str
    up: bool
    mtu: int
    master: int


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address of a card, with its subnet."""

    index: int
    address: IPv4Address
    network: IPv4Network


@dataclass(frozen=True, slots=True)
class Route:
    """An IPv4 route of any table; `index` is its card, 0 where it has none of its own."""

    destination: IPv4Network
    index: int


class RouteSocket(NetlinkSocket):
    """A socket for links, addresses and routes of the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def link(self, name: str) -> Link | None:
        """Give the card of that name, or None."""
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, _text(name))
        try:
            (body,) = self.ask(Message(f"find {name}", RTM_GETLINK, 0, body))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return parse_link(body)

    def links(self) -> list[Link]:
        """Give every card."""
        request = Message("list links", RTM_GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0))
        return [parse_link(body) for body in self.dump(request)]

    def addresses(self) -> list[Address]:
        """Give every IPv4 address."""
        request = Message("list addresses", RTM_GETADDR, 0, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0))
        return [parse_address(body) for body in self.dump(request)]

    def routes(self) -> list[Route]:
        """Give the IPv4 routes to somewhere else, of all tables; `local` and `broadcast` ones are left out."""
        request = Message("list routes", RTM_GETROUTE, 0, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))
        return [route for route in map(parse_route, self.dump(request)) if route is not None]


def create_bridge(name: str, mac_address: str, mtu: int) -> Message:
    """Make a bridge that is up. Its address is fixed, else it would change with every card that joins or leaves."""
    body = (
        _LINK.pack(0, 0, 0, IFF_UP, IFF_UP)
        + attribute(IFLA_IFNAME, _text(name))
        + attribute(IFLA_MTU, _u32(mtu))
        + attribute(IFLA_ADDRESS, _mac(mac_address))
        + attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge\0"))
    )
    return Message(f"create bridge {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def create_veth(
    name: str, *, mtu: int, peer_name: str, peer_mac_address: str, peer_namespace_fd: int
) -> Message:
    """Make a pair of virtual cards, both down, one of them in another network namespace.

    The peer cannot be up from the start: the kernel would open it before it knows its partner and fail with ENOTCONN.
    """
    peer = (
        _LINK.pack(0, 0, 0, 0, 0)
        + attribute(IFLA_IFNAME, _text(peer_name))
        + attribute(IFLA_NET_NS_FD, _u32(peer_namespace_fd))
        + attribute(IFLA_ADDRESS, _mac(peer_mac_address))
        + attribute(IFLA_MTU, _u32(mtu))
    )
    body = (
        _LINK.pack(0, 0, 0, 0, 0)
        + attribute(IFLA_IFNAME, _text(name))
        + attribute(IFLA_MTU, _u32(mtu))
        + attribute(
            IFLA_LINKINFO,
            attribute(IFLA_INFO_KIND, b"veth\0") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer)),
        )
    )
    return Message(f"create veth {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def set_up(index: int) -> Message:
    """Bring a card up."""
    return Message(f"set link {index} up", RTM_NEWLINK, 0, _LINK.pack(0, 0, index, IFF_UP, IFF_UP))


def set_master(name: str, master: int) -> Message:
    """Put a card into a bridge and bring it up."""
    body = (
        _LINK.pack(0, 0, 0, IFF_UP, IFF_UP)
        + attribute(IFLA_IFNAME, _text(name))
        + attribute(IFLA_MASTER, _u32(master))
    )
    return Message(f"put {name} into its bridge", RTM_NEWLINK, 0, body)


def set_no_link_local(name: str) -> Message:
    """Keep IPv6 from giving a card an address of its own."""
    inet6 = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    body = (
        _LINK.pack(0, 0, 0, 0, 0)
        + attribute(IFLA_IFNAME, _text(name))
        + attribute(IFLA_AF_SPEC, attribute(socket.AF_INET6, inet6))
    )
    return Message(f"keep {name} without IPv6 address", RTM_SETLINK, 0, body)


def set_hairpin(index: int) -> Message:
    """Let a port of a bridge send a frame back to where it came from."""
    protinfo = attribute(IFLA_PROTINFO | NLA_F_NESTED, attribute(IFLA_BRPORT_MODE, b"\1"))
    return Message(f"set link {index} hairpin", RTM_SETLINK, 0, _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0) + protinfo)


def delete_link(name: str) -> Message:
    """Remove a card, and its partner if it has one."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, _text(name))
    return Message(f"delete link {name}", RTM_DELLINK, 0, body)


def add_address(index: int, address: IPv4Address, network: IPv4Network) -> Message:
    """Give a card an address, and with it the route to its subnet."""
    body = (
        _ADDRESS.pack(socket.AF_INET, network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
        + attribute(IFA_LOCAL, address.packed)
        + attribute(IFA_ADDRESS, address.packed)
        + attribute(IFA_BROADCAST, network.broadcast_address.packed)
    )
    return Message(f"add address {address}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def add_default_route(index: int, gateway: IPv4Address) -> Message:
    """Send everything that has no route of its own to `gateway`; the card must be up."""
    body = (
        _ROUTE.pack(socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
        + attribute(RTA_GATEWAY, gateway.packed)
        + attribute(RTA_OIF, _u32(index))
    )
    return Message(f"add default route by {gateway}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def parse_link(body: bytes) -> Link:
    """Decode the body of an RTM_NEWLINK."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body[_LINK.size :])
    name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    return Link(
        index, name, bool(flags & IFF_UP), _number(found.get(IFLA_MTU)), _number(found.get(IFLA_MASTER))
    )


def parse_address(body: bytes) -> Address:
    """Decode the body of an RTM_NEWADDR of IPv4."""
    _, prefix_length, _, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body[_ADDRESS.size :])
    # IFA_LOCAL is the card's own address; on a point-to-point card IFA_ADDRESS is the partner's.
    address = IPv4Address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
    covered = IPv4Address(found.get(IFA_ADDRESS) or found[IFA_LOCAL])
    return Address(index, address, IPv4Network((covered, prefix_length), strict=False))


def parse_route(body: bytes) -> Route | None:
    """Decode the body of an RTM_NEWROUTE of IPv4; None for routes that lead nowhere else."""
    _, prefix_length, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(body)
    if kind != RTN_UNICAST:
        return None
    found = attributes(body[_ROUTE.size :])
    destination = IPv4Network((found.get(RTA_DST, bytes(4)), prefix_length), strict=False)
    return Route(destination, _number(found.get(RTA_OIF)))


def _number(value: bytes | None) -> int:
    return struct.unpack("=I", value)[0] if value else 0


def _text(name: str) -> bytes:
    return name.encode() + b"\0"


def _u32(number: int) -> bytes:
    return struct.pack("=I", number)


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", "").replace("-", ""))
