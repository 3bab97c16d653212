"""Rows of volumes and of the references that containers hold on them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.store.database import Database

VOLUME_TABLES = """
CREATE TABLE volumes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    driver TEXT NOT NULL,
    pool TEXT NOT NULL,
    labels TEXT,
    options TEXT,
    created_at REAL NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0,
    protected_by TEXT NOT NULL DEFAULT '',
    protected_at REAL NOT NULL DEFAULT 0,
    removed_at REAL,
    expires_at REAL,
    purging INTEGER NOT NULL DEFAULT 0,
    trash_bytes INTEGER
) STRICT;
CREATE UNIQUE INDEX volumes_by_name ON volumes (name) WHERE removed_at IS NULL;
CREATE INDEX volumes_unsettled ON volumes (settled) WHERE settled = 0;
CREATE TABLE volume_refs (
    volume_id TEXT NOT NULL REFERENCES volumes (id),
    container_id TEXT NOT NULL,
    anonymous INTEGER NOT NULL,
    PRIMARY KEY (container_id, volume_id)
) STRICT, WITHOUT ROWID;
"""


_COLUMNS = "id, name, driver, pool, labels, options, created_at, protected_by, protected_at"


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """What the catalogue knows of a volume.

    `id` never changes and is never reused; `name` is free again once the volume is removed. `labels` and `options`
    are exactly what create received, None included. Times are in seconds since the Unix epoch. `protected_by` names who
    protected it against removal, and is empty if nobody did.
    """

    id: str
    name: str
    driver: str
    pool: str
    labels: Mapping[str, str] | None
    options: Mapping[str, str] | None
    created_at: float
    protected_by: str = ""
    protected_at: float = 0.0


@dataclass(frozen=True, slots=True)
class TrashRecord:
    """A removed volume that can be had back until `expires_at`. `size_bytes` is None until it was measured."""

    volume: VolumeRecord
    removed_at: float
    expires_at: float
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class VolumeRef:
    """A container's hold on a volume; `anonymous` when the container did not name it."""

    volume_id: str
    container_id: str
    anonymous: bool


