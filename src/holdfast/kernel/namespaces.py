"""Network and mount namespaces held by a file, made without forking the engine.

A thread that leaves the engine's network namespace is thrown away; it never serves anything else. Mount
namespaces cannot be entered by a thread that shares its root and working directory with others (setns(2)), so
those are made and used by small programs, `unshare` and `nsenter`.
"""

import concurrent.futures
import contextlib
import errno
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from holdfast.kernel import mount, mountinfo
from holdfast.kernel.libc import INT, StrPath, check, function
from holdfast.kernel.path import is_mount_point, owned_fd

T = TypeVar("T")

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000

_unshare = function("unshare", INT)
_setns = function("setns", INT, INT)

# Source: Linux, include/uapi/linux/sockios.h; the same on every architecture. netdevice(7).
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("=16sh22x")

_PROGRAM_TIMEOUT_S: Final = 10.0
_CLEAN_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


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
        _in_own_thread(make)
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
        return _in_own_thread(enter_and_work)


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


def _in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread made for it and wait; whatever it did to its namespaces ends with the thread."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="holdfast-namespace") as once:
        return once.submit(work).result()


# --- mount ------------------------------------------------------------------------------------------------

def pin_mount_namespace_hiding(path: StrPath, hide: Path) -> None:
    """Hold at the file `path` a mount namespace in which the file `hide` reads as empty.

    For crun, which refuses cgroup v1 beside a v2 hierarchy that offers controllers: run it by
    `nsenter --mount=PATH crun ...`. The namespace is a slave: mounts made later below a shared mount appear in
    it, others do not, so call `make_shared` on state and run root first. The namespace of this boot is used
    again if it is there and still hides the file, so a restarted engine finds its containers' mounts.

    The file of a mount namespace cannot be mounted on a shared mount, so the directory of `path`, which should
    hold nothing else, is bound onto itself and made private. Raises OSError. Source: unshare(1), mount_namespaces(7).
    """
    target = _resolved(path)
    if is_pinned(target) and _reads_empty(target, hide):
        return
    unpin(target)
    mount.make_private(target.parent)
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        _run("unshare", f"--mount={target}", "--propagation", "slave",
             "sh", "-c", 'mount --bind /dev/null "$0"', os.fspath(hide))
        if not _reads_empty(target, hide):
            raise OSError(errno.EIO, "the file is not hidden in the new mount namespace", os.fspath(hide))
    except BaseException:
        unpin(target)
        raise


def _reads_empty(namespace: Path, file: Path) -> bool:
    """Whether `file` has no content for a program inside the pinned mount namespace."""
    try:
        _run("nsenter", f"--mount={namespace}", "sh", "-c", 'test -z "$(cat "$0")"', os.fspath(file))
    except OSError:
        return False
    return True


def _run(*argv: str) -> None:
    """Run a small program in a clean environment. OSError names it and ends with what it said."""
    try:
        done = subprocess.run(argv, env=_CLEAN_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=_PROGRAM_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{argv[0]}: no answer in {_PROGRAM_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise OSError(errno.EIO, f"{argv[0]}: exit code {done.returncode}: {said}", argv[-1])
