"""Filling an empty volume with what the image has at its mount point.

The copy is made beside the volume's data and moved in entry by entry once it is complete:

    <volume>/.fill-<id>/    being copied; a dead engine's is removed
    <volume>/.move-<id>/    complete; a dead engine's is moved in to the end

so a copy that fails or is cut short leaves the volume empty, and one that is complete is never lost. The volume may be
mounted in running containers meanwhile: its data directory stays the same one.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from pathlib import Path

from holdfast import faults, log
from holdfast.errors import InvalidParameter, System
from holdfast.kernel.path import fsync_fd, open_beneath, open_in_root, owned_fd, remove_tree, rename_noreplace, syncfs
from holdfast.volumes.copier import apply_attributes, copy_tree, is_empty
from holdfast.volumes.drivers.local import DATA, LocalDriver
from holdfast.volumes.mounts import MountPoint

logger = log.get(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILLING = ".fill-"
_MOVING = ".move-"


def open_source(rootfs: Path, point: MountPoint) -> int | None:
    """Open the directory that the image has at a mount point, symlinks resolved inside the image; None if it has none.

    Raises InvalidParameter if an anonymous volume would hide a file, as Docker refuses that.
    """
    with owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        try:
            return open_in_root(root, point.destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError:
            if point.anonymous:
                raise InvalidParameter(
                    f"cannot mount volume over existing file, file exists {point.destination}"
                ) from None
            return None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            raise System(f"failed to populate volume: {point.destination}: {error.strerror}") from error


def fill(source: int, data_path: Path, subpath: str, name: str) -> None:
    """Copy directory fd `source` into the volume whose data is at `data_path`, or into `subpath` of it, if empty.

    The caller holds the volume's lock. Raises InvalidParameter if the subpath escapes, System if the copy fails; the
    volume is empty then. A subpath that is missing or a file is left alone.
    """
    try:
        with owned_fd(os.open(data_path, _DIRECTORY)) as data:
            target = _open_target(data, data_path, subpath)
            if target is None:
                return
            with owned_fd(target):
                if is_empty(target):
                    with owned_fd(os.open(data_path.parent, _DIRECTORY)) as volume:
                        _fill_empty(source, volume, target, subpath)
    except OSError as error:
        raise System(f"failed to populate volume: {name}: {error.strerror or error}") from error


def recover(driver: LocalDriver) -> None:
    """Settle what a dead engine left of its copies: incomplete ones go, complete ones are moved in."""
    for name in os.listdir(driver.volumes_root):
        try:
            with owned_fd(os.open(driver.volumes_root / name, _DIRECTORY)) as volume:
                for entry in os.listdir(volume):
                    if entry.startswith(_FILLING):
                        logger.info("removing incomplete copy from an image", extra={"volume": name})
                        remove_tree(volume, entry)
                    elif entry.startswith(_MOVING):
                        logger.info("finishing copy from an image", extra={"volume": name})
                        _finish(volume, entry)
        except OSError as error:
            logger.warning("cannot settle a volume", extra={"volume": name, "error": error})


def _open_target(data: int, data_path: Path, subpath: str) -> int | None:
    if not subpath:
        return os.dup(data)
    try:
        target = open_beneath(data, subpath, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise InvalidParameter(
                "failed to populate volume: path concatenation escapes the base directory, "
                f"base: {data_path}, subpath: {subpath}"
            ) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO):
            return None
        raise
    if stat.S_ISDIR(os.fstat(target).st_mode):
        return target
    os.close(target)
    return None


def _fill_empty(source: int, volume: int, target: int, subpath: str) -> None:
    identity = secrets.token_hex(8)
    filling, moving = _FILLING + identity, _MOVING + identity
    os.mkdir(filling, 0o700, dir_fd=volume)
    try:
        with owned_fd(os.open(filling, _DIRECTORY, dir_fd=volume)) as copy:
            faults.point("fill-copying")
            copied = copy_tree(source, copy)
            if subpath:
                os.setxattr(copy, "trusted.holdfast.subpath", json.dumps(subpath).encode())
            if copied.entries:
                syncfs(copy)
            faults.point("fill-copied")
            rename_noreplace(volume, filling, volume, moving)
            fsync_fd(volume)
            faults.point("fill-moving")
            _move_in(copy, target)
    except BaseException:
        for leftover in (filling, moving):
            try:
                remove_tree(volume, leftover)
            except FileNotFoundError:
                continue
        raise
    os.rmdir(moving, dir_fd=volume)


def _move_in(copy: int, target: int) -> None:
    """Move every entry of a complete copy into the target, then give the target the copy's attributes.

    A name that somebody made in the target meanwhile is theirs; ours is dropped.
    """
    status = os.fstat(copy)
    moved: list[str] = []
    try:
        for name in os.listdir(copy):
            try:
                rename_noreplace(copy, name, target, name)
                moved.append(name)
            except FileExistsError:
                remove_tree(copy, name)
            faults.point("fill-moved-one")
        apply_attributes(copy, target, status)
    except OSError:
        for name in moved:
            rename_noreplace(target, name, copy, name)
        raise
    fsync_fd(target)
    fsync_fd(copy)


def _finish(volume: int, moving: str) -> None:
    with (
        owned_fd(os.open(moving, _DIRECTORY, dir_fd=volume)) as copy,
        owned_fd(os.open(DATA, _DIRECTORY, dir_fd=volume)) as data,
    ):
        try:
            subpath = str(json.loads(os.getxattr(copy, "trusted.holdfast.subpath")))
        except OSError:
            subpath = ""
        target = open_beneath(data, subpath, _DIRECTORY) if subpath else os.dup(data)
        with owned_fd(target):
            _move_in(copy, target)
    os.rmdir(moving, dir_fd=volume)
