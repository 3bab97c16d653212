"""The folders of containers, and how they go.

    <state root>/containers/<id>/           root file system (see images.rootfs), log, resolv.conf, hostname, hosts
    <state root>/removed-containers/<id>/   the same, on its way out

Removing is a rename; the space comes back in the background, or at the next start of the engine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from holdfast import log
from holdfast.containers.rooms import Rooms
from holdfast.errors import System
from holdfast.kernel.path import owned_fd, remove_tree

logger = log.get(__name__)


class Folders:
    """Discards what removed containers had on disk."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._removed = rooms.config.state_root / "removed-containers"

    def discard(self, container_id: str) -> None:
        """Unmount a container's root and put its folder out of the way; harmless to repeat. Raises System."""
        self._rooms.rootfs.unmount(container_id)
        folder = self._rooms.files_of(container_id)
        try:
            self._removed.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                folder.rename(self._removed / container_id)
        except OSError as error:
            raise System(f"remove folder of container {container_id}: {error}") from error

    def reclaim(self, container_id: str) -> None:
        """Give back the space of a discarded folder; what fails is tried again at the next start."""
        with contextlib.suppress(FileNotFoundError):
            try:
                with owned_fd(os.open(self._removed, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as removed:
                    remove_tree(removed, container_id)
            except FileNotFoundError:
                raise
            except OSError as error:
                logger.warning("space not reclaimed", extra={"container": container_id, "error": error})

    def sweep(self, known: Collection[str]) -> list[str]:
        """Discard the folders of containers that are not `known`; gives the ids whose space is to be reclaimed."""
        for container_id in _names(self._rooms.config.state_root / "containers"):
            if container_id not in known:
                logger.info("discarding the folder of no container", extra={"container": container_id})
                self.discard(container_id)
        return _names(self._removed)


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []
