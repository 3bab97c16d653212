"""Mounts: the syscalls of mount(2) and of the descriptor-based mount API, and what we compose of them.

Tree clones are prepared while detached (read-only, id-mapped) and attached last, so nobody ever sees a
half-made mount. Everything works in the mount namespace of the calling thread.
"""

import contextlib
import errno
import os
import struct
from collections.abc import Sequence
from typing import Final

from holdfast.kernel import mountinfo
from holdfast.kernel.libc import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    INT,
    POINTER,
    SIZE,
    STRING,
    UINT,
    ULONG,
    StrPath,
    check,
    function,
    numbered,
)
from holdfast.kernel.path import owned_fd

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_NOATIME: Final = 0x400
MS_BIND: Final = 0x1000
MS_MOVE: Final = 0x2000
MS_REC: Final = 0x4000
MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20

MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_IDMAP: Final = 0x100000
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000

FSOPEN_CLOEXEC: Final = 1
FSMOUNT_CLOEXEC: Final = 1
FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_SET_FD: Final = 5
FSCONFIG_CMD_CREATE: Final = 6

# Words of `HostConfig.Binds` and of mount_namespaces(7); the r-forms differ only in reaching submounts.
PROPAGATION_FLAGS: Final = {
    "private": MS_PRIVATE, "rprivate": MS_PRIVATE,
    "shared": MS_SHARED, "rshared": MS_SHARED,
    "slave": MS_SLAVE, "rslave": MS_SLAVE,
    "unbindable": MS_UNBINDABLE, "runbindable": MS_UNBINDABLE,
}

_mount = function("mount", STRING, STRING, STRING, ULONG, STRING)
_umount2 = function("umount2", STRING, INT)
_open_tree = numbered(428, INT, STRING, UINT)
_move_mount = numbered(429, INT, STRING, INT, STRING, UINT)
_fsopen = numbered(430, STRING, UINT)
_fsconfig = numbered(431, INT, UINT, STRING, POINTER, INT)
_fsmount = numbered(432, INT, UINT, UINT)
_mount_setattr = numbered(442, INT, STRING, UINT, STRING, SIZE)

# The longest text mount(2) and fsconfig(2) take whole. mount(2) copies one page and drops the rest
# in silence; fsconfig refuses longer strings. Source: Linux, copy_mount_options() and SYSCALL_DEFINE5(fsconfig).
_MOUNT_DATA_BYTES: Final = os.sysconf("SC_PAGE_SIZE") - 1
_FSCONFIG_STRING_BYTES: Final = 255


# --- one syscall each -------------------------------------------------------------------------------------

