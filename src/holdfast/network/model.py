"""What the network room takes and gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.store.networks import NetworkSettings, PoolRecord, PortRecord

ANY_ADDRESS = "0.0.0.0"
ANY_ADDRESS6 = "::"
PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A port of a container to publish.

    `host_ip` empty stands for every address of the host, 0.0.0.0 and :: for those of one family. `host_port` 0 leaves
    the choice to the kernel; a `host_port_last` above it makes a range, of which the first free port is taken.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_last: int = 0


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the host that leads to a port of a container."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int

    def is_proxied(self, versions: Collection[int]) -> bool:
        """Whether a process has to pass it on to a container that speaks these IP versions, as the kernel cannot.

        That is where the container has no address of the host address's family, and for [::1], which [::] holds too.
        """
        if self.protocol == "sctp":
            return False
        version = 6 if ":" in self.host_ip else 4
        return version not in versions or self.host_ip in (ANY_ADDRESS6, "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A network to make. None where nothing was asked for. Source: Docker Engine API, NetworkCreate."""

    name: str
    driver: str = "bridge"
    scope: str = ""
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] | None = None
    pools: tuple[PoolRecord, ...] = ()
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """What a container wants of one network; empty texts leave the choice to the engine.

    `names` are what the network's other containers may call it, the container's own name first. `links` are what it
    alone calls others there: pairs of such a name and the other container's.
    """

    network: str
    address: str = ""
    address6: str = ""
    mac_address: str = ""
    names: tuple[str, ...] = ()
    gateway_priority: int = 0
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Upstream:
    """Whom a container's resolver asks about names of the world outside; none given means those of the host."""

    servers: tuple[str, ...] = ()


NOBODY_IN_PARTICULAR = Upstream()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network.

    With `none` and `host` the addresses are empty and `prefix_length` is 0. `names` is None on a network where
    containers cannot be called by name.
    """

    network_name: str
    network_id: str
    endpoint_id: str
    container_id: str
    container_name: str
    ip_address: str
    prefix_length: int
    gateway: str
    mac_address: str
    ports: tuple[PublishedPort, ...]
    ip6_address: str = ""
    prefix6_length: int = 0
    gateway6: str = ""
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network as it is shown. `driver` is `bridge`, `host` or `null`; `options` are Docker's driver options.

    `pools` is None where the network has no addresses.
    """

    name: str
    id: str
    driver: str
    pools: tuple[PoolRecord, ...] | None
    options: Mapping[str, str]
    created_at: float
    """Seconds since the Unix epoch."""
    endpoints: tuple[Endpoint, ...]
    settings: NetworkSettings = field(default_factory=NetworkSettings)
    built_in: bool = False

    @property
    def gateway(self) -> str:
        """The address of the bridge in the first subnet, empty where there is none."""
        return self.pools[0].gateway if self.pools else ""


def published_ports(records: Sequence[PortRecord]) -> tuple[PublishedPort, ...]:
    """Give ports as they were recorded."""
    return tuple(PublishedPort(port.container_port, port.protocol, port.host_ip, port.host_port) for port in records)


def port_records(ports: Sequence[PublishedPort]) -> tuple[PortRecord, ...]:
    """Give ports as they are recorded."""
    return tuple(PortRecord(port.container_port, port.protocol, port.host_ip, port.host_port) for port in ports)
