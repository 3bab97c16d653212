"""Filling an empty directory of a volume with what the image has at its mount point.

The copy is made in a directory of its own and moved in entry by entry once it is complete:

    .fill-<id>/    being copied; a dead engine's is removed
    .move-<id>/    complete; a dead engine's is moved in to the end

so a copy that fails or is cut short leaves the volume empty, and one that is complete is never lost. That directory
lies beside the data, where no container sees it, or, where the volume is a mount of its own and rename does not
reach it from there, within it. Running containers may have the volume meanwhile: its data directory stays the same one.

What touches a volume that is a mount of its own may be done by a process that can be given up (`drivers.base.Hands`):
these functions take descriptors first and give a value and descriptors. Such a process holds a lock on the volume's
directory, as its death may have to wait for the server: nobody settles a copy that somebody still makes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast import faults
from holdfast.errors import InvalidParameter, NotFound, System
from holdfast.kernel import progress
from holdfast.kernel.path import (
    RENAME_EXCHANGE,
    open_beneath,
    open_in_root,
    owned_fd,
    remove_tree,
    rename_noreplace,
    renameat2,
    syncfs,
)
from holdfast.volumes import subpath as subpaths
from holdfast.volumes.copier import apply_attributes, copy_tree, make_plain
from holdfast.volumes.layers import DIRECTORY, close, is_empty, open_merged
from holdfast.volumes.mounts import MountPoint

if TYPE_CHECKING:
    from holdfast.kernel.storage_worker import Answer

FILLING = ".fill-"
MOVING = ".move-"
_SUBPATH = "trusted.holdfast.subpath"

Settled = Literal["nothing", "discarded", "finished"]


@dataclass(frozen=True, slots=True)
class Source:
    """A directory of an image as its layers make it, topmost first.

    `layers` are the directories of those layers, `names` lead from their tops to it, `fds` are open on it. A layer
    that is the container's own is among `fds` only: it may be gone when the copy is checked against its source.
    """

    layers: tuple[str, ...]
    names: tuple[str, ...]
    fds: tuple[int, ...]


@contextlib.contextmanager
def image_directory(rootfs: Path, layers: Sequence[Path], point: MountPoint) -> Iterator[Source | None]:
    """Open the directory that a container's root has at a mount point, for the length of the block; None if none.

    `rootfs` is where the root is mounted: symlinks are resolved there and do not leave it. `layers` are what it is
    mounted from, topmost first, the first one the container's own; without them it is a directory as it stands. Raises
    InvalidParameter if an anonymous volume would hide a file, as Docker refuses that; System.
    """
    try:
        names = _resolve(rootfs, point.destination)
        opened = [] if names is None else open_merged(layers or [rootfs], names)
    except NotADirectoryError:
        if point.anonymous:
            raise InvalidParameter(f"cannot mount volume over existing file, file exists {point.destination}") from None
        names, opened = None, []
    except OSError as error:
        raise System(f"failed to populate volume: {point.destination}: {error.strerror}") from error
    try:
        if names is None or not opened:
            yield None
        else:
            own = os.fspath(layers[0]) if layers else ""
            yield Source(tuple(path for path, _ in opened if path != own), names, tuple(fd for _, fd in opened))
    finally:
        close(fd for _, fd in opened)


def open_empty(_: Sequence[int], data: str, at: str, create: Sequence[int] | None) -> Answer:
    """Open (O_PATH) the directory at `at` in a volume's data: no descriptor if that is no directory or not empty.

    `create` are the fields of a SubpathCreate. Raises NotFound, InvalidParameter, System, OSError.
    """
    with owned_fd(subpaths.open_data(Path(data), at, subpaths.SubpathCreate(*create) if create else None)) as opened:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            return None, ()
        with owned_fd(os.open(".", DIRECTORY, dir_fd=opened)) as directory:
            return None, (os.dup(opened),) if is_empty(directory) else ()


def give_attributes(fds: Sequence[int]) -> Answer:
    """Give the second of two directories what the first has: owner, mode, times. Raises OSError."""
    source, opened = fds
    with owned_fd(os.open(".", DIRECTORY, dir_fd=opened)) as target:
        apply_attributes(source, target, os.fstat(source))
    return None, ()


def fill_mounted(fds: Sequence[int], identity: str, subpath: str) -> Answer:
    """Fill a directory of a volume that is a mount of its own; all of it is on the disk when this returns.

    `fds` are the volume's directory, the target (O_PATH), and what `fill` takes as source. Raises OSError; what is left
    behind if the process ends instead is for `settle_mounted`.
    """
    volume, opened, *source = fds
    fcntl.flock(volume, fcntl.LOCK_EX)
    with owned_fd(os.open(".", DIRECTORY, dir_fd=opened)) as target:
        fill(source, target, target, identity, subpath)
        syncfs(target)
    return None, ()


def settle_mounted(fds: Sequence[int], data: str, at: str, identity: str) -> Answer:
    """Settle what is left of a copy in a volume that is a mount of its own; gives how. See `settle`.

    `fds` is the volume's directory. Raises OSError, EngineError.
    """
    fcntl.flock(fds[0], fcntl.LOCK_EX)
    try:
        opened = subpaths.open_data(Path(data), at)
    except NotFound:
        return "nothing", ()
    with owned_fd(opened), owned_fd(os.open(".", DIRECTORY, dir_fd=opened)) as target:
        settled = settle(target, target, identity)
        syncfs(target)
    return settled, ()


def fill(source: Sequence[int], stage: int, target: int, identity: str, subpath: str = "") -> None:
    """Copy the directory that the descriptors `source` make into the empty directory fd `target`.

    `stage` is the directory fd where the copy is made, on the file system of `target`. Raises OSError; nothing is left
    behind then.
    """
    filling, moving = FILLING + identity, MOVING + identity
    os.mkdir(filling, 0o700, dir_fd=stage)
    try:
        with owned_fd(os.open(filling, DIRECTORY, dir_fd=stage)) as copy:
            make_plain(copy)
            faults.point("fill-copying")
            copy_tree(source, copy)
            if subpath:
                with contextlib.suppress(OSError):
                    os.setxattr(copy, _SUBPATH, json.dumps(subpath).encode())
            faults.point("fill-copied")
            os.rename(filling, moving, src_dir_fd=stage, dst_dir_fd=stage)
            faults.point("fill-moving")
            _move_in(copy, target)
        faults.point("fill-moved")
        os.rmdir(moving, dir_fd=stage)
    except BaseException:
        for leftover in (filling, moving):
            with contextlib.suppress(FileNotFoundError):
                remove_tree(stage, leftover)
        raise


def settle(stage: int, target: int, identity: str) -> Settled:
    """Settle what a dead engine left of the copy `identity`: incomplete, it goes; complete, it is moved in.

    Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        remove_tree(stage, FILLING + identity)
        return "discarded"
    moving = MOVING + identity
    try:
        copy = os.open(moving, DIRECTORY, dir_fd=stage)
    except FileNotFoundError:
        return "nothing"
    with owned_fd(copy):
        _move_in(copy, target)
    os.rmdir(moving, dir_fd=stage)
    return "finished"


