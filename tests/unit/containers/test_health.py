from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from holdfast.containers.health import after, at_end, at_start, duration, next_delay_s, settle
from holdfast.containers.merge import merge
from holdfast.containers.model import ContainerConfig, Health, Healthcheck, ProbeResult

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"), (1, "1ns"), (1500, "1.5µs"), (1_000_000, "1ms"), (300_000_000, "300ms"), (SECOND, "1s"),
        (1_500_000_000, "1.5s"), (30 * SECOND, "30s"), (60 * SECOND, "1m0s"), (90 * SECOND, "1m30s"),
        (3600 * SECOND, "1h0m0s"), (3661 * SECOND + 1_000_000, "1h1m1.001s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_go_does(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_what_is_checked() -> None:
    def of(*test: str, shell: tuple[str, ...] | None = None) -> tuple[str, ...] | None:
        found = settle(ContainerConfig(healthcheck=Healthcheck(test=test), shell=shell))
        return found.argv if found else None

    assert of("CMD", "a", "b") == ("a", "b")
    assert of("CMD-SHELL", "a b") == ("/bin/sh", "-c", "a b")
    assert of("CMD-SHELL", "a b", shell=("/bin/ash", "-ec")) == ("/bin/ash", "-ec", "a b")
    for nothing in ((), ("NONE",), ("CMD",), ("ODD", "x")):
        assert of(*nothing) is None
    assert settle(ContainerConfig()) is None
    plain = settle(ContainerConfig(healthcheck=Healthcheck(test=("CMD", "x"))))
    assert plain is not None
    assert (plain.interval_s, plain.timeout_s, plain.start_period_s, plain.start_interval_s, plain.retries) == (
        30, 30, 0, 5, 3,
    )  # fmt: skip


def test_parts_that_are_not_given_come_from_the_image() -> None:
    image = {"config": {"Cmd": ["x"], "Healthcheck": {
        "Test": ["CMD", "i"], "Interval": 1 * SECOND, "Timeout": 2 * SECOND, "StartPeriod": 3 * SECOND,
        "StartInterval": 4 * SECOND, "Retries": 5,
    }}}  # fmt: skip
    asked = ContainerConfig(healthcheck=Healthcheck(timeout=7 * SECOND, retries=8))
    assert merge(asked, image, "f" * 64).healthcheck == Healthcheck(
        test=("CMD", "i"), interval=1 * SECOND, timeout=7 * SECOND, start_period=3 * SECOND, start_interval=4 * SECOND,
        retries=8,
    )
    none = merge(ContainerConfig(healthcheck=Healthcheck(test=("NONE",))), image, "f" * 64)
    assert none.healthcheck is not None
    assert settle(none) is None


def test_results_one_after_the_other() -> None:
    check = settle(
        ContainerConfig(healthcheck=Healthcheck(test=("CMD", "x"), start_period=10 * SECOND, retries=2))
    )
    assert check is not None
    health = Health()
    seen = []
    for second, code in ((1, 1), (5, 1), (11, 1), (12, 0), (13, 1), (14, 7), (15, -1), (16, 0)):
        at = START + timedelta(seconds=second)
        health = after(check, health, ProbeResult(start=at, end=at, exit_code=code, output=""), START)
        seen.append((health.status, health.failing_streak))
    assert seen == [
        ("starting", 0), ("starting", 0), ("starting", 1), ("healthy", 0), ("healthy", 1), ("unhealthy", 2),
        ("unhealthy", 3), ("healthy", 0),
    ]  # fmt: skip
    assert [result.exit_code for result in health.log] == [0, 1, 7, -1, 0]
    assert at_end(health) == Health(status="unhealthy", log=health.log)
    assert at_start(ContainerConfig(), health) is None
    assert at_end(None) is None


def test_a_container_that_starts_is_asked_more_often() -> None:
    check = settle(
        ContainerConfig(healthcheck=Healthcheck(test=("CMD", "x"), start_period=10 * SECOND, start_interval=SECOND))
    )
    assert check is not None
    assert next_delay_s(check, Health(), 3) == 1
    assert next_delay_s(check, Health(), 11) == 30
    assert next_delay_s(check, Health(status="healthy"), 3) == 30
