"""The build cache: buildah's store, layer by layer, as `system df` counts it and `builder prune` empties it.

    build-cache/overlay/<layer>/diff    the files of a layer of a build, or of a copied base image
                holdfast-leftovers      a build was killed: buildah's working containers are still there

buildah's own lists are not read, they differ between its versions; only this tree is, as containers-storage lays it
out. What a running build may need is never removed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from holdfast import log
from holdfast.images.files import remove_entry
from holdfast.kernel.path import owned_fd, tree_size_bytes

logger = log.get(__name__)

_LEFTOVERS = "holdfast-leftovers"
"""A file of ours in buildah's store."""
_LIMIT_PART = 10
"""The cache may take this part of its file system: a tenth."""


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """A layer in the build cache."""

    id: str
    size_bytes: int
    created_at: datetime
    in_use: bool


class Cache:
    """The cache of one engine. Safe from any thread."""

    def __init__(self, store: Path, trash: Path) -> None:
        """`trash` is a directory on the same file system for what is being removed."""
        self.store = store
        self._trash = trash
        self._guard = threading.Lock()
        self._users = 0
        self._sizes: dict[str, int] = {}

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the cache for the length of the block. Raises OSError."""
        with self._guard:
            self.store.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._users += 1
        try:
            yield
        finally:
            with self._guard:
                self._users -= 1

    def is_alone(self) -> bool:
        """Whether at most one user is in its block now."""
        return self._users <= 1

    @property
    def has_leftovers(self) -> bool:
        """Whether a build ended without clearing away its working containers."""
        return (self.store / _LEFTOVERS).exists()

    def note_leftovers(self, *, there: bool = True) -> None:
        """Remember that, also for the next engine; or that they are gone. Raises OSError."""
        mark = self.store / _LEFTOVERS
        if there and self.store.is_dir():
            mark.touch(mode=0o600)
        else:
            mark.unlink(missing_ok=True)

    def has_image(self, image_id: str) -> bool:
        """Whether the store holds an image."""
        return (self.store / "overlay-images" / image_id.removeprefix("sha256:")).is_dir()

    def whole_id(self, prefix: str) -> str:
        """The id of an image in the store by its first digits; the digits where none or several begin so."""
        try:
            found = [name for name in os.listdir(self.store / "overlay-images") if name.startswith(prefix)]
        except FileNotFoundError:
            return prefix
        return found[0] if len(found) == 1 else prefix

    def usage(self) -> list[CacheRecord]:
        """Give the layers of the cache, the newest first. Raises OSError."""
        in_use = self._users > 0
        records = []
        for layer in self._layers():
            try:
                created_at = datetime.fromtimestamp(layer.stat().st_ctime, UTC)
                records.append(CacheRecord(layer.parent.name, self._size(layer), created_at, in_use))
            except FileNotFoundError:
                continue
        return sorted(records, key=lambda record: record.created_at, reverse=True)

    def prune(self, *, until: float | None = None, keep_bytes: int = 0) -> tuple[list[str], int]:
        """Empty the cache unless a build runs; gives the ids of layers removed and the bytes freed. Raises OSError.

        It goes as a whole, for layers stand on each other. With `until`, in seconds since the epoch, it stays if
        anything in it is younger; with `keep_bytes` it stays if it takes no more.
        """
        with self._guard:
            if self._users:
                return [], 0
            records = self.usage()
            size = sum(record.size_bytes for record in records)
            if not records or (keep_bytes and size <= keep_bytes):
                return [], 0
            if until is not None and records[0].created_at.timestamp() > until:
                return [], 0
            self._discard()
        return [record.id for record in records], size

    def limit(self) -> None:
        """Empty the cache if it has outgrown its part of the disk. Failing is logged."""
        try:
            disk = os.statvfs(self.store)
            removed, freed = self.prune(keep_bytes=disk.f_frsize * disk.f_blocks // _LIMIT_PART)
        except OSError as error:
            logger.warning("build cache not limited", extra={"error": str(error)})
            return
        if removed:
            logger.info("build cache emptied, it was too big", extra={"layers": len(removed), "bytes": freed})

    def _discard(self) -> None:
        """Take the whole store out of its place in one step; its space comes back in the background."""
        self._trash.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._trash / f"cache-{os.getpid()}-{threading.get_ident()}-{len(self._sizes)}"
        os.rename(self.store, target)
        self._sizes.clear()
        threading.Thread(target=_remove, args=(self._trash, target.name), name="build-cache", daemon=True).start()

    def _layers(self) -> list[Path]:
        try:
            with os.scandir(self.store / "overlay") as entries:
                return [Path(entry.path, "diff") for entry in entries if len(entry.name) == 64]
        except FileNotFoundError:
            return []

    def _size(self, layer: Path) -> int:
        known = self._sizes.get(layer.parent.name)
        if known is None:
            with owned_fd(os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
                known = tree_size_bytes(fd)
            self._sizes[layer.parent.name] = known
        return known


def _remove(directory: Path, name: str) -> None:
    try:
        remove_entry(directory, name)
    except OSError as error:
        logger.warning("build cache not removed, the next start tries again", extra={"error": str(error)})
