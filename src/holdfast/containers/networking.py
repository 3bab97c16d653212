"""A container's network: which namespace it runs in, its endpoints, and the files that follow from them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.containers.joins import Joins
from holdfast.containers.model import ContainerRecord, EndpointConfig, HostConfig
from holdfast.containers.rooms import Rooms
from holdfast.errors import Conflict, EngineError, Forbidden, InvalidParameter, NotFound, Unsupported
from holdfast.network.addresses import parse_mac
from holdfast.network.model import Endpoint, EndpointRequest, PortRequest, Upstream

_ENDPOINT_OPTIONS = frozenset({"com.docker.network.endpoint.ifname", "com.docker.network.endpoint.sysctls"})
"""Options that have an effect with Docker Engine; it takes no notice of others."""

FILES = ("hostname", "hosts", "resolv.conf")


@dataclass(frozen=True, slots=True)
class Connection:
    """What a container has got: `namespace` as the runtime's spec takes it, no `endpoints` where it borrows one."""

    namespace: str
    endpoints: tuple[Endpoint, ...] = ()


class Networking:
    """Connects containers when they start and disconnects them when they end."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def connect(self, record: ContainerRecord) -> Connection:
        """Connect a container to its networks. Raises NotFound, InvalidParameter, Conflict, System; undoes itself."""
        network, mode = self._rooms.network, record.host_config.network_mode
        if mode.startswith("container:"):
            other = Joins(self._rooms.registry).network(mode)
            assert other is not None, "the mode names one"
            return Connection(f"/proc/{other.state.pid}/ns/net")
        wanted = networks_of(record)
        if mode == "host" or "none" in wanted:
            endpoint = network.connect(
                record.id, Path("/"), network="host" if mode == "host" else "none", name=record.name
            )
            return Connection("host" if mode == "host" else "private", (endpoint,))
        with contextlib.ExitStack() as undo:
            namespace = network.make_namespace(record.id)
            undo.callback(network.remove_namespace, record.id)
            try:
                endpoints = network.connect_all(
                    record.id,
                    namespace,
                    [endpoint_request(record, name, config) for name, config in wanted.items()],
                    name=record.name,
                    ports=port_requests(record.host_config, record.config.exposed_ports or {}),
                    upstream=upstream(record),
                )
            except Conflict as error:
                raise Forbidden(f"failed to set up container networking: {error}") from error
            except EngineError as error:
                raise error.within("failed to set up container networking") from error
            undo.pop_all()
        return Connection(str(namespace), tuple(endpoints))

    def disconnect(self, record: ContainerRecord) -> None:
        """Undo `connect`; harmless to repeat. Raises System."""
        mode = record.host_config.network_mode
        if mode.startswith("container:"):
            return
        self._rooms.network.disconnect(record.id)
        self._rooms.network.remove_namespace(record.id)

    def write_files(self, record: ContainerRecord, connection: Connection) -> None:
        """Write resolv.conf, hostname and hosts, which are bound into the container.

        One that uses another's network has that one's files too: links, so that it sees their changes.
        """
        mode, folder = record.host_config.network_mode, self._rooms.files_of(record.id)
        if mode.startswith("container:"):
            other = self._rooms.files_of(self._rooms.registry.get(mode.removeprefix("container:")).id)
            for name in FILES:
                (folder / name).unlink(missing_ok=True)
                os.link(other / name, folder / name)
            return
        files = {
            "hostname": record.config.hostname + "\n",
            "hosts": self._hosts(record, connection.endpoints),
            "resolv.conf": self._resolv_conf(record, connection.endpoints),
        }
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            os.chmod(folder / name, 0o644)

    def rewrite_files(self, record: ContainerRecord, before: Sequence[Endpoint], after: Sequence[Endpoint]) -> None:
        """Bring the files of a running container up to date with its endpoints.

        They are bound into it, so they are written where they are. What the container itself wrote stays.
        """
        folder = self._rooms.files_of(record.id)
        resolv = folder / "resolv.conf"
        if resolv.read_text(encoding="utf-8", errors="replace") == self._resolv_conf(record, before):
            resolv.write_text(self._resolv_conf(record, after), encoding="utf-8")
        hosts = folder / "hosts"
        old, new = self._own_lines(record, before), self._own_lines(record, after)
        lines = hosts.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
        kept = [line for line in lines if line not in old or line in new]
        kept += [line for line in new if line not in kept]
        hosts.write_text("".join(kept), encoding="utf-8", errors="surrogateescape")

    def _hosts(self, record: ContainerRecord, endpoints: Sequence[Endpoint]) -> str:
        host, config = record.host_config, record.config
        return self._rooms.network.hosts_file(
            config.hostname, config.domainname, addresses_of(endpoints), host.extra_hosts or (),
            host_network=host.network_mode == "host",
        )  # fmt: skip

    def _own_lines(self, record: ContainerRecord, endpoints: Sequence[Endpoint]) -> list[str]:
        config = record.config
        return [*self._rooms.network.own_hosts_lines(config.hostname, config.domainname, addresses_of(endpoints))]

    def _resolv_conf(self, record: ContainerRecord, endpoints: Sequence[Endpoint]) -> str:
        host = record.host_config
        has_names = any(endpoint.names is not None for endpoint in endpoints)
        return self._rooms.network.resolv_conf(
            host.dns or (), host.dns_search or (), host.dns_options or (),
            host_network=host.network_mode == "host", own_resolver=has_names,
        )  # fmt: skip


def networks_of(record: ContainerRecord) -> dict[str, EndpointConfig]:
    """Give the networks that a container is to be in, the one of its mode first; none where it borrows another's."""
    mode = record.host_config.network_mode
    if mode.startswith("container:"):
        return {}
    if record.config.network_disabled and mode != "host":
        return {"none": EndpointConfig()}
    if record.endpoints or record.bare:
        return dict(sorted(record.endpoints.items(), key=lambda item: (item[0] != mode, item[0])))
    return {mode: EndpointConfig()}


