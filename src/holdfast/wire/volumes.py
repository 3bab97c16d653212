"""JSON shapes of volumes. Source: Docker Engine API 1.51, `Volume`, `VolumeCreateOptions`, `VolumePruneResponse`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from holdfast.volumes.model import Pruned, Usage, Volume


class VolumeCreate(msgspec.Struct, rename="pascal"):
    """Body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: msgspec.Raw | None = None


class UsageShape(msgspec.Struct, rename="pascal"):
    """What `GET /system/df` adds to a Volume."""

    ref_count: int
    size: int


class VolumeShape(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A Volume, keys in Docker's order. Fields with a default are left out while they have it."""

    created_at: str
    driver: str
    labels: Mapping[str, str] | None
    mountpoint: str
    name: str
    options: Mapping[str, str] | None
    scope: str
    status: Mapping[str, Any] | None = None
    usage_data: UsageShape | None = None


def encode_volume(volume: Volume, usage: UsageShape | None = None) -> VolumeShape:
    """Give a Volume."""
    record = volume.record
    return VolumeShape(
        encode_time(int(record.created_at)),
        record.driver,
        record.labels,
        volume.mountpoint,
        record.name,
        record.options,
        volume.scope,
        volume.status or None,
        usage,
    )


def encode_usage(usage: Usage) -> VolumeShape:
    """Give a Volume with its UsageData, as `GET /system/df` shows it."""
    return encode_volume(usage.volume, UsageShape(usage.ref_count, usage.size_bytes))


def encode_pruned(pruned: Pruned) -> dict[str, Any]:
    """Give a VolumePruneResponse."""
    return {"VolumesDeleted": list(pruned.names), "SpaceReclaimed": pruned.reclaimed_bytes}


@lru_cache(maxsize=1024)
def encode_time(seconds: int) -> str:
    """Give RFC 3339 in UTC to the second, for seconds since the Unix epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
