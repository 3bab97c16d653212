"""`docker push`: an image laid out as skopeo wants it, by hard links, and sent to its registry."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Final

from holdfast.errors import NotFound
from holdfast.images import manifests, reference
from holdfast.images.files import ImageFiles
from holdfast.images.model import Image
from holdfast.images.progress import Progress, status
from holdfast.images.pulling import parse_manifest, reference_hex
from holdfast.images.skopeo import VERSION_FILE, Credentials, fetch_manifest, send_image
from holdfast.store.images import ImageRecord, ImageTable, LayerRecord

_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar"


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
        directory.mkdir()
        text = _manifest(files, table, record, layers)
        (directory / "manifest.json").write_bytes(text)
        (directory / "version").write_bytes(VERSION_FILE)
        for digest in {record.id, *(layer.blob_digest for layer in layers)}:
            os.link(files.blob(digest), directory / reference_hex(digest))
        digest = send_image(directory, destination, credentials, _ignore)
    for layer_id in ids:
        progress(status("Pushed", id=layer_id))
    table.add_digest(str(destination.with_digest(digest)), image.id)
    size = len(fetch_manifest(destination.with_digest(digest), credentials))
    progress(status(f"{destination.tag}: digest: {digest} size: {size}"))
    progress({"progressDetail": {}, "aux": {"Tag": destination.tag, "Digest": digest, "Size": size}})
    return digest


def _manifest(files: ImageFiles, table: ImageTable, record: ImageRecord, layers: list[LayerRecord]) -> bytes:
    """Take the manifest that the image came with if it names the blobs that are here, else write one.

    Docker's own type is written: a configuration with Docker's extensions is then never converted on its way.
    """
    came_with = table.manifest_of(record.id)
    if came_with is not None:
        text = files.blob(came_with).read_bytes()
        if [digest for digest, _ in parse_manifest(text).layers] == [layer.blob_digest for layer in layers]:
            return text
    if any(layer.media_type.endswith("zstd") for layer in layers):
        return manifests.manifest_of(record, layers)
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": manifests.descriptor(_CONFIG_TYPE, record.id, len(record.config)),
            "layers": [
                manifests.descriptor(
                    _LAYER_TYPE + (".gzip" if layer.media_type.endswith("gzip") else ""),
                    layer.blob_digest,
                    layer.blob_size_bytes,
                )
                for layer in layers
            ],
        },
        separators=(",", ":"),
    ).encode()


def _ignore(complete: Mapping[str, int], partial_bytes: int) -> None:
    """What an upload has moved cannot be seen from outside."""
