"""What an image is: its record, its configuration, the ids of its layers. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from holdfast.errors import InvalidParameter
from holdfast.images import reference
from holdfast.store.images import ImageRecord

LAYERS_MAX: Final = 500
"""As many as the kernel stacks in one overlay."""

_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image as the rest of the engine sees it.

    `id` is `sha256:` and 64 digits. `tags` and `digests` are familiar references, sorted. `config` is the whole
    configuration as JSON gave it; what a container starts from is its `"config"` entry, see `defaults`. `layers` are
    chain ids, lowest first. `size_bytes` counts the files of all layers. `created_at` is aware UTC. `parent_id` is the
    image that it was made from here, "" for one that came from elsewhere.
    """

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    created_at: datetime
    tagged_at: datetime | None
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    size_bytes: int
    parent_id: str = ""

    @property
    def created(self) -> str:
        """The time of creation as the configuration spells it, "" if it does not say."""
        return _text(self.config.get("created"))

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What containers take from the image: `Cmd`, `Env`, `Volumes`, ...; Docker's ImageConfig."""
        found = self.config.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def labels(self) -> Mapping[str, str] | None:
        """The labels, None if there are none."""
        found = self.defaults.get("Labels")
        return found if isinstance(found, dict) and found else None

    def is_named_by_id(self, name: str) -> bool:
        """Whether `name`, which led here, did so as an id or its beginning; a tag that looks like one wins."""
        if not (self.id.startswith(name) or self.id.removeprefix("sha256:").startswith(name)):
            return False
        if any(reference.is_image_id(text) for text in (name, f"sha256:{name}")):
            return True
        return reference.parse(name).tagged().familiar not in self.tags

    @property
    def short_id(self) -> str:
        """The first 12 digits of the id."""
        return reference.short_id(self.id)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A configuration that was checked: its exact text, its JSON, and the diff ids of its layers, lowest first."""

    text: bytes
    json: Mapping[str, Any]
    diff_ids: tuple[str, ...]

    @property
    def image_id(self) -> str:
        """The id of an image with this configuration."""
        return digest_of(self.text)

    @property
    def created_at(self) -> datetime:
        """When the image was made, or the epoch."""
        return parse_time(self.json.get("created"))


def from_record(record: ImageRecord) -> Image:
    """Build an image from its row."""
    return Image(
        id=record.id,
        tags=tuple(sorted(reference.parse_stored(tag).familiar for tag in record.tags)),
        digests=tuple(sorted(reference.parse_stored(digest).familiar for digest in record.digests)),
        created_at=datetime.fromtimestamp(record.created_at, UTC),
        tagged_at=None if record.tagged_at is None else datetime.fromtimestamp(record.tagged_at, UTC),
        config=json.loads(record.config),
        layers=record.layers,
        size_bytes=record.size_bytes,
        parent_id=record.parent_id,
    )


def parse_config(text: bytes) -> ImageConfig:
    """Check the configuration of an image. Raises InvalidParameter.

    Source: OCI image specification, `config.md`; the older form of Docker has the same `rootfs`.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"invalid image JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidParameter("invalid image JSON: not an object")
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict):
        raise InvalidParameter("invalid image JSON, no RootFS key")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list) or not all(is_digest(diff_id) for diff_id in diff_ids):
        raise InvalidParameter("invalid image JSON: rootfs.diff_ids must be a list of sha256 digests")
    if len(diff_ids) > LAYERS_MAX:
        raise InvalidParameter(f"invalid image: {len(diff_ids)} layers, at most {LAYERS_MAX}")
    if not isinstance(config.get("config") or {}, dict):
        raise InvalidParameter("invalid image JSON: config must be an object")
    system = config.get("os") or "linux"
    if system != "linux":
        raise InvalidParameter(f"cannot load {system} image on linux")
    return ImageConfig(text, config, tuple(diff_ids))


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Name each layer together with those below it. Source: OCI image specification, Layer ChainID."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


def digest_of(data: bytes) -> str:
    """The digest of `data`, as images spell it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(value: object) -> bool:
    """Whether `value` is a sha256 digest."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def parse_time(value: object) -> datetime:
    """Parse a time of RFC 3339, of any precision; the epoch for anything else, as a missing one is shown."""
    epoch = datetime.fromtimestamp(0, UTC)
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return epoch
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    micros = int(((match[7] or "") + "000000")[:6])
    try:
        offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0)) * (-1 if match[8] == "-" else 1)
        return datetime(year, month, day, hour, minute, min(second, 59), micros, tzinfo=UTC) - offset
    except (ValueError, OverflowError):
        return epoch


def format_time(at: datetime) -> str:
    """Write a time as Docker does: RFC 3339 in UTC, fractions without trailing zeros."""
    whole = at.astimezone(UTC)
    fraction = f".{whole.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{whole.replace(tzinfo=None, microsecond=0).isoformat()}{fraction}Z"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
