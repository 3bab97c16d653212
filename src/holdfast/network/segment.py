"""A bridge network as the kernel shall have it. Pure: it is worked out from the network's record."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from holdfast.network.addresses import gateway_of, mac_of, pool_of
from holdfast.store.networks import AddressPool, NetworkRecord, PoolRecord

OPTION_PREFIX: Final = "com.docker.network."
BRIDGE_NAME: Final = OPTION_PREFIX + "bridge.name"
ENABLE_ICC: Final = OPTION_PREFIX + "bridge.enable_icc"
MASQUERADE: Final = OPTION_PREFIX + "bridge.enable_ip_masquerade"
HOST_BINDING: Final = OPTION_PREFIX + "bridge.host_binding_ipv4"
MTU: Final = OPTION_PREFIX + "driver.mtu"

TRUE_WORDS: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE_WORDS: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
"""What Go's strconv.ParseBool takes."""

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Range:
    """The addresses of one family on a bridge: the bridge's own is `gateway`."""

    subnet: Network
    gateway: Address
    pool: range
    """Addresses for containers that ask for none, as numbers."""
    reserved: frozenset[int]
    """Those of them that others have."""

    def address_pool(self, leaving: frozenset[int]) -> AddressPool:
        """Give where an address comes from while those in `leaving` may still answer."""
        return AddressPool(self.pool, self.reserved, leaving)


@dataclass(frozen=True, slots=True)
class Segment:
    """One bridge with its ranges; `mtu` 0 takes that of the host's default route.

    With `talks` containers reach each other, with `masquerades` they reach the world by the host's address. `internal`
    leads nowhere but to each other and the host.
    """

    network_id: str
    network_name: str
    bridge: str
    ipv4: Range | None
    ipv6: Range | None = None
    mtu: int = 0
    internal: bool = False
    talks: bool = True
    masquerades: bool = True
    host_binding: str = ""
    owns_bridge: bool = True

    @property
    def mac_address(self) -> str:
        """The bridge's own, fixed while it lives."""
        if self.ipv4 is not None and isinstance(self.ipv4.gateway, IPv4Address):
            return mac_of(self.ipv4.gateway)
        return "02:42:" + bytes.fromhex(self.network_id[:8]).hex(":")

    def range_of(self, version: int) -> Range | None:
        """Give the range of IP version 4 or 6."""
        return self.ipv4 if version == 4 else self.ipv6


def default_segment(record: NetworkRecord, bridge: str, subnet: IPv4Network) -> Segment:
    """Give the default bridge."""
    gateway = gateway_of(subnet)
    taken = (subnet.network_address, gateway, subnet.broadcast_address)
    own = Range(subnet, gateway, pool_of(subnet), frozenset(map(int, taken)))
    return Segment(record.id, record.name, bridge, own)


def segment_of(record: NetworkRecord) -> Segment:
    """Give a user-defined network's bridge; its settings were checked when it was made."""
    settings, options = record.settings, record.settings.options
    ranges = {found.subnet.version: found for found in map(range_of, settings.pools)}
    return Segment(
        network_id=record.id,
        network_name=record.name,
        bridge=settings.bridge,
        ipv4=ranges.get(4) if settings.enable_ipv4 else None,
        ipv6=ranges.get(6) if settings.enable_ipv6 else None,
        mtu=int(options.get(MTU, "") or 0),
        internal=settings.internal,
        talks=switch(options, ENABLE_ICC),
        masquerades=switch(options, MASQUERADE),
        host_binding=options.get(HOST_BINDING, ""),
        owns_bridge=settings.owns_bridge,
    )


def range_of(pool: PoolRecord) -> Range:
    """Work out a recorded pool's range."""
    subnet = ip_network(pool.subnet)
    gateway = ip_address(pool.gateway) if pool.gateway else subnet[min(1, subnet.num_addresses - 1)]
    part = ip_network(pool.ip_range) if pool.ip_range else subnet
    reserved = {int(subnet.network_address), int(gateway), *_numbers(pool.reserved.values())}
    if subnet.version == 4 and subnet.num_addresses > 2:
        reserved.add(int(subnet.broadcast_address))
    numbers = range(int(part.network_address), int(part.broadcast_address) + 1)
    return Range(subnet, gateway, numbers, frozenset(reserved))


def switch(options: Mapping[str, str], name: str) -> bool:
    """Give a driver option that is on unless switched off."""
    return options.get(name, "true") not in FALSE_WORDS


def bridge_name(network_id: str) -> str:
    """Give the name that a network's bridge has unless one was asked for. Source: Docker, bridge driver."""
    return "br-" + network_id[:12]


def new_network_id() -> str:
    """Give 64 random hexadecimal digits."""
    return secrets.token_hex(32)


def _numbers(addresses: Iterable[str]) -> list[int]:
    return [int(ip_address(address)) for address in addresses]
