"""An image store of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.config import Config
from holdfast.events import Event, EventBus
from holdfast.images.service import Images
from holdfast.store import Store


class Shelf:
    """The image service of one state root, with what it published."""

    def __init__(self, state_root: Path) -> None:
        self.state_root = state_root
        self.store = Store(state_root / "holdfast.db")
        self.events: list[Event] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.images = Images(Config(state_root=state_root), self.store, bus)
        self.images.restore()

    def on_disk(self) -> tuple[int, int, int]:
        """How many blobs, layers and unfinished entries there are."""
        root = self.state_root / "images"
        return (
            len(list((root / "blobs/sha256").iterdir())),
            len(list((root / "layers").iterdir())),
            len(list((root / "tmp").iterdir())),
        )

    def is_consistent(self) -> bool:
        """Whether every row has its files."""
        root = self.state_root / "images"
        blobs = {path.name for path in (root / "blobs/sha256").iterdir()}
        layers = {path.name for path in (root / "layers").iterdir()}
        wanted_blobs = {digest[7:] for digest in self.store.images.blobs()}
        wanted_layers = {chain_id[7:] for chain_id in self.store.images.layer_sizes()}
        return wanted_blobs <= blobs and wanted_layers <= layers


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """An empty image store."""
    made = Shelf(tmp_path)
    yield made
    made.store.close()
