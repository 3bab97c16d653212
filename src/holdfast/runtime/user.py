"""Who a container's process runs as, read from the passwd and group files inside the container's root.

The files belong to the container, so they are hostile: links are followed only inside the root, anything but a
regular file is refused, and so is one that is larger than a sane user database. The C library's own lookup is never
used: it would load name service modules. Rules and texts: Docker (`moby/sys/user`, GetExecUser).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import InvalidParameter
from holdfast.kernel.path import open_in_root, owned_fd

LIMIT_BYTES: Final = 1 << 20
"""The largest passwd or group file that is read."""

_MAX_ID: Final = (1 << 31) - 1
_NUMBER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class User:
    """A resolved user. `additional_gids` begins with the primary group, as CVE-2022-36109 asks for."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = (0,)
    home: str = "/"


def resolve_user(rootfs: Path, user: str, group_add: Sequence[str] = ()) -> User:
    """Resolve `user` (empty, `NAME`, `UID`, either with `:GROUP` or `:GID`) inside the mounted `rootfs`.

    `group_add` are further groups by name or number. Raises InvalidParameter, in Docker's words, for a name that the
    files do not have and for a number out of range.
    """
    with owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        wants_groups = ":" in user or group_add or not _NUMBER.fullmatch(user or "0")
        passwd = _read(root, "etc/passwd")
        group = _read(root, "etc/group") if passwd or wants_groups else ""
    return resolve(user, group_add, passwd, group)


def resolve(user: str, group_add: Sequence[str], passwd: str, group: str) -> User:
    """Resolve against the text of the two files; pure. Raises as `resolve_user`."""
    name, _, group_name = user.partition(":")
    uid, gid, home, matched = 0, 0, "/", ""
    number = _number(name)
    for fields in _entries(passwd, 7):
        entry_uid = _number(fields[2])
        if (number if name else 0) == entry_uid if number is not None or not name else fields[0] == name:
            matched, uid, gid, home = fields[0], entry_uid or 0, _number(fields[3]) or 0, fields[5] or "/"
            break
    else:
        if name:
            if number is None:
                raise InvalidParameter(f"unable to find user {name}: no matching entries in passwd file")
            uid = _in_range(number)
    groups = [(fields[0], _number(fields[2]) or 0, fields[3].split(",")) for fields in _entries(group, 4)]
    supplementary: list[int] = []
    if group_name:
        gid = _group_id(group_name, groups)
    elif matched:
        supplementary = [entry_gid for _, entry_gid, members in groups if matched in members]
    supplementary += [_group_id(extra, groups) for extra in group_add]
    return User(uid, gid, tuple(dict.fromkeys([gid, *supplementary])), home)


def _group_id(name: str, groups: list[tuple[str, int, list[str]]]) -> int:
    number = _number(name)
    for entry_name, entry_gid, _ in groups:
        if entry_gid == number if number is not None else entry_name == name:
            return entry_gid
    if number is None:
        raise InvalidParameter(f"unable to find group {name}: no matching entries in group file")
    return _in_range(number)


def _entries(text: str, count: int) -> Iterator[list[str]]:
    """Fields of each line, padded to `count`; comments and empty lines are left out."""
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            fields = line.split(":")
            yield fields + [""] * (count - len(fields))


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _in_range(number: int) -> int:
    if not 0 <= number <= _MAX_ID:
        raise InvalidParameter(f"uids and gids must be in range 0-{_MAX_ID}")
    return number


def _read(root: int, path: str) -> str:
    """The text of a file of the container, or "" where it has none (or a dangling or looping link)."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return ""
        raise
    with owned_fd(fd):
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidParameter(f"/{path} in the container is not a regular file")
        if found.st_size > LIMIT_BYTES:
            raise InvalidParameter(f"/{path} in the container is larger than {LIMIT_BYTES} bytes")
        with open(fd, "rb", closefd=False) as file:
            return file.read(LIMIT_BYTES).decode("utf-8", "surrogateescape")