def settle_unknown(volume: int, beside: str) -> None:
    """Settle every copy beside the data, named `beside`, of the volume at fd `volume` of which no intent tells.

    Raises OSError.
    """
    for name in os.listdir(volume):
        if name.startswith(FILLING):
            remove_tree(volume, name)
        elif name.startswith(MOVING):
            with owned_fd(os.open(name, DIRECTORY, dir_fd=volume)) as copy:
                try:
                    subpath = str(json.loads(os.getxattr(copy, _SUBPATH)))
                except OSError:
                    subpath = "."
            with (
                owned_fd(os.open(beside, DIRECTORY, dir_fd=volume)) as data,
                owned_fd(open_beneath(data, subpath, DIRECTORY)) as target,
            ):
                settle(volume, target, name.removeprefix(MOVING))


def replace(source: Sequence[int], stage: int, target: int, identity: str, names: frozenset[str]) -> None:
    """Copy `source` again and put the entries `names` of it into `target`, each in one step; the others stay.

    What was there under these names is removed. Raises OSError.
    """
    filling = FILLING + identity
    os.mkdir(filling, 0o700, dir_fd=stage)
    try:
        with owned_fd(os.open(filling, DIRECTORY, dir_fd=stage)) as copy:
            copy_tree(source, copy)
            status = os.fstat(copy)
            for name in names & set(os.listdir(copy)):
                try:
                    renameat2(copy, name, target, name, RENAME_EXCHANGE)
                except FileNotFoundError:
                    rename_noreplace(copy, name, target, name)
            apply_attributes(copy, target, status, times=False)
    finally:
        remove_tree(stage, filling)


def _resolve(rootfs: Path, destination: str) -> tuple[str, ...] | None:
    """Give the names that lead to a directory inside a mounted root, symlinks resolved; None if it is not there.

    Raises OSError, NotADirectoryError for a file.
    """
    with owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        try:
            found = open_in_root(root, destination, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            raise
        with owned_fd(found):
            top, path = (os.readlink(f"/proc/self/fd/{fd}") for fd in (root, found))
    assert path == top or path.startswith(top + "/"), "openat2 stays in the root"
    return tuple(filter(None, path[len(top) :].split("/")))


def _move_in(copy: int, target: int) -> None:
    """Move every entry of a complete copy into the target, then give the target the copy's attributes.

    A name that somebody made in the target meanwhile is theirs; ours is dropped. The target keeps the times that the
    moves give it, as with Docker, unless there was nothing to move. Raises OSError; nothing is moved then.
    """
    status = os.fstat(copy)
    moved: list[str] = []
    try:
        for name in os.listdir(copy):
            progress.step()
            try:
                _rename(copy, name, target)
                moved.append(name)
            except FileExistsError:
                remove_tree(copy, name)
            faults.point("fill-moved-one")
        apply_attributes(copy, target, status, times=not moved)
    except OSError:
        for name in moved:
            _rename(target, name, copy)
        raise


def _rename(source: int, name: str, target: int) -> None:
    """Move one entry; where the file system cannot refuse to replace (NFS), look first."""
    try:
        rename_noreplace(source, name, target, name)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        try:
            os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        else:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
