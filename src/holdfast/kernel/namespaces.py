"""Network and mount namespaces held by a file, made and used without forking the engine.

A thread that leaves the engine's namespaces is thrown away; it never serves anything else. setns(2) refuses a
mount namespace while a thread shares its root and working directory with others, so such a thread gives up
CLONE_FS first; unshare(2) of a mount namespace does that by itself. Programs that it starts are in its namespace.
"""

import concurrent.futures
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from holdfast.kernel import mount, mountinfo
from holdfast.kernel.libc import INT, StrPath, check, function
from holdfast.kernel.path import is_mount_point, owned_fd

T = TypeVar("T")

CLONE_FS: Final = 0x00000200
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000

_unshare = function("unshare", INT)
_setns = function("setns", INT, INT)

# Source: Linux, include/uapi/linux/sockios.h; the same on every architecture. netdevice(7).
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("=16sh22x")


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread. Raises OSError."""
    check("unshare", None, _unshare(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2), for the calling thread. Raises OSError."""
    check("setns", fd, _setns(fd, kind))


# --- network ----------------------------------------------------------------------------------------------

def pin_network_namespace(path: StrPath) -> None:
    """Make a network namespace with `lo` up, held by the file `path`, which is created.

    An empty file left from a crash is used; FileExistsError if a namespace is already pinned there. On failure
    nothing stays behind. Raises OSError. About 1 ms.
    """
    target = _resolved(path)
    if is_pinned(target):
        raise FileExistsError(errno.EEXIST, "a namespace is already pinned here", os.fspath(target))
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))

    def make() -> None:
        unshare(CLONE_NEWNET)
        _set_up("lo")
        mount.mount("/proc/thread-self/ns/net", target, None, mount.MS_BIND)

    try:
        in_own_thread(make)
    except BaseException:
        os.unlink(target)
        raise


def in_network_namespace(namespace: StrPath | int, work: Callable[[], T]) -> T:
    """Run `work` in a network namespace, given by path or descriptor; return its result or raise its error.

    It runs in a thread of its own that ends afterwards; sockets it returns stay in that namespace.
    """
    opened = os.dup(namespace) if isinstance(namespace, int) else os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)

    def enter_and_work() -> T:
        setns(fd, CLONE_NEWNET)
        return work()

    with owned_fd(opened) as fd:
        return in_own_thread(enter_and_work)


def unpin(path: StrPath) -> None:
    """Let go of a namespace and remove its file. Harmless to repeat. Raises OSError."""
    try:
        mount.umount2(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def is_pinned(path: StrPath) -> bool:
    """Whether `path` holds a namespace. Such a mount does not outlive the boot. Raises OSError."""
    target = _resolved(path)
    try:
        if not is_mount_point(target):          # cheap, where the table may be long
            return False
    except FileNotFoundError:
        return False
    present = mountinfo.mount_at(target)
    return present is not None and present.fstype == "nsfs"


def _resolved(path: StrPath) -> Path:
    """`path` as the mount table shows it: links in its directory resolved, the last component as it is."""
    return Path(os.path.realpath(os.path.dirname(path))) / os.path.basename(path)


def _set_up(interface: str) -> None:
    """Set an interface of the calling thread's network namespace up. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = _IFREQ.pack(interface.encode(), 0)
        name, flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))


def in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread made for it and wait; whatever it did to its namespaces ends with the thread."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="holdfast-namespace") as once:
        return once.submit(work).result()


# --- mount ------------------------------------------------------------------------------------------------

def pin_mount_namespace_hiding(path: StrPath, hide: Path) -> None:
    """Hold at the file `path` a mount namespace in which the file `hide` reads as empty.

    For crun, which refuses cgroup v1 beside a v2 hierarchy that offers controllers: start it by
    `in_mount_namespace`, or as `nsenter --mount=PATH crun ...`. The mount that holds `hide`, for crun that of the v2
    hierarchy, becomes private. Others stay in their peer groups: what is mounted later below a shared mount appears
    in it, and what a container mounts on an `rshared` volume appears outside, so call `make_shared` on state and run
    root first. The namespace of this boot is used again if it is there and still hides the file, so a restarted
    engine finds its mounts in it.

    The file of a mount namespace cannot be mounted on a shared mount, so the directory of `path`, which should
    hold nothing else, is bound onto itself and made private. Raises OSError. Source: unshare(1), mount_namespaces(7).
    """
    target = _resolved(path)
    if is_pinned(target) and in_mount_namespace(target, lambda: _reads_empty(hide)):
        return
    unpin(target)
    mount.make_private(target.parent)
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        _pin_newer_mount_namespace(target, hide)
    except BaseException:
        os.unlink(target)
        raise


def unpin_mount_namespace(path: StrPath) -> None:
    """Undo `pin_mount_namespace_hiding`, its directory's own mount included. Harmless to repeat. Raises OSError."""
    target = _resolved(path)
    unpin(target)
    with contextlib.suppress(FileNotFoundError):
        if is_mount_point(target.parent):
            mount.umount2(target.parent)


def _pin_newer_mount_namespace(target: Path, hide: Path) -> None:
    """Make the namespace, complete before anybody can find it, and bind its file onto `target`.

    The kernel refuses with EINVAL a mount namespace whose id is lower than our own, to prevent loops. Since Linux
    6.18 each processor hands out ids of its own range, so a new one can be lower; the processor that made ours
    cannot give a lower one, so each is tried. Source: Linux, mnt_ns_loop(), commit 7d7d16498958.
    """
    processors: list[int | None] = [None, *sorted(os.sched_getaffinity(0))]
    for number, processor in enumerate(processors, start=1):

        def make(processor: int | None = processor) -> int:
            if processor is not None:
                os.sched_setaffinity(0, {processor})        # this thread only, and it ends here
            return _mount_namespace_hiding(hide)

        with owned_fd(in_own_thread(make)) as namespace:
            try:
                mount.mount(f"/proc/self/fd/{namespace}", target, None, mount.MS_BIND)
            except OSError as error:
                if error.errno != errno.EINVAL or number == len(processors):
                    raise
            else:
                return


def _mount_namespace_hiding(hide: Path) -> int:
    """Leave for a new mount namespace in which `hide` is empty, and return its descriptor."""
    unshare(CLONE_NEWNS)
    holder = next(directory for directory in hide.parents if is_mount_point(directory))
    mount.mount("none", holder, None, mount.MS_PRIVATE)
    mount.mount("/dev/null", hide, None, mount.MS_BIND)
    if not _reads_empty(hide):
        raise OSError(errno.EIO, "the file is not hidden in the new mount namespace", os.fspath(hide))
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def in_mount_namespace(namespace: StrPath | int, work: Callable[[], T]) -> T:
    """Run `work` in a mount namespace, given by path or descriptor; return its result or raise its error.

    It runs in a thread of its own, with a root and working directory of its own, both the `/` of that namespace.
    Programs started by `work` stay in the namespace. About 0.3 ms, where `nsenter` costs 2 or 3. Raises OSError.
    """
    opened = os.dup(namespace) if isinstance(namespace, int) else os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)

    def enter_and_work() -> T:
        unshare(CLONE_FS)
        setns(fd, CLONE_NEWNS)
        return work()

    with owned_fd(opened) as fd:
        return in_own_thread(enter_and_work)


def _reads_empty(file: Path) -> bool:
    return not file.read_bytes()
