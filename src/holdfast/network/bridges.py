"""The bridge networks of one engine: made when they are needed, and put right when somebody harms them.

What is in the kernel can always be made again from the records of networks and endpoints, which therefore come first.
The default bridge is made with its first container, a user-defined one with its network. After a restart either is
looked for when something runs on it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_interface
from pathlib import Path
from typing import Final

from holdfast import faults, log
from holdfast.config import Config
from holdfast.errors import Forbidden, System
from holdfast.network import bridge as kernel
from holdfast.network import conntrack, files, links
from holdfast.network.addresses import choose_own_subnet, choose_subnet, mac_of, parse_subnet
from holdfast.network.bridge import DEFAULT_MTU, Bridge, Plug
from holdfast.network.filters import Filters, Wanted
from holdfast.network.model import published_ports
from holdfast.network.networks import BRIDGE, NetworkCatalogue
from holdfast.network.reaper import Reaper
from holdfast.network.rules import Published
from holdfast.network.segment import Segment, default_segment, segment_of
from holdfast.store.networks import EndpointRecord, NetworkRecord

logger = log.get(__name__)

DEVICE_PREFIX: Final = "hf"


@dataclass(frozen=True, slots=True)
class _Ready:
    """A bridge as it is in the kernel."""

    segment: Segment
    index: int
    mtu: int


class Bridges:
    """Bridges, their rules and the containers on them. Safe from any thread."""

    def __init__(self, config: Config, networks: NetworkCatalogue) -> None:
        self.default_name = config.bridge_name
        self._configured_subnet = config.bridge_subnet
        self._networks = networks
        self._filters = Filters(config.nft_table, self._wanted)
        self._reaper = Reaper(kernel.remove_device)
        self._guard = threading.RLock()
        """Held while bridges or rules are made or changed, and around what follows."""
        self._joined: dict[str, EndpointRecord] = {}
        self._ready: dict[str, _Ready] = {}
        self._subnet: IPv4Network | None = None

    # --- the bridges themselves

    def segment(self, record: NetworkRecord) -> Segment:
        """Give a bridge network as the kernel shall have it; the bridge need not exist. Raises System, Conflict."""
        if record.name == BRIDGE:
            return default_segment(record, self.default_name, self.default_subnet())
        return segment_of(record)

    def default_subnet(self) -> IPv4Network:
        """Give the default bridge's subnet, choosing one if that is still to do. Raises System, Conflict."""
        with self._guard:
            if self._subnet is None:
                self._subnet = self._find_subnet()
            return self._subnet

    def mtu(self, network_id: str) -> int:
        """Give the size of packets in bytes."""
        ready = self._ready.get(network_id)
        return ready.mtu if ready else DEFAULT_MTU

    def free_subnet(self) -> IPv4Network:
        """Choose a subnet for a new network, clear of all others and of the host's routes. Raises System, Unavailable.

        The catalogue's lock is held, so that nobody else chooses the same.
        """
        return choose_own_subnet([*self._taken(), *self._recorded()])

    def check_free(self, subnets: Iterable[IPv4Network | IPv6Network]) -> None:
        """Raise Forbidden in Docker's words where a subnet that was asked for overlaps another network's."""
        recorded, recorded6 = self._recorded(), self._networks.subnets6()
        for subnet in subnets:
            if isinstance(subnet, IPv4Network):
                overlaps = any(subnet.overlaps(other) for other in recorded)
            else:
                overlaps = any(subnet.overlaps(other) for other in recorded6)
            if overlaps:
                raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")

    def make(self, record: NetworkRecord) -> None:
        """Make a new network's bridge and rules. Raises System."""
        self._make_ready(record)

    def exists(self, name: str) -> bool:
        """Whether the host has a device of that name."""
        return links.index_of(name) != 0

    def discard(self, segment: Segment) -> None:
        """Take a network out of the kernel: rules at once, its bridge too unless others made it. Raises System."""
        with self._guard:
            self._ready.pop(segment.network_id, None)
            self._filters.remove_segment(segment, self._check_filters)
        try:
            if segment.owns_bridge:
                Bridge(segment.bridge).delete()
        except OSError as error:
            raise System(f"remove bridge {segment.bridge}: {error}") from error

    def require_publishing(self, record: NetworkRecord) -> None:
        """Make the bridge if need be, and raise Unavailable where ports cannot be published."""
        self._make_ready(record)
        self._filters.require(self._load_filters)

    def warm_up(self) -> None:
        """Load libraries, and make the bridges that an earlier engine took away."""
        links.warm_up()
        self._filters.warm_up()
        for record in self._networks.own():
            if record.id not in self._ready and not record.settings.config_only:
                try:
                    self._make_ready(record)
                except System as error:
                    logger.warning("cannot make a network again", extra={"network": record.name, "error": str(error)})

    def close(self) -> None:
        """Finish removals and let go of the kernel; everything stays as it is there."""
        self._filters.unwatch()
        self._reaper.finish()
        self._filters.close()

    def remove(self) -> None:
        """Remove every bridge, all pairs in them and all rules. Raises System."""
        self._filters.unwatch()
        self._reaper.finish()
        with self._guard:
            self._joined.clear()
            self._ready.clear()
            names = [self.default_name, *(row.settings.bridge for row in self._networks.own()
                                          if row.settings.bridge and row.settings.owns_bridge)]  # fmt: skip
            self._filters.remove()
            for name in names:
                try:
                    Bridge(name).delete()
                except OSError as error:
                    raise System(f"remove bridge {name}: {error}") from error

    # --- containers on them

    def leaving(self) -> frozenset[int]:
        """Give the addresses, as numbers, that containers which have left may still answer for."""
        return self._reaper.leaving()

    def finish_leaving(self) -> None:
        """Wait until `leaving` is empty."""
        self._reaper.finish()

    def join(self, record: EndpointRecord, netns: Path, *, is_gateway: bool) -> None:
        """Join a recorded endpoint's namespace and publish its ports; on failure nothing stays. Raises System."""
        network = self._networks.find(record.network_id)
        try:
            self._attach(record, network, netns, is_gateway=is_gateway)
            faults.point("endpoint-attached-not-published")
            try:
                self.publish(record)
            except OSError:
                kernel.remove_device(record.device)
                raise
        except OSError as error:
            name = record.container_name
            raise System(f"failed to create endpoint {name} on network {network.name}: {error}") from error

    def leave(self, record: EndpointRecord, *, at_once: bool = False) -> None:
        """Withdraw an endpoint's ports at once and remove its pair of cards soon.

        A container that goes on wants it `at_once`: the name of its card may be needed again.
        """
        self.withdraw(record)
        if at_once:
            try:
                kernel.remove_device(record.device)
            except OSError as error:
                logger.warning("cannot remove a card", extra={"device": record.device, "error": str(error)})
        with self._guard:
            self._joined.pop(record.id, None)
        addresses = [int(ip_address(text)) for text in (record.address, record.address6) if text]
        self._reaper.add(record.device, *addresses)

    def publish(self, record: EndpointRecord) -> None:
        """Lead the endpoint's ports to it. Raises OSError."""
        with self._guard:
            before = self._joined.get(record.id)
            self._joined[record.id] = record
            try:
                if record.ports:
                    self._filters.publish(_targets([record]))
            except OSError:
                if before is None:
                    del self._joined[record.id]
                else:
                    self._joined[record.id] = before
                raise
        udp = {port.host_port for port in record.ports if port.protocol == "udp"}
        if udp:
            ready = self._ready.get(record.network_id)
            if ready is None or ready.segment.ipv4 is None or not isinstance(ready.segment.ipv4.subnet, IPv4Network):
                return
            try:
                conntrack.forget_udp(udp, kernel.host_addresses(), ready.segment.ipv4.subnet)
            except OSError as error:
                logger.warning("cannot forget old connections of published ports", extra={"error": str(error)})

    def withdraw(self, record: EndpointRecord) -> None:
        """Lead its ports nowhere."""
        with self._guard:
            held = self._joined.get(record.id)
            if held is None:
                return
            self._joined[record.id] = replace(held, ports=())
            if record.ports:
                self._filters.withdraw(_targets([record]))

    def set_hairpin(self, record: EndpointRecord) -> None:
        """Let a container reach itself by the ports that it publishes from now on. Raises System."""
        try:
            Bridge(self.default_name).set_hairpin(record.device)
        except OSError as error:
            raise System(f"publish ports of {record.container_name}: {error}") from error

    def note(self, record: EndpointRecord) -> None:
        """Take note of an endpoint's new names."""
        with self._guard:
            if record.id in self._joined:
                self._joined[record.id] = record

    def restore(self, records: Sequence[EndpointRecord], live: Mapping[str, Path], gateways: frozenset[str]) -> None:
        """Make the kernel agree with the records, where either knows of these bridges.

        `live` gives the namespace of each record's container, `gateways` the ids of those endpoints that have their
        container's default route. What fails for one network is logged; the others go on.
        """
        with self._guard:
            self._joined = {record.id: record for record in records}
        by_network: dict[str, list[EndpointRecord]] = {}
        for record in records:
            by_network.setdefault(record.network_id, []).append(record)
        for network in self._networks.bridges():
            try:
                self._restore_one(network, by_network.get(network.id, []), live, gateways)
            except (OSError, System) as error:
                logger.warning("cannot bring a network back", extra={"network": network.name, "error": str(error)})

    # --- inside

    def _restore_one(
        self,
        network: NetworkRecord,
        records: Sequence[EndpointRecord],
        live: Mapping[str, Path],
        gateways: frozenset[str],
    ) -> None:
        name = self.default_name if network.name == BRIDGE else network.settings.bridge
        if not records and not (name and self.exists(name)):
            return
        ready = self._make_ready(network)
        bridge = Bridge(name)
        devices = {record.device for record in records}
        for device in bridge.ports():
            if device.startswith(DEVICE_PREFIX) and device not in devices and not self._reaper.has(device):
                self._reaper.add(device)
        for record in records:
            if not bridge.rejoin(record.device, ready.index):
                self._attach(record, network, live[record.container_id], is_gateway=record.id in gateways)
            elif record.ports:
                bridge.set_hairpin(record.device)

    def _attach(self, record: EndpointRecord, network: NetworkRecord, netns: Path, *, is_gateway: bool) -> None:
        """Make the pair of cards; where somebody removed the bridge, make that again first. Raises OSError, System."""
        for last_try in (False, True):
            ready = self._make_ready(network)
            bridge = Bridge(ready.segment.bridge)
            try:
                bridge.attach(_plug(record, ready, is_gateway=is_gateway), netns, ready.index)
            except OSError:
                if last_try or bridge.index() == ready.index:
                    raise
                with self._guard:
                    self._ready.pop(network.id, None)
            else:
                return

    def _make_ready(self, record: NetworkRecord) -> _Ready:
        """Make bridge and rules unless this was done. Raises System."""
        ready = self._ready.get(record.id)
        if ready is not None:
            return ready
        with self._guard:
            ready = self._ready.get(record.id)
            if ready is None:
                segment = self.segment(record)
                bridge = Bridge(segment.bridge)
                ranges = tuple(own for own in (segment.ipv4, segment.ipv6) if own is not None)
                try:
                    if record.name == BRIDGE:
                        present = bridge.subnet()
                        if present is not None and present != ranges[0].subnet and not bridge.ports():
                            bridge.delete()
                    mtu = segment.mtu or kernel.occupied(self._own_bridges()).mtu
                    index = bridge.ensure(ranges, segment.mac_address, mtu)
                except OSError as error:
                    raise System(f"create bridge {segment.bridge}: {error}") from error
                ready = _Ready(segment, index, mtu)
                self._ready[record.id] = ready
                self._filters.add_segment(segment, self._check_filters)
            return ready

    def _load_filters(self) -> None:
        """Make the rules with everything that is published now."""
        with self._guard:
            self._filters.load(self._check_filters)

    def _check_filters(self) -> None:
        """Another program changed the packet filter: put right what it took away."""
        with self._guard:
            self._filters.check()

    def _wanted(self) -> Wanted:
        segments = tuple(ready.segment for ready in self._ready.values())
        return Wanted(segments, tuple(_targets(self._joined.values())))

    def _own_bridges(self) -> frozenset[str]:
        return frozenset({self.default_name, *(row.settings.bridge for row in self._networks.own())} - {""})

    def _taken(self) -> tuple[IPv4Network, ...]:
        """Give the networks of the host that are none of ours. Raises System."""
        try:
            return kernel.occupied(self._own_bridges()).networks
        except OSError as error:
            raise System(f"choose a subnet: {error}") from error

    def _recorded(self) -> list[IPv4Network]:
        """Give the subnets of our networks, whether their bridges exist or not."""
        default = self._subnet or self._networks.bridge_subnet()
        return [*self._networks.subnets(), *([IPv4Network(default)] if default else [self.default_subnet()])]

    def _find_subnet(self) -> IPv4Network:
        """Take the remembered subnet while containers use it or it is free; else choose and remember one."""
        remembered = self._networks.bridge_subnet()
        default_id = self._networks.find(BRIDGE).id
        if remembered and any(record.network_id == default_id for record in self._joined.values()):
            return IPv4Network(remembered)
        taken = (*self._taken(), *self._networks.subnets())
        subnet = _choose(self._configured_subnet, remembered, taken)
        if str(subnet) != remembered:
            self._networks.set_bridge_subnet(str(subnet))
            logger.info("subnet chosen", extra={"bridge": self.default_name, "subnet": str(subnet)})
        return subnet


