"""What the network room takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.store.networks import PortRecord

ANY_ADDRESS = "0.0.0.0"
PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A port of a container to publish.

    `host_ip` empty or 0.0.0.0 stands for every address of the host. `host_port` 0 leaves the choice to the kernel; a
    `host_port_last` above it makes a range, of which the first free port is taken.
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network.

    With `none` and `host` the addresses are empty and `prefix_length` is 0.
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


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network as it is shown. `driver` is `bridge`, `host` or `null`; `options` are Docker's driver options."""

    name: str
    id: str
    driver: str
    subnet: str
    gateway: str
    options: Mapping[str, str]
    created_at: float
    """Seconds since the Unix epoch."""
    endpoints: tuple[Endpoint, ...]


def published_ports(records: Sequence[PortRecord]) -> tuple[PublishedPort, ...]:
    """Give ports as they were recorded."""
    return tuple(PublishedPort(port.container_port, port.protocol, port.host_ip, port.host_port) for port in records)


def port_records(ports: Sequence[PublishedPort]) -> tuple[PortRecord, ...]:
    """Give ports as they are recorded."""
    return tuple(PortRecord(port.container_port, port.protocol, port.host_ip, port.host_port) for port in ports)
