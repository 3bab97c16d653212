"""A bridge, and the pairs of virtual cards that join containers to it.

host                                                      container
── uplink ──(forwarded, translated)── holdfast0 ── hf1a2b3c… ═══════ eth0
                                      gateway      bridge port       address
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast import log
from holdfast.kernel.namespaces import in_network_namespace
from holdfast.network.addresses import gateway_of
from holdfast.network.links import RTN_UNICAST, addresses, consistent, index_of, routes, rtnetlink
from holdfast.network.segment import Range

if TYPE_CHECKING:
    from pyroute2.iproute.linux import IPRoute

logger = log.get(__name__)

DEFAULT_MTU: Final = 1500
_ADDR_GEN_MODE_NONE: Final = "1"
"""IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: a card gets no IPv6 address of its own."""
_IFA_F_NODAD: Final = 2
"""The address is used at once, as nobody else can have it. Source: linux/if_addr.h."""
_MAIN_TABLE: Final = 254
"""RT_TABLE_MAIN of linux/rtnetlink.h."""
_IPV4: Final = Path("/proc/sys/net/ipv4")
_IPV6: Final = Path("/proc/sys/net/ipv6")

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Occupied:
    """What of the IPv4 address space this host uses already."""

    networks: tuple[IPv4Network, ...]
    mtu: int
    """In bytes: that of the card of the default route."""


@dataclass(frozen=True, slots=True)
class Plug:
    """One pair of cards: `device` on the host, `card` in the container, with addresses of one or both families.

    `gateways` are the next hops of the container's default routes, empty where another card or none has them.
    """

    device: str
    card: str
    mac_address: str
    addresses: tuple[Interface, ...]
    gateways: tuple[IPv4Address | IPv6Address, ...]
    mtu: int
    hairpin: bool = False
    isolated: bool = False
    """Whether it may not talk to other ports of the bridge."""


class Bridge:
    """One bridge of the engine's network namespace. Safe from any thread. Methods raise OSError."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._has_ipv6 = _IPV6.is_dir()

    def index(self) -> int:
        """Give the bridge's index, 0 if it is not there."""
        return index_of(self.name)

    def subnet(self) -> IPv4Network | None:
        """Give the subnet of the address that the bridge has, or None."""
        index = self.index()
        if index:
            with rtnetlink("list addresses") as kernel:
                for address in addresses(kernel):
                    if address.index == index and address.address == gateway_of(address.network):
                        return address.network
        return None

    def ensure(self, ranges: tuple[Range, ...], mac_address: str, mtu: int) -> int:
        """Make the bridge unless it is there, with its addresses, ready to forward; give its index.

        Its hardware address is fixed, else it would change with every card that joins or leaves.
        """
        with rtnetlink(f"create bridge {self.name}") as kernel:
            if not self.index():
                kernel.link("add", ifname=self.name, kind="bridge", mtu=mtu, address=mac_address)
                logger.info("bridge created", extra={"bridge": self.name, "subnet": str(ranges[0].subnet)})
            index = self.index()
            if self._has_ipv6 and any(own.subnet.version == 6 for own in ranges):
                _enable_ipv6(self.name)
            kernel.link("set", index=index, state="up")
        for own in ranges:
            address = ip_interface(f"{own.gateway}/{own.subnet.prefixlen}")
            try:
                with rtnetlink(f"add address {own.gateway}") as kernel:
                    _add_address(kernel, index, address)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            _forward(self.name, address.version)
        return index

    def attach(self, plug: Plug, namespace: Path, index: int) -> None:
        """Join a network namespace to the bridge: a pair of cards, the inner one with addresses and default routes.

        The outer card may be up before it is told to do without an IPv6 address: it has no carrier, and so gets none,
        until the inner one is up. The inner one cannot be up from the start: the kernel would open it before it knows
        its partner. On failure the pair is removed again.
        """
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                with rtnetlink(f"join {plug.device} to the bridge") as kernel:
                    peer = {"ifname": plug.card, "net_ns_fd": fd, "address": plug.mac_address, "mtu": plug.mtu}
                    kernel.link(
                        "add", ifname=plug.device, kind="veth", mtu=plug.mtu, peer=peer, master=index, state="up"
                    )
                    if self._has_ipv6:
                        _set(_IPV6 / "conf" / plug.device / "addr_gen_mode", _ADDR_GEN_MODE_NONE)
                    if plug.hairpin or plug.isolated:
                        kernel.brport(
                            "set", index=index_of(plug.device), mode=int(plug.hairpin), isolated=int(plug.isolated)
                        )
                in_network_namespace(fd, lambda: _configure(plug))
            except OSError:
                self.detach(plug.device)
                raise
        finally:
            os.close(fd)

    def set_hairpin(self, device: str) -> None:
        """Let a container reach itself by a port that it published; needed where bridged packets are filtered."""
        with rtnetlink(f"set {device} hairpin") as kernel:
            kernel.brport("set", index=socket.if_nametoindex(device), mode=1)

    def rejoin(self, device: str, index: int) -> bool:
        """Put a pair that exists into the bridge again; False if it does not exist."""
        try:
            with rtnetlink(f"put {device} into the bridge") as kernel:
                kernel.link("set", ifname=device, master=index, state="up")
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def ports(self) -> list[str]:
        """Give the names of the cards in the bridge."""
        index = self.index()
        if not index:
            return []
        with rtnetlink("list links") as kernel:
            links = consistent(lambda: kernel.link("dump"))
        return [str(link.get("ifname")) for link in links if link.get("master") == index]

    def detach(self, device: str) -> None:
        """Remove a pair; one that is gone, as with its namespace, is no error. Takes some 20 ms."""
        remove_device(device)

    def delete(self) -> None:
        """Remove the bridge and every pair in it."""
        for device in self.ports():
            self.detach(device)
        self.detach(self.name)


