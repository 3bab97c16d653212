from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from holdfast.errors import Conflict
from holdfast.runtime.logfiles import Rotation, begin, compress, look
from holdfast.runtime.logs import LogFollower, read_entries


def write(path: Path, numbers: range) -> None:
    with path.open("a") as log:
        for number in numbers:
            log.write(f"1970-01-01T00:00:00.{number:09d}+00:00 stdout F {number}\n")


def numbers(path: Path, tail: int | None = None) -> list[int]:
    return [int(entry.data) for entry in read_entries(path, tail=tail)]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_engine_rotates(tmp_path: Path) -> None:
    path = tmp_path / "log"
    rotation = Rotation(900, 3)
    for start in range(0, 100, 20):
        write(path, range(start, start + 20))
        assert look(path, rotation, path.touch) is None
    assert names(tmp_path) == ["log", "log.1", "log.2"]
    assert numbers(path) == list(range(60, 100))
    look(path, rotation, path.touch)
    assert names(tmp_path) == ["log", "log.1", "log.2", "log.spare"]
    look(path, rotation, None)
    assert names(tmp_path) == ["log", "log.1", "log.2"]


def test_what_the_monitor_replaced_is_not_lost(tmp_path: Path) -> None:
    path, fresh = tmp_path / "log", tmp_path / "fresh"
    rotation = Rotation(10**6, 3)
    write(path, range(10))
    look(path, rotation, path.touch)
    follower = LogFollower(path)
    write(fresh, range(10, 20))
    fresh.rename(path)
    assert [int(entry.data) for _ in range(2) for entry in follower.read()] == list(range(20))
    follower.close()
    look(path, rotation, path.touch)
    assert names(tmp_path) == ["log", "log.1", "log.spare"]
    assert numbers(path) == list(range(20))
    write(fresh, range(20, 30))
    fresh.rename(path)
    look(path, rotation, None)
    assert names(tmp_path) == ["log", "log.1", "log.2"]
    assert numbers(path) == list(range(30))
    assert numbers(path, 25) == list(range(5, 30))


def test_compressed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    rotation = Rotation(900, 4, compress=True)
    for start in range(0, 80, 20):
        write(path, range(start, start + 20))
        full = look(path, rotation, path.touch)
        assert full is not None
        if start != 40:
            compress(full)
    assert names(tmp_path) == ["log", "log.1.gz", "log.2", "log.3.gz"]
    assert numbers(path) == list(range(20, 80))
    assert numbers(path, 50) == list(range(30, 80))
    follower = LogFollower(path, tail=30)
    found: list[int] = []
    while entries := follower.read():
        found += [int(entry.data) for entry in entries]
    assert found == list(range(50, 80))
    follower.close()
    (tmp_path / "log.3.gz").write_bytes(gzip.compress(b"1970-01-01T00:00:00Z stdout F 7\n" * 9)[:-9])
    assert numbers(path)[-60:] == [*numbers(path)[:-40], *range(40, 80)][-60:], "a damaged file costs only itself"
    compress(tmp_path / "log.9")


def test_a_file_that_moves_on_while_it_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    rotation = Rotation(10, 4, compress=True)
    write(path, range(5))
    full = look(path, rotation, path.touch)
    assert full is not None
    real = gzip.open

    def slow(name: object, mode: str = "rb", **options: object) -> object:
        if mode == "wb":
            write(path, range(5, 10))
            look(path, rotation, path.touch)
        return real(name, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(gzip, "open", slow)
    compress(full)
    assert names(tmp_path) == ["log", "log.1", "log.2.gz"]
    assert numbers(path) == list(range(10))


def test_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, range(40))
    begin(path, Rotation(10**6))
    look(path, Rotation(1000), path.touch)
    assert names(tmp_path) == ["log"]
    begin(path, None)
    begin(path, Rotation(1000))
    assert names(tmp_path) == []
    begin(path, Rotation(1000))


def test_an_engine_that_died_between_rename_and_reopen(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, range(40))
    path.rename(f"{path}.1")
    look(path, Rotation(1000, 2), path.touch)
    assert names(tmp_path) == ["log.1"], "the monitor may be about to open it"
    look(path, Rotation(1000, 2), path.touch, first=True)
    assert names(tmp_path) == ["log", "log.1", "log.spare"]
    look(tmp_path / "other", Rotation(1000, 2), path.unlink, first=True)
    assert names(tmp_path) == ["log", "log.1", "log.spare"], "a container that has not written yet"


def test_a_monitor_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, range(40))

    def gone() -> None:
        raise Conflict("container x is not running")

    with pytest.raises(Conflict):
        look(path, Rotation(1000, 2), gone)
    assert numbers(path) == list(range(40))
