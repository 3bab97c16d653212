"""A container's network: which namespace it runs in, its endpoint, and the files that follow from it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from holdfast.containers.joins import Joins
from holdfast.containers.model import ContainerRecord, HostConfig
from holdfast.containers.rooms import Rooms
from holdfast.errors import InvalidParameter
from holdfast.network.model import Endpoint, PortRequest


@dataclass(frozen=True, slots=True)
class Connection:
    """What a container has got: `namespace` as the runtime's spec takes it, `endpoint` None where it borrows one."""

    namespace: str
    endpoint: Endpoint | None = None


class Networking:
    """Connects containers when they start and disconnects them when they end."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def connect(self, record: ContainerRecord) -> Connection:
        """Connect a container to its network. Raises NotFound, InvalidParameter, Conflict, System; undoes itself."""
        network, mode = self._rooms.network, record.host_config.network_mode
        if mode.startswith("container:"):
            other = Joins(self._rooms.registry).network(mode)
            assert other is not None, "the mode names one"
            return Connection(f"/proc/{other.state.pid}/ns/net")
        if mode in ("none", "host") or record.config.network_disabled:
            endpoint = network.connect(
                record.id, Path("/"), network="host" if mode == "host" else "none", name=record.name
            )
            return Connection("host" if mode == "host" else "private", endpoint)
        with contextlib.ExitStack() as undo:
            namespace = network.make_namespace(record.id)
            undo.callback(network.remove_namespace, record.id)
            wanted = record.endpoints.get(mode)
            endpoint = network.connect(
                record.id,
                namespace,
                network=mode,
                name=record.name,
                ports=port_requests(record.host_config, record.config.exposed_ports or {}),
                address=(wanted.ipv4_address if wanted else "") or None,
                mac_address=(wanted.mac_address if wanted else "") or record.config.mac_address or None,
            )
            undo.pop_all()
        return Connection(str(namespace), endpoint)

    def disconnect(self, record: ContainerRecord) -> None:
        """Undo `connect`; harmless to repeat. Raises System."""
        mode = record.host_config.network_mode
        if mode.startswith("container:"):
            return
        self._rooms.network.disconnect(record.id)
        self._rooms.network.remove_namespace(record.id)

    def write_files(self, record: ContainerRecord, connection: Connection) -> None:
        """Write resolv.conf, hostname and hosts, which are bound into the container."""
        network, host, config = self._rooms.network, record.host_config, record.config
        on_host = host.network_mode == "host"
        address = connection.endpoint.ip_address if connection.endpoint else ""
        files = {
            "hostname": config.hostname + "\n",
            "hosts": network.hosts_file(
                config.hostname, config.domainname, address, host.extra_hosts or (), host_network=on_host
            ),
            "resolv.conf": network.resolv_conf(
                host.dns or (), host.dns_search or (), host.dns_options or (), host_network=on_host
            ),
        }
        folder = self._rooms.files_of(record.id)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            os.chmod(folder / name, 0o644)


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
