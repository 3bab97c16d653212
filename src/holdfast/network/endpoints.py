"""The way of a container into networks and out again.

Order when a container joins: ports are held, then the endpoint is recorded with its address, then the kernel is told.
Everything after the record can be found again by it, so a crash leaves nothing that `restore` cannot clear.

One of a container's endpoints is its gateway, see `gateway`: it has the default route and the published ports.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from holdfast import faults, log
from holdfast.errors import Conflict, EngineError, InvalidParameter, System, Unavailable
from holdfast.network import settings
from holdfast.network.addresses import parse_mac
from holdfast.network.bridge import set_default_routes
from holdfast.network.bridges import DEVICE_PREFIX, Bridges
from holdfast.network.gateway import choose_gateway, versions_outside
from holdfast.network.model import EndpointRequest, PortRequest, port_records, published_ports
from holdfast.network.networks import BRIDGE, NetworkCatalogue
from holdfast.network.ports import PortTable
from holdfast.network.segment import Segment
from holdfast.store.networks import NO_POOL, AddressPool, EndpointRecord, NetworkRecord, NetworkTable

logger = log.get(__name__)

_CARD_PREFIX: Final = "eth"


class Endpoints:
    """Who is in which network. Calls for one container must not overlap; otherwise safe from any thread."""

    def __init__(self, table: NetworkTable, networks: NetworkCatalogue, bridges: Bridges) -> None:
        self._table = table
        self._networks = networks
        self._bridges = bridges
        self._ports = PortTable()
        self._guard = threading.Lock()
        """Held around `_endpoints`."""
        self._endpoints: dict[str, dict[str, EndpointRecord]] = {}
        """By container and network."""

    # --- looked at

    def of(self, container_id: str) -> list[EndpointRecord]:
        """Give a container's endpoints, in the order in which it joined."""
        with self._guard:
            return list(self._endpoints.get(container_id, {}).values())

    def at(self, network_id: str) -> list[EndpointRecord]:
        """Give a network's endpoints."""
        with self._guard:
            return [row for rows in self._endpoints.values() for row in rows.values() if row.network_id == network_id]

    def gateway_of(self, container_id: str) -> EndpointRecord | None:
        """Give the endpoint that has a container's default route and ports, None if there is none."""
        return self._gateway(self.of(container_id))

    # --- start and end of the engine

    def restore(self, live: Mapping[str, Path], wanted: Mapping[str, frozenset[str]] | None) -> list[EndpointRecord]:
        """Keep the endpoints of containers that run and clear away all others; give those kept.

        `live` maps the containers that run to their namespaces, `wanted` to the names and ids of the networks they are
        to be in; None stands for all in which they are recorded. What the kernel refuses is logged.
        """
        rows = self._table.endpoints()
        names = {record.id: record.name for record in self._networks.all()}
        kept: list[EndpointRecord] = []
        gone: list[EndpointRecord] = []
        for row in rows:
            rightful = wanted is None or {row.network_id, names.get(row.network_id, "")} & wanted.get(
                row.container_id, frozenset()
            )
            (kept if row.container_id in live and rightful else gone).append(row)
        with self._guard:
            self._endpoints = {}
            for row in kept:
                self._endpoints.setdefault(row.container_id, {})[row.network_id] = row
        if gone:
            self._table.remove_endpoints([row.id for row in gone])
        for row in gone:
            if row.device:
                self._bridges.leave(replace(row, ports=()))
        for row in kept:
            versions = frozenset(ip_address(text).version for text in (row.address, row.address6) if text)
            for port in self._ports.reserve_again(published_ports(row.ports), versions=versions):
                logger.warning(
                    "another program took a published port",
                    extra={"container": row.container_id, "port": port.host_port, "protocol": port.protocol},
                )
        gateways = frozenset(row.id for row in map(self.gateway_of, {row.container_id for row in kept}) if row)
        self._bridges.restore([row for row in kept if row.device], live, gateways)
        changed = {row.container_id for row in gone if row.container_id in live}
        for container_id in changed:
            try:
                self.settle(container_id, live[container_id])
            except EngineError as error:
                logger.warning("cannot set a gateway", extra={"container": container_id, "error": str(error)})
        return kept

    def hand_over(self, record: EndpointRecord) -> None:
        """Leave the ports that a process passes on to that process."""
        versions = {ip_address(text).version for text in (record.address, record.address6) if text}
        self._ports.hand_over(port for port in published_ports(record.ports) if port.is_proxied(versions))

    def close(self) -> None:
        """Let go of the ports of the host; endpoints stay."""
        self._ports.close()

    def forget_all(self) -> None:
        """Forget every endpoint; what is in the kernel is somebody else's to remove."""
        with self._guard:
            rows = [row for rows in self._endpoints.values() for row in rows.values()]
            self._endpoints.clear()
        self._table.remove_endpoints([row.id for row in rows])
        self._ports.close()

    # --- in and out

    def check(self, request: EndpointRequest) -> None:
        """Raise InvalidParameter in Docker's words for addresses that the network cannot give; see `connect`."""
        network = self._networks.find(request.network)
        if network.driver != "bridge" or network.name == BRIDGE:
            return
        configured = [ip_network(pool.subnet) for pool in network.settings.pools if not pool.chosen]
        ranges = [ip_network(pool.ip_range) for pool in network.settings.pools if pool.ip_range]
        troubles = [
            trouble
            for address, version in ((request.address, 4), (request.address6, 6))
            for trouble in settings.endpoint_troubles(configured, ranges, address, version)
        ]
        settings.raise_endpoint_troubles(network.name, troubles)

    def connect_all(
        self,
        container_id: str,
        netns: Path,
        name: str,
        requests: Sequence[EndpointRequest],
        ports: Sequence[PortRequest],
    ) -> list[EndpointRecord]:
        """Join a container to all its networks; see `Network.connect_all`."""
        networks = [(self._networks.find(request.network), request) for request in requests]
        gateway = choose_gateway(
            (network, request.gateway_priority, (network, request)) for network, request in networks
        )
        joined: list[EndpointRecord] = []
        try:
            for request in requests:
                first = gateway is not None and request is gateway[1]
                joined.append(
                    self._connect(container_id, netns, name, request, ports if first else (), is_gateway=first)
                )
            spoken = {version for network, _ in networks for version in versions_outside(network)}
            if gateway is not None and spoken - versions_outside(gateway[0]):
                self.settle(container_id, netns)
        except EngineError:
            for record in joined:
                self.disconnect(record)
            raise
        return joined

    def connect_more(
        self, container_id: str, netns: Path, name: str, request: EndpointRequest, ports: Sequence[PortRequest]
    ) -> EndpointRecord:
        """Join a running container to one more network; see `Network.connect_more`."""
        record = self._connect(container_id, netns, name, request, (), is_gateway=False)
        try:
            self.settle(container_id, netns, ports)
        except EngineError:
            self.leave_one(record, netns)
            raise
        return record

    def leave_one(self, record: EndpointRecord, netns: Path) -> None:
        """Take a running container out of one network; see `Network.disconnect_from`."""
        with self._guard:
            rows = [row for row in self._endpoints.get(record.container_id, {}).values() if row.id != record.id]
            record = self._endpoints.get(record.container_id, {}).get(record.network_id, record)
        heir = self._gateway(rows)
        if record.ports and heir is not None:
            self._move_ports(record, heir)
            record = replace(record, ports=())
        self.disconnect(record, goes_on=True)
        self.settle(record.container_id, netns)

    def _connect(
        self,
        container_id: str,
        netns: Path,
        name: str,
        request: EndpointRequest,
        ports: Sequence[PortRequest],
        *,
        is_gateway: bool,
    ) -> EndpointRecord:
        found = self._networks.find(request.network)
        record = EndpointRecord(
            id=secrets.token_hex(32),
            network_id=found.id,
            container_id=container_id,
            container_name=name or container_id[:12],
            device="",
            address="",
            mac_address="",
            ports=(),
            names=request.names,
            gateway_priority=request.gateway_priority,
            links=request.links,
        )
        if found.driver == "bridge":
            segment = self._bridges.segment(found)
            wanted = replace(
                record,
                device=DEVICE_PREFIX + secrets.token_hex(5),
                card=self._free_card(container_id),
                address=_wanted_address(request.address, segment, 4),
                address6=_wanted_address(request.address6, segment, 6),
                mac_address=parse_mac(request.mac_address) if request.mac_address else "",
            )
            record = self._join_bridge(wanted, found, segment, netns, ports, is_gateway=is_gateway)
        else:
            record = self._table.add_endpoint(record)
        with self._guard:
            self._endpoints.setdefault(container_id, {})[found.id] = record
        return record

    def disconnect(self, record: EndpointRecord, *, goes_on: bool = False) -> None:
        """Take a container out of a network; its address and ports are free when this returns.

        The pair of cards is removed in the background, unless the container goes on.
        """
        with self._guard:
            rows = self._endpoints.get(record.container_id, {})
            record = rows.pop(record.network_id, record)
            if not rows:
                self._endpoints.pop(record.container_id, None)
        if record.device:
            self._bridges.leave(record, at_once=goes_on)
        faults.point("endpoint-left-still-recorded")
        self._table.remove_endpoints([record.id])
        self._ports.release(published_ports(record.ports))

    def settle(self, container_id: str, netns: Path, ports: Sequence[PortRequest] = ()) -> None:
        """Give the default routes and ports of a running container to the endpoint that should have them now.

        `ports` are published where none are yet. Raises System where the kernel refuses.
        """
        rows = [row for row in self.of(container_id) if row.device]
        gateway = self._gateway(rows)
        try:
            set_default_routes(netns, {version: self._way(gateway, rows, version) for version in (4, 6)})
        except OSError as error:
            raise System(f"failed to set gateway: {error}") from error
        holder = next((row for row in rows if row.ports), None)
        if gateway is None or (holder is not None and holder.id == gateway.id):
            return
        if holder is not None:
            self._move_ports(holder, gateway)
        elif ports:
            self._publish_late(gateway, ports)

    def rename(self, container_id: str, name: str, old: str) -> None:
        """Take note of a container's new name; in no network is no error."""
        changed = []
        with self._guard:
            for network_id, row in self._endpoints.get(container_id, {}).items():
                names = tuple(name if known == old else known for known in row.names)
                row = replace(row, container_name=name, names=names)
                self._endpoints[container_id][network_id] = row
                changed.append(row)
        if changed:
            self._table.change_endpoints(changed)
            for row in changed:
                self._bridges.note(row)

    # --- inside

    def _gateway(self, rows: Sequence[EndpointRecord]) -> EndpointRecord | None:
        return choose_gateway(
            (self._networks.find(row.network_id), row.gateway_priority, row) for row in rows if row.device
        )

    def _way(
        self, gateway: EndpointRecord | None, rows: Sequence[EndpointRecord], version: int
    ) -> tuple[str, IPv4Address | IPv6Address] | None:
        """Give the card and the next hop of one IP version: the gateway's, else that of any other that speaks it."""
        others = [row for row in rows if gateway is None or row.id != gateway.id]
        for row in [*([gateway] if gateway else []), *others]:
            segment = self._bridges.segment(self._networks.find(row.network_id))
            own = segment.range_of(version)
            if own is not None and not segment.internal:
                return row.card, own.gateway
        return None

    def _free_card(self, container_id: str) -> str:
        taken = {row.card for row in self.of(container_id) if row.device}
        return next(name for name in (f"{_CARD_PREFIX}{number}" for number in range(1 << 16)) if name not in taken)

    def _join_bridge(
        self,
        record: EndpointRecord,
        network: NetworkRecord,
        segment: Segment,
        netns: Path,
        requests: Sequence[PortRequest],
        *,
        is_gateway: bool,
    ) -> EndpointRecord:
        if segment.internal:
            requests = ()
        if requests:
            self._bridges.require_publishing(network)
        with contextlib.ExitStack() as undo:
            published = self._reserve(record, segment, requests)
            undo.callback(self._ports.release, published_ports(published.ports))
            record = self._record(published, network, segment)
            undo.callback(self._table.remove_endpoints, [record.id])
            faults.point("endpoint-recorded-not-attached")
            self._bridges.join(record, netns, is_gateway=is_gateway)
            undo.pop_all()
        return record

    def _reserve(self, record: EndpointRecord, segment: Segment, requests: Sequence[PortRequest]) -> EndpointRecord:
        """Hold the host's ports. Raises what `PortTable.reserve` does, in Docker's words."""
        bound = [
            replace(request, host_ip=segment.host_binding) if not request.host_ip and segment.host_binding else request
            for request in requests
        ]
        trouble = f"driver failed programming external connectivity on endpoint {record.container_name} ({record.id})"
        try:
            published = self._ports.reserve(bound, versions=_spoken(segment), both=True)
            return replace(record, ports=port_records(published))
        except EngineError as error:
            raise error.within(trouble) from error

    def _record(self, record: EndpointRecord, network: NetworkRecord, segment: Segment) -> EndpointRecord:
        """Record an endpoint with addresses that nobody answers for any more."""
        leaving = self._bridges.leaving()
        asked = {int(ip_address(text)) for text in (record.address, record.address6) if text}
        if asked & leaving:
            self._bridges.finish_leaving()
            leaving = frozenset()
        try:
            return self._table.add_endpoint(record, *_pools(segment, leaving))
        except Unavailable as error:
            if not leaving:
                raise _exhausted(error, network) from error
        self._bridges.finish_leaving()
        try:
            return self._table.add_endpoint(record, *_pools(segment, frozenset()))
        except Unavailable as error:
            raise _exhausted(error, network) from error

    def _move_ports(self, old: EndpointRecord, new: EndpointRecord) -> None:
        """Lead a container's ports to another of its endpoints. Raises System."""
        bare, loaded = replace(old, ports=()), replace(new, ports=old.ports)
        self._table.change_endpoints([bare, loaded])
        self._replace(bare, loaded)
        self._bridges.withdraw(old)
        self._lead(loaded)

    def _publish_late(self, record: EndpointRecord, requests: Sequence[PortRequest]) -> None:
        network = self._networks.find(record.network_id)
        self._bridges.require_publishing(network)
        loaded = self._reserve(record, self._bridges.segment(network), requests)
        self._table.change_endpoints([loaded])
        self._replace(loaded)
        self._lead(loaded)

    def _lead(self, record: EndpointRecord) -> None:
        try:
            self._bridges.set_hairpin(record)
            self._bridges.publish(record)
        except OSError as error:
            raise System(f"publish ports of {record.container_name}: {error}") from error

    def _replace(self, *rows: EndpointRecord) -> None:
        with self._guard:
            for row in rows:
                self._endpoints[row.container_id][row.network_id] = row


def _wanted_address(text: str, segment: Segment, version: int) -> str:
    """Check an address that was asked for; none is empty. Raises InvalidParameter, Conflict."""
    if not text:
        return ""
    try:
        address = IPv4Address(text) if version == 4 else IPv6Address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid IPv{version} address: {text}") from error
    own = segment.range_of(version)
    if own is None or address not in own.subnet:
        raise InvalidParameter(f"invalid address {text}: It does not belong to any of this network's subnets")
    if int(address) in own.reserved:
        raise Conflict("Address already in use")
    return str(address)


def _spoken(segment: Segment) -> frozenset[int]:
    """Give the IP versions that a container on this bridge has addresses of."""
    return frozenset(own.subnet.version for own in (segment.ipv4, segment.ipv6) if own is not None)


def _pools(segment: Segment, leaving: frozenset[int]) -> tuple[AddressPool, AddressPool]:
    return (
        segment.ipv4.address_pool(leaving) if segment.ipv4 else NO_POOL,
        segment.ipv6.address_pool(leaving) if segment.ipv6 else NO_POOL,
    )


def _exhausted(error: Unavailable, network: NetworkRecord) -> Unavailable:
    return error if network.name == BRIDGE else Unavailable(f"{error}: {network.name} ({network.id})")
