"""The members of a tar archive made into files below one directory, by descriptors.

The directory is the root of everything: names are resolved by the kernel as if it were `/` (openat2, RESOLVE_IN_ROOT),
and what is made is made by a single component relative to an open directory, exclusively, and given its attributes
through its own descriptor. So neither the archive nor whoever else writes there can lead it outside. What replaces
something removes it first, never across a mount. Rules and texts are those of Docker Engine 28.5, recorded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import tarfile
from dataclasses import dataclass

from holdfast.containers.archive_header import XATTR
from holdfast.containers.archive_paths import quoted, words
from holdfast.containers.archive_reader import Members
from holdfast.errors import System
from holdfast.kernel import progress
from holdfast.kernel.path import is_mount_point, make_dirs_beneath, open_in_root, owned_fd, remove_tree

_IMPLIED_MODE = 0o755
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FILES = frozenset((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE))
_NODES = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}
_MTIME_MAX = (1 << 63) // 1_000_000_000 - 1


@dataclass(frozen=True, slots=True)
class Rules:
    """How to unpack. `owner` is given to everything; None keeps what the archive says.

    `chown` off leaves everything to who unpacks. With `keep_kinds` a directory is never replaced by something else, nor
    the other way round. `where` is the directory's name in messages.
    """

    where: str
    owner: tuple[int, int] | None = None
    chown: bool = True
    keep_kinds: bool = False


def extract(directory: int, members: Members, rules: Rules) -> None:
    """Unpack into the directory fd `directory`. What was made until something fails stays.

    Raises System, FileNotFoundError for a hard link to nothing, and what reading raises.
    """
    with contextlib.ExitStack() as cleanup:
        work = _Extraction(directory, members, rules)
        cleanup.callback(work.close)
        for member in members:
            work.add(member)
        work.finish()


def clean_name(name: str) -> str:
    """Give a member's name relative to the directory, "" for the directory itself. Pure.

    Raises System for one that leads outside. `..` is resolved as text, and a leading slash means nothing.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts and not name.startswith("/"):
                raise System(f"invalid entry name {quoted(name)}")
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class _Extraction:
    """One archive on its way; the directory worked in last stays open."""

    def __init__(self, directory: int, members: Members, rules: Rules) -> None:
        self._top = directory
        self._members = members
        self._rules = rules
        self._parent = -1
        self._parent_path = ""
        self._times: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        """Close what is open."""
        if self._parent >= 0:
            os.close(self._parent)
            self._parent = -1

    def add(self, member: tarfile.TarInfo) -> None:
        """Make one member."""
        progress.step()
        name = clean_name(member.name)
        if member.type == tarfile.XGLTYPE or (not name and member.isdir()):
            return
        if not name:
            raise System(f"cannot overwrite directory {quoted('.')} with non-directory {quoted(self._rules.where)}")
        directory, base = posixpath.split(name)
        what = "openat"
        try:
            parent = self._open_parent(directory)
            if member.isdir():
                what = "mkdirat"
                self._make_directory(parent, base, name, member)
            elif member.type in _FILES:
                self._make_file(parent, base, name, member)
            elif member.issym():
                what = "symlinkat"
                self._clear(parent, base, name, member)
                os.symlink(member.linkname, base, dir_fd=parent)
                self._attributes_by_name(parent, base, member)
            elif member.islnk():
                what = f"linkat {member.linkname}"
                self._make_link(parent, base, name, member)
            elif member.type in _NODES:
                what = "mknodat"
                self._clear(parent, base, name, member)
                os.mknod(base, _NODES[member.type] | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
                self._attributes_by_name(parent, base, member)
            else:
                raise System(f"unhandled tar header type {member.type[0]}")
        except OSError as error:
            if isinstance(error, ConnectionError) or (member.islnk() and isinstance(error, FileNotFoundError)):
                raise
            raise System(f"{what} {name}: {words(error)}") from error

    def finish(self) -> None:
        """Set the times of directories, which making files in them has changed."""
        for path, times in self._times.items():
            try:
                fd = open_in_root(self._top, path, _DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced since, by whomever
            with owned_fd(fd):
                os.utime(fd, ns=times)

    def _open_parent(self, path: str) -> int:
        """Open the directory at `path`, made if it is missing."""
        if self._parent >= 0 and path == self._parent_path:
            return self._parent
        self.close()
        try:
            self._parent = open_in_root(self._top, path or ".", os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            self._parent = make_dirs_beneath(self._top, path, _IMPLIED_MODE, in_root=True)
        self._parent_path = path
        return self._parent

    def _make_file(self, parent: int, base: str, name: str, member: tarfile.TarInfo) -> None:
        try:
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, base, name, member)
            fd = os.open(base, _CREATE, 0o600, dir_fd=parent)
        with owned_fd(fd):
            self._members.copy(member, fd)
            self._attributes(fd, name, member)
            os.utime(fd, ns=_times(member))

    def _make_directory(self, parent: int, base: str, name: str, member: tarfile.TarInfo) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            if self._clear(parent, base, name, member):
                os.mkdir(base, 0o700, dir_fd=parent)
        with owned_fd(os.open(base, _DIRECTORY, dir_fd=parent)) as fd:
            self._attributes(fd, name, member)
        self._times[name] = _times(member)

    def _make_link(self, parent: int, base: str, name: str, member: tarfile.TarInfo) -> None:
        try:
            target = clean_name(member.linkname)
        except System:
            raise System(f"invalid hardlink target {quoted(member.linkname)}") from None
        if target == name:
            return
        self._clear(parent, base, name, member)
        directory, target_base = posixpath.split(target)
        with owned_fd(open_in_root(self._top, directory or ".", os.O_PATH | os.O_DIRECTORY)) as source:
            os.link(target_base, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _clear(self, parent: int, base: str, name: str, member: tarfile.TarInfo) -> bool:
        """Remove what is in a member's way; False if there is a directory that the member's joins."""
        try:
            found = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return True
        is_directory, becomes_directory = stat.S_ISDIR(found.st_mode), member.isdir()
        if is_directory and becomes_directory:
            return False
        if self._rules.keep_kinds and is_directory != becomes_directory:
            was, new = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            raise System(f"cannot overwrite {was} {quoted(name)} with {new} {quoted(self._rules.where)}")
        try:
            # The kernel refuses to unlink a mount point only in the caller's own namespace: elsewhere it unmounts it.
            if is_mount_point(base, parent):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            remove_tree(parent, base)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise System(f"RemoveAll {name}: {words(error)}") from error
        return True

    def _owner(self, member: tarfile.TarInfo) -> tuple[int, int]:
        return self._rules.owner or (member.uid, member.gid)

    def _attributes(self, fd: int, name: str, member: tarfile.TarInfo) -> None:
        """Give a file or directory its owner, extended attributes and mode, in this order: chown(2) clears the others.
        """
        if self._rules.chown:
            os.chown(fd, *self._owner(member))
        self._set_xattrs(fd, name, member)
        os.chmod(fd, member.mode & 0o7777)

    def _attributes_by_name(self, parent: int, base: str, member: tarfile.TarInfo) -> None:
        """The same for what cannot be opened. Only the very thing that was made is changed, whoever exchanges it."""
        with owned_fd(os.open(base, _SELF, dir_fd=parent)) as fd:
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
            if kind != (stat.S_IFLNK if member.issym() else _NODES[member.type]):
                return
            itself = f"/proc/self/fd/{fd}"  # not followed further, be it a link
            if self._rules.chown:
                os.chown(itself, *self._owner(member))
            if not member.issym():
                os.chmod(itself, member.mode & 0o7777)
            os.utime(itself, ns=_times(member))

    def _set_xattrs(self, fd: int, name: str, member: tarfile.TarInfo) -> None:
        for key, value in member.pax_headers.items():
            if not key.startswith(XATTR):
                continue
            xattr = key.removeprefix(XATTR)
            try:
                os.setxattr(fd, xattr, value.encode("utf-8", "surrogateescape"))
            except PermissionError:
                continue  # as Docker does
            except OSError as error:
                path = posixpath.join(self._rules.where, name)
                raise System(f"lsetxattr {path}: xattr {quoted(xattr)}: {words(error)}") from error


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Give access and change time in ns; before 1970 counts as 1970. Docker takes the later one for the access."""
    mtime = _nanoseconds(member.pax_headers.get("mtime", member.mtime))
    return max(mtime, _nanoseconds(member.pax_headers.get("atime", 0))), mtime


def _nanoseconds(seconds: str | float) -> int:
    """Read seconds as a pax header has them, to the last digit that a file system can keep."""
    whole, _, fraction = str(seconds).partition(".")
    try:
        value = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or "0")
    except ValueError:
        return 0
    return value if 0 <= value <= _MTIME_MAX * 1_000_000_000 else 0
