"""The networks of the engine, and the way of a container into one and out again.

`bridge` is made when the first container needs it: a subnet that is free on this host, remembered in the catalogue,
a bridge, one nftables table. `none` is a namespace with nothing but `lo`, `host` is the host's own.

Order when a container joins: ports are held, then the endpoint is recorded with its address, then the kernel is told.
Everything after the record can be found again by it, so a crash leaves nothing that `restore` cannot clear.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from holdfast import faults, log
from holdfast.config import Config
from holdfast.errors import Conflict, EngineError, NotFound, System, Unavailable
from holdfast.events import EventBus
from holdfast.kernel.namespaces import pin_network_namespace, unpin
from holdfast.network import files
from holdfast.network.addresses import choose_subnet, gateway_of, mac_of, parse_subnet, pool_of
from holdfast.network.bridge import DEFAULT_MTU, Bridge, prepare_namespace
from holdfast.network.filters import Filters
from holdfast.network.model import Endpoint, NetworkInfo, PortRequest, PublishedPort
from holdfast.network.ports import PortTable
from holdfast.network.reaper import Reaper
from holdfast.network.rules import Published
from holdfast.store import Store
from holdfast.store.networks import EndpointRecord, NetworkRecord, PortRecord

logger = log.get(__name__)

BRIDGE: Final = "bridge"
BUILT_IN: Final[Mapping[str, str]] = {BRIDGE: "bridge", "host": "host", "none": "null"}
"""Name and driver of the networks that are always there."""

DEVICE_PREFIX: Final = "hf"


@dataclass(frozen=True, slots=True)
class _Ready:
    """The bridge as it is in the kernel."""

    subnet: IPv4Network
    index: int
    mtu: int


class Network:
    """The networks of one engine; all methods may block for milliseconds and may be called from any thread.

    Calls for one container must not overlap. It belongs to the network namespace of the thread that makes it.
    """

    def __init__(self, config: Config, store: Store, events: EventBus) -> None:
        self._config = config
        self._table = store.networks
        self._events = events
        self._namespaces = config.run_root / "netns"
        self._bridge = Bridge(config.bridge_name)
        self._filters = Filters(config.nft_table, config.bridge_name)
        self._ports = PortTable()
        self._reaper = Reaper(self._bridge.detach)
        self._guard = threading.RLock()
        """Held while the bridge or the table is made or changed, and around `_endpoints`."""
        self._networks: dict[str, NetworkRecord] = {}
        self._endpoints: dict[str, EndpointRecord] = {}
        self._ready: _Ready | None = None

    # --- start and end of the engine

    def restore(self, live: Mapping[str, Path]) -> None:
        """Bring catalogue and kernel together at the start of the engine.

        `live` maps the containers that run to their namespaces. Endpoints of others are dropped with all that belonged
        to them; bridge, pairs and rules of those that run are made again where they are missing. What the kernel
        refuses is logged, not raised: the engine must start.
        """
        rows = self._table.endpoints()
        gone = [row for row in rows if row.container_id not in live]
        if gone:
            self._table.remove_endpoints([row.container_id for row in gone])
            for row in gone:
                if row.device:
                    self._reaper.add(row.device, int(IPv4Address(row.address)))
        with self._guard:
            self._endpoints = {row.container_id: row for row in rows if row.container_id in live}
            kept = list(self._endpoints.values())
        for row in kept:
            for port in self._ports.reserve_again(_published(row.ports)):
                logger.warning(
                    "another program took a published port",
                    extra={"container": row.container_id, "port": port.host_port, "protocol": port.protocol},
                )
        try:
            self._restore_kernel(kept, live)
        except (OSError, EngineError) as error:
            logger.warning("cannot bring the network back", extra={"error": str(error)})
        self._forget_namespaces(set(live))

    def warm_up(self) -> None:
        """Load what the first container would otherwise wait for, in a thread of its own."""
        threading.Thread(target=self._filters.warm_up, name="holdfast-network-warm-up", daemon=True).start()

    def close(self) -> None:
        """Finish what is under way and let go of the kernel; networks and endpoints stay."""
        self._filters.unwatch()
        self._reaper.finish()
        self._ports.close()
        self._filters.close()
        self._bridge.close()

    def remove_all(self) -> None:
        """Remove bridge, table, rules in other tables, pairs and namespaces, without trace. Raises System."""
        self._filters.unwatch()
        self._reaper.finish()
        with self._guard:
            self._table.remove_endpoints(list(self._endpoints))
            self._endpoints.clear()
            self._ready = None
            self._ports.close()
            try:
                self._filters.remove()
                self._bridge.delete()
            except OSError as error:
                raise System(f"remove bridge {self._bridge.name}: {error}") from error
        self._forget_namespaces(set())

    # --- namespaces

    def make_namespace(self, container_id: str) -> Path:
        """Make a network namespace with `lo` up and give the path that holds it. Raises System."""
        path = self._namespaces / container_id
        try:
            self._namespaces.mkdir(mode=0o711, parents=True, exist_ok=True)
            try:
                pin_network_namespace(path)
            except FileExistsError:
                unpin(path)
                pin_network_namespace(path)
            prepare_namespace(path)
        except OSError as error:
            raise System(f"create network namespace: {error}") from error
        return path

    def remove_namespace(self, container_id: str) -> None:
        """Let go of a namespace; it ends with its last process. One that is not there is no error. Raises System."""
        try:
            unpin(self._namespaces / container_id)
        except OSError as error:
            raise System(f"remove network namespace: {error}") from error

    # --- endpoints

    def connect(
        self,
        container_id: str,
        netns: Path,
        *,
        network: str = BRIDGE,
        name: str = "",
        ports: Sequence[PortRequest] = (),
        mac_address: str | None = None,
        address: str | None = None,
    ) -> Endpoint:
        """Join a container to a network and publish its ports; all of it or nothing.

        `name` is the container's, for messages. `ports` count on `bridge` only. With `none` and `host` the endpoint is
        only recorded, and `netns` is not looked at. Raises NotFound for the network, Conflict where the container is
        in it already or the address is taken, System in Docker's words where a port is taken or the kernel refuses,
        Unavailable where ports cannot be published on this kernel.
        """
        found = self._find(network)
        record = EndpointRecord(
            id=secrets.token_hex(32),
            network_id=found.id,
            container_id=container_id,
            container_name=name or container_id[:12],
            device="",
            address="",
            mac_address="",
            ports=(),
        )
        if found.driver == BRIDGE:
            record = self._join_bridge(record, netns, ports, mac_address or "", address or "")
        else:
            record = self._table.add_endpoint(record)
            with self._guard:
                self._endpoints[container_id] = record
        self._publish_event("connect", found, container_id)
        return self._endpoint(record)

    def disconnect(self, container_id: str) -> None:
        """Take a container out of its network; its address and ports are free when this returns.

        The pair of cards is removed in the background. A container that is in no network is no error.
        """
        with self._guard:
            record = self._endpoints.get(container_id)
            if record is None:
                return
            del self._endpoints[container_id]
            if record.ports:
                self._filters.withdraw(_targets([record]), self._all_targets)
        faults.point("ports-withdrawn-endpoint-recorded")
        if record.device:
            self._reaper.add(record.device, int(IPv4Address(record.address)))
        self._table.remove_endpoints([container_id])
        self._ports.release(_published(record.ports))
        self._publish_event("disconnect", self._by_id(record.network_id), container_id)

    def endpoint(self, container_id: str) -> Endpoint | None:
        """Give the container's endpoint, None while it is in no network."""
        with self._guard:
            record = self._endpoints.get(container_id)
        return None if record is None else self._endpoint(record)

    def rename(self, container_id: str, name: str) -> None:
        """Take note of a container's new name."""
        with self._guard:
            record = self._endpoints.get(container_id)
            if record is None:
                return
            self._table.rename_container(container_id, name)
            self._endpoints[container_id] = replace(record, container_name=name)

    # --- networks

    def list(self) -> Sequence[NetworkInfo]:
        """Give every network, by name."""
        return [self._info(record) for record in sorted(self._records().values(), key=lambda record: record.name)]

    def get(self, name_or_id: str) -> NetworkInfo:
        """Give a network by its name, id or the beginning of its id. Raises NotFound, Conflict where ambiguous."""
        return self._info(self._find(name_or_id))

    # --- files

    def resolv_conf(
        self,
        dns: Sequence[str] = (),
        search: Sequence[str] = (),
        options: Sequence[str] = (),
        *,
        host_network: bool = False,
    ) -> str:
        """Give the text of a container's /etc/resolv.conf; each argument given replaces the host's setting."""
        return files.resolv_conf(files.host_resolv_conf(host_network=host_network), dns, search, options)

    def hosts_file(
        self,
        hostname: str,
        domainname: str = "",
        ip: str = "",
        extra_hosts: Sequence[str] = (),
        *,
        host_network: bool = False,
    ) -> str:
        """Give the text of a container's /etc/hosts; `host-gateway` in `extra_hosts` becomes the bridge's address.

        A container in the host's network gets the host's own file, with `extra_hosts` below.
        """
        wants_gateway = any(entry.endswith(files.HOST_GATEWAY) for entry in extra_hosts)
        gateway = str(gateway_of(self._subnet())) if wants_gateway else ""
        head = files.host_hosts_file() if host_network else files.HOSTS_HEAD
        return files.hosts_file(hostname, domainname, ip, extra_hosts, host_gateway=gateway, head=head)

    # --- inside

    def _join_bridge(
        self, record: EndpointRecord, netns: Path, requests: Sequence[PortRequest], mac_address: str, address: str
    ) -> EndpointRecord:
        ready = self._make_ready()
        trouble = f"driver failed programming external connectivity on endpoint {record.container_name} ({record.id})"
        if requests:
            self._filters.require(self._load_filters)
        with contextlib.ExitStack() as undo:
            try:
                published = self._ports.reserve(requests)
            except EngineError as error:
                raise error.within(trouble) from error
            undo.callback(self._ports.release, published)
            record = self._record(record, ready.subnet, published, mac_address, address)
            undo.callback(self._table.remove_endpoints, [record.container_id])
            faults.point("endpoint-recorded-not-attached")
            try:
                self._attach(record, netns, ready)
                undo.callback(self._bridge.detach, record.device)
                faults.point("endpoint-attached-not-published")
                with self._guard:
                    self._endpoints[record.container_id] = record
                    undo.callback(self._forget, record.container_id)
                    if record.ports:
                        self._filters.publish(_targets([record]), self._all_targets)
            except OSError as error:
                raise System(f"failed to create endpoint {record.container_name} on network bridge: {error}") from error
            undo.pop_all()
        return record

    def _forget(self, container_id: str) -> None:
        with self._guard:
            self._endpoints.pop(container_id, None)

    def _record(
        self,
        record: EndpointRecord,
        subnet: IPv4Network,
        published: Sequence[PublishedPort],
        mac_address: str,
        address: str,
    ) -> EndpointRecord:
        """Record the endpoint with an address that nobody answers for any more."""
        pool = pool_of(subnet)
        if address and int(IPv4Address(address)) not in pool:
            raise Conflict(f"invalid address {address}: It does not belong to any of this network's subnets")
        wanted = replace(
            record,
            device=DEVICE_PREFIX + secrets.token_hex(5),
            address=address,
            mac_address=mac_address,
            ports=tuple(
                PortRecord(port.container_port, port.protocol, port.host_ip, port.host_port) for port in published
            ),
        )
        if address:
            if int(IPv4Address(address)) in self._reaper.leaving():
                self._reaper.finish()
            return self._table.add_endpoint(wanted)
        try:
            return self._table.add_endpoint(wanted, pool, self._reaper.leaving())
        except Unavailable:
            self._reaper.finish()
            return self._table.add_endpoint(wanted, pool)

    def _attach(self, record: EndpointRecord, netns: Path, ready: _Ready) -> None:
        """Join the namespace; where somebody removed the bridge, make it again first. Raises OSError."""
        address = IPv4Address(record.address)
        for last_try in (False, True):
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
                ready = self._make_ready()
            else:
                return

    def _make_ready(self) -> _Ready:
        """Make bridge and table unless this was done. Raises System."""
        ready = self._ready
        if ready is not None:
            return ready
        with self._guard:
            if self._ready is None:
                subnet = self._subnet()
                try:
                    mtu = self._bridge.occupied().mtu
                    index = self._bridge.ensure(subnet, mtu)
                except OSError as error:
                    raise System(f"create bridge {self._bridge.name}: {error}") from error
                self._ready = _Ready(subnet, index, mtu)
                self._load_filters()
            return self._ready

    def _load_filters(self) -> None:
        """Make the table with everything that is published now."""
        with self._guard:
            self._filters.load(self._subnet(), self._all_targets, self._check_filters)

    def _check_filters(self) -> None:
        """Another program changed the packet filter: put right what it took away."""
        with self._guard:
            if self._ready is not None:
                self._filters.check(self._ready.subnet, self._all_targets)

    def _all_targets(self) -> Sequence[Published]:
        return _targets(self._endpoints.values())

    def _subnet(self) -> IPv4Network:
        """Give the bridge's subnet, choosing and recording it where that is still to do. Raises System, Conflict."""
        with self._guard:
            if self._ready is not None:
                return self._ready.subnet
            record = self._records()[BRIDGE]
            in_use = any(endpoint.network_id == record.id for endpoint in self._endpoints.values())
            if record.subnet and in_use:
                return IPv4Network(record.subnet)
            try:
                occupied = self._bridge.occupied()
                present = self._bridge.subnet()
                subnet = self._choose(record.subnet, occupied.networks)
                if present is not None and present != subnet and not self._bridge.ports():
                    self._bridge.delete()
            except OSError as error:
                raise System(f"choose a subnet for {self._bridge.name}: {error}") from error
            if str(subnet) != record.subnet:
                self._table.set_subnet(record.id, str(subnet))
                self._networks = {}
                logger.info("subnet chosen", extra={"bridge": self._bridge.name, "subnet": str(subnet)})
            return subnet

    def _choose(self, remembered: str, taken: Sequence[IPv4Network]) -> IPv4Network:
        if self._config.bridge_subnet:
            return parse_subnet(self._config.bridge_subnet, taken)
        if remembered and not any(
            network.prefixlen > 0 and network.overlaps(IPv4Network(remembered)) for network in taken
        ):
            return IPv4Network(remembered)
        servers = [IPv4Address(server) for server in files.host_resolv_conf().nameservers if ":" not in server]
        return choose_subnet(taken, servers)

    def _restore_kernel(self, kept: Sequence[EndpointRecord], live: Mapping[str, Path]) -> None:
        """Make kernel and catalogue agree, where either knows of the bridge. Raises OSError and EngineError."""
        joined = [row for row in kept if row.device]
        if not joined and not self._bridge.index():
            return
        ready = self._make_ready()
        devices = {row.device for row in joined}
        for device in self._bridge.ports():
            if device.startswith(DEVICE_PREFIX) and device not in devices and not self._reaper.has(device):
                self._reaper.add(device, 0)
        for row in joined:
            if not self._bridge.rejoin(row.device, ready.index):
                self._attach(row, live[row.container_id], ready)
            elif row.ports:
                self._bridge.set_hairpin(row.device)

    def _forget_namespaces(self, live: set[str]) -> None:
        """Let go of the namespaces of containers that are not in `live`."""
        try:
            names = {path.name for path in self._namespaces.iterdir()} if self._namespaces.is_dir() else set()
            for name in names - live:
                unpin(self._namespaces / name)
        except OSError as error:
            logger.warning("cannot remove old network namespaces", extra={"error": str(error)})

    def _records(self) -> dict[str, NetworkRecord]:
        """Give the networks by name; the built-in ones are recorded the first time."""
        if not self._networks:
            now = time.time()
            wanted = [
                NetworkRecord(secrets.token_hex(32), name, driver, "", now) for name, driver in BUILT_IN.items()
            ]
            self._networks = {record.name: record for record in self._table.ensure(wanted)}
        return self._networks

    def _find(self, name_or_id: str) -> NetworkRecord:
        records = self._records()
        if name_or_id == "default":
            name_or_id = BRIDGE
        if name_or_id in records:
            return records[name_or_id]
        matches = [record for record in records.values() if name_or_id and record.id.startswith(name_or_id)]
        if len(matches) > 1:
            raise Conflict(f"network {name_or_id} is ambiguous ({len(matches)} matches found based on ID prefix)")
        if not matches:
            raise NotFound(f"network {name_or_id} not found")
        return matches[0]

    def _by_id(self, network_id: str) -> NetworkRecord:
        return next(record for record in self._records().values() if record.id == network_id)

    def _info(self, record: NetworkRecord) -> NetworkInfo:
        with self._guard:
            joined = [row for row in self._endpoints.values() if row.network_id == record.id]
        subnet = self._subnet() if record.driver == BRIDGE else None
        return NetworkInfo(
            name=record.name,
            id=record.id,
            driver=record.driver,
            subnet=str(subnet) if subnet else "",
            gateway=str(gateway_of(subnet)) if subnet else "",
            options=self._options() if subnet else {},
            created_at=record.created_at,
            endpoints=tuple(map(self._endpoint, joined)),
        )

    def _options(self) -> dict[str, str]:
        """Give the driver options that Docker shows for its default bridge."""
        prefix = "com.docker.network."
        return {
            prefix + "bridge.default_bridge": "true",
            prefix + "bridge.enable_icc": "true",
            prefix + "bridge.enable_ip_masquerade": "true",
            prefix + "bridge.host_binding_ipv4": "0.0.0.0",
            prefix + "bridge.name": self._bridge.name,
            prefix + "driver.mtu": str(self._ready.mtu if self._ready else DEFAULT_MTU),
        }

    def _endpoint(self, record: EndpointRecord) -> Endpoint:
        network = self._by_id(record.network_id)
        subnet = self._subnet() if record.address else None
        return Endpoint(
            network_name=network.name,
            network_id=network.id,
            endpoint_id=record.id,
            container_id=record.container_id,
            container_name=record.container_name,
            ip_address=record.address,
            prefix_length=subnet.prefixlen if subnet else 0,
            gateway=str(gateway_of(subnet)) if subnet else "",
            mac_address=record.mac_address or (mac_of(IPv4Address(record.address)) if record.address else ""),
            ports=_published(record.ports),
        )

    def _publish_event(self, action: str, network: NetworkRecord, container_id: str) -> None:
        attributes = {"container": container_id, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)


def _published(ports: Sequence[PortRecord]) -> tuple[PublishedPort, ...]:
    return tuple(PublishedPort(port.container_port, port.protocol, port.host_ip, port.host_port) for port in ports)


def _targets(records: Iterable[EndpointRecord]) -> list[Published]:
    return [(record.address, port) for record in records for port in _published(record.ports)]
