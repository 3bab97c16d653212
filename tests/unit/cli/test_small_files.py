"""References, times, environment, keys, tables."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import reference
from holdfast.cli.environment import environment
from holdfast.cli.output import align
from holdfast.cli.session import Refused
from holdfast.cli.terminal import KeyWatch, parse_keys
from holdfast.cli.when import timestamp


@pytest.mark.parametrize(
    ("name", "parts", "full"),
    [
        ("alpine", ("alpine", ""), "docker.io/library/alpine:latest"),
        ("alpine:3", ("alpine", "3"), "docker.io/library/alpine:3"),
        ("user/app", ("user/app", ""), "docker.io/user/app:latest"),
        ("localhost/app:1", ("localhost/app", "1"), "localhost/app:1"),
        ("host:5000/a/b", ("host:5000/a/b", ""), "host:5000/a/b:latest"),
        ("host:5000/a:t", ("host:5000/a", "t"), "host:5000/a:t"),
        ("index.docker.io/x", ("index.docker.io/x", ""), "docker.io/library/x:latest"),
        ("a@sha256:1", ("a", "sha256:1"), "docker.io/library/a@sha256:1"),
        ("a:t@sha256:1", ("a", "sha256:1"), "docker.io/library/a@sha256:1"),
    ],
)
def test_reference(name: str, parts: tuple[str, str], full: str) -> None:
    assert reference.split(name) == parts
    assert reference.full_reference(name) == full


def test_timestamps() -> None:
    assert timestamp("") == ""
    assert timestamp("1795443457.5") == "1795443457.5"
    assert timestamp("2026-11-23T14:33:12Z") == "1795444392.000000000"
    assert timestamp("2026-11-23T14:33:12.1234567891Z") == "1795444392.123456789"
    assert timestamp("2026-11-23T14:33+01:00") == "1795440780.000000000"
    assert timestamp("2026-11-23T14Z") == "1795442400.000000000"
    assert abs(float(timestamp("10m")) - (time.time() - 600)) < 5
    assert abs(float(timestamp("-10m")) - (time.time() + 600)) < 5
    with pytest.raises(Refused, match='failed to parse value as time or duration: "foo"'):
        timestamp("foo")


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    monkeypatch.delenv("NOT_OURS", raising=False)
    file = tmp_path / "env"
    file.write_text("# remark\n\nA=b c \nOURS\nNOT_OURS\n  INDENTED=1\n")
    assert environment(["X=y", "OURS", "NOT_OURS"], [str(file)]) == [
        "A=b c ", "OURS=1", "INDENTED=1", "X=y", "OURS=1", "NOT_OURS",
    ]  # fmt: skip
    file.write_text("BAD NAME=1")
    with pytest.raises(ValueError, match="variable 'BAD NAME' contains whitespaces"):
        environment([], [str(file)])


def test_keys() -> None:
    assert parse_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_keys("ctrl-@,ctrl-[,a") == b"\0\x1ba"
    for text in ("", "foo", "ctrl-", "ctrl-1", "a,,b"):
        with pytest.raises(ValueError, match="invalid detach keys"):
            parse_keys(text)


@given(st.lists(st.binary(max_size=4)), st.sampled_from([b"", b"a", b"\x10\x11", b"aab"]))
def test_detaching_at_the_first_time_that_the_keys_are_typed(typed: list[bytes], keys: bytes) -> None:
    watch = KeyWatch(keys)
    passed, done = b"", False
    for data in typed:
        out, done = watch.take(data)
        passed += out
        if done:
            break
    everything = b"".join(typed)
    if keys and keys in everything:
        assert done
    if not keys:
        assert passed == everything
    assert everything.startswith(passed)


def test_a_broken_off_sequence_is_passed_on() -> None:
    watch = KeyWatch(b"\x10\x11")
    assert watch.take(b"a\x10") == (b"a", False)
    assert watch.take(b"b\x10\x10") == (b"\x10b\x10", False)
    assert watch.take(b"\x11c") == (b"", True)


def test_columns_have_ten_characters_and_three_spaces() -> None:
    assert align(["A\tLONG HEADING\tZ", "1\t2\t3"]) == [
        "A         LONG HEADING   Z",
        "1         2              3",
    ]