def mount(source: StrPath, target: StrPath, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError; E2BIG for `data` of a page or more, which the kernel would cut off in silence."""
    encoded = None if data is None else os.fsencode(data)
    if encoded is not None and len(encoded) > _MOUNT_DATA_BYTES:
        why = f"mount: options of {len(encoded)} bytes, at most {_MOUNT_DATA_BYTES}"
        raise OSError(errno.E2BIG, why, os.fspath(target))
    kind = None if fstype is None else fstype.encode()
    check("mount", target, _mount(os.fsencode(source), os.fsencode(target), kind, flags, encoded))


def umount2(target: StrPath, flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> None:
    """umount2(2), lazy and without following a final link unless told otherwise. EINVAL: not a mount point."""
    check("umount2", target, _umount2(os.fsencode(target), flags))


def open_tree(dirfd: int, path: StrPath, flags: int) -> int:
    """Return an fd on a mount; with OPEN_TREE_CLONE, on a detached copy. open_tree(2), Linux 5.2.

    The fd is close-on-exec. With AT_EMPTY_PATH and path "" the tree at `dirfd` itself, a file too.
    """
    result = _open_tree(dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)
    return check("open_tree", path or dirfd, result)


def move_mount(fd: int, destination: StrPath | int) -> None:
    """Attach the detached mount `fd` at a path, or on the very file or directory an O_PATH fd stands for.

    A final symbolic link in the path is not followed. move_mount(2), Linux 5.2.
    """
    if isinstance(destination, int):
        result = _move_mount(fd, b"", destination, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
    else:
        result = _move_mount(fd, b"", AT_FDCWD, os.fsencode(destination), MOVE_MOUNT_F_EMPTY_PATH)
    check("move_mount", destination, result)


def mount_setattr(fd: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, userns_fd: int = 0,
                  recursive: bool = False) -> None:
    """Change attributes (MOUNT_ATTR_*) and propagation (MS_SHARED, ...) of the mount `fd`. mount_setattr(2), 5.12.

    `userns_fd` counts only with MOUNT_ATTR_IDMAP. All of the tree changes or none of it.
    """
    attributes = struct.pack("=QQQQ", attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    check("mount_setattr", fd, _mount_setattr(fd, b"", flags, attributes, len(attributes)))


def fsopen(fstype: str) -> int:
    """Return an fd on which a file system of this type is configured. fsopen(2), Linux 5.2. ENODEV: no such type."""
    return check("fsopen", fstype, _fsopen(fstype.encode(), FSOPEN_CLOEXEC))


def fsconfig_set_string(fd: int, key: str, value: StrPath) -> None:
    """Set `key` to a string of at most 255 bytes; the kernel answers longer ones with EINVAL. fsconfig(2)."""
    check(f"fsconfig {key}", value, _fsconfig(fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0))


def fsconfig_set_flag(fd: int, key: str) -> None:
    """Set a parameter that has no value, such as `ro` or `volatile`. fsconfig(2)."""
    check("fsconfig", key, _fsconfig(fd, FSCONFIG_SET_FLAG, key.encode(), None, 0))


def fsconfig_set_fd(fd: int, key: str, value_fd: int) -> None:
    """Set a parameter to an open descriptor. fsconfig(2)."""
    check("fsconfig", key, _fsconfig(fd, FSCONFIG_SET_FD, key.encode(), None, value_fd))


def fsconfig_create(fd: int) -> None:
    """Make the configured file system. The error carries what the kernel wrote to the descriptor, if anything."""
    try:
        check("fsconfig create", None, _fsconfig(fd, FSCONFIG_CMD_CREATE, None, None, 0))
    except OSError as error:
        said = fs_messages(fd)
        if said:
            raise OSError(error.errno, f"{error.strerror} ({'; '.join(said)})") from None
        raise


def fs_messages(fd: int) -> list[str]:
    """What the kernel has said about this file system context so far; reading it takes it away. fsopen(2)."""
    messages: list[str] = []
    while True:
        try:
            line = os.read(fd, 4096)
        except OSError:                         # ENODATA: no more; any other error must not hide the first one
            return messages
        messages.append(line.decode(errors="replace").strip())


def fsmount(fd: int, attributes: int = 0) -> int:
    """Return an fd on a detached mount of the file system made on `fd`. fsmount(2), Linux 5.2."""
    return check("fsmount", fd, _fsmount(fd, FSMOUNT_CLOEXEC, attributes))


# --- bind mounts ------------------------------------------------------------------------------------------

def bind(source: StrPath, destination: StrPath | int, *, readonly: bool, recursive: bool = True) -> None:
    """Bind `source` at `destination`, with every mount below it if `recursive`, read-only all the way if asked.

    Links in `source` are followed; use `attach` where somebody else can change the path. Raises OSError.
    """
    with owned_fd(os.open(source, os.O_PATH | os.O_CLOEXEC)) as fd:
        attach(fd, destination, readonly=readonly, recursive=recursive)


def attach(fd: int, destination: StrPath | int, *, readonly: bool, recursive: bool, propagation: str | None = None,
           readonly_submounts: bool = True, attributes: int = 0, userns_fd: int | None = None) -> None:
    """Bind the directory or file that the O_PATH descriptor `fd` stands for at `destination`.

    `destination` is a path or an O_PATH descriptor of the same type. `readonly_submounts=False` leaves the
    mounts below writable, as `ReadOnlyNonRecursive` asks. `attributes` are further MOUNT_ATTR_* for the whole
    tree; `userns_fd` id-maps it. `propagation` is a word of PROPAGATION_FLAGS.

    mount(2) with MS_BIND|MS_RDONLY leaves submounts writable, so attributes are set on the detached copy, which
    is attached last: nobody sees a writable moment. Propagation comes after, for attaching below a shared
    mount makes a mount shared whatever it was. Raises OSError. Source: mount_setattr(2), Linux 5.12.
    """
    flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    with owned_fd(open_tree(fd, "", flags)) as tree:
        if readonly:
            mount_setattr(tree, attr_set=MOUNT_ATTR_RDONLY, recursive=recursive and readonly_submounts)
        if attributes:
            mount_setattr(tree, attr_set=attributes, recursive=recursive)
        if userns_fd is not None:
            mount_setattr(tree, attr_set=MOUNT_ATTR_IDMAP, userns_fd=userns_fd, recursive=recursive)
        move_mount(tree, destination)
        if propagation is not None:
            mount_setattr(tree, propagation=PROPAGATION_FLAGS[propagation], recursive=propagation.startswith("r"))


# --- file systems -----------------------------------------------------------------------------------------

def mount_tmpfs(destination: StrPath, *, size_bytes: int | None = None, mode: int = 0o755,
                flags: int = MS_NOSUID | MS_NODEV) -> None:
    """Mount an empty tmpfs; without a size the kernel's default, half the memory. Raises OSError. tmpfs(5)."""
    options = [f"mode={mode:o}"] + ([] if size_bytes is None else [f"size={size_bytes}"])
    mount("tmpfs", destination, "tmpfs", flags, ",".join(options))


class _LowerdirAppend:
    """Whether overlayfs knows `lowerdir+`: True, False, or None until the first overlay has shown it."""

    known: bool | None = None


def overlay(destination: StrPath | int, lower_dirs: Sequence[StrPath], upper: StrPath | None, work: StrPath | None, *,
            options: Sequence[str] = ()) -> None:
    """Mount an overlay: `lower_dirs` topmost first, `upper` and `work` None for a read-only one (two lowers then).

    `options` are further ones, `volatile` or `index=off`. Layers go one by one through `lowerdir+` (Linux 6.8,
    500 at most). Older kernels take one string, which mount(2) would cut at a page and mount the rest: a wrong
    root that looks right. There the text is measured first, long paths give way to descriptors under
    /proc/self/fd, and what still does not fit is refused with E2BIG.

    fsconfig(2) accepts an unknown `lowerdir+` on old kernels and only making the file system refuses it, so the
    first overlay made decides for all. Raises OSError. Source: Linux, Documentation/filesystems/overlayfs.rst.
    """
    if _LowerdirAppend.known is not False:
        try:
            tree = _overlay_appended(lower_dirs, upper, work, options)
        except OSError as error:
            if _LowerdirAppend.known or error.errno != errno.EINVAL:
                raise
        else:
            _LowerdirAppend.known = True
            with owned_fd(tree):
                move_mount(tree, destination)
            return
    _overlay_by_string(destination, lower_dirs, upper, work, options)
    _LowerdirAppend.known = False


def _overlay_appended(lower_dirs: Sequence[StrPath], upper: StrPath | None, work: StrPath | None,
                      options: Sequence[str]) -> int:
    """The overlay as a detached mount, configured by `lowerdir+`.

    Paths over 255 bytes go by descriptor, and those with a backslash, which `upperdir` takes for an escape.
    """
    named = [("lowerdir+", os.fspath(lower)) for lower in lower_dirs]
    named += [(key, os.fspath(path)) for key, path in (("upperdir", upper), ("workdir", work)) if path is not None]
    with contextlib.ExitStack() as fds:
        context = fds.enter_context(owned_fd(fsopen("overlay")))
        fsconfig_set_string(context, "source", "overlay")       # what df and the mount table show
        for key, path in named:
            plain = len(os.fsencode(path)) <= _FSCONFIG_STRING_BYTES and "\\" not in path
            fsconfig_set_string(context, key, path if plain else _fd_path(fds, path))
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                fsconfig_set_string(context, key, value)
            else:
                fsconfig_set_flag(context, key)
        fsconfig_create(context)
        return fsmount(context)


def _overlay_by_string(destination: StrPath | int, lower_dirs: Sequence[StrPath], upper: StrPath | None,
                       work: StrPath | None, options: Sequence[str]) -> None:
    """The overlay by one option string and mount(2), refused with E2BIG when it would not arrive whole."""
    lowers = [os.fspath(lower) for lower in lower_dirs]
    others = [(key, os.fspath(path)) for key, path in (("upperdir", upper), ("workdir", work)) if path is not None]
    target = f"/proc/self/fd/{destination}" if isinstance(destination, int) else os.fspath(destination)
    data = overlay_option_string(lowers, others, options)
    with contextlib.ExitStack() as fds:
        if data is None:
            data = overlay_option_string([_fd_path(fds, lower) for lower in lowers],
                                         [(key, _fd_path(fds, path)) for key, path in others], options)
        if data is None:
            raise OSError(errno.E2BIG, f"overlay: the options for {len(lowers)} layers do not fit into a page", target)
        mount("overlay", target, "overlay", 0, data)


def overlay_option_string(lowers: Sequence[str], others: Sequence[tuple[str, str]],
                          options: Sequence[str]) -> str | None:
    """The text for mount(2), or None if it needs escapes or more than a page less one byte. Pure."""
    if any(special in path for path in (*lowers, *(path for _, path in others)) for special in ":,\\\""):
        return None
    data = ",".join(["lowerdir=" + ":".join(lowers), *(f"{key}={path}" for key, path in others), *options])
    return data if len(os.fsencode(data)) <= _MOUNT_DATA_BYTES else None


def _fd_path(fds: contextlib.ExitStack, path: str) -> str:
    """A short name without special characters for `path`, good until `fds` closes."""
    return f"/proc/self/fd/{fds.enter_context(owned_fd(os.open(path, os.O_PATH | os.O_CLOEXEC)))}"


# --- propagation ------------------------------------------------------------------------------------------

def make_shared(path: StrPath) -> mountinfo.MountInfo:
    """Make `path` a mount point whose mounts, and those below, propagate to its peers; give it. Harmless to repeat.

    `/` is private where PID 1 is not systemd; without this `rshared` and `rslave` volumes mean nothing.
    Raises OSError. Source: mount_namespaces(7).
    """
    present = _own_mount(path)
    if present.shared is None:
        mount("none", path, None, MS_SHARED | MS_REC)
    return present


def make_private(path: StrPath) -> None:
    """Make `path` a mount point of which nothing propagates, in or out. Harmless to repeat. Raises OSError."""
    present = _own_mount(path)
    if present.shared is not None or present.master is not None:
        mount("none", path, None, MS_PRIVATE)


def _own_mount(path: StrPath) -> mountinfo.MountInfo:
    """The mount at `path`, bound onto itself (submounts included, else they would vanish) if there was none."""
    real = os.path.realpath(path)
    present = mountinfo.mount_at(real)
    if present is None:
        mount(real, real, None, MS_BIND | MS_REC)
        present = mountinfo.mount_at(real)
    assert present is not None, "the kernel lists a mount once mount(2) has returned"
    return present
