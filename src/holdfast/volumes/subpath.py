"""A part of a volume instead of the whole: opened by descriptor, and made first where the volume's options say so.

Whoever uses the volume may exchange directories for symlinks while we look (CVE-2017-1002101, CVE-2021-25741), so a
path is resolved once, by the kernel, which never leaves the volume: openat2(2) with RESOLVE_BENEATH. What comes back is
a descriptor, and nothing is looked up by that path again. Links that stay inside are followed, as Docker does.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import EngineError, InvalidParameter, NotFound, System
from holdfast.kernel.path import open_beneath, owned_fd

if TYPE_CHECKING:
    from holdfast.kernel.storage_worker import Answer

OPTION = "subpath-create"
_HIGHEST_ID = 0xFFFFFFFE
_BEING_MADE = 0o700


@dataclass(frozen=True, slots=True)
class SubpathCreate:
    """Whose the directories are that are made on the way to a missing subpath, and their mode."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o755


def parse_subpath_create(value: str) -> SubpathCreate | None:
    """Parse the volume option `subpath-create`: `true`, `false`, or `UID:GID:MODE`, the mode in octal.

    None means that missing subpaths are not made. Raises InvalidParameter. The option is ours; Docker has none.
    """
    if value in ("true", "false"):
        return SubpathCreate() if value == "true" else None
    parts = value.split(":")
    try:
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError
        uid, gid, mode = int(parts[0]), int(parts[1]), int(parts[2], 8)
        if max(uid, gid) > _HIGHEST_ID or mode > 0o7777:
            raise ValueError
    except ValueError:
        raise InvalidParameter(
            f'invalid option: "{OPTION}={value}": it is true, false or UID:GID:MODE, such as 1000:1000:0755'
        ) from None
    return SubpathCreate(uid, gid, mode)


def of_options(options: Mapping[str, str] | None) -> SubpathCreate | None:
    """Give what a volume's options say of missing subpaths. Raises InvalidParameter for a bad value."""
    value = (options or {}).get(OPTION)
    return None if value is None else parse_subpath_create(value)


def open_data(data: Path, subpath: str, create: SubpathCreate | None = None) -> int:
    """Open (O_PATH) a volume's data directory, or what lies at `subpath` in it: a directory, or a file.

    A missing `subpath` is made as directories if `create` says how; the caller holds the volume's lock then. Raises
    NotFound for one that is missing, InvalidParameter for one that leads out of the volume, System; in Docker's words.
    """
    try:
        root = os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise System(f"cannot access path {data}: {_why(error)}") from error
    if not subpath:
        return root
    with owned_fd(root):
        try:
            return open_beneath(root, subpath, os.O_PATH)
        except FileNotFoundError as error:
            if create is None:
                raise _refused(root, data, subpath, error) from error
        except OSError as error:
            raise _refused(root, data, subpath, error) from error
        try:
            return _make(root, subpath, create)
        except OSError as error:
            raise System(f"cannot create path {data / subpath}: {_why(error)}") from error


def open_mounted(_: Sequence[int], data: str, subpath: str) -> Answer:
    """Open (O_PATH) a volume's mounted data, or what lies at `subpath` in it, and give its mode. See `open_data`."""
    fd = open_data(Path(data), subpath)
    return os.fstat(fd).st_mode, (fd,)


def find_mounted(_: Sequence[int], path: str) -> Answer:
    """Give where a directory really is, links resolved. Raises OSError, also if it is none."""
    found = os.path.realpath(path, strict=True)
    os.close(os.open(found, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    return found, ()


def make_data(_: Sequence[int], data: str, subpath: str, uid: int, gid: int, mode: int) -> Answer:
    """Make and open (O_PATH) what lies at `subpath` in a volume's data, and give its mode. Raises as `open_data`."""
    fd = open_data(Path(data), subpath, SubpathCreate(uid, gid, mode))
    return os.fstat(fd).st_mode, (fd,)


def _make(root: int, subpath: str, create: SubpathCreate) -> int:
    """Make the missing directories of a subpath one by one, each below the descriptor of the one before."""
    names = _names(subpath)
    depth = _depth_reached(root, names)
    here = open_beneath(root, "/".join(names[:depth]) or ".", os.O_PATH | os.O_DIRECTORY)
    for name in names[depth:]:
        with owned_fd(here):
            here = _make_one(here, name, create)
    return here


def _depth_reached(root: int, names: list[str]) -> int:
    """Count the leading names that lead somewhere within the volume."""
    for depth in range(len(names) - 1, 0, -1):
        try:
            os.close(open_beneath(root, "/".join(names[:depth]), os.O_PATH))
            return depth
        except FileNotFoundError:
            continue
    return 0


def _make_one(parent: int, name: str, create: SubpathCreate) -> int:
    """Make one directory and open it; somebody else's of that name is as good, a symlink is not.

    Owner and mode are given only to what is surely ours: nobody but root can have put an empty directory of this mode
    there between the two calls, and to root inside the volume it would be its own.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.mkdir(name, _BEING_MADE, dir_fd=parent)
    except FileExistsError:
        return os.open(name, flags, dir_fd=parent)
    made = os.open(name, flags, dir_fd=parent)
    try:
        status = os.fstat(made)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o777 != _BEING_MADE or os.listdir(made):
            raise OSError(errno.ESTALE, "the directory was exchanged while it was made", name)
        os.fchown(made, create.uid, create.gid)
        os.fchmod(made, create.mode)
    except BaseException:
        os.close(made)
        raise
    return made


def _refused(root: int, data: Path, subpath: str, error: OSError) -> EngineError:
    """Give the error for a subpath that cannot be opened below the directory fd `root`."""
    depth = 0
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        try:
            depth = _depth_reached(root, _names(subpath))
        except OSError:
            depth = len(_names(subpath)) - 1
    return refused(data, subpath, error, depth)


def refused(data: Path, subpath: str, error: OSError, depth: int) -> EngineError:
    """Give the error for a subpath that cannot be opened, of which the first `depth` names lead somewhere.

    Source: moby, internal/safepath.
    """
    if error.errno == errno.EXDEV:
        return InvalidParameter(f"path concatenation escapes the base directory, base: {data}, subpath: {subpath}")
    where = data / subpath
    if error.errno == errno.ELOOP:
        return NotFound(f"cannot access path {where}: EvalSymlinks: too many links")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        missing = data.joinpath(*_names(subpath)[: depth + 1])
        return NotFound(f"cannot access path {where}: lstat {missing}: {_why(error)}")
    return System(f"cannot access path {where}: {_why(error)}")


def _names(subpath: str) -> list[str]:
    return [name for name in subpath.split("/") if name not in ("", ".")]


def _why(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
