"""Copies a directory tree, whole and exact, by file descriptors.

What is kept: content, holes, owner, mode with setuid/setgid/sticky, times to the nanosecond, extended attributes
(ACLs and capabilities among them), hard links within the tree, symlinks as they are, fifos, sockets and device nodes.
No name is followed through a symlink, no mount below the source is crossed, and data stays in the kernel:
copy_file_range(2) shares extents where the file system can, sendfile(2) copies where it refuses.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from holdfast.kernel.path import owned_fd

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP})
_NO_RANGE = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})
_CHUNK_BYTES = 1 << 30
_OWN_XATTRS = ("trusted.overlay.", "trusted.holdfast.")


@dataclass(slots=True)
class Copied:
    """What a copy amounted to."""

    entries: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Copy:
    """One copy under way."""

    destination: int
    device: int
    total: Copied = field(default_factory=Copied)
    links: dict[tuple[int, int], str] = field(default_factory=dict)
    range_works: bool = True


def copy_tree(source: int, destination: int) -> Copied:
    """Copy everything below directory fd `source` into the empty directory fd `destination`, attributes included.

    The attributes of `source` itself are applied to `destination` last. Neither tree may be changed by others
    meanwhile. Raises OSError; what was copied until then stays for the caller to remove.
    """
    root = os.fstat(source)
    copy = _Copy(destination, root.st_dev)
    stack = [(_entries(copy, source, destination, ""), -1, -1, root)]
    opened: list[int] = []
    try:
        while stack:
            entries, source_fd, destination_fd, _ = stack[-1]
            below = next(entries, None)
            if below is not None:
                name, parent_source, parent_destination, path = below
                os.mkdir(name, 0o700, dir_fd=parent_destination)
                child_source = os.open(name, _DIRECTORY, dir_fd=parent_source)
                opened.append(child_source)
                child_destination = os.open(name, _DIRECTORY, dir_fd=parent_destination)
                opened.append(child_destination)
                status = os.fstat(child_source)
                inner = (
                    _entries(copy, child_source, child_destination, path) if status.st_dev == copy.device else iter(())
                )
                stack.append((inner, child_source, child_destination, status))
                continue
            _, _, _, status = stack.pop()
            if source_fd >= 0:
                apply_attributes(source_fd, destination_fd, status)
                os.close(opened.pop())
                os.close(opened.pop())
        apply_attributes(source, destination, root)
    finally:
        for fd in opened:
            os.close(fd)
    return copy.total


def apply_attributes(source: int, destination: int, status: os.stat_result) -> None:
    """Give fd `destination` the owner, mode, extended attributes and times of fd `source`, whose status is `status`.

    The owner comes first: chown(2) clears setuid and setgid bits and file capabilities.
    """
    os.fchown(destination, status.st_uid, status.st_gid)
    os.fchmod(destination, stat.S_IMODE(status.st_mode))
    _copy_xattrs(source, destination)
    os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))


def _entries(copy: _Copy, source: int, destination: int, path: str) -> Iterator[tuple[str, int, int, str]]:
    """Copy what is not a directory in one directory, then yield each directory in it for the caller to enter."""
    directories: list[str] = []
    with os.scandir(source) as scan:
        entries = list(scan)
    for entry in entries:
        copy.total.entries += 1
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            directories.append(entry.name)
            continue
        relative = f"{path}/{entry.name}" if path else entry.name
        if status.st_nlink > 1:
            first = copy.links.get((status.st_dev, status.st_ino))
            if first is not None:
                os.link(first, entry.name, src_dir_fd=copy.destination, dst_dir_fd=destination, follow_symlinks=False)
                continue
            copy.links[status.st_dev, status.st_ino] = relative
        if stat.S_ISREG(status.st_mode):
            _copy_file(copy, source, destination, entry.name)
        else:
            _copy_special(source, destination, entry.name, status)
    for name in directories:
        yield name, source, destination, f"{path}/{name}" if path else name


def _copy_file(copy: _Copy, source_dir: int, destination_dir: int, name: str) -> None:
    with owned_fd(os.open(name, _READ, dir_fd=source_dir)) as source:
        status = os.fstat(source)
        with owned_fd(os.open(name, _WRITE, 0o600, dir_fd=destination_dir)) as destination:
            copy.total.size_bytes += status.st_size
            if status.st_blocks * 512 >= status.st_size:
                _copy_range(copy, source, destination, 0, status.st_size)
            else:
                os.ftruncate(destination, status.st_size)
                for start, end in _extents(source, status.st_size):
                    _copy_range(copy, source, destination, start, end)
            apply_attributes(source, destination, status)


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
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _copy_range(copy: _Copy, source: int, destination: int, start: int, end: int) -> None:
    while start < end and copy.range_works:
        try:
            copied = os.copy_file_range(source, destination, min(end - start, _CHUNK_BYTES), start, start)
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            copy.range_works = False
            break
        if copied == 0:
            return
        start += copied
    if start < end:
        os.lseek(destination, start, os.SEEK_SET)
    while start < end:
        copied = os.sendfile(destination, source, start, min(end - start, _CHUNK_BYTES))
        if copied == 0:
            return
        start += copied


def _copy_special(source: int, destination: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=destination)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=destination, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(f"/proc/self/fd/{destination}/{name}", stat.S_IMODE(status.st_mode))
    _copy_xattrs(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{destination}/{name}")
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=destination, follow_symlinks=False)


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


def is_empty(directory: int) -> bool:
    """Tell whether a directory fd has no entry at all."""
    with suppress(StopIteration), os.scandir(directory) as scan:
        next(scan)
        return False
    return True