class VolumeTable:
    """Volumes and references. Every write is on disk when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, records: Sequence[VolumeRecord], refs: Sequence[VolumeRef] = ()) -> None:
        """Add volumes and references in one transaction. A reference that is there already stays as it is."""

        def work(connection: sqlite3.Connection) -> None:
            for record in records:
                connection.execute(
                    "INSERT INTO volumes (id, name, driver, pool, labels, options, created_at) VALUES (?,?,?,?,?,?,?)",
                    (
                        record.id,
                        record.name,
                        record.driver,
                        record.pool,
                        _to_json(record.labels),
                        _to_json(record.options),
                        record.created_at,
                    ),
                )
            connection.executemany(
                "INSERT OR IGNORE INTO volume_refs (volume_id, container_id, anonymous) VALUES (?, ?, ?)",
                [(ref.volume_id, ref.container_id, int(ref.anonymous)) for ref in refs],
            )

        self._database.write(work)

    def settle(self, volume_ids: Sequence[str]) -> None:
        """Note that what the drivers made for these volumes has reached the disk."""
        self._database.write(
            lambda connection: connection.executemany(
                "UPDATE volumes SET settled = 1 WHERE id = ?", [(volume_id,) for volume_id in volume_ids]
            )
        )

    def relabel(self, volume_id: str, labels: Mapping[str, str] | None) -> None:
        """Replace a volume's labels; it is settled once the record beside its data says so too."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE volumes SET labels = ?, settled = 0 WHERE id = ?", (_to_json(labels), volume_id)
            )
        )

    def protect(self, volume_id: str, by: str, at: float) -> None:
        """Note who protects a volume since when; an empty `by` ends it. Settled as for `relabel`."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE volumes SET protected_by = ?, protected_at = ?, settled = 0 WHERE id = ?",
                (by, at, volume_id),
            )
        )

    def remove(self, volume_id: str, removed_at: float, expires_at: float) -> None:
        """Move a volume to the trash and drop every reference to it; its name is free, its row stays."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM volume_refs WHERE volume_id = ?", (volume_id,))
            connection.execute(
                "UPDATE volumes SET removed_at = ?, expires_at = ? WHERE id = ?", (removed_at, expires_at, volume_id)
            )

        self._database.write(work)

    def restore(self, volume_id: str, name: str) -> None:
        """Bring a volume back from the trash under a name. Raises sqlite3.IntegrityError if the name is taken."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE volumes SET removed_at = NULL, expires_at = NULL, trash_bytes = NULL, name = ? WHERE id = ?",
                (name, volume_id),
            )
        )

    def measure(self, volume_id: str, size_bytes: int) -> None:
        """Note how much a volume in the trash takes."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE volumes SET trash_bytes = ? WHERE id = ?", (size_bytes, volume_id)
            )
        )

    def purge(self, volume_ids: Sequence[str]) -> None:
        """Note that these volumes are being deleted for good: from now on they cannot be had back."""
        self._database.write(
            lambda connection: connection.executemany(
                "UPDATE volumes SET purging = 1 WHERE id = ? AND removed_at IS NOT NULL",
                [(volume_id,) for volume_id in volume_ids],
            )
        )

    def forget(self, volume_ids: Sequence[str]) -> None:
        """Drop the rows of removed volumes whose space is taken back, or of volumes that are lost."""

        def work(connection: sqlite3.Connection) -> None:
            for table, column in (("volume_refs", "volume_id"), ("volumes", "id")):
                connection.executemany(
                    f"DELETE FROM {table} WHERE {column} = ?", [(volume_id,) for volume_id in volume_ids]
                )

        self._database.write(work)

    def release(self, container_ids: Sequence[str]) -> None:
        """Drop every reference that these containers hold."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM volume_refs WHERE container_id = ?", [(container_id,) for container_id in container_ids]
            )

        self._database.write(work)

    def all(self) -> list[VolumeRecord]:
        """Give every volume that is not removed, by name."""
        return self._select("removed_at IS NULL")

    def removed(self) -> list[VolumeRecord]:
        """Give every removed volume that still has a row, those that are being deleted too."""
        return self._select("removed_at IS NOT NULL")

    def trash(self) -> list[TrashRecord]:
        """Give the removed volumes that can be had back, the last removed first."""
        rows = self._database.read(
            lambda connection: connection.execute(
                f"SELECT {_COLUMNS}, removed_at, expires_at, trash_bytes FROM volumes"
                " WHERE removed_at IS NOT NULL AND purging = 0 ORDER BY removed_at DESC"
            ).fetchall()
        )
        return [TrashRecord(_record(row), *row[9:]) for row in rows]

    def purging(self) -> list[VolumeRecord]:
        """Give the removed volumes whose deletion has begun."""
        return self._select("purging = 1")

    def unsettled(self) -> list[VolumeRecord]:
        """Give the volumes, removed ones too, whose directories may not have reached the disk."""
        return self._select("settled = 0")

    def _select(self, condition: str) -> list[VolumeRecord]:
        rows = self._database.read(
            lambda connection: connection.execute(
                f"SELECT {_COLUMNS} FROM volumes WHERE {condition} ORDER BY name"
            ).fetchall()
        )
        return [_record(row) for row in rows]

    def refs(self) -> list[VolumeRef]:
        """Give every reference."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT volume_id, container_id, anonymous FROM volume_refs ORDER BY container_id, volume_id"
            ).fetchall()
        )
        return [VolumeRef(row[0], row[1], bool(row[2])) for row in rows]


def _record(row: Sequence[Any]) -> VolumeRecord:
    """Make the record of a row whose first columns are `_COLUMNS`."""
    return VolumeRecord(row[0], row[1], row[2], row[3], _from_json(row[4]), _from_json(row[5]), row[6], row[7], row[8])


def _to_json(mapping: Mapping[str, str] | None) -> str | None:
    return None if mapping is None else json.dumps(dict(mapping), ensure_ascii=False)


def _from_json(text: str | None) -> Mapping[str, str] | None:
    if text is None:
        return None
    mapping: Mapping[str, str] = json.loads(text)
    return mapping
