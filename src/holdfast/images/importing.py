"""Images made here of a tar: `import` makes one of a root file system, `commit` puts a layer on top of another."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from holdfast import faults
from holdfast.errors import InvalidParameter, NotFound, System
from holdfast.images import reference, web
from holdfast.images.changes import apply_changes
from holdfast.images.files import ImageFiles
from holdfast.images.intake import Intake, LayerBlob, Names
from holdfast.images.loading import Loaded, labels_of
from holdfast.images.model import Image, format_time, parse_config
from holdfast.images.platforms import Platform, parse_platform, platform_of
from holdfast.images.progress import Progress, Throttled
from holdfast.images.tarstream import CHUNK, Readable
from holdfast.images.unpack import Room, compression_of, decompressed
from holdfast.store.images import LayerRecord

_EMPTY_TAR_BYTES = 1024
_FETCH_TIMEOUT_S = 60.0
_SAID_BYTES = 2000
_EMPTY_TAR = f"sha256:{hashlib.sha256(bytes(_EMPTY_TAR_BYTES)).hexdigest()}"

Source = Callable[[Callable[[bytes], object]], object]
"""Writes a layer's tar, piece by piece, to the function it is given."""


@dataclass(frozen=True, slots=True)
class Description:
    """What an image made here says about itself.

    `config` is what containers start from, before `changes`; `more` are members of the whole configuration that only
    this kind of image has.
    """

    message: str = ""
    author: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""
    created_by: str = ""
    config: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewImage:
    """What an import asks for: a name, a message, Dockerfile instructions, a platform; empty for none."""

    repository: str = ""
    tag: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""

    def describe(self, source: str) -> Description:
        """Give the description of an image that comes from `source`."""
        message = self.message or f"Imported from {source}"
        return Description(message, changes=self.changes, platform=self.platform)


def from_stream(archive: Readable) -> Source:
    """Give a layer's source that copies `archive`."""

    def copy(write: Callable[[bytes], object]) -> None:
        while data := archive.read(CHUNK):
            write(data)

    return copy


def from_url(url: str, progress: Progress) -> Source:
    """Give a layer's source that fetches `url`, by HTTP or HTTPS, and tells how far it is; see `_fetch`."""
    return lambda write: _fetch(url, write, progress)


def import_layer(
    files: ImageFiles,
    intake: Intake,
    source: Source,
    name: reference.Reference | None,
    description: Description,
    *,
    parent: Image | None = None,
    parent_layers: Sequence[LayerRecord] = (),
) -> Loaded:
    """Make an image of a layer's tar, plain or compressed, on top of `parent` if there is one; gives id and labels.

    On top of a parent, a tar without entries makes no layer. Raises InvalidParameter for a bad tar or change, System,
    OSError, and whatever `source` raises.
    """
    base = parent.config if parent is not None else {}
    inner = apply_changes(description.config if description.config is not None else base.get("config") or {},
                          description.changes)
    platform = platform_of(base) if parent is not None else parse_platform(description.platform)
    if platform.os != "linux":
        raise InvalidParameter(f"operating system {platform.os!r} is not supported")
    with files.workspace() as workspace:
        blob, diff_id = _store(source, workspace)
        faults.point("image-layer-written")
        is_layer = parent is None or diff_id != _EMPTY_TAR
        document = _document(base, inner, description, platform, diff_id if is_layer else "")
        config = parse_config(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
        blobs = [
            LayerBlob(files.blob(layer.blob_digest), layer.blob_digest, layer.blob_size_bytes)
            for layer in parent_layers
        ]
        names = Names(tags={} if name is None else {str(name): time.time()}, digests={}, manifests={})
        intake.add(
            config, [*blobs, blob] if is_layer else blobs, names, workspace,
            parent_id="" if parent is None else parent.id,
        )  # fmt: skip
        return config.image_id, labels_of(config)


def _fetch(url: str, write: Callable[[bytes], object], progress: Progress) -> None:
    """Copy what is at `url`; a connection that gives nothing for a minute is given up.

    Raises NotFound, System for anything but a complete answer. A server that never ends fills no more than the disk's
    reserve allows. Source: Docker Engine, `remotecontext.GetWithStatusError`.
    """
    with web.opened(url, timeout_s=_FETCH_TIMEOUT_S, follow=True) as response:
        if response.status != HTTPStatus.OK:
            said = response.read(_SAID_BYTES).decode(errors="replace").strip()
            text = f"failed to GET {url} with status {response.status} {response.reason}: {said}"
            raise NotFound(text) if response.status == HTTPStatus.NOT_FOUND else System(text)
        total = int(response.headers.get("Content-Length") or 0)
        amounts, count = Throttled(progress), 0
        while data := _read(response, url):
            count += len(data)
            write(data)
            amounts.amount("Importing", "", count, total)
        if total and count != total:
            raise System(f'Get "{url}": unexpected EOF')


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise System(f'Get "{url}": {error}') from error


def _store(source: Source, workspace: Path) -> tuple[LayerBlob, str]:
    """Keep the tar as it comes; gives its blob and the digest of what is in it."""
    path = workspace / "import"
    digest = hashlib.sha256()
    with path.open("wb") as out:

        room = Room(workspace)
        size = 0

        def keep(data: bytes) -> None:
            nonlocal size
            digest.update(data)
            size += len(data)
            room.take(len(data))
            out.write(data)

        source(keep)
    with path.open("rb") as kept:
        compression = compression_of(kept.read(8))
    if size < _EMPTY_TAR_BYTES and not compression:
        raise InvalidParameter("invalid tar archive: unexpected EOF")
    blob = LayerBlob(path, f"sha256:{digest.hexdigest()}", size)
    if not compression:
        return blob, blob.digest
    plain_digest = hashlib.sha256()
    with decompressed(path, compression) as plain:
        while data := plain.read(CHUNK):
            plain_digest.update(data)
    return blob, f"sha256:{plain_digest.hexdigest()}"


def _document(
    base: Mapping[str, Any], inner: Mapping[str, Any], description: Description, platform: Platform, diff_id: str
) -> dict[str, Any]:
    """Write the configuration of the new image; without `diff_id` it has no layer of its own."""
    created = format_time(datetime.now(UTC))
    step = {
        "created": created,
        **({"created_by": description.created_by} if description.created_by else {}),
        **({"author": description.author} if description.author else {}),
        **({"comment": description.message} if description.message else {}),
        **({} if diff_id else {"empty_layer": True}),
    }
    diff_ids = [*((base.get("rootfs") or {}).get("diff_ids") or []), *([diff_id] if diff_id else [])]
    return {
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        **({"author": description.author} if description.author else {}),
        **({"comment": description.message} if description.message else {}),
        "config": inner,
        **description.more,
        "created": created,
        "history": [*(base.get("history") or []), step],
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
