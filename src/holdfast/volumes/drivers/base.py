"""What a volume driver is. The services see drivers only through this interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from holdfast.errors import System
from holdfast.store.volumes import VolumeRecord


class MountFailed(System):
    """The storage of a volume cannot be reached now. It may come back: whoever is to run on it may try again later."""


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
        """Make the data reachable and give its host path, for as long as `mount_id` is not unmounted.

        Raises MountFailed if the storage does not let itself be mounted or does not answer.
        """

    def adopt(self, record: VolumeRecord, mount_id: str) -> None:
        """Count a mount that an earlier engine made; nothing is mounted."""

    def open(self, record: VolumeRecord, subpath: str) -> int | None:
        """Give an fd (O_PATH) on the mounted data, or on what lies at `subpath` in it, never outside.

        Data that may hang is not touched by the calling thread. None means that it cannot hang: the caller opens it.
        Raises NotFound for a subpath that is not there, InvalidParameter for one that leads out, MountFailed, System.
        """

    def can_stage(self, record: VolumeRecord) -> bool:
        """Tell whether a directory beside the mounted data is the volume's own and on the same mount.

        Otherwise the data is a mount of its own, and whatever goes in is copied in place.
        """

    def unmount(self, record: VolumeRecord, mount_id: str) -> None:
        """End what `mount` began under the same id."""

    def remove(self, record: VolumeRecord) -> None:
        """Take the volume away; its name is free when this returns."""

    def size_bytes(self, record: VolumeRecord) -> int:
        """Give the apparent size of its files, or -1 where it cannot be told."""
