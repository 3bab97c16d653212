"""Mounts of type image: another image's files, read-only, in a container.

    <run root>/mounts/<container id>/image-0    an overlay of its layers, until a clone of it is staged

The container gets the clone, so the overlay lives as long as that is mounted, and goes by itself with it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from holdfast.containers.rooms import Rooms
from holdfast.errors import System
from holdfast.kernel.mount import umount2
from holdfast.volumes.mounts import MountPoint
from holdfast.volumes.subpath import open_data


def open_image(rooms: Rooms, container_id: str, number: int, point: MountPoint, undo: contextlib.ExitStack) -> int:
    """Mount an image and give an fd (O_PATH) on it, or on what lies at the mount point's subpath; `undo` unmounts it.

    The caller closes the fd. Raises NotFound if the image or the subpath is gone, InvalidParameter for a subpath that
    leads out of the image, System.
    """
    image = rooms.images.get(point.image_id)
    folder = rooms.staging.folder(container_id) / f"image-{number}"
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise System(f"prepare mounts: {error}") from error
    undo.callback(_remove, folder)
    rooms.rootfs.mount_image(folder, image.layers)
    return open_data(folder, point.subpath)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        umount2(folder)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
        os.rmdir(folder.parent)
