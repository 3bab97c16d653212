"""Undo: removed volumes, taken back byte for byte with their labels and options.

A removal is a rename into the trash and a mark in the volume's row, so taking it back is the reverse of both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from holdfast import faults, log
from holdfast.errors import Conflict, InvalidParameter, NotFound, System
from holdfast.events import EventBus
from holdfast.locks import NamedLocks
from holdfast.store.volumes import TrashRecord, VolumeRecord, VolumeTable
from holdfast.volumes.catalogue import Catalogue
from holdfast.volumes.drivers.base import VolumeDriver
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.keeper import Keeper

logger = log.get(__name__)

_LOST_MAX = 64
SAME_COMMAND_S = 10.0
"""`undo` takes back what was removed within this time of the last removal: `compose down -v` is many calls."""


class Trash:
    """The removed volumes. Calls block; safe from any thread."""

    def __init__(
        self,
        table: VolumeTable,
        catalogue: Catalogue,
        keeper: Keeper,
        local: LocalDriver,
        locks: NamedLocks,
        events: EventBus,
        driver_of: Callable[[str], VolumeDriver],
        settle: Callable[[VolumeRecord], None],
    ) -> None:
        """`settle` sees to the content of a volume before it is shown again."""
        self._table = table
        self._catalogue = catalogue
        self._keeper = keeper
        self._local = local
        self._locks = locks
        self._events = events
        self._driver_of = driver_of
        self._settle = settle
        self._lost: deque[tuple[VolumeRecord, float]] = deque(maxlen=_LOST_MAX)

    def note_lost(self, record: VolumeRecord, at: float) -> None:
        """Remember that a plugin's volume was removed, which cannot be taken back, at `at` (Unix epoch)."""
        self._lost.append((record, at))

    def list(self) -> Sequence[TrashRecord]:
        """Give what can be had back, the last removed first. What is not to be kept does not show."""
        return [entry for entry in self._table.trash() if entry.expires_at > entry.removed_at]

    def restore(self, reference: str, new_name: str = "") -> VolumeRecord:
        """Take back the volume that `reference` names: a name (the last removed of it), an id or a unique start of one.

        It comes back under `new_name`, else under its own name. Raises NotFound, InvalidParameter, Conflict if the name
        is taken by another volume now.
        """
        entry = self._find(reference)
        if new_name:
            self._driver_of(entry.volume.driver).validate(new_name, entry.volume.options)
        return self._take_back(entry, new_name or entry.volume.name)

    def undo(self) -> Sequence[VolumeRecord]:
        """Take back everything that the last removal removed: see SAME_COMMAND_S.

        Raises NotFound if there is nothing, Conflict if a name is taken now, or if the last removal was a plugin's;
        nothing is taken back then.
        """
        trash = self.list()
        if self._lost:
            lost, at = self._lost[-1]
            if not trash or at - trash[0].removed_at > SAME_COMMAND_S:
                raise _kept_by_nobody(lost, "undo")
        if not trash:
            raise NotFound("undo: the trash is empty")
        last = [trash[0]]
        for entry in trash[1:]:
            if last[-1].removed_at - entry.removed_at > SAME_COMMAND_S:
                break
            last.append(entry)
        newest = {entry.volume.name: entry for entry in reversed(last)}
        for name, entry in newest.items():
            if self._catalogue.get(name) is not None:
                raise _taken(entry, name).within("undo")
        return [self._take_back(entry, name) for name, entry in sorted(newest.items())]

    def empty(self, references: Sequence[str] = ()) -> Sequence[TrashRecord]:
        """Delete volumes in the trash for good: those named, else all. Raises NotFound for one that is not there."""
        entries = [self._find(reference) for reference in references] if references else self._table.trash()
        self._keeper.empty(entries)
        return entries

    def _find(self, reference: str) -> TrashRecord:
        trash = self.list()
        for entry in trash:
            if entry.volume.name == reference or entry.volume.id == reference:
                return entry
        found = [entry for entry in trash if len(reference) >= 4 and entry.volume.id.startswith(reference)]
        if len(found) > 1:
            raise InvalidParameter(f"restore {reference}: several volumes in the trash have ids that start so")
        if not found:
            for lost, _ in self._lost:
                if lost.name == reference:
                    raise _kept_by_nobody(lost, f"restore {reference}")
            raise NotFound(f"restore {reference}: no such volume in the trash", hint="holdfast volume trash ls")
        return found[0]

    def _take_back(self, entry: TrashRecord, name: str) -> VolumeRecord:
        record = replace(entry.volume, name=name)
        with self._locks.hold(name), self._keeper.purging:
            if self._catalogue.get(name) is not None:
                raise _taken(entry, name)
            if all(other.volume.id != record.id for other in self._table.trash()):
                raise NotFound(f"restore {name}: it has just left the trash")
            try:
                self._local.take_back(record)
                faults.point("volume-taken-back-not-recorded")
            except OSError as error:
                raise System(f"restore {name}: {error.strerror}") from error
            self._settle(record)
            self._catalogue.restore(record)
        logger.info("volume taken back", extra={"volume": name, "id": record.id})
        self._events.publish("volume", "create", name, {"driver": record.driver})
        return record


def _kept_by_nobody(record: VolumeRecord, what: str) -> Conflict:
    return Conflict(
        f"{what}: volume {record.name} was removed by its plugin {record.driver}: it cannot be taken back",
        hint="holdfast volume trash ls shows what can be taken back by name",
    )


def _taken(entry: TrashRecord, name: str) -> Conflict:
    return Conflict(
        f"restore {entry.volume.name}: there is a volume {name} already",
        hint=f"holdfast volume trash restore {entry.volume.id[:12]} --name NEW-NAME",
    )
