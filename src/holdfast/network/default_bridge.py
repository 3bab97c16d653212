"""The network `bridge`: made when the first container needs it, and put right when somebody harms it.

What is in the kernel can always be made again from the endpoints' records, which therefore come first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from holdfast import faults, log
from holdfast.config import Config
from holdfast.errors import System
from holdfast.network import conntrack, files, links
from holdfast.network.addresses import choose_subnet, mac_of, parse_subnet
from holdfast.network.bridge import DEFAULT_MTU, Bridge
from holdfast.network.filters import Filters
from holdfast.network.model import published_ports
from holdfast.network.reaper import Reaper
from holdfast.network.rules import Published
from holdfast.store.networks import EndpointRecord

logger = log.get(__name__)

DEVICE_PREFIX: Final = "hf"


@dataclass(frozen=True, slots=True)
class _Ready:
    """The bridge as it is in the kernel."""

    subnet: IPv4Network
    index: int
    mtu: int


class DefaultBridge:
    """One engine's default bridge, its rules and the containers on it. Safe from any thread."""

    def __init__(self, config: Config, remembered: Callable[[], str], remember: Callable[[str], None]) -> None:
        """`remembered` gives the subnet chosen earlier, if any; `remember` takes one chosen now."""
        self.name = config.bridge_name
        self._configured_subnet = config.bridge_subnet
        self._remembered = remembered
        self._remember = remember
        self._bridge = Bridge(config.bridge_name)
        self._filters = Filters(config.nft_table, config.bridge_name)
        self._reaper = Reaper(self._bridge.detach)
        self._guard = threading.RLock()
        """Held while bridge or rules are made or changed, and around what follows."""
        self._joined: dict[str, EndpointRecord] = {}
        self._ready: _Ready | None = None
        self._subnet: IPv4Network | None = None

    # --- the bridge itself

    def subnet(self) -> IPv4Network:
        """Give the subnet, choosing one if that is still to do; the bridge need not exist. Raises System, Conflict."""
        with self._guard:
            if self._subnet is None:
                self._subnet = self._find_subnet()
            return self._subnet

    def mtu(self) -> int:
        """Give the size of packets in bytes."""
        return self._ready.mtu if self._ready else DEFAULT_MTU

    def require_publishing(self) -> None:
        """Make the bridge if need be, and raise Unavailable where ports cannot be published."""
        self._make_ready()
        self._filters.require(self._load_filters)

    def warm_up(self) -> None:
        """Load libraries."""
        links.warm_up()
        self._filters.warm_up()

    def close(self) -> None:
        """Finish removals and let go of the kernel; everything stays as it is there."""
        self._filters.unwatch()
        self._reaper.finish()
        self._filters.close()

    def remove(self) -> None:
        """Remove the bridge, all pairs in it and all rules. Raises System."""
        self._filters.unwatch()
        self._reaper.finish()
        with self._guard:
            self._joined.clear()
            self._ready = None
            try:
                self._filters.remove()
                self._bridge.delete()
            except OSError as error:
                raise System(f"remove bridge {self.name}: {error}") from error

    # --- containers on it

    def leaving(self) -> frozenset[int]:
        """Give the addresses, as numbers, that containers which have left may still answer for."""
        return self._reaper.leaving()

    def finish_leaving(self) -> None:
        """Wait until `leaving` is empty."""
        self._reaper.finish()

    def join(self, record: EndpointRecord, netns: Path) -> None:
        """Join a recorded endpoint's namespace and publish its ports; on failure nothing stays. Raises System."""
        try:
            self._attach(record, netns)
            faults.point("endpoint-attached-not-published")
            try:
                self._publish(record)
            except OSError:
                self._bridge.detach(record.device)
                raise
        except OSError as error:
            raise System(f"failed to create endpoint {record.container_name} on network bridge: {error}") from error

    def leave(self, record: EndpointRecord) -> None:
        """Withdraw an endpoint's ports at once and remove its pair of cards soon."""
        with self._guard:
            self._joined.pop(record.id, None)
            if record.ports:
                self._filters.withdraw(_targets([record]), self._all_targets)
        self._reaper.add(record.device, int(IPv4Address(record.address)))

    def restore(self, records: Sequence[EndpointRecord], live: Mapping[str, Path]) -> None:
        """Make the kernel agree with the records, where either knows of this bridge.

        `live` gives the namespace of each record's container. Raises OSError and System.
        """
        with self._guard:
            self._joined = {record.id: record for record in records}
        if not records and not self._bridge.index():
            return
        ready = self._make_ready()
        devices = {record.device for record in records}
        for device in self._bridge.ports():
            if device.startswith(DEVICE_PREFIX) and device not in devices and not self._reaper.has(device):
                self._reaper.add(device, 0)
        for record in records:
            if not self._bridge.rejoin(record.device, ready.index):
                self._attach(record, live[record.container_id])
            elif record.ports:
                self._bridge.set_hairpin(record.device)

    # --- inside

    def _attach(self, record: EndpointRecord, netns: Path) -> None:
        """Make the pair of cards; where somebody removed the bridge, make that again first. Raises OSError, System."""
        address = IPv4Address(record.address)
        for last_try in (False, True):
            ready = self._make_ready()
            try:
                self._bridge.attach(
                    record.device,
                    netns,
                    address,
                    record.mac_address or mac_of(address),
                    ready.subnet,
                    index=ready.index,
                    mtu=ready.mtu,
                    hairpin=bool(record.ports),
                )
            except OSError:
                if last_try or self._bridge.index() == ready.index:
                    raise
                with self._guard:
                    self._ready = None
            else:
                return

    def _publish(self, record: EndpointRecord) -> None:
        """Lead the endpoint's ports to it. Raises OSError."""
        with self._guard:
            self._joined[record.id] = record
            try:
                if record.ports:
                    self._filters.publish(_targets([record]), self._all_targets)
            except OSError:
                del self._joined[record.id]
                raise
        udp = {port.host_port for port in record.ports if port.protocol == "udp"}
        if udp:
            try:
                conntrack.forget_udp(udp, self._bridge.host_addresses(), self.subnet())
            except OSError as error:
                logger.warning("cannot forget old connections of published ports", extra={"error": str(error)})

    def _make_ready(self) -> _Ready:
        """Make bridge and rules unless this was done. Raises System."""
        ready = self._ready
        if ready is not None:
            return ready
        with self._guard:
            if self._ready is None:
                subnet = self.subnet()
                try:
                    present = self._bridge.subnet()
                    if present is not None and present != subnet and not self._bridge.ports():
                        self._bridge.delete()
                    mtu = self._bridge.occupied().mtu
                    index = self._bridge.ensure(subnet, mtu)
                except OSError as error:
                    raise System(f"create bridge {self.name}: {error}") from error
                self._ready = _Ready(subnet, index, mtu)
                self._load_filters()
            return self._ready

    def _load_filters(self) -> None:
        """Make the rules with everything that is published now."""
        with self._guard:
            self._filters.load(self.subnet(), self._all_targets, self._check_filters)

    def _check_filters(self) -> None:
        """Another program changed the packet filter: put right what it took away."""
        with self._guard:
            if self._ready is not None:
                self._filters.check(self._ready.subnet, self._all_targets)

    def _all_targets(self) -> Sequence[Published]:
        return _targets(self._joined.values())

    def _find_subnet(self) -> IPv4Network:
        """Take the remembered subnet while containers use it or it is free; else choose and remember one."""
        remembered = self._remembered()
        if remembered and self._joined:
            return IPv4Network(remembered)
        try:
            taken = self._bridge.occupied().networks
        except OSError as error:
            raise System(f"choose a subnet for bridge {self.name}: {error}") from error
        subnet = _choose(self._configured_subnet, remembered, taken)
        if str(subnet) != remembered:
            self._remember(str(subnet))
            logger.info("subnet chosen", extra={"bridge": self.name, "subnet": str(subnet)})
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


def _targets(records: Iterable[EndpointRecord]) -> list[Published]:
    return [(record.address, port) for record in records for port in published_ports(record.ports)]
