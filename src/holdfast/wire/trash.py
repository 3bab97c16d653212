"""JSON shapes of removed volumes and of changes that Docker's API does not have. Our own extension."""

from __future__ import annotations

import msgspec

from holdfast.store.volumes import TrashRecord
from holdfast.wire.volumes import encode_time


class VolumeRelabel(msgspec.Struct, rename="pascal"):
    """Body of `PUT /volumes/{name}`: the new labels of a local volume, or Docker's `Spec` of a cluster volume."""

    labels: dict[str, str] | None = None
    spec: msgspec.Raw = msgspec.Raw(b"null")


class TrashShape(msgspec.Struct, rename="pascal"):
    """A removed volume. `size` is in bytes, -1 while it is not known."""

    id: str
    name: str
    driver: str
    labels: dict[str, str] | None
    options: dict[str, str] | None
    created_at: str
    removed_at: str
    expires_at: str
    size: int


class TrashRestore(msgspec.Struct, rename="pascal"):
    """Body of `POST /holdfast/trash/{id}/restore`: another name to come back under."""

    name: str = ""


def encode_trash(entry: TrashRecord) -> TrashShape:
    """Give a removed volume."""
    volume = entry.volume
    return TrashShape(
        volume.id,
        volume.name,
        volume.driver,
        None if volume.labels is None else dict(volume.labels),
        None if volume.options is None else dict(volume.options),
        encode_time(int(volume.created_at)),
        encode_time(int(entry.removed_at)),
        encode_time(int(entry.expires_at)),
        -1 if entry.size_bytes is None else entry.size_bytes,
    )
