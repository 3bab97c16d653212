"""Images as directories: skopeo's and buildah's `dir:` transport, in both directions. See `skopeo` for its layout."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdfast.errors import System
from holdfast.images import manifests, reference
from holdfast.images.files import ImageFiles
from holdfast.images.intake import Intake, LayerBlob, Names
from holdfast.images.loading import Loaded, labels_of
from holdfast.images.model import digest_of, parse_config
from holdfast.images.pulling import parse_manifest, reference_hex
from holdfast.images.skopeo import VERSION_FILE
from holdfast.images.tarstream import CHUNK
from holdfast.store.images import ImageRecord, ImageTable, LayerRecord

_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar"


def lay_out(
    files: ImageFiles, table: ImageTable, record: ImageRecord, layers: Sequence[LayerRecord], directory: Path
) -> None:
    """Lay an image out in `directory`, which is made, by hard links: nothing is copied. Raises OSError."""
    directory.mkdir()
    (directory / "manifest.json").write_bytes(_manifest(files, table, record, layers))
    (directory / "version").write_bytes(VERSION_FILE)
    for digest in {record.id, *(layer.blob_digest for layer in layers)}:
        os.link(files.blob(digest), directory / reference_hex(digest))


def take_in(intake: Intake, directory: Path, tags: Sequence[reference.Reference], workspace: Path) -> Loaded:
    """Add the image that another program laid out in `directory`, within `workspace`; gives its id and labels.

    Only the layers that are missing here are read. Raises System for a directory that is none, InvalidParameter for
    layers that are not what the configuration says, OSError.
    """
    manifest = parse_manifest((directory / "manifest.json").read_bytes())
    text = (directory / reference_hex(manifest.config.digest)).read_bytes()
    if digest_of(text) != manifest.config.digest:
        raise System(f"image config verification failed for digest {manifest.config.digest}")
    config = parse_config(text)
    missing = intake.missing_layers(config)
    blobs = []
    for place, layer in enumerate(manifest.layers):
        path = directory / reference_hex(layer.digest)
        if place in missing and _digest_of_file(path) != layer.digest:
            raise System(f"layer verification failed for digest {layer.digest}")
        blobs.append(LayerBlob(path, layer.digest, layer.size_bytes))
    now = time.time()
    names = Names(tags={str(tag): now for tag in tags}, digests={}, manifests={})
    intake.add(config, blobs, names, workspace)
    return config.image_id, labels_of(config)


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return f"sha256:{digest.hexdigest()}"


def _manifest(files: ImageFiles, table: ImageTable, record: ImageRecord, layers: Sequence[LayerRecord]) -> bytes:
    """Take the manifest that the image came with if it names the blobs that are here, else write one.

    Docker's own type is written: a configuration with Docker's extensions is then never converted on its way.
    """
    came_with = table.manifest_of(record.id)
    if came_with is not None:
        text = files.blob(came_with).read_bytes()
        if [layer.digest for layer in parse_manifest(text).layers] == [layer.blob_digest for layer in layers]:
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
