"""`docker push`: an image laid out as skopeo wants it, by hard links, and sent to its registry."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.errors import NotFound
from holdfast.images import reference
from holdfast.images.directory import lay_out
from holdfast.images.files import ImageFiles
from holdfast.images.model import Image
from holdfast.images.progress import Progress, status
from holdfast.images.skopeo import Credentials, fetch_manifest, send_image
from holdfast.store.images import ImageTable


def push(
    files: ImageFiles,
    table: ImageTable,
    image: Image,
    destination: reference.Reference,
    credentials: Credentials,
    progress: Progress,
) -> str:
    """Send an image to the registry of `destination`; gives the digest of its manifest there, which is remembered.

    Raises NotFound if the image goes meanwhile, Unauthorized, System, DeadlineExceeded, OSError.
    """
    record = table.get(image.id)
    if record is None:
        raise NotFound(f"No such image: {image.id}")
    layers = table.layers_of(image.id)
    progress(status(f"The push refers to repository [{destination.name}]"))
    ids = [reference.short_id(layer.diff_id) for layer in layers]
    for layer_id in ids:
        progress(status("Preparing", id=layer_id))
    with files.workspace() as workspace:
        directory = workspace / "image"
        lay_out(files, table, record, layers, directory)
        digest = send_image(directory, destination, credentials, _ignore)
    for layer_id in ids:
        progress(status("Pushed", id=layer_id))
    table.add_digest(str(destination.with_digest(digest)), image.id)
    size = len(fetch_manifest(destination.with_digest(digest), credentials))
    progress(status(f"{destination.tag}: digest: {digest} size: {size}"))
    progress({"progressDetail": {}, "aux": {"Tag": destination.tag, "Digest": digest, "Size": size}})
    return digest


def _ignore(complete: Mapping[str, int], partial_bytes: int) -> None:
    """What an upload has moved cannot be seen from outside."""
