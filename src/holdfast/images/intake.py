"""How images get in and out of the store, whole or not at all.

    workspace  →  each missing layer unpacked and its digest checked  →  all of it on disk (syncfs)
               →  under one lock: renamed into place, rows of layers, image and names in one transaction

Going is the reverse: rows first, then files, their space taken back in the background. A death at any point leaves at
worst files without rows, which `ImageFiles.sweep` removes at the next start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast import faults, log
from holdfast.errors import InvalidParameter, System
from holdfast.images.files import ImageFiles, remove_entry
from holdfast.images.model import ImageConfig, chain_ids, digest_of
from holdfast.images.unpack import compression_of, media_type_of, unpack
from holdfast.kernel.path import fsync_path
from holdfast.store.images import ImageTable, LayerRecord, Unused

logger = log.get(__name__)

_PARALLEL_LAYERS: Final = 3
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer's tar as it came, in a file that will be renamed into place. `digest` has been computed from it."""

    path: Path
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Names:
    """What an image shall be found by, in normal form: tags with the time a user gave them, and manifests.

    A tag that came with the image has no time. `digests` maps references by digest to the digest of the manifest that
    is kept; `manifests` those to their text.
    """

    tags: Mapping[str, float | None]
    digests: Mapping[str, str]
    manifests: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A layer that waits in the workspace to be put into place."""

    record: LayerRecord
    directory: Path
    blob: Path


class Intake:
    """Adds and removes images. Safe from any thread; one of them at a time changes what is recorded."""

    def __init__(self, files: ImageFiles, table: ImageTable) -> None:
        self._files = files
        self._table = table
        self.guard = threading.RLock()

    def missing_layers(self, config: ImageConfig) -> list[int]:
        """Give the positions of the layers that are not here yet."""
        chain = chain_ids(config.diff_ids)
        return [position for position, chain_id in enumerate(chain) if self._table.layer(chain_id) is None]

    def add(
        self,
        config: ImageConfig,
        layers: Sequence[LayerBlob],
        names: Names,
        workspace: Path,
        *,
        unpacked: Callable[[int], None] = lambda _: None,
        parent_id: str = "",
    ) -> dict[str, str]:
        """Add an image with its layers, lowest first, from blobs in `workspace`; gives the tags that moved here.

        `parent_id` is the image that it was made from here. `unpacked` is told the position of each layer that is
        ready, those that were here before included. Raises InvalidParameter for layers that are not what the
        configuration says, System, OSError. On failure nothing is recorded; what was written is in `workspace`, or in
        place without a row until the next sweep.
        """
        if len(layers) != len(config.diff_ids):
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {len(layers)}, got {len(config.diff_ids)}"
            )
        chain = chain_ids(config.diff_ids)
        ready: dict[str, _Prepared] = {}
        for _ in range(_ATTEMPTS):
            needed = [place for place in self.missing_layers(config) if chain[place] not in ready]
            for place in set(range(len(chain))) - set(needed):
                unpacked(place)
            for prepared in self._prepare(config, chain, layers, needed, workspace, unpacked):
                ready[prepared.record.chain_id] = prepared
            moved = self._record(config, chain, ready, names, workspace, parent_id)
            if moved is not None:
                return moved
        raise System("add image: its layers are being removed at the same time")

    def remove(self, image_id: str, *, keep_hidden: bool) -> Unused:
        """Remove an image, its names and what only it needed; with `keep_hidden` only the names. See ImageTable."""
        with self.guard:
            return self._drop(self._table.remove(image_id, keep_hidden=keep_hidden))

    def remove_hidden(self, keep: Sequence[str]) -> Unused:
        """Remove the hidden images that no container needs any more."""
        with self.guard:
            return self._drop(self._table.remove_hidden(keep=keep))

    def _prepare(
        self,
        config: ImageConfig,
        chain: Sequence[str],
        layers: Sequence[LayerBlob],
        places: Sequence[int],
        workspace: Path,
        unpacked: Callable[[int], None],
    ) -> list[_Prepared]:
        """Unpack layers, some at a time."""

        def prepare(place: int) -> _Prepared:
            prepared = _unpack_layer(place, chain[place], config.diff_ids[place], layers[place], workspace)
            unpacked(place)
            return prepared

        if len(places) < 2:
            return [prepare(place) for place in places]
        with ThreadPoolExecutor(_PARALLEL_LAYERS, thread_name_prefix="layer") as pool:
            return list(pool.map(prepare, places))

    def _record(
        self,
        config: ImageConfig,
        chain: Sequence[str],
        ready: Mapping[str, _Prepared],
        names: Names,
        workspace: Path,
        parent_id: str,
    ) -> dict[str, str] | None:
        """Put everything into place and record it; None if a layer that was here is gone and must be unpacked."""
        texts = {config.image_id: config.text, **names.manifests}
        written = []
        for number, (digest, text) in enumerate(texts.items()):
            assert digest_of(text) == digest
            path = workspace / f"text-{number}"
            path.write_bytes(text)
            written.append((path, digest))
        self._files.flush()
        faults.point("image-flushed-not-placed")
        with self.guard:
            records = []
            for chain_id in chain:
                present = self._table.layer(chain_id)
                if present is None and chain_id not in ready:
                    return None
                records.append(present or ready[chain_id].record)
            for record in records:
                prepared = ready.get(record.chain_id)
                if prepared is not None and prepared.record is record:
                    self._files.place_layer(prepared.directory, record.chain_id)
                    if prepared.blob.exists():
                        os.link(prepared.blob, workspace / "blob")
                        self._files.place_blob(workspace / "blob", record.blob_digest)
                        (workspace / "blob").unlink(missing_ok=True)  # rename(2) leaves it if both are one file
            for path, digest in written:
                self._files.place_blob(path, digest)
            for directory in (self._files.layers, self._files.blobs):
                fsync_path(directory)
            faults.point("image-placed-not-recorded")
            moved = self._table.add(
                config.image_id,
                config.text,
                config.created_at.timestamp(),
                records,
                tags=names.tags,
                digests=names.digests,
                parent_id=parent_id,
            )
        faults.point("image-recorded")
        return moved

    def _drop(self, unused: Unused) -> Unused:
        """Remove files that no row refers to any more. A layer is renamed away now and removed in the background."""
        if not unused.layers and not unused.blobs:
            return unused
        faults.point("image-forgotten-not-removed")
        leftovers = []
        for chain_id in unused.layers:
            try:
                leftovers.append(self._files.discard_layer(chain_id))
            except FileNotFoundError:
                logger.warning("layer is missing on disk", extra={"layer": chain_id})
        for digest in unused.blobs:
            self._files.discard_blob(digest)
        if leftovers:
            names = [path.name for path in leftovers]
            threading.Thread(target=self._take_back, args=(names,), name="image-space", daemon=True).start()
        return unused

    def _take_back(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                remove_entry(self._files.tmp, name)
            except OSError as error:
                logger.warning("layer not removed, the next start tries again", extra={"error": str(error)})


def _unpack_layer(place: int, chain_id: str, diff_id: str, blob: LayerBlob, workspace: Path) -> _Prepared:
    with blob.path.open("rb") as opened:
        compression = compression_of(opened.read(8))
    if not compression and blob.digest != diff_id:
        raise _wrong_diff_id(place, diff_id, blob.digest)
    directory = workspace / f"layer-{chain_id.removeprefix('sha256:')}"
    directory.mkdir(mode=0o700)
    (directory / "diff").mkdir()
    (directory / "diff").chmod(0o755)
    done = unpack(blob.path, directory / "diff", known_diff_id=blob.digest)
    if done.diff_id != diff_id:
        raise _wrong_diff_id(place, diff_id, done.diff_id)
    faults.point("image-layer-unpacked")
    record = LayerRecord(
        chain_id=chain_id,
        diff_id=diff_id,
        size_bytes=done.size_bytes,
        blob_digest=blob.digest,
        blob_size_bytes=blob.size_bytes,
        media_type=media_type_of(compression),
    )
    return _Prepared(record, directory, blob.path)


def _wrong_diff_id(place: int, expected: str, got: str) -> InvalidParameter:
    return InvalidParameter(f'invalid diffID for layer {place}: expected "{expected}", got "{got}"')
