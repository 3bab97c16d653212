"""Rules of health checks: which are made, when, and what their results come to. Pure.

Source: Docker Engine API, `HealthConfig` and `Health`; `docker run` reference, "Healthchecks".
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from holdfast.containers.model import ContainerConfig, Health, Healthcheck, ProbeResult, Texts
from holdfast.errors import InvalidParameter

OUTPUT_LIMIT_BYTES: Final = 4096
KEPT: Final = 5
"""How many results are remembered."""
NO_EXIT_CODE: Final = -1
"""The exit code of a probe that could not be run, or was killed at its deadline."""

_SHORTEST_NS: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000
_DEFAULT_SHELL: Final = ("/bin/sh", "-c")
_SMALL_UNITS: Final = ((1_000_000, "ms"), (1_000, "µs"), (1, "ns"))


@dataclass(frozen=True, slots=True)
class Check:
    """A health check with everything settled; times in seconds."""

    argv: Texts
    interval_s: float
    timeout_s: float
    start_period_s: float
    start_interval_s: float
    retries: int
    timeout_text: str


def validate(asked: Healthcheck | None) -> None:
    """Raise InvalidParameter, in Docker's words, for times below a millisecond and negative retries."""
    if asked is None or not asked.test:
        return
    for name, value in (
        ("Interval", asked.interval),
        ("Timeout", asked.timeout),
        ("StartPeriod", asked.start_period),
        ("StartInterval", asked.start_interval),
    ):
        if value != 0 and value < _SHORTEST_NS:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if asked.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def settle(config: ContainerConfig) -> Check | None:
    """Give the check that a container's configuration asks for, with Docker's defaults; None if there is none."""
    asked = config.healthcheck
    if asked is None or not asked.test:
        return None
    kind, *words = asked.test
    if kind not in ("CMD", "CMD-SHELL") or not words:
        return None
    if kind == "CMD-SHELL":
        words = [*(config.shell or _DEFAULT_SHELL), *words]
    timeout_ns = asked.timeout or 30 * _SECOND_NS
    return Check(
        argv=tuple(words),
        interval_s=(asked.interval or 30 * _SECOND_NS) / _SECOND_NS,
        timeout_s=timeout_ns / _SECOND_NS,
        start_period_s=asked.start_period / _SECOND_NS,
        start_interval_s=(asked.start_interval or 5 * _SECOND_NS) / _SECOND_NS,
        retries=asked.retries or 3,
        timeout_text=duration(timeout_ns),
    )


def at_start(config: ContainerConfig, before: Health | None) -> Health | None:
    """Give the health that a container starts with: nothing is known, but the results of earlier runs are kept."""
    return Health(log=before.log if before else ()) if settle(config) else None


def at_end(before: Health | None) -> Health | None:
    """Give the health of a container that is looked at no more: unhealthy, as in Docker."""
    return dataclasses.replace(before, status="unhealthy") if before else None


def next_delay_s(check: Check, health: Health, ran_s: float) -> float:
    """Seconds until the next probe of a container that has run for `ran_s`."""
    if ran_s < check.start_period_s and health.status == "starting":
        return check.start_interval_s
    return check.interval_s


def after(check: Check, health: Health, result: ProbeResult, started_at: datetime | None) -> Health:
    """Give what a result makes of a container's health: failures of one that starts count after the start period."""
    results = (*health.log, result)[-KEPT:]
    if result.exit_code == 0:
        return Health(status="healthy", failing_streak=0, log=results)
    period = timedelta(seconds=check.start_period_s)
    if health.status == "starting" and started_at is not None and result.start - started_at < period:
        return dataclasses.replace(health, log=results)
    streak = health.failing_streak + 1
    status = "unhealthy" if streak >= check.retries else health.status
    return Health(status=status, failing_streak=streak, log=results)


def expired(check: Check, output: str) -> str:
    """Give the text of a probe that took too long."""
    text = f"Health check exceeded timeout ({check.timeout_text})"
    return f"{text}: {output}" if output else text


def duration(nanoseconds: int) -> str:
    """Write a length of time as Go does: `1m30s`, `1.5s`, `500ms`. It is not negative."""
    for unit, name in _SMALL_UNITS:
        if unit <= nanoseconds < _SECOND_NS:
            return f"{_decimal(nanoseconds, unit)}{name}"
    minutes, rest = divmod(nanoseconds, 60 * _SECOND_NS)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _SECOND_NS)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
