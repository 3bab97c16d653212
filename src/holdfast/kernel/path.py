"""Paths that somebody else may be changing: everything here goes by descriptor, never twice by name.

The walk in `remove_tree` and `tree_size_bytes` holds one descriptor however deep the tree is. It goes down with
openat2(RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS), so neither a mount nor a link is ever entered, and comes back up
through `..`, checking that this is the directory it came from.
"""

import contextlib
import dataclasses
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Final

from holdfast.kernel import progress
from holdfast.kernel.libc import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_SYMLINK_NOFOLLOW,
    INT,
    SIZE,
    STRING,
    UINT,
    StrPath,
    buffer,
    check,
    function,
    numbered,
)

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2

_STATX_MNT_ID: Final = 0x1000
_STATX_ATTR_MOUNT_ROOT: Final = 0x2000
# struct statx: stx_attributes at 8, stx_mnt_id at 144. Source: Linux, include/uapi/linux/stat.h.
_STATX_BYTES: Final = 256
_STATX_ATTRIBUTES_AT: Final = 8
_STATX_MNT_ID_AT: Final = 144

_openat2 = numbered(437, INT, STRING, STRING, SIZE)
_renameat2 = function("renameat2", INT, STRING, INT, STRING, UINT)
_syncfs = function("syncfs", INT)
_statx = function("statx", INT, STRING, INT, UINT, STRING)

_RETRIES: Final = 64            # openat2(2) says EAGAIN when a rename on the way raced with it
_RESCANS: Final = 16            # a directory that somebody keeps filling cannot be removed


# --- opening ----------------------------------------------------------------------------------------------

def openat2(dirfd: int, path: StrPath, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), Linux 5.6. The fd is close-on-exec. OSError: EXDEV escape or mount, ELOOP link, EAGAIN race."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return check("openat2", path, _openat2(dirfd, os.fsencode(path), how, len(how)))


def open_beneath(dirfd: int, path: StrPath, flags: int, mode: int = 0) -> int:
    """Open `path` below `dirfd`; links are followed only if they stay inside.

    Raises OSError, EXDEV for an escape by `..`, an absolute path or a link. Use for volume subpaths.
    """
    return _open_resolved(dirfd, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)


