"""Removals in the background."""

from __future__ import annotations

import threading
import time

import pytest

from holdfast.network.reaper import Reaper


def test_addresses_stay_until_the_device_is_gone() -> None:
    may_go = threading.Event()
    removed: list[str] = []

    def remove(device: str) -> None:
        may_go.wait(5)
        removed.append(device)

    reaper = Reaper(remove)
    reaper.add("hf1", 1)
    reaper.add("hf2", 2)
    assert reaper.leaving() == {1, 2}
    assert reaper.has("hf1")
    may_go.set()
    reaper.finish()
    assert removed == ["hf1", "hf2"]
    assert reaper.leaving() == frozenset()
    reaper.add("hf3", 3)
    reaper.finish()
    assert removed[-1] == "hf3"


def test_device_that_cannot_be_removed_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    def remove(device: str) -> None:
        raise OSError(16, "busy")

    reaper = Reaper(remove)
    reaper.add("hf1", 1)
    reaper.finish()
    assert reaper.leaving() == frozenset()
    assert "cannot remove a network device" in caplog.text


def test_many_devices_do_not_wait_for_each_other() -> None:
    reaper = Reaper(str)
    began = time.monotonic()
    for number in range(100):
        reaper.add(f"hf{number}", number)
    while reaper.leaving():
        time.sleep(0.01)
    assert time.monotonic() - began < 1
