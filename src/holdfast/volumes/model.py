"""What callers see of a volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.store.volumes import VolumeRecord

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the API shows it. `mountpoint` is a host path; `status` is the driver's own report or None."""

    record: VolumeRecord
    mountpoint: str
    scope: str
    status: Mapping[str, str] | None = None

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
class Pruned:
    """What a prune removed."""

    names: tuple[str, ...]
    reclaimed_bytes: int
