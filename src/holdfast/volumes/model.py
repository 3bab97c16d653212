"""What callers see of a volume."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.store.volumes import VolumeRecord

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_ALL_DIGITS = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the API shows it. `mountpoint` is a host path; `status` is the driver's own report or None."""

    record: VolumeRecord
    mountpoint: str
    scope: str
    status: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Give the volume's name."""
        return self.record.name


@dataclass(frozen=True, slots=True)
class Usage:
    """A volume with who holds it and how much is in it; `size_bytes` is -1 where it cannot be told."""

    volume: Volume
    ref_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TrashPolicy:
    """How long removed volumes are kept. `limit_bytes` 0 means a tenth of the file system."""

    keep_s: float = 7 * 24 * 3600
    limit_bytes: int = 0
    grace_s: float = 3600
    keep_anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed."""

    names: tuple[str, ...]
    reclaimed_bytes: int


def new_id() -> str:
    """Give 64 random hexadecimal digits whose first twelve are not all decimal, as Docker's ids are."""
    while True:
        candidate = secrets.token_hex(32)
        if not _ALL_DIGITS.match(candidate):
            return candidate
