"""Volumes of a Docker volume plugin, behind the interface of all drivers.

    mount      intent "volume.mount" → VolumeDriver.Mount {Name, ID} → where the data is, looked at by a worker
    unmount    VolumeDriver.Unmount with the same id → the intent ends
    create     VolumeDriver.Get: it may be there already → intent "volume.create" → VolumeDriver.Create
               → the volume's row → the intent ends

An intent of a mount is open for as long as the mount is, so those that an engine finds at its start and that no running
container holds are of a start that was never recorded: they are unmounted. A Mount that failed is never unmounted; one
that was not answered is, once the plugin is there again. A created volume without a row gets one, unless it is
anonymous: then nobody ever had it. See `volumes/plugged`.

The plugin is not trusted with more than its volumes: where it says that the data is must be an absolute path outside of
what is the engine's, and only workers look there. Source: Docker Engine documentation, "Docker volume plugins".
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from holdfast import faults, log
from holdfast.errors import EngineError, NotFound, System
from holdfast.plugins.registry import Document, Plugin, Plugins, Refused, Timeouts
from holdfast.plugins.transport import Unreachable
from holdfast.store.intents import IntentTable
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes import subpath as subpaths
from holdfast.volumes.drivers.base import Capabilities, DriverVolume, Hands, MountFailed, Opened

logger = log.get(__name__)

MOUNT_INTENT = "volume.mount"
CREATE_INTENT = "volume.create"
IMPLEMENTS = "VolumeDriver"
_LIST_LIMIT_BYTES = 8 << 20
_NAME_LIMIT = 4096
_KERNELS_OWN = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class PluginHost:
    """What the drivers of all plugins share.

    `hands` touch the data, `homes` is a folder for one folder a volume, `own` are roots of the engine: what a plugin
    gives must neither lie there nor contain them.
    """

    plugins: Plugins
    intents: IntentTable
    hands: Hands
    homes: Path
    own: Sequence[Path]


class PluginDriver:
    """A plugin as volume driver; it is looked for when it is first asked. Safe from any thread."""

    def __init__(self, name: str, host: PluginHost) -> None:
        self.name = name
        self._host = host
        self._guard = threading.Lock()
        self._scope = ""
        self._warned = False
        self._paths: dict[str, str] = {}
        self._mounts: dict[tuple[str, str], int] = {}
        self._doubtful: dict[str, dict[str, int]] = {}
        self._left: dict[tuple[str, str], tuple[str, int]] = {}
        self._created: dict[str, int] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Give what the plugin last said of itself; `local` as long as it has not been asked."""
        return Capabilities(self._scope or "local")

    def look_up(self) -> Plugin:
        """Find and activate the plugin. Raises NotFound, Refused, Unreachable; in Docker's words."""
        try:
            plugin = self._host.plugins.get(self.name, IMPLEMENTS)
        except EngineError as error:
            raise error.within(f"error looking up volume plugin {self.name}") from None
        if not self._scope:
            self._scope = self._ask_scope(plugin)
        return plugin

    def validate(self, name: str, options: Mapping[str, str] | None) -> None:
        """Check nothing: names and options are the plugin's business."""

    def create(self, record: VolumeRecord) -> None:
        """Have the plugin make the volume; `recorded` is to be called once it has a row."""
        plugin = self.look_up()
        details = {"driver": self.name, "name": record.name, "record": _encode(record)}
        intent = self._host.intents.begin(CREATE_INTENT, record.id, **details)
        faults.point("plugin-create-noted")
        request = {"Name": record.name, "Opts": None if record.options is None else dict(record.options)}
        try:
            self._work(plugin, "VolumeDriver.Create", request)
        except Unreachable:
            raise  # it may have been made: the intent stays
        except EngineError:
            self._host.intents.end(intent)
            raise
        with self._guard:
            self._created[record.id] = intent

    def recorded(self, record: VolumeRecord) -> None:
        """End what `create` intended: the volume has its row, or is gone."""
        with self._guard:
            intent = self._created.pop(record.id, None)
        if intent is not None:
            self._host.intents.end(intent)

    def find(self, name: str) -> DriverVolume | None:
        """Ask for one volume, None if the plugin has none of that name. Raises Unreachable, NotFound (the plugin)."""
        plugin = self.look_up()
        try:
            answer = self._ask(plugin, "VolumeDriver.Get", {"Name": name}).object("Volume")
            return None if answer is None else _volume(answer, name)
        except Refused as error:
            logger.debug("volume not found", extra={"plugin": self.name, "volume": name, "error": error})
            return None

    def list(self) -> Sequence[DriverVolume]:
        """Give all volumes that the plugin has, those with names that make no sense left out."""
        plugin = self.look_up()
        answer = self._ask(plugin, "VolumeDriver.List", {}, limit_bytes=_LIST_LIMIT_BYTES)
        entries = [Document(entry) for entry in answer.array("Volumes") if isinstance(entry, dict)]
        volumes = [_volume(entry, entry.text("Name")) for entry in entries]
        return [volume for volume in volumes if _is_name(volume.name)]

    def mountpoint(self, record: VolumeRecord) -> str:
        """Give the last path that the plugin gave, empty if it gave none yet."""
        return self._paths.get(record.id, "")

    def note_path(self, record: VolumeRecord, path: str) -> None:
        """Remember where the plugin says that a volume is; an empty path is no news."""
        if path:
            self._paths[record.id] = path

    def mount(self, record: VolumeRecord, mount_id: str) -> Path:
        """Have the plugin mount the volume and give its path; nothing is left mounted if that path makes no sense."""
        try:
            plugin = self.look_up()
            self._settle_doubts(plugin, record.id, record.name)
        except Unreachable as error:
            raise MountFailed(str(error), hint=error.hint) from None
        intent = self._host.intents.begin(MOUNT_INTENT, record.id, driver=self.name, name=record.name, id=mount_id)
        faults.point("plugin-mount-noted")
        try:
            answer = self._work(plugin, "VolumeDriver.Mount", {"Name": record.name, "ID": mount_id})
        except Unreachable as error:
            with self._guard:
                self._doubtful.setdefault(record.id, {})[mount_id] = intent
            raise MountFailed(str(error), hint=error.hint) from None
        except EngineError:
            self._host.intents.end(intent)
            raise
        faults.point("plugin-mounted")
        with self._guard:
            self._mounts[record.id, mount_id] = intent
        try:
            path = self._settle_path(plugin, record, answer.text("Mountpoint"))
        except BaseException:
            self.unmount(record, mount_id)
            raise
        self._paths[record.id] = path
        return Path(path)

    def left_mounted(self, volume_id: str, name: str, mount_id: str, intent: int) -> None:
        """Note a mount of the engine before this one: it is adopted, or undone by `undo_left`."""
        with self._guard:
            self._left[volume_id, mount_id] = (name, intent)

    def adopt(self, record: VolumeRecord, mount_id: str) -> None:
        """Count a mount that an earlier engine made."""
        with self._guard:
            _, intent = self._left.pop((record.id, mount_id), ("", 0))
            self._mounts.setdefault((record.id, mount_id), intent)

    def undo_left(self) -> None:
        """Undo the mounts of the engine before this one that were not adopted.

        Raises Unreachable, NotFound: they are undone before the volume's next mount then, or after the next start.
        """
        with self._guard:
            left = dict(self._left)
            self._left.clear()
            for (volume_id, mount_id), (_, intent) in left.items():
                self._doubtful.setdefault(volume_id, {})[mount_id] = intent
        for (volume_id, _), (name, _) in left.items():
            logger.info("undoing a mount that nobody has", extra={"plugin": self.name, "volume": name})
            self._settle_doubts(self.look_up(), volume_id, name)

    def unmount(self, record: VolumeRecord, mount_id: str) -> None:
        """Have the plugin unmount the volume. Not answered, it is tried again before the next mount or start."""
        with self._guard:
            intent = self._mounts.pop((record.id, mount_id), 0)
            if not any(volume_id == record.id for volume_id, _ in self._mounts):
                self._paths.pop(record.id, None)
        try:
            self._unmount(self.look_up(), record.name, mount_id)
        except (Unreachable, NotFound):
            if intent:
                with self._guard:
                    self._doubtful.setdefault(record.id, {})[mount_id] = intent
            raise
        except Refused:
            self._end(intent)
            raise
        faults.point("plugin-unmounted")
        self._end(intent)

    def hands(self, record: VolumeRecord) -> Hands:  # noqa: ARG002 - the interface
        """Give workers: nobody knows what is mounted there."""
        return self._host.hands

    def home(self, record: VolumeRecord) -> Path:
        """Give a folder of the volume's own, made when first asked for."""
        home = self._host.homes / record.id
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return home

    def open(self, record: VolumeRecord, subpath: str) -> Opened:
        """Open the mounted data, or what lies at `subpath` in it."""
        mode, (fd,) = self._host.hands.do(subpaths.open_mounted, (), self._paths.get(record.id, ""), subpath)
        assert isinstance(mode, int)
        return Opened(fd, mode, self._host.hands)

    def can_stage(self, record: VolumeRecord) -> bool:  # noqa: ARG002 - the interface
        """Say no: what lies beside the data is not ours."""
        return False

    def remove(self, record: VolumeRecord) -> None:
        """Have the plugin remove the volume, unless it does not have it any more."""
        plugin = self.look_up()
        if self.find(record.name) is None:
            logger.info("the plugin has no such volume any more", extra={"plugin": self.name, "volume": record.name})
        else:
            self._work(plugin, "VolumeDriver.Remove", {"Name": record.name}, timeout_s=self._timeouts.question)
        self.forget(record)

    def forget(self, record: VolumeRecord) -> None:
        """Drop what is remembered of a volume that is gone."""
        self._paths.pop(record.id, None)
        self.recorded(record)
        home = self._host.homes / record.id
        try:
            home.rmdir()
        except OSError as error:
            if home.exists():
                logger.warning("folder stays", extra={"path": home, "error": error})

    def size_bytes(self, record: VolumeRecord) -> int:  # noqa: ARG002 - the interface
        """Give -1: its data is not looked through."""
        return -1

    # --- inside

    @property
    def _timeouts(self) -> Timeouts:
        return self._host.plugins.timeouts

    def _ask(self, plugin: Plugin, method: str, request: object, **limits: int) -> Document:
        return plugin.call(method, request, self._timeouts.question, question=True, **limits)

    def _work(self, plugin: Plugin, method: str, request: object, timeout_s: float | None = None) -> Document:
        return plugin.call(method, request, timeout_s or self._timeouts.work, question=False)

    def _ask_scope(self, plugin: Plugin) -> str:
        """Ask for the scope; a plugin that knows no such call, or no such word, is local. Raises Unreachable."""
        try:
            answer = self._ask(plugin, "VolumeDriver.Capabilities", {}).object("Capabilities")
            scope = answer.text("Scope").lower() if answer is not None else ""
        except Refused:
            scope = ""
        if scope in ("local", "global"):
            return scope
        if scope:
            logger.warning("unknown scope, taken as local", extra={"plugin": self.name, "what": scope[:64]})
        return "local"

    def _settle_path(self, plugin: Plugin, record: VolumeRecord, given: str) -> str:
        """Give where the data really is. Raises System for a path that makes no sense, MountFailed."""
        if not given:
            given = self._ask(plugin, "VolumeDriver.Path", {"Name": record.name}).text("Mountpoint")
        check_path(self.name, given, self._host.own)
        try:
            found, _ = self._host.hands.do(subpaths.find_mounted, (), given)
        except OSError as error:
            raise System(f'plugin "{self.name}": stat {given}: {os.strerror(error.errno or 0).lower()}') from None
        path = str(found)
        check_path(self.name, path, self._host.own)
        return path

    def _settle_doubts(self, plugin: Plugin, volume_id: str, name: str) -> None:
        """Undo mounts of which nobody knows whether they are there. Raises Unreachable."""
        with self._guard:
            doubtful = dict(self._doubtful.get(volume_id, {}))
        for mount_id, intent in doubtful.items():
            try:
                self._unmount(plugin, name, mount_id)
            except Refused as error:
                logger.info("nothing to unmount", extra={"plugin": self.name, "volume": name, "error": error})
            self._end(intent)
            with self._guard:
                self._doubtful.get(volume_id, {}).pop(mount_id, None)

    def _unmount(self, plugin: Plugin, name: str, mount_id: str) -> None:
        request = {"Name": name, "ID": mount_id}
        self._work(plugin, "VolumeDriver.Unmount", request, timeout_s=self._timeouts.question)

    def _end(self, intent: int) -> None:
        if intent:
            self._host.intents.end(intent)


