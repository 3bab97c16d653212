"""`docker push`: an image laid out as skopeo wants it, by hard links, and sent to its registry.

How far an upload is shows in the files that skopeo has open, and at which byte; a layer whose file it never opened was
in the registry before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from holdfast.errors import NotFound
from holdfast.images import reference
from holdfast.images.directory import lay_out
from holdfast.images.files import ImageFiles
from holdfast.images.model import Image
from holdfast.images.progress import Progress, Throttled, layer_status, status
from holdfast.images.pulling import reference_hex
from holdfast.images.skopeo import Credentials, fetch_manifest, send_image
from holdfast.kernel.inotify import IN_OPEN, Inotify
from holdfast.store.images import ImageTable, LayerRecord


def push(
    files: ImageFiles,
    table: ImageTable,
    image: Image,
    destination: reference.Reference,
    credentials: Credentials,
    progress: Progress,
) -> str:
    """Send an image to the registry of `destination`; gives the digest of its manifest there, which is remembered.

    Raises NotFound if the image goes meanwhile, Unauthorized, System, DeadlineExceeded, OSError, and what `progress`
    raises: the upload ends then.
    """
    record = table.get(image.id)
    if record is None:
        raise NotFound(f"No such image: {image.id}")
    layers = table.layers_of(image.id)
    for layer in reversed(layers):
        progress(layer_status("Preparing", reference.short_id(layer.diff_id)))
    with files.workspace() as workspace, Inotify() as opens:
        directory = workspace / "image"
        lay_out(files, table, record, layers, directory)
        opens.add_watch(directory, IN_OPEN)
        uploads = _Uploads(directory, layers, opens, progress)
        digest = send_image(directory, destination, credentials, uploads.look)
        uploads.end()
    table.add_digest(str(destination.with_digest(digest)), image.id)
    size = len(fetch_manifest(destination.with_digest(digest), credentials))
    progress(status(f"{destination.tag}: digest: {digest} size: {size}"))
    progress({"progressDetail": {}, "aux": {"Tag": destination.tag, "Digest": digest, "Size": size}})
    return digest


class _Uploads:
    """Looks at which layers another process reads, and how far it is."""

    def __init__(self, directory: Path, layers: Sequence[LayerRecord], opens: Inotify, progress: Progress) -> None:
        self._directory = os.fspath(directory)
        self._layers = {reference_hex(layer.blob_digest): layer for layer in layers}
        self._order = [layer.diff_id for layer in layers]
        self._opens = opens
        self._progress = progress
        self._amounts = Throttled(progress)
        self._sent: set[str] = set()

    def look(self, pid: int) -> int:
        """Tell how far each upload is; gives the sum."""
        self._note_opened()
        moved = 0
        for name, position in _positions(pid, self._directory):
            layer = self._layers.get(name)
            if layer is not None:
                moved += position
                short_id, size = reference.short_id(layer.diff_id), layer.blob_size_bytes
                self._amounts.amount("Pushing", short_id, min(position, size), size)
        return moved

    def end(self) -> None:
        """Say what became of each layer, once the registry has all of them."""
        self._note_opened()
        for diff_id in reversed(self._order):
            text = "Pushed" if diff_id in self._sent else "Layer already exists"
            self._progress(layer_status(text, reference.short_id(diff_id)))

    def _note_opened(self) -> None:
        for event in self._opens.read_events():
            if event.name in self._layers:
                self._sent.add(self._layers[event.name].diff_id)


def _positions(pid: int, directory: str) -> list[tuple[str, int]]:
    """The files of `directory` that a process has open, with the byte that it reads next; none once it has ended."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                folder, _, name = os.readlink(f"/proc/{pid}/fd/{fd}").rpartition("/")
                if folder == directory:
                    first = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().partition("\n")[0]
                    found.append((name, int(first.partition(":")[2])))
    return found
