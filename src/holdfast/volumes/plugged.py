"""Volume plugins as the volume service sees them: their drivers, what they have, what a dead engine left in them.

What plugins have is kept in memory. A look at it asks all that do not have a question open, side by side, and waits for
a moment at most: one that is slow or gone is told of in a warning, and next time it is not waited for until it has
answered. So `volume ls` takes no longer than that, whatever the plugins do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from holdfast import log
from holdfast.errors import EngineError
from holdfast.plugins.registry import OtherKind
from holdfast.plugins.transport import Unreachable
from holdfast.store.intents import Intent
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes.drivers.base import DriverVolume
from holdfast.volumes.drivers.plugin import (
    CREATE_INTENT,
    IMPLEMENTS,
    MOUNT_INTENT,
    PluginDriver,
    PluginHost,
    decode_record,
)
from holdfast.volumes.model import ANONYMOUS_LABEL

logger = log.get(__name__)

WAIT_S = 0.5
"""How long a look at all plugins waits for those that answered the last time."""
_VOLUMES_MAX = 10_000


@dataclass(slots=True)
class _Seen:
    """What a plugin said last. `is_late` once it did not answer while somebody waited."""

    volumes: dict[str, DriverVolume] = field(default_factory=dict)
    warning: str = ""
    is_asked: bool = False
    is_late: bool = False


class Plugged:
    """The drivers of all plugins. Safe from any thread."""

    def __init__(self, host: PluginHost) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._drivers: dict[str, PluginDriver] = {}
        self._seen: dict[str, _Seen] = {}
        self._left: list[Intent] = []

    @property
    def names(self) -> Sequence[str]:
        """Give the names of the active volume plugins, from memory."""
        return sorted(self._host.plugins.active(IMPLEMENTS))

    def driver(self, name: str) -> PluginDriver:
        """Give the driver of a plugin that has volumes here, whether the plugin is there or not."""
        with self._changed:
            return self._drivers.setdefault(name, PluginDriver(name, self._host))

    def find(self, name: str) -> PluginDriver:
        """Give the driver of a plugin, active. Raises NotFound, Refused, Unreachable in Docker's words."""
        with self._changed:
            driver = self._drivers.get(name)
        driver = driver or PluginDriver(name, self._host)
        driver.look_up()
        with self._changed:
            return self._drivers.setdefault(name, driver)

    def look(self, known: frozenset[str] = frozenset(), *, wait_s: float = WAIT_S) -> Sequence[str]:
        """Ask all plugins what they have, and those named `known` too; give a warning for each that did not answer."""
        names = self._host.plugins.names() | known
        if not names:
            return ()
        deadline = time.monotonic() + wait_s
        with self._changed:
            for name in self._seen.keys() - names:
                del self._seen[name]
            awaited = []
            for name in sorted(names):
                seen = self._seen.setdefault(name, _Seen())
                if not seen.is_asked:
                    seen.is_asked = True
                    threading.Thread(target=self._ask, args=(name, seen), name="volume-plugin", daemon=True).start()
                if not seen.is_late:
                    awaited.append(seen)
            self._changed.wait_for(
                lambda: not any(seen.is_asked for seen in awaited), max(0.0, deadline - time.monotonic())
            )
            warnings = []
            for name in sorted(names):
                now = self._seen.get(name, _Seen())
                warning = now.warning
                if now.is_asked:
                    now.is_late = True
                    warning = warning or f"list {name}: the plugin has not answered yet"
                if warning and name in known | self._drivers.keys():  # else nobody knows that it has volumes at all
                    warnings.append(warning)
        return warnings

    def reported(self, driver: str, name: str) -> DriverVolume | None:
        """Give what a plugin last said of a volume, from memory."""
        with self._changed:
            seen = self._seen.get(driver)
            return seen.volumes.get(name) if seen else None

    def forget(self, record: VolumeRecord) -> None:
        """Drop what is remembered of a volume that is gone."""
        self.driver(record.driver).forget(record)
        with self._changed:
            seen = self._seen.get(record.driver)
            if seen is not None:
                seen.volumes.pop(record.name, None)

    def foreign(self) -> list[tuple[str, DriverVolume]]:
        """Give every volume that plugins last said they have, with the plugin's name."""
        with self._changed:
            return [(name, volume) for name, seen in sorted(self._seen.items()) for volume in seen.volumes.values()]

    def owner_of(self, volume: str) -> str:
        """Give the plugin that last said it has a volume of this name, empty if none did."""
        return next((name for name, reported in self.foreign() if reported.name == volume), "")

    # --- after a restart

    def remember(self) -> None:
        """Note what is open in the catalogue now: work of the engine before this one. To be called at its start."""
        for intent in self._host.intents.open():
            if intent.kind == MOUNT_INTENT:
                driver = self.driver(intent.details["driver"])
                driver.left_mounted(intent.subject, intent.details["name"], intent.details["id"], intent.id)
            elif intent.kind == CREATE_INTENT:
                self._left.append(intent)

    def settle(
        self, find: Callable[[str], VolumeRecord | None], settle_created: Callable[[VolumeRecord, bool], None]
    ) -> None:
        """Undo mounts that no container has, and see to creates that were not recorded.

        `find` gives a volume by name; `settle_created` records one that the plugin has, or has it removed if it is
        anonymous. What a plugin does not answer for stays noted, for the next start.
        """
        with self._changed:
            drivers = list(self._drivers.values())
        for driver in drivers:
            try:
                driver.undo_left()
            except EngineError as error:
                logger.warning("mounts of a plugin stay", extra={"plugin": driver.name, "error": error})
        for intent in self._left:
            record = decode_record(intent.details["record"])
            try:
                driver = self.driver(record.driver)
                if find(record.name) is None and driver.find(record.name) is not None:
                    settle_created(record, ANONYMOUS_LABEL in (record.labels or {}))
                self._host.intents.end(intent.id)
            except EngineError as error:
                facts = {"plugin": record.driver, "volume": record.name, "error": error}
                logger.warning("a volume that was not recorded stays", extra=facts)

    def close(self) -> None:
        """Fail whatever waits for a plugin, now and from now on."""
        self._host.plugins.close()

    def _ask(self, name: str, seen: _Seen) -> None:
        volumes, warning = None, ""
        try:
            volumes = {volume.name: volume for volume in self.find(name).list()[:_VOLUMES_MAX]}
        except OtherKind:
            volumes = {}
        except Unreachable as error:
            warning = f"list {name}: {error}"
        except EngineError as error:
            warning = f"list {name}: {error}"
            volumes = {}
        finally:
            with self._changed:
                if volumes is not None:
                    seen.volumes = volumes
                    seen.is_late = False
                seen.warning = warning
                seen.is_asked = False
                self._changed.notify_all()
