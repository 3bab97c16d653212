"""Network namespaces of containers, one file each.

RUN_ROOT/netns/CONTAINER-ID     holds the namespace; the runtime joins it by this path
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from holdfast import log
from holdfast.errors import System
from holdfast.kernel.namespaces import pin_network_namespace, unpin
from holdfast.network.bridge import prepare_namespace

logger = log.get(__name__)


class Namespaces:
    """The namespaces below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, container_id: str) -> Path:
        """Make a namespace with `lo` up, in place of one that a crash left, and give its path. Raises System."""
        path = self._directory / container_id
        try:
            self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            try:
                pin_network_namespace(path)
            except FileExistsError:
                unpin(path)
                pin_network_namespace(path)
            prepare_namespace(path)
        except OSError as error:
            raise System(f"create network namespace: {error}") from error
        return path

    def remove(self, container_id: str) -> None:
        """Let go of a namespace; it ends with its last process. One that is not there is no error. Raises System."""
        try:
            unpin(self._directory / container_id)
        except OSError as error:
            raise System(f"remove network namespace: {error}") from error

    def keep_only(self, container_ids: Collection[str]) -> None:
        """Let go of all others. A failure is logged."""
        try:
            names = [path.name for path in self._directory.iterdir()] if self._directory.is_dir() else []
            for name in names:
                if name not in container_ids:
                    unpin(self._directory / name)
        except OSError as error:
            logger.warning("cannot remove old network namespaces", extra={"error": str(error)})
