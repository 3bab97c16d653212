"""Rows of containers: what was asked for, and the state it is in.

`document` is written at create, rename and update; `state` at every change of state that must outlive the engine. Both
are JSON whose shape belongs to the containers room.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from holdfast.errors import Conflict
from holdfast.store.database import Database
from holdfast.store.intents import end_intent

CONTAINER_TABLES = """
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image_id TEXT NOT NULL,
    document BLOB NOT NULL,
    state BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """One container; `name` is without the leading slash."""

    id: str
    name: str
    image_id: str
    document: bytes
    state: bytes


class ContainerTable:
    """The SQL of containers. Every write is on disk when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: ContainerRow, *, intent: int | None = None) -> None:
        """Record a new container and end its intent. Raises Conflict if the id or the name is taken."""

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "INSERT INTO containers (id, name, image_id, document, state) VALUES (?, ?, ?, ?, ?)",
                    (row.id, row.name, row.image_id, row.document, row.state),
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(f"the container name {row.name!r} is already in use") from error
            end_intent(connection, intent)

        self._database.write(work)

    def save_state(self, container_id: str, state: bytes) -> None:
        """Replace the state; a container that is gone is left gone."""
        self._database.write(
            lambda connection: connection.execute("UPDATE containers SET state = ? WHERE id = ?", (state, container_id))
        )

    def save_document(self, container_id: str, document: bytes, *, intent: int | None = None) -> None:
        """Replace what was asked for and end the intent."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE containers SET document = ? WHERE id = ?", (document, container_id))
            end_intent(connection, intent)

        self._database.write(work)

    def rename(self, container_id: str, name: str, document: bytes) -> None:
        """Replace the name. Raises Conflict if it is taken."""

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "UPDATE containers SET name = ?, document = ? WHERE id = ?", (name, document, container_id)
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(f"the container name {name!r} is already in use") from error

        self._database.write(work)

    def remove(self, container_id: str, *, intent: int | None = None) -> None:
        """Forget a container and end the intent; nothing else happens if it is not there."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM containers WHERE id = ?", (container_id,))
            end_intent(connection, intent)

        self._database.write(work)

    def all(self) -> list[ContainerRow]:
        """Give every container, by id."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id, name, image_id, document, state FROM containers ORDER BY id"
            ).fetchall()
        )
        return [ContainerRow(*row) for row in rows]
