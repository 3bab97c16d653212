"""The bridge of the default network, and the pairs of virtual cards that join containers to it.

    host                                                      container
    ── uplink ──(forwarded, translated)── holdfast0 ── hf1a2b3c… ═══════ eth0
                                          gateway      bridge port       address
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from holdfast import log
from holdfast.kernel.namespaces import in_network_namespace
from holdfast.network import rtnetlink
from holdfast.network.addresses import gateway_of, mac_of
from holdfast.network.rtnetlink import RouteSocket

logger = log.get(__name__)

CONTAINER_DEVICE: Final = "eth0"
DEFAULT_MTU: Final = 1500
_IPV4: Final = Path("/proc/sys/net/ipv4")
_IPV6: Final = Path("/proc/sys/net/ipv6")


@dataclass(frozen=True, slots=True)
class Occupied:
    """What of the IPv4 address space this host uses already."""

    networks: tuple[IPv4Network, ...]
    mtu: int
    """In bytes: that of the card of the default route."""


class Bridge:
    """One bridge of the network namespace in which this object was made. Methods raise OSError."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._guard = threading.Lock()
        self._opened: RouteSocket | None = None
        self._has_ipv6 = _IPV6.is_dir()

    def close(self) -> None:
        """Close the socket to the kernel; the bridge stays."""
        with self._guard:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def index(self) -> int:
        """Give the bridge's index, 0 if it is not there."""
        link = self._socket().link(self.name)
        return link.index if link else 0

    def subnet(self) -> IPv4Network | None:
        """Give the subnet of the address that the bridge has, or None."""
        index = self.index()
        if index:
            for address in self._socket().addresses():
                if address.index == index and address.address == gateway_of(address.network):
                    return address.network
        return None

    def occupied(self) -> Occupied:
        """Give the networks that other cards and routes of this host use, and how large its packets are."""
        kernel = self._socket()
        own = self.index()
        routes = [route for route in kernel.routes() if not own or route.index != own]
        networks = [route.destination for route in routes]
        networks += [address.network for address in kernel.addresses() if address.index != own]
        uplinks = {route.index for route in routes if route.destination.prefixlen == 0}
        mtus = [link.mtu for link in kernel.links() if link.index in uplinks and link.mtu]
        return Occupied(tuple(networks), min([DEFAULT_MTU, *mtus]))

    def host_addresses(self) -> set[IPv4Address]:
        """Give the IPv4 addresses of this host."""
        return {address.address for address in self._socket().addresses()}

    def ensure(self, subnet: IPv4Network, mtu: int) -> int:
        """Make the bridge unless it is there, with its address, ready to forward; give its index."""
        kernel = self._socket()
        gateway = gateway_of(subnet)
        link = kernel.link(self.name)
        if link is None:
            kernel.ask(rtnetlink.create_bridge(self.name, mac_of(gateway), mtu))
            link = kernel.link(self.name)
            if link is None:
                raise OSError(errno.ENODEV, "the new bridge is gone", self.name)
            logger.info("bridge created", extra={"bridge": self.name, "subnet": str(subnet)})
        if not link.up:
            kernel.ask(rtnetlink.set_up(link.index))
        try:
            kernel.ask(rtnetlink.add_address(link.index, gateway, subnet))
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
        return link.index

    def attach(
        self, device: str, namespace: Path, address: IPv4Address, mac_address: str, subnet: IPv4Network, *,
        index: int, mtu: int, hairpin: bool,
    ) -> None:
        """Join a network namespace to the bridge: a pair of cards, the inner one with an address and a default route.

        On failure the pair is removed again.
        """
        kernel = self._socket()
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            create = rtnetlink.create_veth(
                device, mtu=mtu, peer_name=CONTAINER_DEVICE, peer_mac_address=mac_address, peer_namespace_fd=fd
            )
            silence = [rtnetlink.set_no_link_local(device)] if self._has_ipv6 else []
            try:
                kernel.ask(create, *silence, rtnetlink.set_master(device, index))
                if hairpin:
                    self.set_hairpin(device)
                in_network_namespace(fd, lambda: _configure(address, subnet))
            except OSError:
                self.detach(device)
                raise
        finally:
            os.close(fd)

    def set_hairpin(self, device: str) -> None:
        """Let a container reach itself by a port that it published; needed where bridged packets are filtered."""
        kernel = self._socket()
        link = kernel.link(device)
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), device)
        kernel.ask(rtnetlink.set_hairpin(link.index))

    def rejoin(self, device: str, index: int) -> bool:
        """Put a pair that exists into the bridge again; False if it does not exist."""
        try:
            self._socket().ask(rtnetlink.set_master(device, index))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def ports(self) -> list[str]:
        """Give the names of the cards in the bridge."""
        index = self.index()
        return [link.name for link in self._socket().links() if index and link.master == index]

    def detach(self, device: str) -> None:
        """Remove a pair; one that is gone, as with its namespace, is no error. Takes some 20 ms."""
        try:
            self._socket().ask(rtnetlink.delete_link(device))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def delete(self) -> None:
        """Remove the bridge and every pair in it."""
        for device in self.ports():
            self.detach(device)
        self.detach(self.name)

    def _socket(self) -> RouteSocket:
        with self._guard:
            if self._opened is None:
                self._opened = RouteSocket()
            return self._opened


def prepare_namespace(namespace: Path) -> None:
    """Keep IPv6 off the cards that a namespace will get; `lo` keeps ::1. Raises OSError."""
    if not _IPV6.is_dir():
        return
    in_network_namespace(namespace, lambda: _set(_IPV6 / "conf/default/disable_ipv6", "1"))


def _configure(address: IPv4Address, subnet: IPv4Network) -> None:
    """Set up the inner card; runs inside the container's namespace."""
    with RouteSocket() as kernel:
        link = kernel.link(CONTAINER_DEVICE)
        if link is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), CONTAINER_DEVICE)
        kernel.ask(
            rtnetlink.set_up(link.index),
            rtnetlink.add_address(link.index, address, subnet),
            rtnetlink.add_default_route(link.index, gateway_of(subnet)),
        )


def _get(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _set(path: Path, value: str) -> None:
    path.write_text(value, encoding="ascii")
