"""Paths of `docker cp`. The expected values are what Docker Engine 28.5.2 answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.containers.archive_paths import absolute, base_name, follow, look, quoted
from holdfast.containers.archive_view import Part, writable_at
from holdfast.errors import System


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/", "/"), ("//", "/"), (".", "/."), ("/.", "/."), ("data", "/data"), ("/data/", "/data/"),
        ("/data/.", "/data/."), ("/data//", "/data/"), ("/data/./", "/data/./"), ("/data/..", "/"),
        ("../../etc/passwd", "/etc/passwd"), ("/a/../b/", "/b/"), ("/a//b", "/a/b"),
    ],
)  # fmt: skip
def test_absolute(path: str, wanted: str) -> None:
    assert absolute(path) == wanted


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("", "."), ("/", "/"), ("//", "/"), ("/a/b", "b"), ("/a/b/", "b"), ("/a/.", "."), ("a/..", ".."), (".", ".")],
)
def test_base_name(path: str, wanted: str) -> None:
    assert base_name(path) == wanted


def test_quoted() -> None:
    assert quoted('a"b\\') == '"a\\"b\\\\"'


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "data/d").mkdir(parents=True)
    (tmp_path / "data/f").write_text("hi\n")
    for name, target in {
        "link": "f", "dlink": "d", "alink": "/data/d", "broken": "nowhere/x", "out": "../../../../etc/passwd",
        "a": "b", "b": "a", "pw": "/etc/passwd",
    }.items():  # fmt: skip
        (tmp_path / "data" / name).symlink_to(target)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/data/link", "/data/f"), ("/data/dlink", "/data/d"), ("/data/alink", "/data/d"),
        ("/data/broken", "/data/nowhere/x"), ("/data/pw", "/etc/passwd"), ("/data/out", "/etc/passwd"),
        ("/data/dlink/../f", "/data/f"), ("../../nope", "/nope"), ("/", "/"),
    ],
)  # fmt: skip
def test_follow(root: int, path: str, wanted: str) -> None:
    assert follow(root, path) == wanted


def test_follow_in_circles(root: int) -> None:
    with pytest.raises(System, match="evalSymlinksInScope: too many links in /data/a"):
        follow(root, "/data/a")


@pytest.mark.parametrize(
    ("path", "name", "size", "link"),
    [
        ("/data/f", "f", 3, ""), ("/data/link", "link", 1, "/data/f"), ("/data/pw", "pw", 11, "/etc/passwd"),
        ("../data/f", "f", 3, ""), ("/data/dlink/../f", "f", 3, ""),
    ],
)  # fmt: skip
def test_look(root: int, path: str, name: str, size: int, link: str) -> None:
    fd, found = look(root, path)
    os.close(fd)
    assert (found.name, found.size_bytes, found.link_target) == (name, size, link)


def test_look_at_endings(root: int) -> None:
    fd, found = look(root, "/data/dlink/")
    os.close(fd)
    assert found.is_directory and found.name == "dlink"
    with pytest.raises(System, match="lstat /data/f/: not a directory"):
        look(root, "/data/f/")
    for missing in ("/nope", "/data/broken/", "/etc/passwd"):
        with pytest.raises(FileNotFoundError):
            look(root, missing)


def test_the_longest_destination_decides() -> None:
    parts = [Part("/data", -1, True), Part("/data/ro", -1, False), Part("/data/ro/rw", -1, True)]
    assert writable_at("/data", parts) is True
    assert writable_at("/data/x", parts) is True
    assert writable_at("/data/ro", parts) is False
    assert writable_at("/data/ro/x/y", parts) is False
    assert writable_at("/data/ro/rw/z", parts) is True
    assert writable_at("/data/rock", parts) is True
    assert writable_at("/database", parts) is None
    assert writable_at("/", [Part("/", -1, False)]) is False