def check_path(plugin: str, path: str, own: Sequence[Path]) -> None:
    """Raise System if data cannot be at a path that a plugin gave. Pure."""
    names = path.split("/")
    wrong = ""
    if not path.startswith("/") or "\0" in path or ".." in names:
        wrong = "is no absolute path"
    else:
        given = Path(os.path.normpath(path))
        if any(given.is_relative_to(root) for root in _KERNELS_OWN):
            wrong = "is the kernel's"
        elif any(given.is_relative_to(root) or root.is_relative_to(given) for root in own):
            wrong = "is the engine's own"
    if wrong:
        raise System(f'plugin "{plugin}": the mountpoint {path[:256]!r} {wrong}')


def decode_record(text: str) -> VolumeRecord:
    """Give the record that an intent of `create` carries."""
    return VolumeRecord(**json.loads(text))


def _encode(record: VolumeRecord) -> str:
    return json.dumps(
        {
            "id": record.id,
            "name": record.name,
            "driver": record.driver,
            "pool": record.pool,
            "labels": None if record.labels is None else dict(record.labels),
            "options": None if record.options is None else dict(record.options),
            "created_at": record.created_at,
        }
    )


def _volume(answer: Document, name: str) -> DriverVolume:
    status = answer.plain("Status")
    try:
        msgspec.json.encode(status)
    except (RecursionError, TypeError, ValueError, OverflowError):
        status = None
    return DriverVolume(
        name, status=status, mountpoint=answer.text("Mountpoint"), created_at=_seconds(answer.text("CreatedAt"))
    )


def _seconds(text: str) -> float | None:
    """Decode RFC 3339; None for what is none, and for Go's zero time."""
    try:
        seconds = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _NAME_LIMIT and name.isprintable()
