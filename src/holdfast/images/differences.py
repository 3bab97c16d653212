"""What a container changed: its own layer of the overlay compared with what lies below. Only the own layer is walked.

Nothing counts that a copy up leaves alone: an entry is changed if its type, mode, owner or device number differ, a file
also by size, time or capabilities. Source: moby, pkg/archive, ChangesDirs; Linux, overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.kernel.path import open_beneath, owned_fd

MODIFIED: Final = 0
ADDED: Final = 1
DELETED: Final = 2

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE: Final = "trusted.overlay.opaque"
_CAPABILITY: Final = "security.capability"


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One path, absolute inside the container, and MODIFIED, ADDED or DELETED. They sort parents first."""

    parts: tuple[str, ...]
    kind: int

    @property
    def path(self) -> str:
        """The path as text."""
        return "/" + "/".join(self.parts)


def changes(own: int, below: int) -> list[Change]:
    """List what the directory `own` changes about the directory `below` (descriptors), sorted by path.

    A directory with changes inside is listed too, a removed one alone. The tree may be changed meanwhile. Raises
    OSError, ENAMETOOLONG for a path that no program could use at once.
    """
    found = list(_walk(own, below))
    listed = {change.parts for change in found}
    for change in [*found]:
        parts = change.parts[:-1]
        while parts and parts not in listed:
            listed.add(parts)
            found.append(Change(parts, MODIFIED))
            parts = parts[:-1]
    return sorted(found)


def _walk(own: int, below: int) -> Iterator[Change]:
    """Give the changes in any order, without the directories that hold them."""
    waiting: list[tuple[tuple[str, ...], bool]] = [((), True)]
    while waiting:
        parts, was_there = waiting.pop()
        path = "/".join(parts) or "."
        try:
            with owned_fd(open_beneath(own, path, _DIRECTORY)) as upper:
                if not was_there:
                    yield from _all_added(upper, parts, waiting)
                    continue
                with owned_fd(open_beneath(below, path, _DIRECTORY)) as lower:
                    yield from _compared(upper, lower, parts, waiting)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # exchanged since it was seen
                raise


def _all_added(
    upper: int, parts: tuple[str, ...], waiting: list[tuple[tuple[str, ...], bool]]
) -> Iterator[Change]:
    with os.scandir(upper) as entries:
        for entry in entries:
            found = _stat(upper, entry.name)
            if found is None or _is_whiteout(found):
                continue
            yield Change((*parts, entry.name), ADDED)
            if stat.S_ISDIR(found.st_mode):
                waiting.append(((*parts, entry.name), False))


def _compared(
    upper: int, lower: int, parts: tuple[str, ...], waiting: list[tuple[tuple[str, ...], bool]]
) -> Iterator[Change]:
    names = set()
    with os.scandir(upper) as entries:
        for entry in entries:
            name = entry.name
            now, before = _stat(upper, name), _stat(lower, name)
            if now is None:
                continue
            names.add(name)
            if _is_whiteout(now):
                if before is not None:
                    yield Change((*parts, name), DELETED)
                continue
            if before is None:
                yield Change((*parts, name), ADDED)
            elif _differs(now, before) or _capability(upper, name, now) != _capability(lower, name, before):
                yield Change((*parts, name), MODIFIED)
            if stat.S_ISDIR(now.st_mode):
                waiting.append(((*parts, name), before is not None and stat.S_ISDIR(before.st_mode)))
    if _is_opaque(upper):
        for name in os.listdir(lower):
            if name not in names:
                yield Change((*parts, name), DELETED)


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError:  # none there, or none on this file system
        return False


def _differs(now: os.stat_result, before: os.stat_result) -> bool:
    if (now.st_mode, now.st_uid, now.st_gid) != (before.st_mode, before.st_uid, before.st_gid):
        return True
    if now.st_rdev != before.st_rdev:
        return True
    if stat.S_ISDIR(now.st_mode):
        return False
    return now.st_size != before.st_size or not _is_same_time(now.st_mtime_ns, before.st_mtime_ns)


def _is_same_time(one_ns: int, other_ns: int) -> bool:
    """Archives may keep whole seconds only."""
    if one_ns == other_ns:
        return True
    (one_s, one_rest), (other_s, other_rest) = divmod(one_ns, 1_000_000_000), divmod(other_ns, 1_000_000_000)
    return one_s == other_s and 0 in (one_rest, other_rest)


def _capability(directory: int, name: str, found: os.stat_result) -> bytes:
    if not stat.S_ISREG(found.st_mode):
        return b""
    try:
        with owned_fd(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) as fd:
            return os.getxattr(f"/proc/self/fd/{fd}", _CAPABILITY)
    except OSError:  # none there, or none on this file system
        return b""