def settle_endpoints(rooms: Rooms, mode: str, endpoints: dict[str, EndpointConfig]) -> dict[str, EndpointConfig]:
    """Give the networks of a container that is being made, by their names, checked as far as they exist.

    `mode` is its network mode, `endpoints` what was asked for. Raises InvalidParameter in Docker's words, Unsupported.
    Source: moby, daemon, validateEndpointSettings.
    """
    if mode.startswith("container:") or mode in ("host", "none"):
        for key, config in endpoints.items():
            check_endpoint(rooms, key, config)
        return {}
    settled: dict[str, EndpointConfig] = {}
    for key, config in (endpoints or {mode: EndpointConfig()}).items():
        check_endpoint(rooms, key, config)
        try:
            name = rooms.network.get(key).name
        except NotFound:
            name = key
        settled[name] = config
    return settled


def check_endpoint(rooms: Rooms, network: str, config: EndpointConfig) -> None:
    """Raise InvalidParameter, in Docker's words, for what a container cannot have of a network; one that is not there
    is not looked at."""
    troubles = []
    asks = bool(config.ipv4_address or config.ipv6_address)
    if network in ("bridge", "default", "host", "none") or network.startswith("container:"):
        if asks:
            troubles += [
                "user specified IP address is supported on user defined networks only",
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            ]
        if config.aliases and not set(config.aliases) <= {""}:
            troubles.append("network-scoped alias is supported only for containers in user defined networks")
    if config.mac_address:
        try:
            parse_mac(config.mac_address)
        except InvalidParameter as error:
            raise InvalidParameter(
                f"invalid config for network {network}: invalid MAC address {config.mac_address}"
            ) from error
    if config.link_local_ips:
        raise Unsupported("link-local addresses of a container's own are not supported")
    for option in _ENDPOINT_OPTIONS & (config.driver_opts or {}).keys():
        raise Unsupported(f"the option {option} of an endpoint is not supported")
    if troubles:
        lines = "".join(f"\n* {trouble}" for trouble in troubles) if len(troubles) > 1 else f"\n{troubles[0]}"
        name = "bridge" if network == "default" else network
        raise InvalidParameter(f"invalid config for network {name}: invalid endpoint settings:{lines}")
    with contextlib.suppress(NotFound):
        rooms.network.check(EndpointRequest(network=network, address=config.ipv4_address, address6=config.ipv6_address))


def endpoint_request(record: ContainerRecord, network: str, config: EndpointConfig) -> EndpointRequest:
    """Give what a container asks of a network in the network room's terms."""
    is_mode = network == record.host_config.network_mode
    return EndpointRequest(
        network=network,
        address=config.ipv4_address,
        address6=config.ipv6_address,
        mac_address=config.mac_address or (record.config.mac_address if is_mode else ""),
        names=dns_names(record, config),
        gateway_priority=config.gw_priority,
        links=tuple(parse_link(text) for text in config.links or ()),
    )


def parse_link(text: str) -> tuple[str, str]:
    """Give the alias and the container's name of `NAME[:ALIAS]`, or of `/NAME:/OTHER/ALIAS` as it was once written.

    Source: docker/cli, opts.ParseLink.
    """
    name, _, alias = text.partition(":")
    if name.startswith("/"):
        name, alias = name[1:], alias.rpartition("/")[2]
    return alias or name, name


def dns_names(record: ContainerRecord, config: EndpointConfig) -> tuple[str, ...]:
    """Give the names by which others in a user-defined network find a container. Source: Docker, `DNSNames`."""
    return tuple(dict.fromkeys((record.name, *(config.aliases or ()), record.short_id, record.config.hostname)))


def upstream(record: ContainerRecord) -> Upstream:
    """Give whom a container's resolver asks about names of the world outside."""
    return Upstream(tuple(record.host_config.dns or ()))


def addresses_of(endpoints: Sequence[Endpoint]) -> list[str]:
    """Give all addresses, those of a network together."""
    return [address for one in endpoints for address in (one.ip_address, one.ip6_address) if address]


def port_requests(host: HostConfig, exposed: dict[str, dict[str, str]]) -> list[PortRequest]:
    """Give the ports to publish: those bound, and with `PublishAllPorts` every exposed one besides.

    Raises InvalidParameter for what is no port. Source: Docker Engine API, `PortMap`.
    """
    requests = []
    for port, bindings in (host.port_bindings or {}).items():
        number, protocol = parse_port(port)
        for binding in bindings or ():
            first, last = _host_ports(binding.host_port)
            requests.append(PortRequest(number, protocol, binding.host_ip, first, last))
    if host.publish_all_ports:
        bound = {parse_port(port) for port in host.port_bindings or {}}
        requests += [PortRequest(*parse_port(port)) for port in exposed if parse_port(port) not in bound]
    return requests


def parse_port(text: str) -> tuple[int, str]:
    """Parse `80/tcp` or `80`. Raises InvalidParameter."""
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise InvalidParameter(f'invalid port specification: "{number}"')
    return int(number), protocol.lower() or "tcp"


def _host_ports(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    first, dash, last = text.partition("-")
    if not all(end.isascii() and end.isdigit() and int(end) < 65536 for end in ((first, last) if dash else (first,))):
        raise InvalidParameter(f'invalid port specification: "{text}"')
    return int(first), int(last or 0)
