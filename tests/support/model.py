"""A small model of what containers and volumes do to each other, to compare an engine with.

It knows names, labels, contents, protection, references and the trash, and nothing of how any of it is done. Anonymous
volumes are called `CONTAINER:DESTINATION` until the test has learned their names (`rename`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

from tests.support.files import Files

SAME_COMMAND_S = 10.0


class Refused(Exception):
    """What the engine must answer with the status in `args`."""


@dataclass(frozen=True)
class Volume:
    """A volume, with everything in it. `doubtful`: the engine says itself that content may be lost."""

    labels: Mapping[str, str] = field(default_factory=dict)
    files: Files = ()
    protected: bool = False
    anonymous: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class Mount:
    """A volume in a container; `anonymous` when the container did not name it."""

    volume: str
    anonymous: bool = False


@dataclass(frozen=True)
class Container:
    """A container: its mounts by destination."""

    mounts: Mapping[str, Mount]
    auto_remove: bool = False
    running: bool = False


@dataclass(frozen=True)
class Removed:
    """A volume in the trash."""

    name: str
    volume: Volume
    at: float = 0.0


@dataclass
class Model:
    """Everything that is there. Methods do what the request of that name does, or raise Refused."""

    volumes: dict[str, Volume] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    trash: list[Removed] = field(default_factory=list)
    """The last removed last."""

    def copy(self) -> Model:
        """The same, to be changed."""
        return deepcopy(self)

    def users(self, name: str) -> set[str]:
        """The containers that refer to a volume."""
        return {
            key for key, box in self.containers.items() if any(mount.volume == name for mount in box.mounts.values())
        }

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self.volumes.setdefault(name, Volume(labels=labels))

    def remove_volume(self, name: str) -> None:
        volume = self._volume(name)
        if self.users(name) or volume.protected:
            raise Refused(409)
        self._to_trash(name)

    def change_volume(self, name: str, *, labels: Mapping[str, str] | None = None, protected: bool = False) -> None:
        volume = self._volume(name)
        if labels is None:
            self.volumes[name] = replace(volume, protected=protected)
        else:  # that it is anonymous is a label, too
            self.volumes[name] = replace(volume, labels=labels, anonymous=False)

    def prune(self, *, everything: bool) -> None:
        for name, volume in sorted(self.volumes.items()):
            if (everything or volume.anonymous) and not volume.protected and not self.users(name):
                self._to_trash(name)

    def last_removed(self) -> list[Removed]:
        """What `undo` takes back: all that was removed with the last, the newest of each name."""
        last = self.trash[-1:]
        for entry in reversed(self.trash[:-1]):
            if last[-1].at - entry.at > SAME_COMMAND_S:
                break
            last.append(entry)
        return list({entry.name: entry for entry in reversed(last)}.values())

    def undo(self) -> None:
        last = self.last_removed()
        if not last:
            raise Refused(404)
        if any(entry.name in self.volumes for entry in last):
            raise Refused(409)
        for entry in last:
            self._take_back(entry, entry.name)

    def restore(self, name: str, new_name: str) -> None:
        found = [entry for entry in self.trash if entry.name == name]
        if not found:
            raise Refused(404)
        if new_name in self.volumes:
            raise Refused(409)
        self._take_back(found[-1], new_name)

    def create_container(
        self, name: str, mounts: Mapping[str, str], inherited: Sequence[str], content: Mapping[str, Files], *,
        auto_remove: bool,
    ) -> None:  # fmt: skip
        """`mounts` maps destinations to volumes, "" to an anonymous one; `content` is what the image has there.

        An anonymous one yields to what is inherited from other containers, a named one does not.
        """
        if name in self.containers:
            raise Refused(409)
        if any(source not in self.containers for source in inherited):
            raise Refused(400)
        points = {at: mount for source in inherited for at, mount in self.containers[source].mounts.items()}
        own = {at: Mount(volume) for at, volume in mounts.items() if volume}
        own |= {at: Mount(f"{name}:{at}", anonymous=True) for at in mounts.keys() - own.keys() - points.keys()}
        for at, mount in sorted(own.items()):
            volume = self.volumes.get(mount.volume, Volume(anonymous=mount.anonymous))
            self.volumes[mount.volume] = replace(volume, files=volume.files or content.get(at, ()))
        points |= own
        self.containers[name] = Container(points, auto_remove)

    def start(self, name: str, writes: tuple[str, int, bytes] | None) -> None:
        """Start a container that runs on, or one that writes a file into every mount and ends."""
        box = self._container(name)
        if box.running:
            raise Refused(304)
        self.containers[name] = replace(box, running=writes is None)
        if writes is not None:
            for mount in box.mounts.values():
                volume = self.volumes[mount.volume]
                kept = [entry for entry in volume.files if entry[0] != writes[0]]
                self.volumes[mount.volume] = replace(volume, files=tuple(sorted([*kept, writes])))
            self._ended(name)

    def stop(self, name: str) -> None:
        if not self._container(name).running:
            raise Refused(304)
        self.containers[name] = replace(self.containers[name], running=False)
        self._ended(name)

    def remove_container(self, name: str, *, force: bool, volumes: bool) -> None:
        box = self._container(name)
        if box.running and not force:
            raise Refused(409)
        del self.containers[name]
        for mount in box.mounts.values() if volumes else ():
            volume = self.volumes.get(mount.volume)
            if mount.anonymous and volume and not volume.protected and not self.users(mount.volume):
                self._to_trash(mount.volume, keep=not box.auto_remove)

    def reboot(self) -> None:
        """The machine was off: nothing runs, and what removes itself when it ends is gone."""
        for name, box in list(self.containers.items()):
            if box.running:
                self.stop(name)

    def rename(self, name: str, new_name: str) -> None:
        """Call an anonymous volume by the name that the engine gave it."""
        self.volumes[new_name] = self.volumes.pop(name)
        for key, box in self.containers.items():
            mounts = {at: replace(m, volume=new_name) if m.volume == name else m for at, m in box.mounts.items()}
            self.containers[key] = replace(box, mounts=mounts)

    def _ended(self, name: str) -> None:
        if self.containers[name].auto_remove:
            self.remove_container(name, force=False, volumes=True)

    def _volume(self, name: str) -> Volume:
        if name not in self.volumes:
            raise Refused(404)
        return self.volumes[name]

    def _container(self, name: str) -> Container:
        if name not in self.containers:
            raise Refused(404)
        return self.containers[name]

    def _to_trash(self, name: str, *, keep: bool = True) -> None:
        volume = self.volumes.pop(name)
        if keep:
            self.trash.append(Removed(name, volume))

    def _take_back(self, entry: Removed, name: str) -> None:
        self.trash.remove(entry)
        self.volumes[name] = entry.volume
