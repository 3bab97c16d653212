"""What follows an acknowledged change in the background: flushing what was made, emptying the trash in time.

A created volume is safe once its row is on disk. Its directory follows within a second: until the row says `settled`,
`reconcile` makes it again after a power cut. Many creates share one flush that way.

A removed volume stays in the trash until it expires. If the trash takes more than its limit, the oldest goes early, but
never within the grace time: one command, however large, can always be undone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from holdfast import faults, log
from holdfast.errors import EngineError
from holdfast.store.volumes import TrashRecord, VolumeRecord, VolumeTable
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.model import TrashPolicy

logger = log.get(__name__)

_SETTLE_AFTER_S = 0.5
_LOOK_EVERY_S = 60.0


class Keeper:
    """One background thread, started when there is first something to do."""

    def __init__(self, table: VolumeTable, local: LocalDriver, policy: TrashPolicy) -> None:
        self._table = table
        self._local = local
        self._policy = policy
        self._changed = threading.Condition()
        self._unsettled: list[VolumeRecord] = []
        self._look = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.purging = threading.Lock()
        """Held while it is decided what leaves the trash; whoever takes something back holds it too."""

    def settle(self, records: Sequence[VolumeRecord]) -> None:
        """Flush these volumes' directories soon, then note it in their rows."""
        if records:
            self._wake(records)

    def look_at_trash(self) -> None:
        """See soon what in the trash has expired or is too much."""
        self._wake()

    def close(self) -> None:
        """Flush what is not settled and stop; what expired meanwhile is left to the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def empty(self, records: Sequence[TrashRecord]) -> None:
        """Delete volumes in the trash for good, in the background; they cannot be had back from now on."""
        with self.purging:
            self._table.purge([entry.volume.id for entry in records])
        self._wake()

    def _wake(self, unsettled: Sequence[VolumeRecord] = ()) -> None:
        with self._changed:
            self._unsettled.extend(unsettled)
            self._look = True
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="volume-keeper", daemon=True)
                self._thread.start()
            self._changed.notify()

    def catch_up(self, *, purge: bool = True) -> None:
        """Do now what is due: flush what is not settled and, with `purge`, see to the trash. Logs what fails."""
        with self._changed:
            unsettled = self._unsettled.copy()
            self._unsettled.clear()
        try:
            if unsettled:
                self._local.sync_made(unsettled)
                self._table.settle([record.id for record in unsettled])
            if purge:
                self._expire()
                self._purge()
        except (EngineError, OSError) as error:
            logger.warning("background work on volumes failed", extra={"error": error})

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._look or self._stopping, timeout=_LOOK_EVERY_S)
                if self._look:
                    self._changed.wait_for(lambda: self._stopping, timeout=_SETTLE_AFTER_S)
                self._look = False
                stopping = self._stopping
            self.catch_up(purge=not stopping)
            if stopping:
                return

    def _expire(self) -> None:
        """Decide what leaves the trash now."""
        with self.purging:
            trash = [self._measured(entry) for entry in self._table.trash()]
            going = expired(trash, time.time(), self._policy, self._local.capacity_bytes)
            if going:
                self._table.purge([entry.volume.id for entry in going])
        for entry in going:
            logger.info("volume leaves the trash", extra={"volume": entry.volume.name, "removed_at": entry.removed_at})

    def _measured(self, entry: TrashRecord) -> TrashRecord:
        if entry.size_bytes is not None or entry.expires_at <= entry.removed_at:
            return entry
        size_bytes = self._local.trash_size_bytes(entry.volume)
        self._table.measure(entry.volume.id, size_bytes)
        return TrashRecord(entry.volume, entry.removed_at, entry.expires_at, size_bytes)

    def _purge(self) -> None:
        gone: list[str] = []
        for record in self._table.purging():
            try:
                self._local.reclaim(record)
                gone.append(record.id)
            except OSError as error:
                logger.warning("cannot take back space", extra={"volume": record.name, "error": error})
        if gone:
            faults.point("volume-purged-not-forgotten")
            self._local.sync()
            self._table.forget(gone)


def expired(trash: Sequence[TrashRecord], now: float, policy: TrashPolicy, capacity_bytes: int) -> list[TrashRecord]:
    """Choose what leaves the trash: what has expired, then the oldest beyond the limit that are past the grace time.

    `trash` comes with the last removed first. Pure.
    """
    limit_bytes = policy.limit_bytes or capacity_bytes // 10
    going, kept_bytes = [], 0
    for entry in trash:
        kept_bytes += entry.size_bytes or 0
        over = kept_bytes > limit_bytes and entry.removed_at + policy.grace_s <= now
        if entry.expires_at <= now or over:
            going.append(entry)
            kept_bytes -= entry.size_bytes or 0
    return going
