"""A file or directory tree written as a tar archive, by descriptors: no name is ever looked up through a link.

The tree may be changed by others at any time. A file that is exchanged for something else is taken as what it is then;
one that becomes shorter while it is read ends the archive, for its size has been said already.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.containers.archive_header import END, FILE, HARD_LINK, Header, encode, kind_of, padding
from holdfast.errors import System
from holdfast.kernel import progress
from holdfast.kernel.path import owned_fd

Emit = Callable[[bytes], object]

_PIECE_BYTES = 1 << 20
_GATHER_BYTES = 256 << 10
_OPEN_LEVELS = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_CAPABILITY_2_BYTES = 20
_OPAQUE = "trusted.overlay.opaque"
_REDIRECT = "trusted.overlay.redirect"
_OPAQUE_NAME = b".wh..wh..opq"
_WHITEOUT = b".wh."


@dataclass(slots=True)
class _Level:
    """One directory on the way down: `fd` is -1 while it is closed, `names` are still to do, last first."""

    fd: int
    device: int
    inode: int
    prefix: bytes
    names: list[tuple[str, bool]]


def write_tree(fd: int, name: str, emit: Emit) -> None:
    """Write what `fd` (O_PATH) stands for, and everything below it, as an archive whose entries begin with `name`.

    `name` is `/` for entries that begin with a slash, `.` for `./`. Emits pieces of at most 1 MiB, in the order and
    with the fields that Docker gives them; sockets are left out, times are whole seconds. Raises OSError, System for a
    file that got shorter, whatever `emit` raises.
    """
    writer = _Writer(emit)
    top = b"" if name == "/" else os.fsencode(name)
    found = os.fstat(fd)
    if stat.S_ISDIR(found.st_mode):
        writer.tree(fd, top)
    elif stat.S_ISREG(found.st_mode):
        with owned_fd(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)) as file:
            writer.file(file, top)
    else:
        link = os.readlink("", dir_fd=fd) if stat.S_ISLNK(found.st_mode) else ""
        writer.special(top, found, link)
    writer.end()


def write_layer(fd: int, emit: Emit) -> None:
    """Write an overlay's upper directory, open at `fd`, as a layer: what it hides becomes whiteouts.

    One without entries becomes an archive without entries. Raises as `write_tree`, System for what a layer cannot say.
    Source: OCI image specification, `layer.md`; Linux, Documentation/filesystems/overlayfs.rst.
    """
    writer = _LayerWriter(emit)
    if os.listdir(fd):
        writer.tree(fd, b".")
    writer.end()


def write_contents(fd: int, emit: Emit) -> None:
    """Write what is in the directory `fd`, without an entry for itself and with names that begin below it.

    Raises and emits as `write_tree`.
    """
    writer = _Writer(emit)
    writer.tree(fd, None)
    writer.end()


class _Writer:
    """Gathers small pieces; big ones go out as they are read."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._gathered = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}

    def tree(self, fd: int, top: bytes | None) -> None:
        """Write a directory and what is in it, or only that; each directory's entries in the order of their bytes."""
        levels: list[_Level] = []
        try:
            levels.append(self._enter(os.open(".", _DIRECTORY, dir_fd=fd), top))
            while levels:
                level = levels[-1]
                if not level.names:
                    _go_up(levels)
                    continue
                name, is_directory = level.names.pop()
                with contextlib.suppress(FileNotFoundError):
                    self._entry(levels, level.prefix + os.fsencode(name), name, is_directory)
        finally:
            for level in levels:
                _close(level)

    def file(self, fd: int, name: bytes) -> None:
        """Write the open file `fd`, or what it turns out to be."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self.special(name, found, "")
            return
        if self._is_link(name, found):
            return
        self._header(name, found, FILE, size_bytes=found.st_size, xattrs=_capability(fd))
        left = found.st_size
        while left:
            data = os.read(fd, min(left, progress.piece(_PIECE_BYTES)))
            progress.read(len(data))
            if not data:
                raise System(f"{os.fsdecode(name)}: file became shorter while it was read")
            left -= len(data)
            self._write(data)
        self._write(bytes(padding(found.st_size)))

    def special(self, name: bytes, found: os.stat_result, link: str) -> None:
        """Write what has no data: a link, a device, a fifo."""
        kind = kind_of(found.st_mode)
        if kind is not None and not self._is_link(name, found):
            self._header(name, found, kind, link=os.fsencode(link))

    def end(self) -> None:
        """Write the end of the archive."""
        self._write(END)
        self._flush()

    def _enter(self, fd: int, name: bytes | None) -> _Level:
        """Write a directory's own entry and read its names. `fd` is the level's to close, or closed on failure."""
        try:
            found = os.fstat(fd)
            if name is not None:
                self._header(name + b"/", found, b"5")
            with os.scandir(fd) as entries:
                names = [_noted(entry) for entry in entries]
        except BaseException:
            os.close(fd)
            raise
        names.sort(key=lambda item: os.fsencode(item[0]), reverse=True)
        return _Level(fd, found.st_dev, found.st_ino, b"" if name is None else name + b"/", names)

    def _entry(self, levels: list[_Level], path: bytes, name: str, is_directory: bool) -> None:
        parent = levels[-1].fd
        try:
            if is_directory:
                levels.append(self._enter(os.open(name, _DIRECTORY, dir_fd=parent), path))
                if len(levels) > _OPEN_LEVELS:
                    _close(levels[-_OPEN_LEVELS - 1])
                return
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                with owned_fd(os.open(name, _FILE, dir_fd=parent)) as fd:
                    self.file(fd, path)
                return
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EACCES):
                raise
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                raise  # not exchanged for something else: it really cannot be read
        link = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(found.st_mode) else ""
        self.special(path, found, link)

    def _is_link(self, name: bytes, found: os.stat_result) -> bool:
        """Write a further name of a file that is in the archive already, and tell whether it was one."""
        if found.st_nlink < 2:
            return False
        first = self._links.setdefault((found.st_dev, found.st_ino), name)
        if first == name:
            return False
        self._header(name, found, HARD_LINK, link=first)
        return True

    def _header(
        self,
        name: bytes,
        found: os.stat_result,
        kind: bytes,
        *,
        size_bytes: int = 0,
        link: bytes = b"",
        xattrs: dict[str, bytes] | None = None,
    ) -> None:
        device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if found.st_rdev else (0, 0)
        self._write(
            encode(
                Header(
                    name,
                    kind,
                    found.st_mode,
                    found.st_uid,
                    found.st_gid,
                    size_bytes,
                    found.st_mtime_ns // 1_000_000_000,
                    link,
                    device,
                    xattrs or {},
                )
            )
        )

    def _write(self, data: bytes) -> None:
        progress.step()
        if len(data) >= _GATHER_BYTES:
            self._flush()
            self._emit(data)
            return
        self._gathered += data
        if len(self._gathered) >= _GATHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._emit(bytes(self._gathered))
            self._gathered.clear()


def _noted(entry: os.DirEntry[str]) -> tuple[str, bool]:
    progress.step()
    return entry.name, entry.is_dir(follow_symlinks=False)


class _LayerWriter(_Writer):
    """Turns overlayfs's own marks into those of images."""

    def special(self, name: bytes, found: os.stat_result, link: str) -> None:
        """Write what has no data; device 0/0 hides a name of the layers below."""
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev:
            super().special(name, found, link)
            return
        directory, slash, base = name.rpartition(b"/")
        self._header(directory + slash + _WHITEOUT + base, found, FILE)

    def _enter(self, fd: int, name: bytes | None) -> _Level:
        level = super()._enter(fd, name)
        if _xattr(fd, _REDIRECT):
            _close(level)
            where = os.fsdecode(name or b".")
            raise System(f"{where}: directory was moved here by the kernel, and no layer can tell from where")
        if _xattr(fd, _OPAQUE) == b"y":
            self._header(level.prefix + _OPAQUE_NAME, os.fstat(fd), FILE)
        return level


