"""Copies a directory tree, whole and exact, by file descriptors.

What is kept: content, holes, owner, mode with setuid/setgid/sticky, times to the nanosecond, extended attributes
(ACLs and capabilities among them), hard links within the tree, symlinks as they are, fifos, sockets and device nodes.
No name is followed through a symlink, no mount below the source is crossed, and data stays in the kernel:
copy_file_range(2) shares extents where the file system can, sendfile(2) copies where it refuses.

One thread: creating files is bound by locks of the file system, and more threads were slower when measured. Depth and
hard links cost no descriptors: only the lowest few directories are open, others are opened again by name on the way up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.kernel import progress
from holdfast.kernel.path import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2, syncfs
from holdfast.volumes.layers import DIRECTORY, close, enter, scan

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP})
_NO_RANGE = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})
_NO_SOCKETS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})
_CHUNK_BYTES = 1 << 30
_SMALL_BYTES = 64 << 10
"""Up to this size a read and a write are faster than asking for shared extents (measured on XFS)."""
_OWN_XATTRS = ("trusted.overlay.", "trusted.holdfast.")
_OPEN_LEVELS = 8
_NAMES_AT_ONCE = 15
"""So many names of 255 bytes make a path that is not too long."""
_ENTRY_BYTES = 512
"""What an entry counts for, beside its data, where a copy is flushed as it grows."""
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


@dataclass(slots=True)
class Copied:
    """What a copy amounted to. `size_bytes` is the sum of the files' sizes, holes included."""

    entries: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Level:
    """A directory being copied: where from, topmost layer first, where to, and what below it is still to be entered.

    The descriptors are empty and -1 while the copy is far below.
    """

    names: tuple[str, ...]
    numbers: tuple[tuple[int, ...], ...]
    sources: list[int]
    destination: int
    todo: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)


@dataclass(slots=True)
class _Copy:
    """One copy under way."""

    sources: Sequence[int]
    destination: int
    devices: frozenset[int]
    plain_owner: tuple[int, int]
    """The owner that a new file in the destination has, or (-1, -1) if that is not certain."""
    plain_modes: int
    """The mode bits that may be asked for when a file is made, as they come out unchanged."""
    total: Copied = field(default_factory=Copied)
    links: dict[tuple[int, int], tuple[tuple[str, ...], str]] = field(default_factory=dict)
    range_works: bool = True


def copy_tree(sources: Sequence[int], destination: int) -> Copied:
    """Copy everything below the directory that `sources` make, into the empty directory fd `destination`.

    `sources` are descriptors of one directory's layers, topmost first; a single one is a directory as it is. The
    attributes of the topmost are applied to `destination` last; until then it is plain, see `make_plain`. No tree may
    be changed by others meanwhile. Raises OSError; what was copied until then stays for the caller to remove.
    """
    root = os.fstat(destination)
    calm = not root.st_mode & stat.S_ISGID
    copy = _Copy(
        sources,
        destination,
        frozenset(os.fstat(fd).st_dev for fd in sources),
        (os.geteuid(), root.st_gid) if calm and root.st_gid == os.getegid() else (-1, -1),
        0o777 & ~_umask() if calm else 0,
    )
    stack = [_Level((), (), [os.dup(fd) for fd in sources], os.dup(destination))]
    try:
        _copy_files(copy, stack[-1])
        while stack:
            level = stack[-1]
            if level.destination < 0:
                _reopen(copy, stack)
            if level.todo:
                stack.append(_descend(copy, level, *level.todo.pop()))
                if len(stack) > _OPEN_LEVELS:
                    _shut(stack[-_OPEN_LEVELS - 1])
                _copy_files(copy, stack[-1])
                continue
            apply_attributes(level.sources[0], level.destination, os.fstat(level.sources[0]))
            _shut(stack.pop())
    finally:
        for level in stack:
            _shut(level)
    return copy.total


def make_plain(directory: int) -> None:
    """Take from a new directory fd what it has from the one that it was made in, so that nothing below gets it too."""
    for name in _ACLS:
        with contextlib.suppress(OSError):
            os.removexattr(directory, name)
    with contextlib.suppress(OSError):
        os.fchown(directory, os.geteuid(), os.getegid())
        os.fchmod(directory, 0o700)


