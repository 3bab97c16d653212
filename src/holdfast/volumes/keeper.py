"""What follows an acknowledged change in the background: flushing what was made, taking back the space of what went.

A created volume is safe once its row is on disk. Its directory follows within a second: until the row says `settled`,
`reconcile` makes it again after a power cut. Many creates share one flush that way.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from holdfast import log
from holdfast.errors import EngineError
from holdfast.store.volumes import VolumeRecord, VolumeTable
from holdfast.volumes.drivers.local import LocalDriver

logger = log.get(__name__)

_SETTLE_AFTER_S = 0.5


class Keeper:
    """One background thread, started when there is first something to do."""

    def __init__(self, table: VolumeTable, local: LocalDriver) -> None:
        self._table = table
        self._local = local
        self._changed = threading.Condition()
        self._unsettled: list[VolumeRecord] = []
        self._removed: list[VolumeRecord] = []
        self._stopping = False
        self._thread: threading.Thread | None = None

    def settle(self, records: Sequence[VolumeRecord]) -> None:
        """Flush these volumes' directories soon, then note it in their rows."""
        self._queue(self._unsettled, records)

    def reclaim(self, records: Sequence[VolumeRecord]) -> None:
        """Take back the space of these removed volumes, then drop their rows."""
        self._queue(self._removed, records)

    def close(self) -> None:
        """Flush what is not settled and stop; space not taken back yet is left to the next start."""
        with self._changed:
            self._stopping = True
            self._removed.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _queue(self, queue: list[VolumeRecord], records: Sequence[VolumeRecord]) -> None:
        if not records:
            return
        with self._changed:
            queue.extend(records)
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="volume-keeper", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsettled or self._removed or self._stopping)
                self._changed.wait_for(lambda: self._stopping, timeout=_SETTLE_AFTER_S)
                unsettled, removed = self._unsettled.copy(), self._removed.copy()
                self._unsettled.clear()
                self._removed.clear()
                stopping = self._stopping
            try:
                self._flush(unsettled)
                self._take_back(removed)
            except (EngineError, OSError) as error:
                logger.warning("background work on volumes failed", extra={"error": error})
            if stopping:
                return

    def _flush(self, records: Sequence[VolumeRecord]) -> None:
        if records:
            self._local.sync()
            self._table.settle([record.id for record in records])

    def _take_back(self, records: Sequence[VolumeRecord]) -> None:
        gone: list[str] = []
        for record in records:
            try:
                self._local.reclaim(record.id)
                gone.append(record.id)
            except OSError as error:
                logger.warning("cannot take back space", extra={"volume": record.name, "error": error})
        if gone:
            self._local.sync()
            self._table.forget(gone)
