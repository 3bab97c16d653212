"""Which networks there are, and how one is named."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from holdfast.errors import Conflict, NotFound
from holdfast.store.networks import NetworkRecord, NetworkTable

BRIDGE: Final = "bridge"
HOST: Final = "host"
NONE: Final = "none"
BUILT_IN: Final[Mapping[str, str]] = {BRIDGE: "bridge", HOST: "host", NONE: "null"}
"""Name and driver of the networks that are always there."""

_ALIASES: Final[Mapping[str, str]] = {"default": BRIDGE}


class NetworkCatalogue:
    """The networks of one engine. Safe from any thread."""

    def __init__(self, table: NetworkTable) -> None:
        self._table = table
        self._records: dict[str, NetworkRecord] = {}
        self.guard = threading.RLock()
        """Held while a network is made or removed: names and subnets are given out once."""

    def all(self) -> Sequence[NetworkRecord]:
        """Give every network, by name; the built-in ones are recorded the first time."""
        records = self._records
        if not records:
            now = time.time()
            wanted = [NetworkRecord(secrets.token_hex(32), name, driver, "", now) for name, driver in BUILT_IN.items()]
            records = {record.name: record for record in self._table.ensure(wanted)}
            self._records = records
        return list(records.values())

    def own(self) -> list[NetworkRecord]:
        """Give the user-defined networks, by name."""
        return [record for record in self.all() if record.name not in BUILT_IN]

    def bridges(self) -> list[NetworkRecord]:
        """Give the networks that have a bridge, by name."""
        return [record for record in self.all() if record.driver == "bridge" and not record.settings.config_only]

    def subnets(self) -> list[IPv4Network]:
        """Give the IPv4 subnets of the user-defined networks."""
        return [IPv4Network(text) for text in self._subnets() if ":" not in text]

    def subnets6(self) -> list[IPv6Network]:
        """Give the IPv6 subnets of the user-defined networks."""
        return [IPv6Network(text) for text in self._subnets() if ":" in text]

    def find(self, name_or_id: str) -> NetworkRecord:
        """Give a network by its name, id or the beginning of its id. Raises NotFound, Conflict where ambiguous."""
        records = self.all()
        name = _ALIASES.get(name_or_id, name_or_id)
        for wanted in ("id", "name"):
            for record in records:
                if getattr(record, wanted) == name:
                    return record
        matches = [record for record in records if name and record.id.startswith(name)]
        if len(matches) > 1:
            raise Conflict(f"network {name_or_id} is ambiguous ({len(matches)} matches found based on ID prefix)")
        if not matches:
            raise NotFound(f"network {name_or_id} not found")
        return matches[0]

    def add(self, record: NetworkRecord, *, intent: int) -> None:
        """Record a new network and end its intent. Raises Conflict if its name is taken."""
        self._table.add(record, intent=intent)
        self._records = {}

    def remove(self, record: NetworkRecord, *, intent: int) -> None:
        """Forget a network and end the intent."""
        self._table.remove(record.id, intent=intent)
        self._records = {}

    def bridge_subnet(self) -> str:
        """Give the subnet that the default bridge had last, empty if none was chosen yet."""
        return self.find(BRIDGE).subnet

    def set_bridge_subnet(self, subnet: str) -> None:
        """Remember the default bridge's subnet."""
        self._table.set_subnet(self.find(BRIDGE).id, subnet)
        self._records = {}

    def _subnets(self) -> list[str]:
        return [pool.subnet for record in self.own() if not record.settings.config_only for pool in
                record.settings.pools]  # fmt: skip
