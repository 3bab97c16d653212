from __future__ import annotations

import itertools
import os
import select
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.runtime.logs import (
    JOIN_LIMIT_BYTES,
    Joiner,
    LogEntry,
    LogFollower,
    format_time,
    parse_record,
    parse_time,
    read_entries,
)

SECOND = 1_000_000_000


def record(number: int, stream: str, tag: str, data: str) -> str:
    return f"1970-01-01T00:00:{number % 60:02d}.{number:09d}+00:00 {stream} {tag} {data}\n"


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00.000000000+00:00", 0),
        ("1970-01-01T00:00:01.5Z", SECOND + 500_000_000),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("1969-12-31T22:30:00-01:30", 0),
        ("2024-02-29T12:34:56.123456789+00:00", 1709210096_123456789),
    ],
)
def test_times(text: str, time_ns: int) -> None:
    assert parse_time(text.encode()) == time_ns


@pytest.mark.parametrize("text", ["", "yesterday", "1970-01-01", "1970-01-01T00:0x:00Z", "1970-01-01T00:00:00"])
def test_bad_times(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_time(text.encode())


@given(st.integers(0, 4102444800 * SECOND))
def test_time_survives_a_round_trip(time_ns: int) -> None:
    assert parse_time(format_time(time_ns).encode()) == time_ns
    assert len(format_time(time_ns)) == len("2006-01-02T15:04:05.000000000Z")


def test_records() -> None:
    found = parse_record(b"1970-01-01T00:00:01.000000000+00:00 stderr F a b  c")
    assert (found.stream, found.time_ns, found.data, found.partial) == ("stderr", SECOND, b"a b  c\n", False)
    assert parse_record(b"1970-01-01T00:00:01.000000000+00:00 stdout P ").data == b""
    for bad in (b"", b"x", b"1970-01-01T00:00:01Z stdin F x", b"1970-01-01T00:00:01Z stdout X x"):
        with pytest.raises(ValueError, match=r".*"):
            parse_record(bad)


def test_join_and_interleave() -> None:
    joiner = Joiner()
    assert joiner.feed(record(1, "stdout", "P", "ab").encode()) == []
    assert joiner.feed(
        (record(2, "stderr", "F", "err") + "rubbish\n" + record(3, "stdout", "F", "cd")).encode()
    ) == [LogEntry("stderr", 2 * SECOND + 2, b"err\n"), LogEntry("stdout", SECOND + 1, b"abcd\n")]
    assert joiner.rest() == []
    assert joiner.feed((record(4, "stderr", "P", "x") + record(5, "stdout", "P", "y")).encode()) == []
    assert [entry.data for entry in joiner.rest()] == [b"x", b"y"]


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    joiner = Joiner()
    line = record(1, "stdout", "P", "x" * 8192).encode()
    entries = [entry for _ in range(300) for entry in joiner.feed(line)]
    assert [len(entry.data) for entry in entries] == [JOIN_LIMIT_BYTES, JOIN_LIMIT_BYTES]


records = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from(["F", "F", "P"]), st.text("ab \x00é", max_size=5)),
    max_size=40,
)


@given(records, st.integers(0, 12), st.lists(st.integers(0, 40), max_size=3))
def test_tail_is_the_end_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], tail: int, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("log") / "ctr.log"
    lines = [record(number, *row) for number, row in enumerate(rows)]
    edges = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    files = ["".join(lines[start:end]) for start, end in itertools.pairwise(edges)]
    for number, text in enumerate(reversed(files)):
        Path(f"{path}.{number}" if number else path).write_text(text)
    whole = list(read_entries(path))
    assert b"".join(entry.data for entry in whole if entry.stream == "stdout") == "".join(
        data + ("\n" if tag == "F" else "") for stream, tag, data in rows if stream == "stdout"
    ).encode()
    last = list(read_entries(path, tail=tail))
    dangling = sum(1 for entry in whole if not entry.data.endswith(b"\n"))
    if dangling == 0 or tail == 0:
        assert last == (whole[-tail:] if tail else [])
    else:
        # an unfinished line that is older than the tail may be left out
        kept = [entry for entry in whole if entry.data.endswith(b"\n")]
        assert last == whole[-tail:] or last == kept[-tail:] or set(last) <= set(whole[-tail - dangling:])
        assert len(last) <= tail

    follower = LogFollower(path, tail=tail)
    followed: list[LogEntry] = []
    while found := follower.read():
        followed += found
    if tail:
        followed += follower.rest()
        assert followed == last
    follower.close()


def test_times_limit(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    path.write_text("".join(record(number, "stdout", "F", str(number)) for number in range(10)))
    found = read_entries(path, since_ns=3 * SECOND + 3, until_ns=5 * SECOND + 5)
    assert [entry.data for entry in found] == [b"3\n", b"4\n", b"5\n"]
    assert [entry.data for entry in read_entries(path, tail=2, since_ns=9 * SECOND)] == [b"9\n"]
    assert list(read_entries(tmp_path / "none")) == []


def test_long_log_backwards(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    path.write_text("".join(record(number, "stdout", "F", f"{number} " + "x" * 100) for number in range(20000)))
    found = list(read_entries(path, tail=1000))
    assert [int(entry.data.split()[0]) for entry in found] == list(range(19000, 20000))


def test_follow(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    follower = LogFollower(path)
    assert follower.read() == []
    with path.open("w") as log:
        print(record(1, "stdout", "F", "one"), end="", file=log, flush=True)
        assert select.select([follower], [], [], 5)[0]
        assert [entry.data for entry in follower.read()] == [b"one\n"]
        assert follower.read() == []
        assert not select.select([follower], [], [], 0)[0]
        half = record(2, "stdout", "F", "two")
        print(half[:20], end="", file=log, flush=True)
        assert follower.read() == []
        print(half[20:], end="", file=log, flush=True)
        assert [entry.data for entry in follower.read()] == [b"two\n"]
        path.rename(tmp_path / "ctr.log.1")
        print(record(3, "stdout", "F", "three"), end="", file=log, flush=True)
    assert [entry.data for entry in follower.read()] == [b"three\n"]
    path.write_text(record(4, "stdout", "P", "four"))
    assert select.select([follower], [], [], 5)[0]
    assert follower.read() == []
    assert [entry.data for entry in follower.rest()] == [b"four"]
    os.truncate(path, 0)
    path.write_text(record(5, "stdout", "F", "5"))
    assert [entry.data for entry in follower.read()] == [b"5\n"]
    follower.close()
    follower.close()