def open_in_root(dirfd: int, path: StrPath, flags: int, mode: int = 0) -> int:
    """Open `path` as if `dirfd` were `/`: absolute links and `..` stay inside. Use for paths in a container.

    Refusing absolute links instead would break `/var/run -> /run`. Raises OSError.
    """
    return _open_resolved(dirfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def _open_resolved(dirfd: int, path: StrPath, flags: int, mode: int, resolve: int) -> int:
    for _ in range(_RETRIES):
        try:
            return openat2(dirfd, path, flags, mode, resolve)
        except BlockingIOError:
            continue
    return openat2(dirfd, path, flags, mode, resolve)


@contextlib.contextmanager
def owned_fd(fd: int) -> Iterator[int]:
    """Close `fd` at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def make_dirs_beneath(dirfd: int, path: StrPath, mode: int = 0o755, *, in_root: bool = False) -> int:
    """Make the directories of `path` that are missing and return an O_PATH fd of the last; the caller closes it.

    Links on the way may not leave `dirfd`; with `in_root` they are taken as if it were `/`. `..` in `path` is
    refused with EINVAL, a dangling link with FileNotFoundError. Raises OSError.
    """
    resolve = RESOLVE_NO_MAGICLINKS | (RESOLVE_IN_ROOT if in_root else RESOLVE_BENEATH)
    flags = os.O_PATH | os.O_DIRECTORY
    components = [part for part in os.fspath(path).split("/") if part not in ("", ".")]
    if ".." in components:
        raise OSError(errno.EINVAL, "make_dirs_beneath: `..` in the path", os.fspath(path))
    current = _open_resolved(dirfd, ".", flags, 0, resolve)
    for depth, component in enumerate(components, start=1):
        reached = "/".join(components[:depth])
        with owned_fd(current) as parent:
            try:
                current = _open_resolved(dirfd, reached, flags, 0, resolve)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(component, mode, dir_fd=parent)
                current = _open_resolved(dirfd, reached, flags, 0, resolve)
    return current


# --- durability -------------------------------------------------------------------------------------------

def fsync_fd(fd: int) -> None:
    """Put a file's data, or a directory's entries, on disk. Raises OSError. fsync(2)."""
    os.fsync(fd)


def fsync_path(path: StrPath) -> None:
    """fsync the file or directory at `path`; a new name is on disk only once its directory is. Raises OSError."""
    with owned_fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        os.fsync(fd)


def syncfs(fd: int) -> None:
    """Put everything of the file system that holds `fd` on disk. Raises OSError. syncfs(2)."""
    check("syncfs", fd, _syncfs(fd))


# --- names ------------------------------------------------------------------------------------------------

def renameat2(olddirfd: int, old: StrPath, newdirfd: int, new: StrPath, flags: int) -> None:
    """renameat2(2). EINVAL: the file system cannot do this flag (NFS)."""
    result = _renameat2(olddirfd, os.fsencode(old), newdirfd, os.fsencode(new), flags)
    if result < 0:
        try:
            check("renameat2", old, result)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(old), None, os.fspath(new)) from None


def rename_noreplace(olddirfd: int, old: StrPath, newdirfd: int, new: StrPath) -> None:
    """Rename, or raise FileExistsError if `new` is taken: one step, no race. Raises OSError."""
    renameat2(olddirfd, old, newdirfd, new, RENAME_NOREPLACE)


def _statx_mount(dirfd: int, path: StrPath) -> bytes:
    answer = buffer(_STATX_BYTES)
    flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (0 if os.fspath(path) else AT_EMPTY_PATH)
    check("statx", path or dirfd, _statx(dirfd, os.fsencode(path), flags, _STATX_MNT_ID, answer))
    return bytes(answer)


def mount_id(dirfd: int, path: StrPath = "") -> int:
    """The id, as in mountinfo, of the mount that holds `path` (or `dirfd` itself). statx(2), Linux 5.8."""
    return int.from_bytes(_statx_mount(dirfd, path)[_STATX_MNT_ID_AT:][:8], sys.byteorder)


def is_mount_point(path: StrPath, dirfd: int = AT_FDCWD) -> bool:
    """Whether `path` is the root of a mount, a bind mount too. FileNotFoundError if missing. statx(2), Linux 5.8."""
    attributes = int.from_bytes(_statx_mount(dirfd, path)[_STATX_ATTRIBUTES_AT:][:8], sys.byteorder)
    return bool(attributes & _STATX_ATTR_MOUNT_ROOT)


# --- trees ------------------------------------------------------------------------------------------------

def remove_tree(dirfd: int, name: StrPath) -> None:
    """Remove `name`, one component, and everything below it; links are removed, never followed.

    A mount point stops it with EBUSY, and nothing below that is touched; what was removed before stays removed.
    Entries that vanish meanwhile are no error, `name` missing at the start is FileNotFoundError. Depth costs no
    descriptors. Raises OSError. Source: CVE-2021-41091's family, "resolve, check for mounts, remove by descriptor".
    """
    top = os.fspath(name)
    if top in ("", ".", "..") or "/" in top:
        raise OSError(errno.EINVAL, "remove_tree: not the name of one entry", top)
    if not stat.S_ISDIR(os.stat(top, dir_fd=dirfd, follow_symlinks=False).st_mode):
        os.unlink(top, dir_fd=dirfd)
        return
    with contextlib.closing(_Walk(dirfd)) as walk:
        _enter_and_remove_files(walk, top)
        while walk.depth:
            if walk.todo[-1]:
                with contextlib.suppress(FileNotFoundError):
                    _enter_and_remove_files(walk, walk.todo[-1].pop())
            else:
                _remove_directory(walk)


def tree_size_bytes(dirfd: int) -> int:
    """Sum of the sizes of everything below `dirfd` but directories, a file with several links counted once.

    Sizes are those `ls -l` shows, holes included. Mounts below are left out, as are entries that vanish meanwhile.
    Raises OSError. Source: Docker Engine, `UsageData.Size`.
    """
    total = 0
    linked: set[tuple[int, int]] = set()
    with contextlib.closing(_Walk(dirfd)) as walk:
        walk.enter(".")
        total += _files_size(walk, linked)
        while walk.depth:
            if not walk.todo[-1]:
                walk.leave()
                continue
            try:
                walk.enter(walk.todo[-1].pop())
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EXDEV, errno.ELOOP, errno.ENOTDIR):
                    continue
                raise
            total += _files_size(walk, linked)
    return total


def _files_size(walk: "_Walk", linked: set[tuple[int, int]]) -> int:
    """Sizes of the present directory's own entries; its directories are noted to be entered."""
    total = 0
    with os.scandir(walk.fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                walk.todo[-1].append(entry.name)
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in linked:
                    continue
                linked.add((found.st_dev, found.st_ino))
            total += found.st_size
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class _Level:
    """The directory above the present one: what proves that `..` still leads there, and the name taken from it."""

    device: int
    inode: int
    name: str


class _Walk:
    """A position in a tree and the way back. `todo[-1]` are names still to enter from the present directory.

    Starts at `dirfd`, which stays the caller's, at depth 0.
    """

    def __init__(self, dirfd: int) -> None:
        self.fd = os.dup(dirfd)
        self._start = dirfd
        self.todo: list[list[str]] = []
        self._above: list[_Level] = []
        self.rescans = 0

    @property
    def depth(self) -> int:
        return len(self._above)

    def path(self, name: str = "") -> str:
        """The way from the start to here, for messages."""
        return "/".join([*(level.name for level in self._above), *([name] if name else [])])

    def enter(self, name: str) -> None:
        """Go down into a directory. Raises OSError, EXDEV for a mount point, ELOOP or ENOTDIR for a link."""
        resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS
        child = _open_resolved(self.fd, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, 0, resolve)
        here = os.fstat(self.fd)
        os.close(self.fd)
        self.fd = child
        self._above.append(_Level(here.st_dev, here.st_ino, name))
        self.todo.append([])

    def leave(self) -> str:
        """Go back up and return the name that was left. ESTALE: somebody has moved this directory."""
        level = self._above[-1]
        if self.depth == 1:
            parent = os.dup(self._start)
        else:
            parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        found = os.fstat(parent)
        if (found.st_dev, found.st_ino) != (level.device, level.inode):
            os.close(parent)
            raise OSError(errno.ESTALE, "the directory was moved while it was being walked", self.path())
        os.close(self.fd)
        self.fd = parent
        self._above.pop()
        self.todo.pop()
        return level.name

    def close(self) -> None:
        os.close(self.fd)


def _as_busy(error: OSError, walk: _Walk, name: str) -> OSError:
    """The same error with the whole path, a mount point being EBUSY whichever call met it."""
    if error.errno in (errno.EXDEV, errno.EBUSY):
        return OSError(errno.EBUSY, "remove_tree: a mount point is in the way", walk.path(name))
    return OSError(error.errno, f"remove_tree: {error.strerror}", walk.path(name))


def _enter_and_remove_files(walk: _Walk, name: str) -> None:
    """Go down into a directory, unlink all but directories there and note the names of those."""
    try:
        walk.enter(name)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise _as_busy(error, walk, name) from None
        os.unlink(name, dir_fd=walk.fd)                     # no directory any more
        return
    directories = walk.todo[-1]
    with os.scandir(walk.fd) as entries:
        for entry in entries:
            progress.step()
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
                continue
            try:
                os.unlink(entry.name, dir_fd=walk.fd)
            except FileNotFoundError:
                continue
            except IsADirectoryError:                       # replaced by one just now
                directories.append(entry.name)
            except OSError as error:
                raise _as_busy(error, walk, entry.name) from None


def _remove_directory(walk: _Walk) -> None:
    """Leave the present directory and remove it; entries that appeared meanwhile go as well, within reason."""
    name = walk.leave()
    try:
        os.rmdir(name, dir_fd=walk.fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or walk.rescans == _RESCANS:
            raise _as_busy(error, walk, name) from None
        walk.rescans += 1
        _enter_and_remove_files(walk, name)
