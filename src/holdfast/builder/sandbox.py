"""The root in which buildah works: a build's own directories, the host's programs, and little else.

    /usr /lib ...   the host's programs, read-only
    /etc            what buildah and its libraries read; the host's certificates
    /dev            null, zero, full, random, urandom, tty
    /sys            the host's, for the control groups
    /run            in memory, of this build
    other           the directories that the caller shows

A Dockerfile and its context are hostile: whoever leads buildah out of them by a link finds nothing here that is worth
reading or could be changed. Source: CVE-2024-1753, CVE-2024-9407, CVE-2024-9675 of buildah.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from holdfast.kernel import mount
from holdfast.kernel.namespaces import CLONE_NEWNS, in_own_thread, unshare

T = TypeVar("T")

_PROGRAMS: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "gnu")
_SETTINGS: Final = ("alternatives", "ca-certificates", "ld.so.cache", "ssl")
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_DIRECTORIES: Final = ("dev/shm", "etc", "proc", "root", "run", "sys", "var")
_SIZE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is to be seen inside: `shown` maps paths there to (path on the host, whether it may be written)."""

    shown: Mapping[str, tuple[Path, bool]]
    files: Mapping[str, str] = field(default_factory=dict)
    """Small files, by their path inside."""
    empty: Path | None = None
    """A file below /sys that must read as empty."""
    namespaces: Mapping[str, Path] = field(default_factory=dict)
    """Namespaces, by their path inside; on the host a file that holds one, or one in /proc."""


def in_sandbox(place: Path, sandbox: Sandbox, work: Callable[[], T]) -> T:
    """Run `work` in a thread whose `/` is the sandbox, built over the directory `place`; programs it starts stay there.

    `work` must import nothing and pass every stream. All of it goes when the last program in it ends; nothing is seen
    of it outside. Raises OSError and whatever `work` raises. See also `kernel.confine`.
    """
    root = Path(os.path.realpath(place))

    def enter_and_work() -> T:
        unshare(CLONE_NEWNS)
        mount.mount("none", "/", None, mount.MS_REC | mount.MS_SLAVE)
        mount.mount_tmpfs(root, size_bytes=_SIZE_BYTES)
        for name in _DIRECTORIES:
            (root / name).mkdir(parents=True)
        for name in _PROGRAMS:
            _show(Path("/", name), root / name)
        for name in _SETTINGS:
            _show(Path("/etc", name), root / "etc" / name)
        for name in _DEVICES:
            _show(Path("/dev", name), root / "dev" / name, readonly=False)
        (root / "dev/fd").symlink_to("/proc/self/fd")
        mount.bind("/sys", root / "sys", readonly=False)
        if sandbox.empty is not None:
            mount.bind("/dev/null", root / sandbox.empty.relative_to("/"), readonly=False)
        for inside, text in sandbox.files.items():
            path = _path(root, inside)
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        for inside, (outside, writable) in sandbox.shown.items():
            _show(outside, _path(root, inside), readonly=not writable)
        for inside, holder in sandbox.namespaces.items():
            _path(root, inside).touch()
            mount.mount(holder, root / inside.lstrip("/"), None, mount.MS_BIND)
        os.chdir(root)
        mount.mount(".", "/", None, mount.MS_MOVE)
        os.chroot(".")
        os.chdir("/")
        return work()

    return in_own_thread(enter_and_work)


def _path(root: Path, inside: str) -> Path:
    path = root / inside.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _show(source: Path, destination: Path, *, readonly: bool = True) -> None:
    """Make a file, a directory or a link of the host visible; one that is missing stays missing."""
    try:
        destination.symlink_to(os.readlink(source))
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: not a link
            raise
    if source.is_dir():
        destination.mkdir(exist_ok=True)
    else:
        destination.touch()
    mount.bind(source, destination, readonly=readonly, recursive=False)
