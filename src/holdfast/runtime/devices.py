"""Device nodes for a container: what `--device` and `--privileged` hand in. Rules: Docker (`oci.DevicesFromPath`)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InvalidParameter

_SKIPPED_DIRECTORIES: Final = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
_SKIPPED_NODES: Final = frozenset({"console"})


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device inside a container: `type` is c or b, `access` a subset of rwm for the devices cgroup."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


def resolve_device(path_on_host: str, path_in_container: str = "", access: str = "rwm") -> tuple[DeviceNode, ...]:
    """Look at a device of the host; a directory stands for all devices below it.

    Raises InvalidParameter, in Docker's words, if it is not there or holds no device.
    """
    check_access(access)
    inside = os.path.join("/", path_in_container or path_on_host)
    try:
        found = os.stat(path_on_host)
    except OSError as error:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path_on_host}": '
            f"{(error.strerror or '').lower()}"
        ) from error
    if stat.S_ISDIR(found.st_mode):
        below = tuple(_walk(path_on_host, inside, access))
        if below:
            return below
    node = _node(inside, found, access)
    if node is None:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path_on_host}": not a device node'
        )
    return (node,)


def check_access(access: str) -> None:
    """Check what a container may do with a device: letters of `rwm`, at least one. Raises InvalidParameter."""
    if not access or set(access) - set("rwm"):
        raise InvalidParameter(f"invalid device mode: {access}")


def block_device(path: str) -> tuple[int, int]:
    """Give the numbers of a block device of the host. Raises InvalidParameter if there is none at `path`."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidParameter(f"stat {path}: {(error.strerror or '').lower()}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidParameter(f"{path}: not a block device")
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def host_devices() -> tuple[DeviceNode, ...]:
    """Every device node of the host's /dev, for a privileged container."""
    return tuple(_walk("/dev", "/dev", "rwm"))


def _walk(directory: str, inside: str, access: str) -> Iterator[DeviceNode]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return                                  # it went away while we looked
    for entry in entries:
        target = f"{inside}/{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_DIRECTORIES:
                    yield from _walk(entry.path, target, access)
            elif entry.name not in _SKIPPED_NODES:
                node = _node(target, entry.stat(follow_symlinks=False), access)
                if node is not None:
                    yield node
        except FileNotFoundError:
            continue


def _node(path: str, found: os.stat_result, access: str) -> DeviceNode | None:
    if stat.S_ISCHR(found.st_mode):
        kind = "c"
    elif stat.S_ISBLK(found.st_mode):
        kind = "b"
    else:
        return None
    return DeviceNode(path, kind, os.major(found.st_rdev), os.minor(found.st_rdev), stat.S_IMODE(found.st_mode),
                      found.st_uid, found.st_gid, access)
