"""The catalogue's file: shared commits, failures kept apart, migrations."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from holdfast.errors import System
from holdfast.store.database import Database

TABLE = ("CREATE TABLE t (k TEXT PRIMARY KEY) STRICT;",)


def insert(database: Database, key: str) -> None:
    database.write(lambda connection: connection.execute("INSERT INTO t VALUES (?)", (key,)))


def keys(database: Database) -> list[str]:
    return [row[0] for row in database.read(lambda c: c.execute("SELECT k FROM t ORDER BY k").fetchall())]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", TABLE)
    insert(database, "a")
    assert keys(database) == ["a"]
    database.close()
    database = Database(tmp_path / "db", TABLE)
    assert keys(database) == ["a"]
    database.close()


def test_a_failed_write_undoes_only_itself(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", TABLE)
    insert(database, "a")
    with pytest.raises(sqlite3.IntegrityError):
        insert(database, "a")
    insert(database, "b")
    assert keys(database) == ["a", "b"]
    database.close()


def test_concurrent_writers_share_commits_and_fail_apart(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", TABLE)
    failed: list[str] = []
    gate = threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        gate.wait(5)
        connection.execute("INSERT INTO t VALUES ('slow')")

    def write(key: str) -> None:
        try:
            insert(database, key)
        except sqlite3.IntegrityError:
            failed.append(key)

    first = threading.Thread(target=database.write, args=(slow,))
    first.start()
    threads = [threading.Thread(target=write, args=(f"k{i % 20}",)) for i in range(40)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in (first, *threads):
        thread.join()
    assert keys(database) == sorted(["slow", *(f"k{i}" for i in range(20))])
    assert sorted(failed) == sorted(f"k{i}" for i in range(20))
    database.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "db", (*TABLE, "CREATE TABLE u (k TEXT);")).close()
    with pytest.raises(System, match="newer than this engine's"):
        Database(tmp_path / "db", TABLE)


def test_an_older_schema_is_brought_up(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", TABLE)
    insert(database, "a")
    database.close()
    database = Database(tmp_path / "db", (*TABLE, "ALTER TABLE t ADD COLUMN extra TEXT;"))
    assert database.read(lambda c: c.execute("SELECT k, extra FROM t").fetchall()) == [("a", None)]
    database.close()


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database" * 1000)
    with pytest.raises(System, match="open catalogue"):
        Database(tmp_path / "db", TABLE)


def test_nobody_else_reads_the_catalogue(tmp_path: Path) -> None:
    """Options of volumes may hold passwords; a file of an older engine is closed too."""
    path = tmp_path / "catalogue.db"
    path.touch(mode=0o644)
    database = Database(path, TABLE)
    insert(database, "k")
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        "catalogue.db": 0o600, "catalogue.db-wal": 0o600, "catalogue.db-shm": 0o600,
    }  # fmt: skip
    database.close()
