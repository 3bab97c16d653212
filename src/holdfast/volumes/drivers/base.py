"""What a volume driver is. The services see drivers only through this interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.errors import System
from holdfast.kernel.storage_worker import Answer

if TYPE_CHECKING:  # workers import this file, and have no packages but the standard library's
    from holdfast.store.volumes import VolumeRecord


class MountFailed(System):
    """The storage of a volume cannot be reached now. It may come back: whoever is to run on it may try again later."""


Emit = Callable[[bytes], object]


class Stream(Protocol):
    """What is read piece by piece: at most `size` bytes, waiting for at least one, nothing at the end."""

    def read(self, size: int, /) -> bytes | memoryview | None: ...


class Hands(Protocol):
    """Who touches a volume's data: the calling thread, or a process that can be given up where the storage may hang.

    `work` is a function of a module, called with descriptors and arguments that JSON knows; its descriptors are the
    caller's to close. Long work says that it gets on (`kernel/progress`). Raises what `work` raises, EngineErrors as
    the class of `holdfast.errors` that they are; MountFailed if the storage does not answer.
    """

    def do(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object) -> Answer:
        """Give what `work` gives."""

    def pour(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object, emit: Emit) -> None:
        """Do `work`, whose last argument is a function that takes data, and emit the data here."""

    def feed(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object, stream: Stream) -> None:
        """Do `work`, whose last argument is a stream, and let it read this one."""


class Here:
    """Hands of the calling thread, for storage that cannot hang."""

    def do(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object) -> Answer:
        """See `Hands`."""
        return work(fds, *arguments)

    def pour(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object, emit: Emit) -> None:
        """See `Hands`."""
        work(fds, *arguments, emit)

    def feed(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object, stream: Stream) -> None:
        """See `Hands`."""
        work(fds, *arguments, stream)


HERE = Here()


@dataclass(frozen=True, slots=True)
class Opened:
    """A volume's data, or what lies at a subpath in it: a descriptor (O_PATH), its mode, and who may touch it."""

    fd: int
    mode: int
    hands: Hands


def opened_here(fd: int) -> Opened:
    """Describe what is open (O_PATH) at `fd`, where it cannot hang."""
    return Opened(fd, os.fstat(fd).st_mode, HERE)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Facts about a driver. `scope` is `local` or `global` (Docker plugin protocol, VolumeDriver.Capabilities)."""

    scope: str = "local"


@dataclass(frozen=True, slots=True)
class DriverVolume:
    """A volume that a driver reports of itself. `record` is set where the driver stored what the catalogue lost.

    `status` is the driver's own report, `mountpoint` may be empty, `created_at` is in seconds since the Unix epoch.
    """

    name: str
    record: VolumeRecord | None = None
    status: Mapping[str, Any] | None = None
    mountpoint: str = ""
    created_at: float | None = None


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

    def hands(self, record: VolumeRecord) -> Hands:
        """Give who may touch the volume's data."""

    def home(self, record: VolumeRecord) -> Path:
        """Give a folder of the engine that is the volume's alone: who copies into the volume holds its lock."""

    def open(self, record: VolumeRecord, subpath: str) -> Opened:
        """Open the mounted data, or what lies at `subpath` in it, never outside; the caller closes it.

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
