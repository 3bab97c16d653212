"""The bridge of the default network, and the pairs of virtual cards that join containers to it.

    host                                                      container
    ── uplink ──(forwarded, translated)── holdfast0 ── hf1a2b3c… ═══════ eth0
                                          gateway      bridge port       address
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast import log
from holdfast.kernel.namespaces import in_network_namespace
from holdfast.network.addresses import gateway_of, mac_of
from holdfast.network.links import addresses, consistent, index_of, routes, rtnetlink

if TYPE_CHECKING:
    from pyroute2.iproute.linux import IPRoute

logger = log.get(__name__)

CONTAINER_DEVICE: Final = "eth0"
DEFAULT_MTU: Final = 1500
_ADDR_GEN_MODE_NONE: Final = "1"
"""IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: a card gets no IPv6 address of its own."""
_IPV4: Final = Path("/proc/sys/net/ipv4")
_IPV6: Final = Path("/proc/sys/net/ipv6")


@dataclass(frozen=True, slots=True)
class Occupied:
    """What of the IPv4 address space this host uses already."""

    networks: tuple[IPv4Network, ...]
    mtu: int
    """In bytes: that of the card of the default route."""


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

    def occupied(self) -> Occupied:
        """Give the networks that other cards and routes of this host use, and how large its packets are."""
        own = self.index()
        with rtnetlink("list routes") as kernel:
            others = [route for route in routes(kernel) if not own or route.index != own]
            networks = [route.destination for route in others]
            networks += [address.network for address in addresses(kernel) if address.index != own]
            uplinks = {route.index for route in others if route.destination.prefixlen == 0 and route.index}
            mtus = [link.get("mtu") for index in uplinks for link in kernel.link("get", index=index)]
        return Occupied(tuple(networks), min([DEFAULT_MTU, *filter(None, mtus)]))

    def host_addresses(self) -> set[IPv4Address]:
        """Give the IPv4 addresses of this host."""
        with rtnetlink("list addresses") as kernel:
            return {address.address for address in addresses(kernel)}

    def ensure(self, subnet: IPv4Network, mtu: int) -> int:
        """Make the bridge unless it is there, with its address, ready to forward; give its index.

        Its hardware address is fixed, else it would change with every card that joins or leaves.
        """
        gateway = gateway_of(subnet)
        with rtnetlink(f"create bridge {self.name}") as kernel:
            if not self.index():
                kernel.link("add", ifname=self.name, kind="bridge", mtu=mtu, address=mac_of(gateway))
                logger.info("bridge created", extra={"bridge": self.name, "subnet": str(subnet)})
            index = self.index()
            kernel.link("set", index=index, state="up")
        try:
            with rtnetlink(f"add address {gateway}") as kernel:
                _add_address(kernel, index, gateway, subnet)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        _set(_IPV4 / "conf" / self.name / "route_localnet", "1")
        if _get(_IPV4 / "ip_forward") != "1":
            _set(_IPV4 / "ip_forward", "1")
            logger.warning(
                "this host now forwards IPv4 packets, which containers need to reach anything; it stays so",
                extra={"sysctl": "net.ipv4.ip_forward=1"},
            )
        return index

    def attach(
        self, device: str, namespace: Path, address: IPv4Address, mac_address: str, subnet: IPv4Network, *,
        index: int, mtu: int, hairpin: bool,
    ) -> None:
        """Join a network namespace to the bridge: a pair of cards, the inner one with an address and a default route.

        The outer card may be up before it is told to do without an IPv6 address: it has no carrier, and so gets none,
        until the inner one is up. The inner one cannot be up from the start: the kernel would open it before it knows
        its partner. On failure the pair is removed again.
        """
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                with rtnetlink(f"join {device} to the bridge") as kernel:
                    peer = {"ifname": CONTAINER_DEVICE, "net_ns_fd": fd, "address": mac_address, "mtu": mtu}
                    kernel.link("add", ifname=device, kind="veth", mtu=mtu, peer=peer, master=index, state="up")
                    if self._has_ipv6:
                        _set(_IPV6 / "conf" / device / "addr_gen_mode", _ADDR_GEN_MODE_NONE)
                    if hairpin:
                        kernel.brport("set", index=index_of(device), mode=1)
                in_network_namespace(fd, lambda: _configure(address, subnet))
            except OSError:
                self.detach(device)
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
        try:
            with rtnetlink(f"delete {device}") as kernel:
                kernel.link("del", ifname=device)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def delete(self) -> None:
        """Remove the bridge and every pair in it."""
        for device in self.ports():
            self.detach(device)
        self.detach(self.name)


def prepare_namespace(namespace: Path) -> None:
    """Keep IPv6 off the cards that a namespace will get; `lo` keeps ::1. Raises OSError."""
    if not _IPV6.is_dir():
        return
    in_network_namespace(namespace, lambda: _set(_IPV6 / "conf/default/disable_ipv6", "1"))


def _configure(address: IPv4Address, subnet: IPv4Network) -> None:
    """Set up the inner card; runs inside the container's namespace."""
    index = socket.if_nametoindex(CONTAINER_DEVICE)
    with rtnetlink(f"configure {CONTAINER_DEVICE}") as kernel:
        kernel.link("set", index=index, state="up")
        _add_address(kernel, index, address, subnet)
        kernel.route("add", gateway=str(gateway_of(subnet)), oif=index, proto="boot")


def _add_address(kernel: IPRoute, index: int, address: IPv4Address, subnet: IPv4Network) -> None:
    """Give a card an address, and with it the route to its subnet."""
    broadcast = str(subnet.broadcast_address)
    kernel.addr("add", index=index, address=str(address), prefixlen=subnet.prefixlen, broadcast=broadcast)


def _get(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _set(path: Path, value: str) -> None:
    path.write_text(value, encoding="ascii")
