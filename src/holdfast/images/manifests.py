"""Manifests as this engine writes them: one for each image, of the blobs as they are kept. Pure.

Source: OCI image specification, `manifest.md`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from holdfast.images.model import digest_of
from holdfast.store.images import ImageRecord, LayerRecord

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"


def descriptor(media_type: str, digest: str, size_bytes: int, **more: Any) -> dict[str, Any]:
    """Name a blob."""
    return {"mediaType": media_type, "digest": digest, "size": size_bytes, **more}


def manifest_of(record: ImageRecord, layers: Sequence[LayerRecord]) -> bytes:
    """Write the manifest of an image; the same image gives the same text."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, record.id, len(record.config)),
            "layers": [descriptor(layer.media_type, layer.blob_digest, layer.blob_size_bytes) for layer in layers],
        },
        separators=(",", ":"),
    ).encode()


def manifest_descriptor(text: bytes, **more: Any) -> dict[str, Any]:
    """Name a manifest."""
    return descriptor(MANIFEST_TYPE, digest_of(text), len(text), **more)
