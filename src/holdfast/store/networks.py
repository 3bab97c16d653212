"""Rows of networks and of the endpoints that join containers to them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

import msgspec

from holdfast.errors import Conflict, Unavailable
from holdfast.shapes import know
from holdfast.store.database import Database
from holdfast.store.intents import end_intent

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

NETWORK_TABLES_OF_ONES_OWN = """
ALTER TABLE networks ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE endpoints ADD COLUMN address6 TEXT;
ALTER TABLE endpoints ADD COLUMN place TEXT NOT NULL DEFAULT '{}';
CREATE UNIQUE INDEX endpoints_address6 ON endpoints (network_id, address6) WHERE address6 IS NOT NULL;
"""
"""What user-defined networks need beyond the default one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRecord:
    """A subnet of a network, in CIDR text. Empty texts were not given.

    `ip_range` is the part of it that containers get addresses from, `gateway` the bridge's own address; `reserved` maps
    names of other hosts to addresses that no container gets. `chosen` is true where the engine picked the subnet.
    """

    subnet: str
    ip_range: str = ""
    gateway: str = ""
    reserved: Mapping[str, str] = field(default_factory=dict)
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """What a user-defined network was asked to be; `bridge` is its device on the host.

    `owns_bridge` is false where the device was there before the network. Source: Docker Engine API, NetworkCreate.
    """

    pools: tuple[PoolRecord, ...] = ()
    bridge: str = ""
    owns_bridge: bool = True
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_options: Mapping[str, str] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """A network. `subnet` is CIDR text, empty but for the default bridge once its subnet was chosen.

    `driver` is in Docker's words: `bridge`, `host` or `null`. `created_at` is in seconds since the Unix epoch.
    """

    id: str
    name: str
    driver: str
    subnet: str
    created_at: float
    settings: NetworkSettings = field(default_factory=NetworkSettings)


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

    `device` is the host's end of the pair of virtual cards, `card` the container's; both are empty with drivers that
    need none, as the addresses then are. An empty `mac_address` means: the one made from the address. `names` are those
    by which the network's other containers find it, `links` what it alone calls others there, with their names.
    """

    id: str
    network_id: str
    container_id: str
    container_name: str
    device: str
    address: str
    mac_address: str
    ports: tuple[PortRecord, ...]
    address6: str = ""
    card: str = "eth0"
    names: tuple[str, ...] = ()
    gateway_priority: int = 0
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Where an endpoint's address comes from: numbers, of which those in `reserved` belong to others for good.

    Those in `leaving` belonged to a container that has just left; see `NetworkTable.add_endpoint`.
    """

    numbers: range = range(0)
    reserved: AbstractSet[int] = frozenset()
    leaving: AbstractSet[int] = frozenset()

    def first_free(self, taken: AbstractSet[int]) -> int | None:
        """Give the lowest address that nobody has."""
        for candidate in self.numbers:
            if candidate not in taken and candidate not in self.reserved and candidate not in self.leaving:
                return candidate
        return None


