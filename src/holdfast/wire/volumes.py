"""JSON shapes of volumes. Source: Docker Engine API 1.51, `Volume`, `VolumeCreateOptions`, `VolumePruneResponse`."""

from __future__ import annotations

import time
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


def encode_volume(volume: Volume) -> dict[str, Any]:
    """Give a Volume, keys in Docker's order."""
    record = volume.record
    shape: dict[str, Any] = {
        "CreatedAt": encode_time(record.created_at),
        "Driver": record.driver,
        "Labels": record.labels,
        "Mountpoint": volume.mountpoint,
        "Name": record.name,
        "Options": record.options,
        "Scope": volume.scope,
    }
    if volume.status:
        shape["Status"] = volume.status
    return shape


def encode_usage(usage: Usage) -> dict[str, Any]:
    """Give a Volume with its UsageData, as `GET /system/df` shows it."""
    return {**encode_volume(usage.volume), "UsageData": {"RefCount": usage.ref_count, "Size": usage.size_bytes}}


def encode_pruned(pruned: Pruned) -> dict[str, Any]:
    """Give a VolumePruneResponse."""
    return {"VolumesDeleted": list(pruned.names), "SpaceReclaimed": pruned.reclaimed_bytes}


def encode_time(seconds: float) -> str:
    """Give RFC 3339 in UTC to the second, for seconds since the Unix epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
