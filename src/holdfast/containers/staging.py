"""Mounts made ready for the runtime, so that it only has to bind what cannot be exchanged any more.

    <run root>/mounts/<container id>/0          a clone of a source's tree (a file where the source is one)
    <run root>/mounts/<container id>/1-shared   one that must stay in the peer group of its source

The runtime resolves nothing of the source: paths inside a volume may be rewritten by whoever uses it while we mount
(CVE-2017-1002101, CVE-2021-25741). Volumes give a descriptor, with the subpath applied; its tree is cloned, made
read-only while nobody sees it, and attached here, by a process that can be given up where the storage may hang. Once
the runtime has bound it, it is detached again.

The run root is a shared mount, since the runtime may live in a mount namespace of its own. A clone is made private
before it is attached, so that it is a peer of nothing but its copies there, and detaching it reaches those and nothing
else. A clone that must propagate keeps its peers on the host; it is made private before it is detached, as otherwise
the mounts below its source would go with it. Source: mount_namespaces(7), umount(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import EngineError, System
from holdfast.kernel import storage_worker
from holdfast.kernel.mount import MS_PRIVATE, mount_setattr, move_mount, umount2
from holdfast.kernel.mountinfo import MountInfo, parse_mountinfo
from holdfast.kernel.path import owned_fd
from holdfast.volumes.mounts import MountPoint, near_root

if TYPE_CHECKING:
    from holdfast.volumes.drivers.base import Opened

_SHARED = "-shared"
_RESTRICTIONS = ("ro", "nosuid", "nodev", "noexec", "noatime")
_MOUNT_ID = re.compile(r"^mnt_id:\s*([0-9]+)$", re.MULTILINE)
_MOUNT_TABLE = Path("/proc/thread-self/mountinfo")


@dataclass(frozen=True, slots=True)
class Staged:
    """A mount point and the path from which the runtime binds it."""

    point: MountPoint
    path: Path
    restrictions: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Options for the runtime's bind.

        crun remounts what it binds with the options named here and no others, so what the source refuses is said
        again. The mounts below keep what was set when they were staged.
        """
        return ("rbind" if self.point.recursive else "bind", self.point.propagation or "rprivate", *self.restrictions)


class Staging:
    """Stages the mounts of one container at a time; the container's lock is held."""

    def __init__(self, run_root: Path) -> None:
        self._root = run_root / "mounts"

    def stage(self, container_id: str, sources: Sequence[tuple[MountPoint, Opened]]) -> tuple[Staged, ...]:
        """Clone the tree that each descriptor stands for and give the paths to bind.

        The caller keeps the descriptors. Raises System, MountFailed; nothing stays mounted then.
        """
        if not sources:
            return ()
        folder = self.folder(container_id)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise System(f"prepare mounts: {error}") from error
        with contextlib.ExitStack() as undo:
            undo.callback(self.unstage, container_id)
            staged = []
            for number, (point, opened) in enumerate(sources):
                under = mount_of(opened.fd)
                _check_propagation(point, under)
                path = _stage_one(point, opened, folder / str(number))
                wanted = set(under.options) | (set() if point.rw else {"ro"})
                staged.append(Staged(point, path, tuple(word for word in _RESTRICTIONS if word in wanted)))
            undo.pop_all()
        return tuple(staged)

    def stage_mount(self, container_id: str, name: str, mount: int) -> Path:
        """Attach a detached mount, a directory's, under a name of its own; give the path to bind. Raises System."""
        path = self.folder(container_id) / name
        try:
            path.mkdir(parents=True, mode=0o700)
            move_mount(mount, path)
        except OSError as error:
            raise System(f"prepare mounts: {error}") from error
        return path

    def folder(self, container_id: str) -> Path:
        """Give the folder in which a container's mounts are made ready; whatever is in it goes with `unstage`."""
        return self._root / container_id

    def unstage(self, container_id: str) -> None:
        """Detach everything that is staged; nothing happens if nothing is. Raises System."""
        folder = self.folder(container_id)
        try:
            for name in os.listdir(folder):
                _unstage_one(folder / name, propagates=name.endswith(_SHARED))
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise System(f"detach staged mounts: {error}") from error

    def recover(self) -> None:
        """Detach what an engine that died in the middle of a start left behind. No container starts meanwhile."""
        for container_id in os.listdir(self._root) if self._root.is_dir() else ():
            self.unstage(container_id)


def mount_of(fd: int) -> MountInfo:
    """Give the mount that a descriptor lies on, without asking the file system, which may hang. proc_pid_fdinfo(5).

    Raises OSError.
    """
    text = Path(f"/proc/thread-self/fdinfo/{fd}").read_text()
    match = _MOUNT_ID.search(text)
    assert match, text
    beginning = match.group(1) + " "
    for line in os.fsdecode(_MOUNT_TABLE.read_bytes()).splitlines():
        if line.startswith(beginning):
            return parse_mountinfo(line)[0]
    raise OSError(errno.ENOENT, "the mount is not in this namespace", str(fd))


def settle_propagation(point: MountPoint, fd: int, daemon_root: Path) -> MountPoint:
    """Give the mount point with the propagation that its source, open at `fd`, allows.

    A bind of the engine's own root, or of what contains it, gets `rslave` by itself; where nothing is shared that is
    `rprivate`, without an error. Source: moby, daemon/oci_linux.go, withMounts.
    """
    if point.propagation not in ("slave", "rslave") or not near_root(point.source, os.fspath(daemon_root)):
        return point
    under = mount_of(fd)
    if under.shared is None and under.master is None:
        return replace(point, propagation="rprivate")
    return point


def _check_propagation(point: MountPoint, under: MountInfo) -> None:
    """Raise System, in Docker's words, if what is mounted later could not propagate as was asked."""
    shared, slave = point.propagation in ("shared", "rshared"), point.propagation in ("slave", "rslave")
    if shared and under.shared is None:
        raise System(f"path {point.source} is mounted on {under.mount_point} but it is not a shared mount")
    if slave and under.shared is None and under.master is None:
        raise System(f"path {point.source} is mounted on {under.mount_point} but it is not a shared or slave mount")


def _stage_one(point: MountPoint, opened: Opened, path: Path) -> Path:
    private = point.propagation in ("", "private", "rprivate")
    if not private:
        path = path.with_name(path.name + _SHARED)
    what = f"mount {point.source} at {point.destination}"
    how = (not point.rw, point.recursive, point.read_only_recursive, private)
    try:
        opened.hands.do(storage_worker.attach_clone, [opened.fd], os.fspath(path), opened.mode, *how)
    except EngineError as error:
        raise error.within(what) from error
    except OSError as error:
        raise System(f"{what}: {error}") from error
    return path


def _unstage_one(path: Path, *, propagates: bool) -> None:
    try:
        if propagates:
            with owned_fd(os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)) as fd:
                mount_setattr(fd, propagation=MS_PRIVATE, recursive=True)
        umount2(path)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: not a mount point; it was detached before or never attached
            raise
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
