"""`docker save`: images as an archive that `docker load`, podman, skopeo and containerd read.

An OCI image layout with Docker's manifest.json and repositories beside it, as Docker writes since version 25. Layers go
out as they came in, compressed or not. The same images give the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.errors import NotFound
from holdfast.images import manifests, reference
from holdfast.images.files import ImageFiles
from holdfast.images.model import Image
from holdfast.store.images import ImageRecord, ImageTable, LayerRecord

Chosen = tuple[Image, tuple[reference.Reference, ...]]
"""An image, and the tags to save with it."""

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_COPY_BYTES: Final = 256 << 10


def tags_for(name: str, image: Image) -> tuple[reference.Reference, ...]:
    """The tags that go with an image when it was asked for as `name`: that one; none for an id or a digest.

    Source: Docker Engine, `tarexport`, `parseNames`.
    """
    if image.is_named_by_id(name):
        return ()
    parsed = reference.parse(name)
    if parsed.digest:
        return ()
    return (parsed.tagged(),)


def save(
    files: ImageFiles, table: ImageTable, chosen: Sequence[Chosen], write: Callable[[bytes], object]
) -> None:
    """Write the archive piece by piece. Raises NotFound if an image goes meanwhile, OSError."""
    texts: dict[str, bytes] = {}
    blobs: dict[str, Path] = {}
    tags: dict[str, list[reference.Reference]] = {}
    records: dict[str, tuple[ImageRecord, list[LayerRecord]]] = {}
    for image, references in chosen:
        record = table.get(image.id)
        if record is None:
            raise NotFound(f"No such image: {image.id}")
        records[image.id] = record, table.layers_of(image.id)
        known = tags.setdefault(image.id, [])
        known += [each for each in references if each not in known]
    index: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image_id, (record, layers) in records.items():
        manifest = manifests.manifest_of(record, layers)
        texts[_blob(image_id)] = record.config
        texts[_blob(manifests.manifest_descriptor(manifest)["digest"])] = manifest
        blobs |= {_blob(layer.blob_digest): files.blob(layer.blob_digest) for layer in layers}
        index += _index_entries(manifest, tags[image_id])
        listed.append(_manifest_entry(image_id, layers, tags[image_id]))
        for each in tags[image_id]:
            top = layers[-1].chain_id.removeprefix("sha256:") if layers else ""
            repositories.setdefault(each.familiar_name, {})[each.tag or ""] = top
    texts["index.json"] = _json({"schemaVersion": 2, "mediaType": manifests.INDEX_TYPE, "manifests": index})
    texts["manifest.json"] = _json(listed)
    texts["oci-layout"] = _LAYOUT
    if repositories:
        texts["repositories"] = _json(repositories)
    _write(texts, blobs, write)


def _index_entries(manifest: bytes, tags: Sequence[reference.Reference]) -> list[dict[str, Any]]:
    """One entry for each tag, with the annotations by which containerd and others find it."""
    if not tags:
        return [manifests.manifest_descriptor(manifest)]
    return [
        manifests.manifest_descriptor(
            manifest,
            annotations={"io.containerd.image.name": str(tag), "org.opencontainers.image.ref.name": tag.tag},
        )
        for tag in tags
    ]


def _manifest_entry(
    image_id: str, layers: Sequence[LayerRecord], tags: Sequence[reference.Reference]
) -> dict[str, Any]:
    return {
        "Config": _blob(image_id),
        "RepoTags": [tag.familiar for tag in tags] or None,
        "Layers": [_blob(layer.blob_digest) for layer in layers],
        "LayerSources": {
            layer.diff_id: manifests.descriptor(layer.media_type, layer.blob_digest, layer.blob_size_bytes)
            for layer in layers
        },
    }


def _write(texts: dict[str, bytes], blobs: dict[str, Path], write: Callable[[bytes], object]) -> None:
    """Write texts and files as a tar, names in order."""
    for directory in ("blobs/", "blobs/sha256/"):
        write(_header(directory, 0, kind=tarfile.DIRTYPE, mode=0o755))
    for name in sorted({*texts, *blobs}):
        if name in texts:
            write(_header(name, len(texts[name])))
            write(texts[name] + _padding(len(texts[name])))
            continue
        with blobs[name].open("rb") as source:
            size = source.seek(0, io.SEEK_END)
            source.seek(0)
            write(_header(name, size))
            left = size
            while left:
                data = source.read(min(left, _COPY_BYTES))
                assert data, "a blob never changes once it is in place"
                left -= len(data)
                write(data)
            write(_padding(size))
    write(bytes(2 * tarfile.BLOCKSIZE))


def _header(name: str, size_bytes: int, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = size_bytes, kind, mode
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