def apply_attributes(source: int, destination: int, status: os.stat_result, *, times: bool = True) -> None:
    """Give fd `destination` the owner, mode, extended attributes and times of fd `source`, whose status is `status`.

    The owner comes first: chown(2) clears setuid and setgid bits and file capabilities. Raises OSError.
    """
    os.fchown(destination, status.st_uid, status.st_gid)
    os.fchmod(destination, stat.S_IMODE(status.st_mode))
    _copy_xattrs(source, destination)
    if times:
        os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))


def _descend(copy: _Copy, level: _Level, name: str, numbers: tuple[int, ...]) -> _Level:
    """Make directory `name` and open it on both sides."""
    os.mkdir(name, 0o700, dir_fd=level.destination)
    copy.total.entries += 1
    opened = enter(level.sources, name, numbers)
    sources = [fd for _, fd in opened]
    try:
        destination = os.open(name, DIRECTORY, dir_fd=level.destination)
    except BaseException:
        close(sources)
        raise
    taken = tuple(number for number, _ in opened)
    return _Level((*level.names, name), (*level.numbers, taken), sources, destination)


def _shut(level: _Level) -> None:
    close(level.sources)
    level.sources = []
    if level.destination >= 0:
        os.close(level.destination)
        level.destination = -1


def _reopen(copy: _Copy, stack: Sequence[_Level]) -> None:
    """Open the lowest levels again: the first of them by its names from the top, each other below the one above it."""
    lowest = stack[-_OPEN_LEVELS:]
    for above, level in zip([None, *lowest], lowest, strict=False):
        if level.destination >= 0:
            continue
        if above is None:
            level.destination = _walk(copy.destination, level.names)
            places: Sequence[int] = range(len(copy.sources))
            for taken in level.numbers:
                places = [places[number] for number in taken]
            level.sources.extend(_walk(copy.sources[place], level.names) for place in places)
        else:
            level.destination = os.open(level.names[-1], DIRECTORY, dir_fd=above.destination)
            level.sources.extend(
                os.open(level.names[-1], DIRECTORY, dir_fd=above.sources[number]) for number in level.numbers[-1]
            )