def remove_device(device: str) -> None:
    """Remove a card or a bridge; one that is gone is no error. Raises OSError. Takes some 20 ms."""
    try:
        with rtnetlink(f"delete {device}") as kernel:
            kernel.link("del", ifname=device)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def occupied(own: frozenset[str]) -> Occupied:
    """Give the networks that cards and routes of this host use, those of the bridges `own` apart; and its packet size.

    Raises OSError.
    """
    mine = {index_of(name) for name in own} - {0}
    with rtnetlink("list routes") as kernel:
        others = [route for route in routes(kernel) if route.index not in mine]
        networks = [route.destination for route in others]
        networks += [address.network for address in addresses(kernel) if address.index not in mine]
        uplinks = {route.index for route in others if route.destination.prefixlen == 0 and route.index}
        mtus = [link.get("mtu") for index in uplinks for link in kernel.link("get", index=index)]
    return Occupied(tuple(networks), min([DEFAULT_MTU, *filter(None, mtus)]))


def host_addresses() -> set[IPv4Address]:
    """Give the IPv4 addresses of this host. Raises OSError."""
    with rtnetlink("list addresses") as kernel:
        return {address.address for address in addresses(kernel)}


def prepare_namespace(namespace: Path) -> None:
    """Keep IPv6 off the cards that a namespace will get; `lo` keeps ::1. Raises OSError."""
    if not _IPV6.is_dir():
        return
    in_network_namespace(namespace, lambda: _set(_IPV6 / "conf/default/disable_ipv6", "1"))


def set_default_routes(
    namespace: Path, routes_by_version: dict[int, tuple[str, IPv4Address | IPv6Address] | None]
) -> None:
    """Replace a namespace's default routes: for each IP version the card and the next hop, or None for no route.

    Raises OSError.
    """

    def work() -> None:
        with rtnetlink("set the default route") as kernel:
            for version, way in routes_by_version.items():
                family = socket.AF_INET if version == 4 else socket.AF_INET6
                if version == 6 and not _IPV6.is_dir():
                    continue
                wanted = (socket.if_nametoindex(way[0]), str(way[1])) if way is not None else None
                is_there = False
                for message in consistent(functools.partial(kernel.route, "dump", family=family, table=_MAIN_TABLE)):
                    if message["dst_len"] == 0 and message["type"] == RTN_UNICAST and message.get("gateway"):
                        if (message.get("oif"), message.get("gateway")) == wanted:
                            is_there = True
                            continue
                        kernel.route(
                            "del", family=family, dst="default", gateway=message.get("gateway"), oif=message.get("oif")
                        )
                if way is not None and not is_there:
                    _add_default(kernel, socket.if_nametoindex(way[0]), way[1])

    in_network_namespace(namespace, work)


def _configure(plug: Plug) -> None:
    """Set up the inner card; runs inside the container's namespace."""
    index = socket.if_nametoindex(plug.card)
    if any(address.version == 6 for address in plug.addresses):
        _enable_ipv6(plug.card)
    with rtnetlink(f"configure {plug.card}") as kernel:
        kernel.link("set", index=index, state="up")
        for address in plug.addresses:
            _add_address(kernel, index, address)
        for gateway in plug.gateways:
            _add_default(kernel, index, gateway)


def _add_address(kernel: IPRoute, index: int, address: Interface) -> None:
    """Give a card an address, and with it the route to its subnet."""
    length = address.network.prefixlen
    if isinstance(address, IPv4Interface):
        broadcast = str(address.network.broadcast_address)
        kernel.addr("add", index=index, address=str(address.ip), prefixlen=length, broadcast=broadcast)
    else:
        kernel.addr("add", index=index, address=str(address.ip), prefixlen=length, flags=_IFA_F_NODAD)


def _add_default(kernel: IPRoute, index: int, gateway: IPv4Address | IPv6Address) -> None:
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    kernel.route("add", family=family, dst="default", gateway=str(gateway), oif=index, proto="boot")


def _enable_ipv6(card: str) -> None:
    """Let a card have IPv6 addresses: only those that it is given."""
    conf = _IPV6 / "conf" / card
    _set(conf / "accept_ra", "0")
    _set(conf / "disable_ipv6", "0")


def _forward(bridge: str, version: int) -> None:
    """Have this host pass packets on between the bridge and others."""
    if version == 4:
        _set(_IPV4 / "conf" / bridge / "route_localnet", "1")
        switch = _IPV4 / "ip_forward"
    else:
        switch = _IPV6 / "conf/all/forwarding"
    if _get(switch) == "1":
        return
    if version == 6:
        _keep_learned_routes()
    _set(switch, "1")
    logger.warning(
        "this host now forwards packets, which containers need to reach anything; it stays so",
        extra={"sysctl": "net/" + str(switch.relative_to(_IPV4.parent)).replace(".", "/")},
    )


def _keep_learned_routes() -> None:
    """A host that forwards stops learning its IPv6 routes from routers unless told otherwise; so tell it.

    Source: Linux, Documentation/networking/ip-sysctl, `accept_ra`.
    """
    for conf in (_IPV6 / "conf").iterdir():
        if conf.name not in ("all", "default", "lo") and _get(conf / "accept_ra") == "1":
            _set(conf / "accept_ra", "2")


def _get(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _set(path: Path, value: str) -> None:
    path.write_text(value, encoding="ascii")
