"""The small shared files: configuration, events, locks, fault points, errors, log lines."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import pytest

from holdfast import config, faults, log
from holdfast.errors import Conflict, InvalidParameter
from holdfast.events import Event, EventBus
from holdfast.locks import NamedLocks


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text('bridge_name = "file"\nnft_table = "file"\nlog_level = "debug"\n')
    loaded = config.load(
        {"bridge_name": "flag"}, {"HOLDFAST_NFT_TABLE": "environment", "HOLDFAST_BRIDGE_NAME": "environment"}, file
    )
    assert (loaded.bridge_name, loaded.nft_table, loaded.log_level) == ("flag", "environment", "debug")


def test_the_socket_follows_the_run_root() -> None:
    assert config.load({"run_root": "/r"}, {}).socket_path == Path("/r/holdfast.sock")
    assert config.load({"run_root": "/r"}, {"HOLDFAST_SOCKET": "/s"}).socket_path == Path("/s")


def test_socket_mode_is_octal_in_text() -> None:
    assert config.load({"socket_mode": "0660"}, {}).socket_mode == 0o660


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"state_root": "relative"}, "state_root from flag --state-root: 'relative': must be an absolute path"),
        ({"stop_timeout_s": "soon"}, "stop_timeout_s from flag --stop-timeout-s"),
        ({"nonsense": "x"}, "unknown setting 'nonsense' in flag --nonsense"),
    ],
)
def test_bad_settings_name_their_source(flags: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidParameter, match="configuration") as refused:
        config.load(flags, {})
    assert said in str(refused.value)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="does not exist"):
        config.load({}, {}, tmp_path / "missing.toml")


def test_events_are_neither_missed_nor_doubled() -> None:
    bus = EventBus()
    first = bus.publish("volume", "create", "a")
    heard: list[Event] = []
    past, unsubscribe = bus.subscribe(heard.append, since_ns=first.time_ns)
    second = bus.publish("volume", "destroy", "a")
    assert bus.listener_count == 1
    unsubscribe()
    assert bus.listener_count == 0
    bus.publish("volume", "create", "b")
    assert (past, heard) == ([first], [second])
    assert second.time_ns > first.time_ns


def test_locks_are_by_name_and_forgotten() -> None:
    locks = NamedLocks()
    order: list[str] = []

    def wait() -> None:
        with locks.hold("a"):
            order.append("second")

    with locks.hold("a"), locks.hold("b"):
        thread = threading.Thread(target=wait)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert locks._locks == {}


def test_fault_points() -> None:
    faults.arm("here@2=ENOSPC")
    try:
        faults.point("elsewhere")
        faults.point("here")
        with pytest.raises(OSError, match="fault point here"):
            faults.point("here")
        faults.point("here")
    finally:
        faults.arm("")


def test_a_fault_point_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_FAULT_FILE", str(tmp_path / "hung"))
    faults.arm("here=HANG")
    try:
        thread = threading.Thread(target=faults.point, args=("here",), daemon=True)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert (tmp_path / "hung").read_text() == "here\n"
    finally:
        faults.arm("")


def test_errors_nest_as_dockers_do() -> None:
    error = Conflict("is in use", hint="remove it").within("remove v").within("prune")
    assert (str(error), error.hint, error.kind) == ("prune: remove v: is in use", "remove it", "Conflict")


def test_log_lines_are_single_lines() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log.configure("info", stream)
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.get("holdfast.room").exception("it failed", extra={"volume": "a b"})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    (line,) = stream.getvalue().splitlines()
    assert ' ERROR room: it failed volume="a b" traceback=' in line
