"""The event stream: what passes which filter, the shape of an event, replay and end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import events as module
from holdfast.api.events import EventStream, matches, parse_time
from holdfast.errors import System
from holdfast.events import Event, EventBus
from holdfast.wire.system import encode_event

VOLUME = Event("volume", "create", "data", {"driver": "local"}, "local", 1_500_000_000_123_456_789)
WEB = {"image": "docker.io/library/busybox:1", "name": "web", "tier": "x"}
START = Event("container", "start", "c" * 64, WEB, "local", 1)
EXEC = Event("container", "exec_create: ls", "c" * 64, {"image": "busybox", "name": "web"}, "local", 2)
PULL = Event("image", "pull", "alpine:3", {"name": "alpine"}, "local", 3)


@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        ({}, {"VOLUME", "START", "EXEC", "PULL"}),
        ({"type": ["volume", "image"]}, {"VOLUME", "PULL"}),
        ({"event": ["start"]}, {"START"}),
        ({"event": ["sta"]}, set()),
        ({"event": ["exec_create"]}, {"EXEC"}),
        ({"event": ["exec_create", "sta"]}, {"EXEC", "START"}),
        ({"volume": ["da"]}, {"VOLUME"}),
        ({"container": ["we"]}, {"START", "EXEC"}),
        ({"volume": ["cccc"]}, {"START", "EXEC"}),
        ({"container": ["web"], "event": ["start"]}, {"START"}),
        ({"image": ["busybox"]}, {"START", "EXEC"}),
        ({"image": ["docker.io/library/busybox:1"]}, {"START"}),
        ({"image": ["alpine"]}, {"PULL"}),
        ({"label": ["tier"]}, {"START"}),
        ({"label": ["tier=y"]}, set()),
        ({"scope": ["swarm"]}, set()),
        ({"nonsense": ["x"]}, {"VOLUME", "START", "EXEC", "PULL"}),
    ],
)
def test_filters(filters: dict[str, list[str]], passing: set[str]) -> None:
    all_events = {"VOLUME": VOLUME, "START": START, "EXEC": EXEC, "PULL": PULL}
    assert {name for name, event in all_events.items() if matches(filters, event)} == passing


def test_shape_of_a_volume_event() -> None:
    assert json.dumps(encode_event(VOLUME, (1, 51)), separators=(",", ":")) == (
        '{"Type":"volume","Action":"create","Actor":{"ID":"data","Attributes":{"driver":"local"}},'
        '"scope":"local","time":1500000000,"timeNano":1500000000123456789}'
    )


def test_legacy_keys_come_first() -> None:
    assert list(encode_event(START, (1, 51)))[:4] == ["status", "id", "from", "Type"]
    assert list(encode_event(PULL, (1, 51)))[:3] == ["status", "id", "Type"]
    assert "status" not in encode_event(START, (1, 52))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("0", 0),
        ("12", 12_000_000_000),
        ("12.5", 12_500_000_000),
        ("1.000000001", 1_000_000_001),
        ("-1.5", -1_500_000_000),
    ],
)
def test_times(text: str, expected: int | None) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", ["x", "1.", "1.x", "1e3", "--1", "2020-01-01", "9" * 40])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(System, match="invalid syntax"):
        parse_time(text)


def run(test: Any) -> None:
    """Run a coroutine with a deadline."""
    asyncio.run(asyncio.wait_for(test(), 10))


def ids(lines: list[bytes]) -> list[str]:
    """The actors of encoded events."""
    assert all(line.endswith(b"\n") for line in lines)
    return [json.loads(line)["Actor"]["ID"] for line in lines]


def test_replay_then_live_and_until() -> None:
    async def check() -> None:
        bus = EventBus()
        bus.publish("volume", "create", "old")
        middle = time.time_ns()
        bus.publish("volume", "create", "past")
        bus.publish("container", "create", "other")
        stream = EventStream(bus, {"type": ["volume"]}, middle, time.time_ns() + 300_000_000, (1, 51))
        thread = threading.Thread(target=bus.publish, args=("volume", "create", "live"))
        thread.start()
        thread.join()
        assert ids([line async for line in stream]) == ["past", "live"]
        assert time.time_ns() >= middle + 300_000_000
        bus.publish("volume", "create", "late")
        await stream.aclose()

    run(check)


def test_until_in_the_past_only_replays() -> None:
    async def check() -> None:
        bus = EventBus()
        bus.publish("volume", "create", "a")
        until = time.time_ns()
        bus.publish("volume", "create", "b")
        stream = EventStream(bus, {}, None, until, (1, 51))
        assert ids([line async for line in stream]) == ["a"]
        await stream.aclose()

    run(check)


def test_without_since_nothing_is_replayed() -> None:
    async def check() -> None:
        bus = EventBus()
        bus.publish("volume", "create", "a")
        stream = EventStream(bus, {}, None, None, (1, 51))
        bus.publish("volume", "create", "b")
        assert ids([await anext(stream)]) == ["b"]
        await stream.aclose()

    run(check)


def test_a_listener_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_LONGEST_BACKLOG", 10)

    async def check() -> None:
        bus = EventBus()
        stream = EventStream(bus, {}, None, None, (1, 51))
        for _ in range(20):
            bus.publish("volume", "create", "a")
        await asyncio.sleep(0.01)
        assert [line async for line in stream] == []

    run(check)
