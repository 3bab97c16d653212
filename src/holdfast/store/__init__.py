"""The catalogue: what the engine knows, in one SQLite file. No SQL is written outside this room."""

from __future__ import annotations

from pathlib import Path

from holdfast.store.containers import ContainerTable
from holdfast.store.database import Database
from holdfast.store.images import ImageTable
from holdfast.store.intents import IntentTable
from holdfast.store.networks import NetworkTable
from holdfast.store.schema import MIGRATIONS
from holdfast.store.volumes import VolumeTable


class Store:
    """The tables of one engine, by noun."""

    def __init__(self, path: Path) -> None:
        """Open the catalogue at `path`, making or upgrading it. Raises System if that fails."""
        self.database = Database(path, MIGRATIONS)
        self.intents = IntentTable(self.database)
        self.volumes = VolumeTable(self.database)
        self.images = ImageTable(self.database)
        self.containers = ContainerTable(self.database)
        self.networks = NetworkTable(self.database)

    def close(self) -> None:
        """Close the file; nothing may use the store afterwards."""
        self.database.close()
