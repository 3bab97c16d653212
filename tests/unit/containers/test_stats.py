"""Who samples, and for how long."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.containers import stats
from holdfast.containers.container import Container
from holdfast.containers.rooms import Rooms
from holdfast.errors import NotFound
from holdfast.kernel.usage import NOT_RUNNING, Moment


class Registry:
    """Knows one container until it forgets it."""

    def __init__(self, container: object) -> None:
        self.container: object | None = container

    def get(self, _reference: str) -> object:
        if self.container is None:
            raise NotFound("gone")
        return self.container


class Stopped:
    """A container that does not run."""

    id = "c1"
    state = SimpleNamespace(task=None)


def samplers() -> int:
    return sum(thread.name == "stats" for thread in threading.enumerate())


def wait_until(met: Any) -> None:
    deadline = time.monotonic() + 5
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_sampler_however_many_watch_and_none_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "INTERVAL_S", 0.02)
    container = cast("Container", Stopped())
    registry = Registry(container)
    service = stats.Stats(cast("Rooms", SimpleNamespace(registry=registry)))
    got: list[list[Moment | None]] = [[] for _ in range(20)]
    cancels = [service.watch(container, entry.append) for entry in got]
    wait_until(lambda: all(len(entry) >= 2 for entry in got))
    assert samplers() == 1
    for cancel in cancels:
        cancel()
        cancel()
    wait_until(lambda: samplers() == 0)
    assert all(moment == NOT_RUNNING for entry in got for moment in entry)
    count = len(got[0])
    time.sleep(0.1)
    assert len(got[0]) == count

    again: list[Moment | None] = []
    service.watch(container, again.append)
    wait_until(lambda: again)
    registry.container = None
    wait_until(lambda: None in again)
    service.close()
    wait_until(lambda: samplers() == 0)
    assert again[-1] is None
