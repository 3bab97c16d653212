"""The layers of an image that are not here yet, fetched some at a time, each told about as Docker does."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import System
from holdfast.images import blobs, reference
from holdfast.images.files import ImageFiles
from holdfast.images.intake import LayerBlob
from holdfast.images.model import chain_ids
from holdfast.images.progress import Progress, Throttled, layer_status
from holdfast.images.skopeo import Credentials
from holdfast.images.unpack import check_room
from holdfast.store.images import ImageTable

_PARALLEL: Final = 3
"""As many as Docker fetches at a time."""


class _GivenUp(System):
    """Another layer of the same image failed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A layer of a manifest: the digest and size of its blob."""

    digest: str
    size_bytes: int

    @property
    def short_id(self) -> str:
        """What clients see."""
        return reference.short_id(self.digest)


class Downloader:
    """Gathers the blobs of one image in a workspace."""

    def __init__(
        self, files: ImageFiles, table: ImageTable, image: reference.Reference, credentials: Credentials,
        workspace: Path, progress: Progress,
    ) -> None:
        """`image` is named by the digest of its manifest."""
        self._files = files
        self._table = table
        self._image = image
        self._credentials = credentials
        self._workspace = workspace
        self._tell = progress
        self._telling = threading.Lock()
        self._failed = threading.Event()

    def small(self, wanted: Wanted) -> bytes:
        """Fetch one blob whole, a configuration. Raises as `layers`."""
        path = self._path(wanted.digest)
        with blobs.opened(self._image, self._credentials, self._workspace) as reader:
            reader.fetch(wanted.digest, wanted.size_bytes, path, lambda _: None)
        return path.read_bytes()

    def layers(self, wanted: Sequence[Wanted], diff_ids: Sequence[str]) -> list[LayerBlob]:
        """Give the layers' blobs, lowest first. What is here, unpacked or as a blob, is linked and not fetched.

        Raises NotFound, Unauthorized, System, DeadlineExceeded, OSError, and what `progress` raises.
        """
        found: list[LayerBlob] = []
        missing: dict[str, Wanted] = {}
        for layer, chain_id in zip(wanted, chain_ids(diff_ids), strict=True):
            present = self._present(layer, chain_id)
            if present is None:
                missing[layer.digest] = layer
                present = LayerBlob(self._path(layer.digest), layer.digest, layer.size_bytes)
                self._progress(layer_status("Pulling fs layer", layer.short_id))
            else:
                self._progress(layer_status("Already exists", layer.short_id))
            found.append(present)
        self._fetch_all(list(missing.values()))
        return found

    def _present(self, layer: Wanted, chain_id: str) -> LayerBlob | None:
        """Link the blob of a layer that is here: the one it was unpacked from, or the very one that is wanted."""
        record = self._table.layer(chain_id)
        digest, size_bytes = (
            (layer.digest, layer.size_bytes) if record is None else (record.blob_digest, record.blob_size_bytes)
        )
        path = self._path(digest)
        try:
            os.link(self._files.blob(digest), path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return None
        return LayerBlob(path, digest, size_bytes)

    def _fetch_all(self, missing: Sequence[Wanted]) -> None:
        check_room(self._workspace, sum(layer.size_bytes for layer in missing))
        for layer in missing[_PARALLEL:]:
            self._progress(layer_status("Waiting", layer.short_id))
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="fetch") as pool:
            jobs = [pool.submit(self._fetch, layer) for layer in missing]
            _, rest = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in rest:
                job.cancel()
        errors = [job.exception() for job in jobs if not job.cancelled()]
        causes = [error for error in errors if error is not None]
        if causes:
            raise next((error for error in causes if not isinstance(error, _GivenUp)), causes[0])

    def _fetch(self, layer: Wanted) -> None:
        amounts = Throttled(self._progress)

        def received(count: int) -> None:
            if self._failed.is_set():
                raise _GivenUp("another layer failed")
            amounts.amount("Downloading", layer.short_id, count, layer.size_bytes)

        with contextlib.ExitStack() as undo:
            undo.callback(self._failed.set)
            with blobs.opened(self._image, self._credentials, self._workspace) as reader:
                reader.fetch(layer.digest, layer.size_bytes, self._path(layer.digest), received)
            undo.pop_all()
        self._progress(layer_status("Verifying Checksum", layer.short_id))
        self._progress(layer_status("Download complete", layer.short_id))

    def _progress(self, message: dict[str, object]) -> None:
        with self._telling:
            self._tell(message)

    def _path(self, digest: str) -> Path:
        return self._workspace / digest.removeprefix("sha256:")
