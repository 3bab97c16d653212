"""Whether a copy still is what it was made from: asked after a power cut, of copies that had not reached the disk.

What a power cut takes are whole entries, or the content of files whose names and times are there. Of a copy that nobody
used since, everything that differs is damage. Of one that a container used, an entry is damaged if it is missing, of
another kind, empty, or says by its times that nobody changed it and yet differs; what was changed is not judged.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from holdfast.volumes.layers import DIRECTORY, close, enter, scan

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Difference:
    """How a copy differs from its source. `names` are the entries at its top with something wrong at or below them."""

    names: set[str] = field(default_factory=set)
    missing: int = 0
    damaged: int = 0
    root: bool = False
    """Whether the directory itself lost its owner or mode."""

    def __bool__(self) -> bool:
        return bool(self.names) or self.root


def compare(source: Sequence[int], destination: int, *, used: bool) -> Difference:
    """Compare a directory, given by descriptors of its layers, with its copy at fd `destination`. Raises OSError.

    `used` says that containers may have changed the copy. What is only in the copy is no difference.
    """
    found = Difference(root=not _same_owner(os.fstat(source[0]), os.fstat(destination)))
    pending: list[tuple[tuple[str, ...], str]] = [((), "")]
    while pending:
        names, top = pending.pop()
        with _Pair(source, destination, names) as pair:
            if not pair.sources:
                continue
            listing = scan(pair.sources)
            for entry, number in listing.files:
                _judge(found, pair, pair.sources[number], entry.name, top or entry.name, used=used)
            for name, numbers in listing.directories:
                there = _status(pair.destination, name)
                if there is None or not stat.S_ISDIR(there.st_mode):
                    found.missing += 1
                    found.names.add(top or name)
                    continue
                pending.append(((*names, name), top or name))
                if not used and not _same_owner(os.stat(name, dir_fd=pair.sources[numbers[0]]), there):
                    found.damaged += 1
                    found.names.add(top or name)
    return found


class _Pair:
    """A directory of the source and its counterpart, open for the length of a `with`."""

    def __init__(self, source: Sequence[int], destination: int, names: Sequence[str]) -> None:
        self.sources = [os.dup(fd) for fd in source]
        self.destination = os.dup(destination)
        try:
            for name in names:
                below = [fd for _, fd in enter(self.sources, name, range(len(self.sources)))]
                close(self.sources)
                self.sources = below
                there = os.open(name, DIRECTORY, dir_fd=self.destination)
                os.close(self.destination)
                self.destination = there
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close((*self.sources, self.destination))


def _judge(found: Difference, pair: _Pair, source: int, name: str, top: str, *, used: bool) -> None:
    expected = os.stat(name, dir_fd=source, follow_symlinks=False)
    there = _status(pair.destination, name)
    if there is None:
        found.missing += 1
        found.names.add(top)
        return
    same_kind = stat.S_IFMT(there.st_mode) == stat.S_IFMT(expected.st_mode) and there.st_rdev == expected.st_rdev
    if used and there.st_mtime_ns != expected.st_mtime_ns:
        fine = same_kind and bool(there.st_size or not expected.st_size)
    else:
        fine = (
            same_kind
            and there.st_size == expected.st_size
            and (used or (there.st_mtime_ns == expected.st_mtime_ns and _same_owner(expected, there)))
            and _same_content(source, pair.destination, name, expected)
        )
    if not fine:
        found.damaged += 1
        found.names.add(top)


def _same_content(source: int, destination: int, name: str, status: os.stat_result) -> bool:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=source) == os.readlink(name, dir_fd=destination)
    if not stat.S_ISREG(status.st_mode):
        return True
    with (
        open(os.open(name, _READ, dir_fd=source), "rb", buffering=0) as one,
        open(os.open(name, _READ, dir_fd=destination), "rb", buffering=0) as other,
    ):
        while True:
            data = one.read(_CHUNK_BYTES)
            if data != other.read(_CHUNK_BYTES):
                return False
            if not data:
                return True


def _same_owner(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def _status(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
