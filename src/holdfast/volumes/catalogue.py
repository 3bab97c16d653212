"""The volumes and references of this engine in memory, backed row for row by the store.

The engine is the only writer of its store, so reading never touches the disk. A change is written first and shown
after: what a reader sees is always on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from holdfast.store.volumes import VolumeRecord, VolumeRef, VolumeTable

_by_name = attrgetter("name")


class Catalogue:
    """Volumes by name and who refers to them. Safe from any thread; callers hold the volume's lock to change it."""

    def __init__(self, table: VolumeTable) -> None:
        self._table = table
        self._guard = threading.Lock()
        self._records = {record.name: record for record in self._table.all()}
        self._names = {record.id: record.name for record in self._records.values()}
        self._refs: dict[str, dict[str, bool]] = {}
        self._held: dict[str, set[str]] = {}
        self._remember(self._table.refs())

    def get(self, name: str) -> VolumeRecord | None:
        """Give the volume of this name."""
        return self._records.get(name)

    def all(self) -> list[VolumeRecord]:
        """Give every volume, by name."""
        with self._guard:
            records = list(self._records.values())
        return sorted(records, key=_by_name)

    def refs(self, record: VolumeRecord) -> list[str]:
        """Give the ids of the containers that refer to a volume, sorted."""
        with self._guard:
            return sorted(self._refs.get(record.id, ()))

    def is_referenced(self, record: VolumeRecord) -> bool:
        """Tell whether any container refers to the volume."""
        return bool(self._refs.get(record.id))

    def holders(self) -> list[str]:
        """Give every container that holds a reference."""
        with self._guard:
            return sorted(self._held)

    def held_by(self, container_id: str) -> list[tuple[VolumeRecord, bool]]:
        """Give the volumes that a container holds, each with whether it holds it anonymously."""
        with self._guard:
            return [
                (self._records[self._names[volume_id]], self._refs[volume_id][container_id])
                for volume_id in sorted(self._held.get(container_id, ()))
            ]

    def add(self, records: Sequence[VolumeRecord], refs: Sequence[VolumeRef] = ()) -> None:
        """Record volumes and references, on disk when this returns."""
        self._table.add(records, refs)
        self._show(records)
        self._remember(refs)

    def remove(self, record: VolumeRecord, removed_at: float, expires_at: float) -> None:
        """Move a volume to the trash; that it is removed is on disk when this returns."""
        self._table.remove(record.id, removed_at, expires_at)
        self._drop(record)

    def restore(self, record: VolumeRecord) -> None:
        """Take a volume back out of the trash, under the record's name; on disk when this returns."""
        self._table.restore(record.id, record.name)
        self._show([record])

    def relabel(self, record: VolumeRecord, labels: Mapping[str, str] | None) -> VolumeRecord:
        """Give a volume other labels, on disk when this returns."""
        self._table.relabel(record.id, labels)
        return self._change(replace(record, labels=labels))

    def protect(self, record: VolumeRecord, by: str, at: float) -> VolumeRecord:
        """Note who protects a volume since when, on disk when this returns; an empty `by` ends it."""
        self._table.protect(record.id, by, at)
        return self._change(replace(record, protected_by=by, protected_at=at))

    def lose(self, record: VolumeRecord) -> None:
        """Drop a volume whose data is gone, on disk when this returns."""
        self._table.forget([record.id])
        self._drop(record)

    def release(self, container_ids: Sequence[str]) -> None:
        """Drop every reference of these containers, on disk when this returns."""
        if not any(self._held.get(container_id) for container_id in container_ids):
            return
        self._table.release(container_ids)
        with self._guard:
            for container_id in container_ids:
                for volume_id in self._held.pop(container_id, ()):
                    self._refs[volume_id].pop(container_id, None)

    def _show(self, records: Sequence[VolumeRecord]) -> None:
        with self._guard:
            for record in records:
                self._records[record.name] = record
                self._names[record.id] = record.name

    def _change(self, record: VolumeRecord) -> VolumeRecord:
        self._show([record])
        return record

    def _drop(self, record: VolumeRecord) -> None:
        with self._guard:
            self._records.pop(record.name, None)
            self._names.pop(record.id, None)
            for container_id in self._refs.pop(record.id, ()):
                self._held[container_id].discard(record.id)

    def _remember(self, refs: Sequence[VolumeRef]) -> None:
        with self._guard:
            for ref in refs:
                self._refs.setdefault(ref.volume_id, {}).setdefault(ref.container_id, ref.anonymous)
                self._held.setdefault(ref.container_id, set()).add(ref.volume_id)
