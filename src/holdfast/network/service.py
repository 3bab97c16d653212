"""The networks of one engine: the calls that other rooms make, each handed to the file that does it.

`bridge` and user-defined networks give addresses and published ports, `none` is a namespace with nothing but `lo`,
`host` is the host's own. In user-defined networks containers find each other by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from holdfast import log
from holdfast.attendant.document import Document, Membership, Proxy
from holdfast.config import Config
from holdfast.errors import EngineError
from holdfast.events import EventBus
from holdfast.network import files
from holdfast.network.addresses import gateway_of, mac_of
from holdfast.network.attendant import AttendantLine
from holdfast.network.bridges import Bridges
from holdfast.network.endpoints import Endpoints
from holdfast.network.making import NetworkMaker
from holdfast.network.model import (
    ANY_ADDRESS6,
    NOBODY_IN_PARTICULAR,
    Endpoint,
    EndpointRequest,
    NetworkInfo,
    NetworkRequest,
    PortRequest,
    Upstream,
    published_ports,
)
from holdfast.network.namespaces import Namespaces
from holdfast.network.networks import BRIDGE, BUILT_IN, NetworkCatalogue
from holdfast.network.segment import OPTION_PREFIX
from holdfast.store import Store
from holdfast.store.networks import EndpointRecord, NetworkRecord, PoolRecord

logger = log.get(__name__)


class Network:
    """All methods may block for milliseconds and may be called from any thread.

    Calls for one container must not overlap. It belongs to the network namespace of the thread that makes it.
    """

    def __init__(self, config: Config, store: Store, events: EventBus) -> None:
        self._events = events
        self._networks = NetworkCatalogue(store.networks)
        self._namespaces = Namespaces(config.run_root / "netns")
        self._bridges = Bridges(config, self._networks)
        self._endpoints = Endpoints(store.networks, self._networks, self._bridges)
        self._maker = NetworkMaker(store, self._networks, self._bridges)
        self._attendant = AttendantLine(config.run_root)

    # --- start and end of the engine

    def restore(self, live: Mapping[str, Path], wanted: Mapping[str, frozenset[str]] | None = None) -> None:
        """Bring catalogue and kernel together at the start of the engine.

        `live` maps the containers that run, whatever their network, to their namespaces, and `wanted` to the names of
        the networks that they are to be in, where that is known. Other endpoints are dropped with all that belonged to
        them; bridges, pairs of cards and rules of those that stay are made again where they are missing. What the
        kernel refuses is logged, not raised: the engine must start.
        """
        self._maker.restore()
        self._endpoints.restore(live, wanted)
        documents = [self._document(key, netns, self._attendant.servers_of(key)) for key, netns in live.items()]
        self._attendant.restore([found for found in documents if found is not None])
        for container_id in live:
            for record in self._endpoints.of(container_id):
                self._endpoints.hand_over(record)
        self._namespaces.keep_only(live.keys())

    def warm_up(self) -> None:
        """Load what the first container would otherwise wait for; some 10 ms, so not on the way to the first answer."""
        self._bridges.warm_up()
        if self._networks.own():
            self._attendant.warm_up()

    def close(self) -> None:
        """Finish what is under way and let go of the kernel; networks and endpoints stay."""
        self._attendant.close()
        self._bridges.close()
        self._endpoints.close()

    def remove_all(self) -> None:
        """Remove bridges, table, rules in other tables, pairs and namespaces, without trace. Raises System."""
        self._attendant.end()
        self._endpoints.forget_all()
        self._bridges.remove()
        self._namespaces.keep_only(())

    # --- namespaces

    def make_namespace(self, container_id: str) -> Path:
        """Make a network namespace with `lo` up and give the path that holds it. Raises System."""
        return self._namespaces.make(container_id)

    def remove_namespace(self, container_id: str) -> None:
        """Let go of a namespace; it ends with its last process. One that is not there is no error. Raises System."""
        self._namespaces.remove(container_id)

    # --- endpoints

    def check(self, request: EndpointRequest) -> None:
        """Raise NotFound, or InvalidParameter in Docker's words, for an endpoint that can never be."""
        self._endpoints.check(request)

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
        """Join a container to one network and publish its ports; see `connect_all`."""
        request = EndpointRequest(network=network, address=address or "", mac_address=mac_address or "")
        return self.connect_all(container_id, netns, [request], name=name, ports=ports)[0]

    def connect_all(
        self,
        container_id: str,
        netns: Path,
        requests: Sequence[EndpointRequest],
        *,
        name: str = "",
        ports: Sequence[PortRequest] = (),
        upstream: Upstream = NOBODY_IN_PARTICULAR,
    ) -> Sequence[Endpoint]:
        """Join a container that is about to start to its networks and publish its ports; all of it or nothing.

        `name` is the container's, for messages. `ports` count on networks with a bridge only. With `none` and `host`
        the endpoint is only recorded, and `netns` is not looked at. Raises NotFound for a network, InvalidParameter for
        an address that is none or lies elsewhere, Conflict where the container is in the network already or the address
        is taken, System in Docker's words where a port is taken or the kernel refuses, Unavailable where this kernel
        cannot publish ports or no address is left.
        """
        records = self._endpoints.connect_all(container_id, netns, name, requests, ports)
        try:
            self._attend(container_id, netns, upstream.servers)
        except EngineError:
            for record in records:
                self._endpoints.disconnect(record)
            raise
        for record in records:
            self._publish_event("connect", self._networks.find(record.network_id), container_id)
        return [self._endpoint(record) for record in records]

    def connect_more(
        self,
        container_id: str,
        netns: Path,
        request: EndpointRequest,
        *,
        name: str,
        ports: Sequence[PortRequest] = (),
        upstream: Upstream = NOBODY_IN_PARTICULAR,
    ) -> Endpoint:
        """Join a running container to one more network; its default route and `ports` go where they belong then.

        Raises as `connect_all` does; nothing changes then.
        """
        record = self._endpoints.connect_more(container_id, netns, name, request, ports)
        try:
            self._attend(container_id, netns, upstream.servers)
        except EngineError:
            self._endpoints.leave_one(record, netns)
            raise
        return self._endpoint(record)

    def tell_connected(self, container_id: str, network: str) -> None:
        """Publish the event of a container that was connected while it ran, or before it ever did."""
        self._publish_event("connect", self._networks.find(network), container_id)

    def disconnect(self, container_id: str) -> None:
        """Take a container out of all its networks; its addresses and ports are free when this returns.

        The pairs of cards are removed in the background. A container that is in no network is no error.
        """
        self._attendant.drop(container_id)
        for record in self._endpoints.of(container_id):
            self._endpoints.disconnect(record)
            self._publish_event("disconnect", self._networks.find(record.network_id), container_id)

    def disconnect_from(self, container_id: str, network: str, netns: Path) -> None:
        """Take a running container out of one network; its default route and ports go to another of its endpoints.

        One that is not in it is no error. Raises System where the kernel refuses.
        """
        found = self._networks.find(network)
        for record in self._endpoints.of(container_id):
            if record.network_id == found.id:
                self._endpoints.leave_one(record, netns)
        known = self._attendant.get(container_id)
        self._attend(container_id, netns, known.servers if known else ())
        self._publish_event("disconnect", found, container_id)

    def tell_disconnected(self, container_id: str, network: str) -> None:
        """Publish the event of a container that does not run and was taken out of a network."""
        self._publish_event("disconnect", self._networks.find(network), container_id)

    def endpoint(self, container_id: str) -> Endpoint | None:
        """Give the container's endpoint that has its ports and default route, None while it is in no network."""
        rows = self._endpoints.of(container_id)
        chosen = self._endpoints.gateway_of(container_id) or next(iter(rows), None)
        return None if chosen is None else self._endpoint(chosen)

    def endpoints(self, container_id: str) -> Sequence[Endpoint]:
        """Give the container's endpoints, in the order in which it joined; none while it does not run."""
        return [self._endpoint(record) for record in self._endpoints.of(container_id)]

    def rename(self, container_id: str, name: str, old: str = "") -> None:
        """Take note of a container's new name; in no network is no error. Raises System."""
        self._endpoints.rename(container_id, name, old)
        known = self._attendant.get(container_id)
        if known is not None:
            self._attend(container_id, Path(known.namespace), known.servers)

    # --- networks

    def create(self, request: NetworkRequest) -> NetworkInfo:
        """Make a user-defined network; see `NetworkMaker.create`."""
        record = self._maker.create(request)
        self._publish_network_event("create", record)
        return self._info(record)

    def remove(self, name_or_id: str) -> None:
        """Remove a network that no container is in; see `NetworkMaker.remove`."""
        record = self._networks.find(name_or_id)
        self._maker.remove(record, lambda: [(row.container_name, row.id) for row in self._endpoints.at(record.id)])
        self._publish_network_event("destroy", record)

    def prune(self, fits: Callable[[NetworkInfo], bool]) -> Sequence[str]:
        """Remove the user-defined networks that fit and have no containers; give their names."""
        removed = []
        for record in self._networks.own():
            if record.settings.config_only or self._endpoints.at(record.id) or not fits(self._info(record)):
                continue
            try:
                self.remove(record.id)
            except EngineError as error:
                logger.warning("network not pruned", extra={"network": record.name, "error": str(error)})
            else:
                removed.append(record.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return removed

    def list(self) -> Sequence[NetworkInfo]:
        """Give every network, by name."""
        return [self._info(record) for record in self._networks.all()]

    def get(self, name_or_id: str) -> NetworkInfo:
        """Give a network by its name, id or the beginning of its id. Raises NotFound, Conflict where ambiguous."""
        return self._info(self._networks.find(name_or_id))

    def has_names(self, network: str) -> bool:
        """Whether containers of a network find each other by name. Raises NotFound."""
        found = self._networks.find(network)
        return found.driver == "bridge" and found.name not in BUILT_IN

    # --- files

    def resolv_conf(
        self,
        dns: Sequence[str] = (),
        search: Sequence[str] = (),
        options: Sequence[str] = (),
        *,
        host_network: bool = False,
        own_resolver: bool = False,
    ) -> str:
        """Give the text of a container's /etc/resolv.conf; each argument given replaces the host's setting.

        With `own_resolver` it names ours, which asks `dns` in turn.
        """
        if own_resolver:
            return files.own_resolv_conf(files.host_resolv_conf(), search, options)
        return files.resolv_conf(files.host_resolv_conf(host_network=host_network), dns, search, options)

    def hosts_file(
        self,
        hostname: str,
        domainname: str = "",
        addresses: Sequence[str] = (),
        extra_hosts: Sequence[str] = (),
        *,
        host_network: bool = False,
    ) -> str:
        """Give the text of a container's /etc/hosts; `host-gateway` in `extra_hosts` becomes the address of the default
        bridge, which is made if it is not there. Raises System.

        A container in the host's network gets the host's own file, with `extra_hosts` below.
        """
        wants_gateway = any(entry.endswith(files.HOST_GATEWAY) for entry in extra_hosts)
        gateway = ""
        if wants_gateway:
            self._bridges.make(self._networks.find(BRIDGE))
            gateway = str(gateway_of(self._bridges.default_subnet()))
        head = files.host_hosts_file() if host_network else files.HOSTS_HEAD
        return files.hosts_file(hostname, domainname, addresses, extra_hosts, host_gateway=gateway, head=head)

    def own_hosts_lines(self, hostname: str, domainname: str, addresses: Sequence[str]) -> Sequence[str]:
        """Give the lines of /etc/hosts with a container's own name."""
        return files.own_hosts_lines(hostname, domainname, addresses)

    # --- inside

    def _attend(self, container_id: str, netns: Path, servers: tuple[str, ...]) -> None:
        """Have a container find others and be found, as far as its networks have names, and its ports passed on.

        Names are there when this returns; ports that nobody named an IPv6 address for come soon after. Raises System.
        """
        wanted = self._document(container_id, netns, servers)
        if wanted is None:
            self._attendant.drop(container_id)
            return
        records = self._endpoints.of(container_id)

        def hand_over() -> None:
            for record in records:
                self._endpoints.hand_over(record)

        if wanted.memberships or any(proxy.host_ip != ANY_ADDRESS6 for proxy in wanted.proxies):
            self._attendant.serve(wanted)
            hand_over()
        else:
            self._attendant.serve_later(wanted, hand_over)

    def _document(self, container_id: str, netns: Path, servers: tuple[str, ...]) -> Document | None:
        """Give what the attendant is to know of a container, None for one in no network with names."""
        memberships = []
        for record in self._endpoints.of(container_id):
            network = self._networks.find(record.network_id)
            if record.device and network.name not in BUILT_IN:
                names = record.names or (record.container_name,)
                addresses = tuple(filter(None, (record.address, record.address6)))
                memberships.append(Membership(network.id, network.name, names, addresses, record.links))
        proxies = tuple(proxy for record in self._endpoints.of(container_id) for proxy in _proxies(record))
        if not memberships and not proxies:
            return None
        outside = any(
            not self._networks.find(record.network_id).settings.internal for record in self._endpoints.of(container_id)
        )
        return Document(container_id, str(netns), tuple(memberships), servers, outside, proxies)

    def _info(self, record: NetworkRecord) -> NetworkInfo:
        settings, options = record.settings, dict(record.settings.options)
        pools: tuple[PoolRecord, ...] | None = None
        if record.name == BRIDGE:
            subnet = self._bridges.default_subnet()
            pools = (PoolRecord(subnet=str(subnet), gateway=str(gateway_of(subnet))),)
            options = self._default_options(record)
        elif record.name not in BUILT_IN:
            pools = settings.pools
        return NetworkInfo(
            name=record.name,
            id=record.id,
            driver=record.driver,
            pools=pools,
            options=options,
            created_at=record.created_at,
            endpoints=tuple(map(self._endpoint, self._endpoints.at(record.id))),
            settings=settings,
            built_in=record.name in BUILT_IN,
        )

    def _default_options(self, record: NetworkRecord) -> dict[str, str]:
        """Give the driver options that Docker shows for its default bridge."""
        return {
            OPTION_PREFIX + "bridge.default_bridge": "true",
            OPTION_PREFIX + "bridge.enable_icc": "true",
            OPTION_PREFIX + "bridge.enable_ip_masquerade": "true",
            OPTION_PREFIX + "bridge.host_binding_ipv4": "0.0.0.0",
            OPTION_PREFIX + "bridge.name": self._bridges.default_name,
            OPTION_PREFIX + "driver.mtu": str(self._bridges.mtu(record.id)),
        }

    def _endpoint(self, record: EndpointRecord) -> Endpoint:
        network = self._networks.find(record.network_id)
        segment = self._bridges.segment(network) if record.device else None
        ipv4 = segment.ipv4 if segment and record.address else None
        ipv6 = segment.ipv6 if segment and record.address6 else None
        shows_gateway = segment is not None and not segment.internal
        first = record.address or record.address6
        return Endpoint(
            network_name=network.name,
            network_id=network.id,
            endpoint_id=record.id,
            container_id=record.container_id,
            container_name=record.container_name,
            ip_address=record.address,
            prefix_length=ipv4.subnet.prefixlen if ipv4 else 0,
            gateway=str(ipv4.gateway) if ipv4 and shows_gateway else "",
            mac_address=record.mac_address or (mac_of(ip_address(first)) if first else ""),
            ports=published_ports(record.ports),
            ip6_address=record.address6,
            prefix6_length=ipv6.subnet.prefixlen if ipv6 else 0,
            gateway6=str(ipv6.gateway) if ipv6 and shows_gateway else "",
            names=record.names if segment is not None and network.name != BRIDGE else None,
        )

    def _publish_event(self, action: str, network: NetworkRecord, container_id: str) -> None:
        attributes = {"container": container_id, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)

    def _publish_network_event(self, action: str, network: NetworkRecord) -> None:
        self._events.publish("network", action, network.id, {"name": network.name, "type": network.driver})


def _proxies(record: EndpointRecord) -> list[Proxy]:
    """Give the ports of an endpoint that a process has to pass on, to an address of the same family if there is one."""
    addresses = {ip_address(text).version: text for text in (record.address, record.address6) if text}
    proxies = []
    for port in published_ports(record.ports):
        if port.is_proxied(addresses.keys()):
            target = addresses.get(6 if ":" in port.host_ip else 4) or next(iter(addresses.values()))
            proxies.append(Proxy(port.protocol, port.host_ip, port.host_port, target, port.container_port))
    return proxies
