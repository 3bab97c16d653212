"""Names, states in people's words, signals: pure and small."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.containers import names
from holdfast.containers.model import State
from holdfast.containers.signals import parse_signal, stop_signal
from holdfast.containers.status import describe, duration
from holdfast.errors import InvalidParameter

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("name", ["web", "/web", "a1", "A_b.c-d"])
def test_good_names(name: str) -> None:
    assert names.check(name) == name.removeprefix("/")


@pytest.mark.parametrize("name", ["_n1", "a", "/", "a/b", "../x", "ä1", "a b", "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        names.check(name)
    assert str(refused.value) == f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


def test_made_up_names_are_free_and_allowed() -> None:
    taken = {names.make(lambda _: False) for _ in range(100)}
    for _ in range(100):
        name = names.make(taken.__contains__)
        assert name not in taken
        assert names.check(name) == name


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (2 * 3600, "2 hours"), (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (60 * 86400, "2 months"),
        (2 * 365 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status="running", started_at=NOW - timedelta(seconds=5)), "Up 5 seconds"),
        (State(status="paused", started_at=NOW - timedelta(minutes=2)), "Up 2 minutes (Paused)"),
        (
            State(status="restarting", exit_code=1, finished_at=NOW - timedelta(seconds=3)),
            "Restarting (1) 3 seconds ago",
        ),
        (State(status="removing"), "Removal In Progress"),
        (State(status="exited", exit_code=0, finished_at=NOW - timedelta(minutes=2)), "Exited (0) 2 minutes ago"),
        (State(status="dead"), "Dead"),
    ],
)
def test_status(state: State, text: str) -> None:
    assert describe(state, NOW) == text


def test_health_is_shown() -> None:
    state = State(status="running", started_at=NOW - timedelta(seconds=5))
    assert describe(state, NOW, "healthy") == "Up 5 seconds (healthy)"
    assert describe(state, NOW, "starting") == "Up 5 seconds (health: starting)"


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("KILL", 9), ("RTMIN+3", signal.SIGRTMIN + 3), ("SIGRTMAX-1", 63)],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["BAD", "0", "RTMIN+99", "SIG_DFL", ""])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid signal"):
        parse_signal(text)


@pytest.mark.parametrize("text", ["65", "-1", "999"])
def test_numbers_of_no_signal(text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"the linux daemon does not support signal {text}"):
        parse_signal(text)


def test_an_unknown_stop_signal_is_sigterm() -> None:
    assert stop_signal("") == stop_signal("NONSENSE") == 15
    assert stop_signal("SIGQUIT") == 3
