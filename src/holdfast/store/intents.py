"""Intents: what the engine is about to do to the world outside its catalogue, recorded before it does it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.store.database import Database

INTENT_TABLES = """
CREATE TABLE intents (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Intent:
    """Work that was begun and not yet recorded as done. `created_at` is in seconds since the Unix epoch."""

    id: int
    kind: str
    subject: str
    details: Mapping[str, str]
    created_at: float


class IntentTable:
    """The intents that are open. Whoever begins one ends it in the transaction that records the result."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, kind: str, subject: str, **details: str) -> int:
        """Record an intent, on disk when this returns, and give its id."""

        def work(connection: sqlite3.Connection) -> int:
            cursor = connection.execute(
                "INSERT INTO intents (kind, subject, details, created_at) VALUES (?, ?, ?, ?)",
                (kind, subject, json.dumps(details), time.time()),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

        return self._database.write(work)

    def note(self, intent_id: int, **details: str) -> None:
        """Add to what an open intent says of its work, on disk when this returns; one that has ended stays so."""

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT details FROM intents WHERE id = ?", (intent_id,)).fetchone()
            if row is not None:
                merged = {**json.loads(row[0]), **details}
                connection.execute("UPDATE intents SET details = ? WHERE id = ?", (json.dumps(merged), intent_id))

        self._database.write(work)

    def end(self, intent_id: int) -> None:
        """Forget an intent: its work is done or undone."""
        self._database.write(lambda connection: end_intent(connection, intent_id))

    def open(self) -> list[Intent]:
        """Give every open intent, oldest first."""
        rows = self._database.read(
            lambda connection: connection.execute(
                "SELECT id, kind, subject, details, created_at FROM intents ORDER BY id"
            ).fetchall()
        )
        return [Intent(row[0], row[1], row[2], json.loads(row[3]), row[4]) for row in rows]


def end_intent(connection: sqlite3.Connection, intent_id: int | None) -> None:
    """Forget an intent inside a transaction of another table; None is nothing to forget."""
    if intent_id is not None:
        connection.execute("DELETE FROM intents WHERE id = ?", (intent_id,))
