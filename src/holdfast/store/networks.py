"""Rows of networks and of the endpoints that join containers to them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from holdfast.errors import Conflict, Unavailable
from holdfast.store.database import Database

NETWORK_TABLES = """
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,
    subnet TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    network_id TEXT NOT NULL REFERENCES networks (id),
    container_id TEXT NOT NULL,
    container_name TEXT NOT NULL,
    device TEXT NOT NULL,
    address INTEGER,
    mac_address TEXT NOT NULL,
    ports TEXT NOT NULL,
    UNIQUE (container_id, network_id),
    UNIQUE (network_id, address)
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """A network. `subnet` is CIDR text, empty where there is none or none was chosen yet.

    `driver` is in Docker's words: `bridge`, `host` or `null`. `created_at` is in seconds since the Unix epoch.
    """

    id: str
    name: str
    driver: str
    subnet: str
    created_at: float


@dataclass(frozen=True, slots=True)
class PortRecord:
    """A port of the host that leads to a port of a container. `host_ip` 0.0.0.0 stands for every address."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A container's place in a network.

    `device` is the host's end of the pair of virtual cards, empty with drivers that need none, as `address` then is.
    An empty `mac_address` means: the one made from the address.
    """

    id: str
    network_id: str
    container_id: str
    container_name: str
    device: str
    address: str
    mac_address: str
    ports: tuple[PortRecord, ...]


class NetworkTable:
    """Networks and endpoints. Every write is on disk when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure(self, wanted: Sequence[NetworkRecord]) -> list[NetworkRecord]:
        """Add the networks whose names are not there yet and give all networks, by name."""
        present = self.all()
        if {record.name for record in wanted} <= {record.name for record in present}:
            return present

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR IGNORE INTO networks (id, name, driver, subnet, created_at) VALUES (?, ?, ?, ?, ?)",
                [(record.id, record.name, record.driver, record.subnet, record.created_at) for record in wanted],
            )

        self._database.write(work)
        return self.all()

    def all(self) -> list[NetworkRecord]:
        """Give every network, by name."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id, name, driver, subnet, created_at FROM networks ORDER BY name"
            ).fetchall()
        )
        return [NetworkRecord(*row) for row in rows]

    def set_subnet(self, network_id: str, subnet: str) -> None:
        """Remember the subnet chosen for a network."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE networks SET subnet = ? WHERE id = ?", (subnet, network_id))

        self._database.write(work)

    def add_endpoint(
        self, record: EndpointRecord, pool: range = range(0), avoid: AbstractSet[int] = frozenset()
    ) -> EndpointRecord:
        """Add an endpoint and give it as it was recorded.

        With a `pool` (addresses as numbers) and no address asked for, it gets the lowest free one that is not in
        `avoid`. Raises Conflict where the address or the container's place is taken, Unavailable where none is free.
        """

        def work(connection: sqlite3.Connection) -> EndpointRecord:
            address: int | None = int(IPv4Address(record.address)) if record.address else None
            if address is None and pool:
                address = _free_address(connection, record.network_id, pool, avoid)
            try:
                connection.execute(
                    "INSERT INTO endpoints (id, network_id, container_id, container_name, device, address, mac_address,"
                    " ports) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        record.id,
                        record.network_id,
                        record.container_id,
                        record.container_name,
                        record.device,
                        address,
                        record.mac_address,
                        _ports_to_json(record.ports),
                    ),
                )
            except sqlite3.IntegrityError as error:
                if "endpoints.address" in str(error):
                    raise Conflict("Address already in use") from error
                if "endpoints.container_id" in str(error):
                    raise Conflict(f"container {record.container_id} is already connected to this network") from error
                raise
            return record if address is None else replace(record, address=str(IPv4Address(address)))

        return self._database.write(work)

    def rename_container(self, container_id: str, name: str) -> None:
        """Write the container's new name into its endpoints."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE endpoints SET container_name = ? WHERE container_id = ?", (name, container_id))

        self._database.write(work)

    def remove_endpoints(self, container_ids: Sequence[str]) -> None:
        """Forget every endpoint of these containers; its address is free from then on."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM endpoints WHERE container_id = ?", [(container_id,) for container_id in container_ids]
            )

        self._database.write(work)

    def endpoints(self) -> list[EndpointRecord]:
        """Give every endpoint, by container."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id, network_id, container_id, container_name, device, address, mac_address, ports"
                " FROM endpoints ORDER BY container_id"
            ).fetchall()
        )
        return [_endpoint(*row) for row in rows]


def _endpoint(
    endpoint_id: str,
    network_id: str,
    container_id: str,
    container_name: str,
    device: str,
    address: int | None,
    mac_address: str,
    ports: str,
) -> EndpointRecord:
    return EndpointRecord(
        endpoint_id,
        network_id,
        container_id,
        container_name,
        device,
        "" if address is None else str(IPv4Address(address)),
        mac_address,
        tuple(PortRecord(*values) for values in json.loads(ports)),
    )


def _free_address(connection: sqlite3.Connection, network_id: str, pool: range, avoid: AbstractSet[int]) -> int:
    rows = connection.execute("SELECT address FROM endpoints WHERE network_id = ?", (network_id,)).fetchall()
    taken = {row[0] for row in rows}
    for candidate in pool:
        if candidate not in taken and candidate not in avoid:
            return candidate
    raise Unavailable("no available IPv4 addresses on this network's address pools")


def _ports_to_json(ports: Sequence[PortRecord]) -> str:
    return json.dumps([[port.container_port, port.protocol, port.host_ip, port.host_port] for port in ports])