NO_POOL = AddressPool()


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

    def add(self, record: NetworkRecord, *, intent: int | None = None) -> None:
        """Record a new network and end its intent. Raises Conflict in Docker's words if its name is taken."""

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "INSERT INTO networks (id, name, driver, subnet, created_at, settings) VALUES (?, ?, ?, ?, ?, ?)",
                    (record.id, record.name, record.driver, record.subnet, record.created_at,
                     msgspec.json.encode(record.settings).decode()),
                )  # fmt: skip
            except sqlite3.IntegrityError as error:
                raise Conflict(f"network with name {record.name} already exists") from error
            end_intent(connection, intent)

        self._database.write(work)

    def remove(self, network_id: str, *, intent: int | None = None) -> None:
        """Forget a network with all its endpoints and end the intent; one that is not there is no error."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM endpoints WHERE network_id = ?", (network_id,))
            connection.execute("DELETE FROM networks WHERE id = ?", (network_id,))
            end_intent(connection, intent)

        self._database.write(work)

    def all(self) -> list[NetworkRecord]:
        """Give every network, by name."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id, name, driver, subnet, created_at, settings FROM networks ORDER BY name"
            ).fetchall()
        )
        return [
            NetworkRecord(key, name, driver, subnet, created_at, msgspec.json.decode(settings, type=NetworkSettings))
            for key, name, driver, subnet, created_at, settings in rows
        ]

    def set_subnet(self, network_id: str, subnet: str) -> None:
        """Remember the subnet chosen for a network."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE networks SET subnet = ? WHERE id = ?", (subnet, network_id))

        self._database.write(work)

    def add_endpoint(
        self, record: EndpointRecord, pool: AddressPool = NO_POOL, pool6: AddressPool = NO_POOL
    ) -> EndpointRecord:
        """Add an endpoint and give it as it was recorded.

        Where no address was asked for, it gets the lowest free one of the pool, if there is a pool. Raises Conflict
        where the address or the container's place is taken, Unavailable where none is free.
        """

        def work(connection: sqlite3.Connection) -> EndpointRecord:
            row = record
            if not row.address and pool.numbers:
                row = replace(row, address=str(IPv4Address(_free_number(connection, row.network_id, pool, 4))))
            if not row.address6 and pool6.numbers:
                row = replace(row, address6=str(IPv6Address(_free_number(connection, row.network_id, pool6, 6))))
            try:
                connection.execute(
                    "INSERT INTO endpoints (id, network_id, container_id, container_name, device, address, mac_address,"
                    " ports, address6, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        row.id,
                        row.network_id,
                        row.container_id,
                        row.container_name,
                        row.device,
                        int(IPv4Address(row.address)) if row.address else None,
                        row.mac_address,
                        _ports_to_json(row.ports),
                        row.address6 or None,
                        _place_to_json(row),
                    ),
                )
            except sqlite3.IntegrityError as error:
                if "endpoints.address" in str(error):
                    raise Conflict("Address already in use") from error
                if "endpoints.container_id" in str(error):
                    raise Conflict(f"container {record.container_id} is already connected to this network") from error
                raise
            return row

        return self._database.write(work)

    def change_endpoints(self, records: Sequence[EndpointRecord]) -> None:
        """Write names, ports and container names of endpoints anew, all at once."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE endpoints SET container_name = ?, ports = ?, place = ? WHERE id = ?",
                [(row.container_name, _ports_to_json(row.ports), _place_to_json(row), row.id) for row in records],
            )

        self._database.write(work)

    def remove_endpoints(self, endpoint_ids: Sequence[str]) -> None:
        """Forget endpoints; their addresses are free from then on."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM endpoints WHERE id = ?", [(endpoint_id,) for endpoint_id in endpoint_ids]
            )

        self._database.write(work)

    def endpoints(self) -> list[EndpointRecord]:
        """Give every endpoint, by container."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id, network_id, container_id, container_name, device, address, mac_address, ports, address6,"
                " place FROM endpoints ORDER BY container_id, rowid"
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
    address6: str | None,
    place: str,
) -> EndpointRecord:
    facts = json.loads(place)
    return EndpointRecord(
        endpoint_id,
        network_id,
        container_id,
        container_name,
        device,
        "" if address is None else str(IPv4Address(address)),
        mac_address,
        tuple(PortRecord(*values) for values in json.loads(ports)),
        address6 or "",
        facts.get("card", "eth0"),
        tuple(facts.get("names", ())),
        facts.get("gateway_priority", 0),
        tuple((alias, name) for alias, name in facts.get("links", ())),
    )


def _free_number(connection: sqlite3.Connection, network_id: str, pool: AddressPool, version: int) -> int:
    column = "address" if version == 4 else "address6"
    rows = connection.execute(
        f"SELECT {column} FROM endpoints WHERE network_id = ? AND {column} IS NOT NULL", (network_id,)
    ).fetchall()
    found = pool.first_free({row[0] if version == 4 else int(IPv6Address(row[0])) for row in rows})
    if found is None:
        raise Unavailable(f"no available IPv{version} addresses on this network's address pools")
    return found


def _ports_to_json(ports: Sequence[PortRecord]) -> str:
    return json.dumps([[port.container_port, port.protocol, port.host_ip, port.host_port] for port in ports])


def _place_to_json(row: EndpointRecord) -> str:
    facts = {"card": row.card, "names": row.names, "gateway_priority": row.gateway_priority, "links": row.links}
    return json.dumps(facts)


know(NetworkSettings)
