"""The way of a container into a network and out again.

`bridge` gives an address and published ports, `none` is a namespace with nothing but `lo`, `host` is the host's own.

Order when a container joins: ports are held, then the endpoint is recorded with its address, then the kernel is told.
Everything after the record can be found again by it, so a crash leaves nothing that `restore` cannot clear.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from holdfast import faults, log
from holdfast.config import Config
from holdfast.errors import Conflict, EngineError, InvalidParameter, Unavailable
from holdfast.events import EventBus
from holdfast.network import files
from holdfast.network.addresses import gateway_of, mac_of, parse_mac, pool_of
from holdfast.network.default_bridge import DEVICE_PREFIX, DefaultBridge
from holdfast.network.model import Endpoint, NetworkInfo, PortRequest, port_records, published_ports
from holdfast.network.namespaces import Namespaces
from holdfast.network.networks import BRIDGE, NetworkCatalogue
from holdfast.network.ports import PortTable
from holdfast.store import Store
from holdfast.store.networks import EndpointRecord, NetworkRecord

logger = log.get(__name__)


class Network:
    """The networks of one engine; all methods may block for milliseconds and may be called from any thread.

    Calls for one container must not overlap. It belongs to the network namespace of the thread that makes it.
    """

    def __init__(self, config: Config, store: Store, events: EventBus) -> None:
        self._table = store.networks
        self._events = events
        self._networks = NetworkCatalogue(store.networks)
        self._namespaces = Namespaces(config.run_root / "netns")
        self._bridge = DefaultBridge(config, self._networks.bridge_subnet, self._networks.set_bridge_subnet)
        self._ports = PortTable()
        self._guard = threading.Lock()
        """Held around `_endpoints`."""
        self._endpoints: dict[str, EndpointRecord] = {}

    # --- start and end of the engine

    def restore(self, live: Mapping[str, Path]) -> None:
        """Bring catalogue and kernel together at the start of the engine.

        `live` maps the containers that run, whatever their network, to their namespaces. Endpoints of others are
        dropped with all that belonged to them; bridge, pairs of cards and rules of those that run are made again where
        they are missing. What the kernel refuses is logged, not raised: the engine must start.
        """
        rows = self._table.endpoints()
        gone = [row for row in rows if row.container_id not in live]
        kept = [row for row in rows if row.container_id in live]
        with self._guard:
            self._endpoints = {row.container_id: row for row in kept}
        if gone:
            self._table.remove_endpoints([row.container_id for row in gone])
        for row in gone:
            if row.device:
                self._bridge.leave(replace(row, ports=()))
        for row in kept:
            for port in self._ports.reserve_again(published_ports(row.ports)):
                logger.warning(
                    "another program took a published port",
                    extra={"container": row.container_id, "port": port.host_port, "protocol": port.protocol},
                )
        try:
            self._bridge.restore([row for row in kept if row.device], live)
        except (OSError, EngineError) as error:
            logger.warning("cannot bring the network back", extra={"error": str(error)})
        self._namespaces.keep_only(live.keys())

    def warm_up(self) -> None:
        """Load what the first container would otherwise wait for; some 10 ms, so not on the way to the first answer."""
        self._bridge.warm_up()

    def close(self) -> None:
        """Finish what is under way and let go of the kernel; networks and endpoints stay."""
        self._bridge.close()
        self._ports.close()

    def remove_all(self) -> None:
        """Remove bridge, table, rules in other tables, pairs and namespaces, without trace. Raises System."""
        with self._guard:
            containers = list(self._endpoints)
            self._endpoints.clear()
        self._table.remove_endpoints(containers)
        self._ports.close()
        self._bridge.remove()
        self._namespaces.keep_only(())

    # --- namespaces

    def make_namespace(self, container_id: str) -> Path:
        """Make a network namespace with `lo` up and give the path that holds it. Raises System."""
        return self._namespaces.make(container_id)

    def remove_namespace(self, container_id: str) -> None:
        """Let go of a namespace; it ends with its last process. One that is not there is no error. Raises System."""
        self._namespaces.remove(container_id)

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
        only recorded, and `netns` is not looked at. Raises NotFound for the network, InvalidParameter for an address
        that is none or lies elsewhere, Conflict where the container is in the network already or the address is taken,
        System in Docker's words where a port is taken or the kernel refuses, Unavailable where this kernel cannot
        publish ports or no address is left.
        """
        found = self._networks.find(network)
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
        if found.name == BRIDGE:
            wanted = replace(
                record,
                device=DEVICE_PREFIX + secrets.token_hex(5),
                address=self._wanted_address(address),
                mac_address=parse_mac(mac_address) if mac_address else "",
            )
            record = self._join_bridge(wanted, netns, ports)
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
            record = self._endpoints.pop(container_id, None)
        if record is None:
            return
        if record.device:
            self._bridge.leave(record)
        faults.point("endpoint-left-still-recorded")
        self._table.remove_endpoints([container_id])
        self._ports.release(published_ports(record.ports))
        self._publish_event("disconnect", self._networks.find(record.network_id), container_id)

    def endpoint(self, container_id: str) -> Endpoint | None:
        """Give the container's endpoint, None while it is in no network."""
        with self._guard:
            record = self._endpoints.get(container_id)
        return None if record is None else self._endpoint(record)

    def rename(self, container_id: str, name: str) -> None:
        """Take note of a container's new name; in no network is no error."""
        with self._guard:
            record = self._endpoints.get(container_id)
            if record is not None:
                self._table.rename_container(container_id, name)
                self._endpoints[container_id] = replace(record, container_name=name)

    # --- networks

    def list(self) -> Sequence[NetworkInfo]:
        """Give every network, by name."""
        return [self._info(record) for record in self._networks.all()]

    def get(self, name_or_id: str) -> NetworkInfo:
        """Give a network by its name, id or the beginning of its id. Raises NotFound, Conflict where ambiguous."""
        return self._info(self._networks.find(name_or_id))

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
        gateway = str(gateway_of(self._bridge.subnet())) if wants_gateway else ""
        head = files.host_hosts_file() if host_network else files.HOSTS_HEAD
        return files.hosts_file(hostname, domainname, ip, extra_hosts, host_gateway=gateway, head=head)

    # --- inside

    def _join_bridge(self, record: EndpointRecord, netns: Path, requests: Sequence[PortRequest]) -> EndpointRecord:
        trouble = f"driver failed programming external connectivity on endpoint {record.container_name} ({record.id})"
        if requests:
            self._bridge.require_publishing()
        with contextlib.ExitStack() as undo:
            try:
                published = self._ports.reserve(requests)
            except EngineError as error:
                raise error.within(trouble) from error
            undo.callback(self._ports.release, published)
            record = self._record(replace(record, ports=port_records(published)))
            undo.callback(self._table.remove_endpoints, [record.container_id])
            faults.point("endpoint-recorded-not-attached")
            self._bridge.join(record, netns)
            undo.pop_all()
        return record

    def _record(self, record: EndpointRecord) -> EndpointRecord:
        """Record an endpoint with an address that nobody answers for any more."""
        if record.address:
            if int(IPv4Address(record.address)) in self._bridge.leaving():
                self._bridge.finish_leaving()
            return self._table.add_endpoint(record)
        pool = pool_of(self._bridge.subnet())
        try:
            return self._table.add_endpoint(record, pool, self._bridge.leaving())
        except Unavailable:
            self._bridge.finish_leaving()
            return self._table.add_endpoint(record, pool)

    def _wanted_address(self, text: str | None) -> str:
        """Check an address that was asked for; none is empty."""
        if not text:
            return ""
        try:
            address = IPv4Address(text)
        except ValueError as error:
            raise InvalidParameter(f"invalid IPv4 address: {text}") from error
        subnet = self._bridge.subnet()
        if address == gateway_of(subnet):
            raise Conflict("Address already in use")
        if int(address) not in pool_of(subnet):
            raise InvalidParameter(f"invalid address {text}: It does not belong to any of this network's subnets")
        return str(address)

    def _info(self, record: NetworkRecord) -> NetworkInfo:
        with self._guard:
            joined = [row for row in self._endpoints.values() if row.network_id == record.id]
        subnet = self._bridge.subnet() if record.name == BRIDGE else None
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
            prefix + "driver.mtu": str(self._bridge.mtu()),
        }

    def _endpoint(self, record: EndpointRecord) -> Endpoint:
        network = self._networks.find(record.network_id)
        subnet = self._bridge.subnet() if record.address else None
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
            ports=published_ports(record.ports),
        )

    def _publish_event(self, action: str, network: NetworkRecord, container_id: str) -> None:
        attributes = {"container": container_id, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)
