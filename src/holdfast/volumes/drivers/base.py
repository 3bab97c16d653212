"""What a volume driver is. The services see drivers only through this interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from holdfast.store.volumes import VolumeRecord


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Facts about a driver. `scope` is `local` or `global` (Docker plugin protocol, VolumeDriver.Capabilities)."""

    scope: str = "local"


@dataclass(frozen=True, slots=True)
class DriverVolume:
    """A volume that a driver reports of itself. `record` is set where the driver stored what the catalogue lost."""

    name: str
    record: VolumeRecord | None = None
    status: Mapping[str, str] | None = None


class VolumeDriver(Protocol):
    """Where volume data lives. Verbs are those of the Docker plugin protocol, `VolumeDriver.*`.

    Calls may block; the service holds the volume's lock around each. Repeating a call with the same arguments is
    harmless; naming a volume that is not there raises NotFound.
    """

    @property
    def name(self) -> str:
        """Give the name that users write after `--driver`."""

    @property
    def capabilities(self) -> Capabilities:
        """Give what never changes about the driver."""

    def validate(self, name: str, options: Mapping[str, str] | None) -> None:
        """Raise InvalidParameter if a volume of this name and options could never be made."""

    def create(self, record: VolumeRecord) -> None:
        """Make the volume; when this returns it is on disk and empty."""

    def list(self) -> Sequence[DriverVolume]:
        """Give every volume that the driver has."""

    def mountpoint(self, record: VolumeRecord) -> str:
        """Give the host path under which the data is, or will be once mounted."""

    def mount(self, record: VolumeRecord, mount_id: str) -> Path:
        """Make the data reachable and give its host path, for as long as `mount_id` is not unmounted."""

    def unmount(self, record: VolumeRecord, mount_id: str) -> None:
        """End what `mount` began under the same id."""

    def remove(self, record: VolumeRecord) -> None:
        """Take the volume away; its name is free when this returns."""

    def size_bytes(self, record: VolumeRecord) -> int:
        """Give the apparent size of its files, or -1 where it cannot be told."""