def _walk(top: int, names: Sequence[str]) -> int:
    """Open a directory by its names below `top`, however many they are; no symlink or mount is on the way."""
    here = os.dup(top)
    for start in range(0, len(names), _NAMES_AT_ONCE):
        part = "/".join(names[start : start + _NAMES_AT_ONCE])
        try:
            there = openat2(here, part, DIRECTORY, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
        finally:
            os.close(here)
        here = there
    return here


def _copy_files(copy: _Copy, level: _Level) -> None:
    """Copy what is not a directory in one directory, and note the directories."""
    destination = level.destination
    if os.fstat(level.sources[0]).st_dev not in copy.devices:  # a mount: its content is not the tree's
        return
    listing = scan(level.sources)
    level.todo = listing.directories
    copy.total.entries += len(listing.files)
    for entry, number in listing.files:
        progress.wrote(destination, _ENTRY_BYTES, syncfs)
        source, name = level.sources[number], entry.name
        if entry.is_file(follow_symlinks=False):
            _copy_file(copy, level, source, destination, name)
        else:
            status = entry.stat(follow_symlinks=False)
            if status.st_nlink == 1 or not _link(copy, level, status, destination, name):
                _copy_special(source, destination, name, status)


def _copy_file(copy: _Copy, level: _Level, source_dir: int, destination_dir: int, name: str) -> None:
    source = os.open(name, _READ, dir_fd=source_dir)
    try:
        status = os.fstat(source)
        if status.st_nlink > 1 and _link(copy, level, status, destination_dir, name):
            return
        mode = stat.S_IMODE(status.st_mode)
        plain = not mode & ~copy.plain_modes
        destination = os.open(name, _WRITE, mode if plain else 0o600, dir_fd=destination_dir)
        try:
            _copy_data(copy, source, destination, status)
            if (status.st_uid, status.st_gid) != copy.plain_owner:
                os.fchown(destination, status.st_uid, status.st_gid)
            if not plain:
                os.fchmod(destination, mode)
            _copy_xattrs(source, destination)
            os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(destination)
    finally:
        os.close(source)


def _link(copy: _Copy, level: _Level, status: os.stat_result, destination: int, name: str) -> bool:
    """Link a file with several names to its copy, if one was made; else note that this will be it."""
    key = (status.st_dev, status.st_ino)
    first = copy.links.get(key)
    if first is not None:
        try:
            parent = destination if first[0] == level.names else _walk(copy.destination, first[0])
            try:
                os.link(first[1], name, src_dir_fd=parent, dst_dir_fd=destination, follow_symlinks=False)
                return True
            finally:
                if parent != destination:
                    os.close(parent)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
    copy.links[key] = (level.names, name)
    return False


def _copy_data(copy: _Copy, source: int, destination: int, status: os.stat_result) -> None:
    size = status.st_size
    copy.total.size_bytes += size
    if status.st_blocks * 512 < size:
        os.ftruncate(destination, size)
        for start, end in _extents(source, size):
            _copy_range(copy, source, destination, start, end)
    elif size > _SMALL_BYTES:
        _copy_range(copy, source, destination, 0, size)
    elif size:
        _copy_small(source, destination, size)
        progress.wrote(destination, size, syncfs)


def _copy_small(source: int, destination: int, size_bytes: int) -> None:
    left = size_bytes
    while left:
        data = os.read(source, left)
        if not data:
            raise OSError(errno.EIO, "a file became shorter while it was copied")
        left -= len(data)
        written = os.write(destination, data)
        while written < len(data):
            written += os.write(destination, memoryview(data)[written:])


def _extents(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a sparse file that hold data. lseek(2), SEEK_DATA and SEEK_HOLE."""
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size_bytes)
        yield start, end


def _copy_range(copy: _Copy, source: int, destination: int, start: int, end: int) -> None:
    while start < end and copy.range_works:
        most = progress.piece(_CHUNK_BYTES)
        try:
            copied = os.copy_file_range(source, destination, min(end - start, most), start, start)
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            copy.range_works = False
            break
        if copied == 0:  # some file systems say so of files that they make up as they are read
            break
        start += copied
        progress.wrote(destination, copied, syncfs)
    if start < end:
        os.lseek(destination, start, os.SEEK_SET)
    while start < end:
        most = progress.piece(_CHUNK_BYTES)
        copied = os.sendfile(destination, source, start, min(end - start, most))
        if copied == 0:
            raise OSError(errno.EIO, "a file became shorter while it was copied")
        start += copied
        progress.wrote(destination, copied, syncfs)


def _copy_special(source: int, destination: int, name: str, status: os.stat_result) -> None:
    """Copy a symlink, fifo, socket or device. Sockets are left out where the file system has none."""
    link = stat.S_ISLNK(status.st_mode)
    if link:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
    else:
        try:
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=destination)
        except OSError as error:
            if stat.S_ISSOCK(status.st_mode) and error.errno in _NO_SOCKETS:
                return
            raise
    os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
    here = f"/proc/self/fd/{destination}/{name}"
    if not link:
        _chmod_special(destination, name, status)
    _copy_xattrs(f"/proc/self/fd/{source}/{name}", here)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=destination, follow_symlinks=False)


def _chmod_special(destination: int, name: str, status: os.stat_result) -> None:
    """Set the mode of a fifo, socket or device without following what somebody may have put in its place."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=destination)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(status.st_mode):
            raise OSError(errno.ESTALE, "a file was exchanged while it was made", name)
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(status.st_mode))
    finally:
        os.close(fd)


def _copy_xattrs(source: int | str, destination: int | str) -> None:
    """Copy extended attributes where both sides have them; those of overlayfs and of the engine itself stay behind."""
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return
        raise
    for name in names:
        if name.startswith(_OWN_XATTRS):
            continue
        try:
            value = os.getxattr(source, name, follow_symlinks=follow)
            os.setxattr(destination, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise


def _umask() -> int:
    """Give this process's umask without changing it. proc_pid_status(5), Linux 4.7."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o777
