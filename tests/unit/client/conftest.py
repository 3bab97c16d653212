"""An engine of canned answers, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.client import Client
from tests.unit.cli.fake_engine import FakeEngine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    """A fake engine on a socket of its own."""
    with FakeEngine(tmp_path / "s") as fake:
        yield fake


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[Client]:
    """A client of it."""
    made = Client(engine.url)
    yield made
    made.close()