def _choose(configured: str, remembered: str, taken: Sequence[IPv4Network]) -> IPv4Network:
    if configured:
        return parse_subnet(configured, taken)
    if remembered:
        earlier = IPv4Network(remembered)
        if not any(network.prefixlen > 0 and network.overlaps(earlier) for network in taken):
            return earlier
    servers = files.host_resolv_conf().nameservers
    return choose_subnet(taken, [IPv4Address(server) for server in servers])


def _plug(record: EndpointRecord, ready: _Ready, *, is_gateway: bool) -> Plug:
    segment = ready.segment
    pairs = [(text, own) for text, own in ((record.address, segment.ipv4), (record.address6, segment.ipv6))
             if text and own is not None]  # fmt: skip
    gateways = [own.gateway for _, own in pairs] if is_gateway and not segment.internal else []
    return Plug(
        device=record.device,
        card=record.card,
        mac_address=record.mac_address or mac_of(ip_address(pairs[0][0])),
        addresses=tuple(ip_interface(f"{text}/{own.subnet.prefixlen}") for text, own in pairs),
        gateways=tuple(gateways),
        mtu=ready.mtu,
        hairpin=bool(record.ports),
        isolated=not segment.talks,
    )


def _targets(records: Iterable[EndpointRecord]) -> list[Published]:
    return [
        (address, port)
        for record in records
        for port in published_ports(record.ports)
        for address in (record.address, record.address6)
        if address
    ]
