"""A root of its own for programs that handle hostile data: one writable directory, the host's programs, nothing else.

    /usr /lib ...   read-only binds (or copies of the links) of the host's
    /.data          the directory that may be written
    /etc /run ...   links to the same names in it
"""

import errno
import os
from collections.abc import Callable
from typing import Final, TypeVar

from holdfast.kernel import mount
from holdfast.kernel.libc import StrPath
from holdfast.kernel.namespaces import CLONE_NEWNS, in_own_thread, unshare
from holdfast.kernel.path import owned_fd

T = TypeVar("T")

DATA: Final = "/.data"
"""Where the writable directory is found inside."""

_PROGRAM_ROOTS: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu")
# An absolute link among the data that leads to one of these stays among the data, as if that were the root.
_DATA_ROOTS: Final = ("app", "boot", "dev", "etc", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys",
                      "tmp", "var", "workspace")
_ROOT_SIZE_BYTES: Final = 1 << 20


def in_private_root(directory: StrPath, work: Callable[[], T]) -> T:
    """Run `work` in a thread whose `/` is a throw-away file system; programs it starts live there too.

    Only the host's programs (read-only) and `directory`, at `DATA`, are to be seen: no procfs, no devices, no
    sockets, and nothing else can be written. Set-user-ID bits, devices and programs below `directory` have no effect.
    `work` starts with `DATA` as its working directory, must import nothing and pass every stream explicitly (there is
    no /dev/null). The tree goes when the last program started in it ends. About 1 ms.

    Leaving the engine's mount namespace leaves CLONE_FS behind as well (unshare(2)), so chroot(2) and chdir(2) reach
    this thread only. The new root is moved over `/` before chroot, as switch_root(8) does: the old one can no longer
    be reached by `..`. Propagation is slave: what is unmounted below a shared mount is let go here too.
    Raises OSError and whatever `work` raises. Source: CVE-2014-9357, CVE-2019-14271, CVE-2026-41567: nothing that
    unpacks runs where unpacked files can be found.
    """
    real = os.path.realpath(directory)

    def enter_and_work() -> T:
        unshare(CLONE_NEWNS)
        mount.mount("none", "/", None, mount.MS_REC | mount.MS_SLAVE)
        with owned_fd(os.open(real, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as data:
            mount.mount_tmpfs(real, size_bytes=_ROOT_SIZE_BYTES)
            for name in _PROGRAM_ROOTS:
                _show(f"/{name}", f"{real}/{name}")
            os.mkdir(real + DATA)
            harmless = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
            mount.attach(data, real + DATA, readonly=False, recursive=False, attributes=harmless)
            for name in _DATA_ROOTS:
                os.symlink(f"{DATA}/{name}", f"{real}/{name}")
            mount.mount("none", real, None, mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY)
        os.chdir(real)
        mount.mount(".", "/", None, mount.MS_MOVE)
        os.chroot(".")
        os.chdir(DATA)
        return work()

    return in_own_thread(enter_and_work)


def _show(source: str, destination: str) -> None:
    """Make a directory of programs, or the link to one, visible in the new root; one that is missing stays missing."""
    try:
        os.symlink(os.readlink(source), destination)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EINVAL:                 # EINVAL: not a link
            raise
        os.mkdir(destination)
        mount.bind(source, destination, readonly=True, recursive=False)
