"""Which networks there are, and how one is named."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
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

    def all(self) -> Sequence[NetworkRecord]:
        """Give every network, by name; the built-in ones are recorded the first time."""
        if not self._records:
            now = time.time()
            wanted = [NetworkRecord(secrets.token_hex(32), name, driver, "", now) for name, driver in BUILT_IN.items()]
            self._records = {record.name: record for record in self._table.ensure(wanted)}
        return list(self._records.values())

    def find(self, name_or_id: str) -> NetworkRecord:
        """Give a network by its name, id or the beginning of its id. Raises NotFound, Conflict where ambiguous."""
        records = self.all()
        name = _ALIASES.get(name_or_id, name_or_id)
        for record in records:
            if name in (record.name, record.id):
                return record
        matches = [record for record in records if name and record.id.startswith(name)]
        if len(matches) > 1:
            raise Conflict(f"network {name_or_id} is ambiguous ({len(matches)} matches found based on ID prefix)")
        if not matches:
            raise NotFound(f"network {name_or_id} not found")
        return matches[0]

    def bridge_subnet(self) -> str:
        """Give the subnet that the default bridge had last, empty if none was chosen yet."""
        return self.find(BRIDGE).subnet

    def set_bridge_subnet(self, subnet: str) -> None:
        """Remember the default bridge's subnet."""
        self._table.set_subnet(self.find(BRIDGE).id, subnet)
        self._records = {}