def _close(level: _Level) -> None:
    if level.fd >= 0:
        os.close(level.fd)
        level.fd = -1


def _go_up(levels: list[_Level]) -> None:
    """Leave the present directory; one above that was closed is opened again, if `..` still leads there."""
    left = levels.pop()
    try:
        if levels and levels[-1].fd < 0:
            above = levels[-1]
            above.fd = os.open("..", _DIRECTORY, dir_fd=left.fd)
            found = os.fstat(above.fd)
            if (found.st_dev, found.st_ino) != (above.device, above.inode):
                raise OSError(errno.ESTALE, "the directory was moved while it was read", os.fsdecode(left.prefix))
    finally:
        os.close(left.fd)


def _capability(fd: int) -> dict[str, bytes]:
    """Give a file's capabilities, the only extended attribute that Docker copies, without a namespace's root user.

    Source: Docker, `ReadSecurityXattrToTarHeader`; Linux, include/uapi/linux/capability.h.
    """
    value = _xattr(fd, _CAPABILITY)
    if not value:
        return {}
    if value[3:4] == b"\3":
        value = value[:3] + b"\2" + value[4:_CAPABILITY_2_BYTES]
    return {_CAPABILITY: value}


def _xattr(fd: int, name: str) -> bytes:
    try:
        return os.getxattr(fd, name)
    except OSError:  # none there, or none on this file system
        return b""
