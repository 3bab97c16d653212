"""The catalogue's file: one SQLite database, durable commits shared by concurrent writers, lock-free readers.

    holdfast.db       rows
    holdfast.db-wal   write-ahead log, grown once at start: later commits overwrite blocks that exist, so a durable
                      commit is one flush of data and no journal commit of the file system

`synchronous=FULL` makes every commit reach the disk before `write` returns (sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from holdfast.errors import System

T = TypeVar("T")

_WAL_PAGES = 1000
"""Checkpoint threshold and size to which the log is grown at start; 4 MB with 4 KiB pages."""


class _Job:
    """One writer's work, done by whichever writer holds the connection."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False


class Database:
    """One SQLite file. `write` is durable, and writers that wait for each other share one commit."""

    def __init__(self, path: Path, migrations: tuple[str, ...]) -> None:
        """Open or create the file and bring it to the newest schema.

        Raises System if it cannot be opened, is damaged, or was written by a newer engine.
        """
        self._path = path
        self._queue: list[_Job] = []
        self._queue_guard = threading.Lock()
        self._writer_guard = threading.Lock()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        _keep_private(path)
        try:
            self._writer = self._connect()
            self._migrate(migrations)
            self._grow_log()
        except sqlite3.Error as error:
            raise System(
                f"open catalogue {path}: {error}",
                hint="restore the file from a backup, or move it away: volumes are then found again on disk",
            ) from error

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction and give its result once the transaction is on disk.

        An exception undoes only this work and is raised here. `work` may run in another writer's thread, must touch
        nothing but the connection it gets, and must not commit. Raises System when the disk refuses the commit.
        """
        job = _Job(work)
        with self._queue_guard:
            self._queue.append(job)
        with self._writer_guard:
            if not job.done:
                with self._queue_guard:
                    batch, self._queue = self._queue, []
                self._commit(batch)
        if job.error is not None:
            raise job.error
        return cast(T, job.result)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on this thread's reading connection; it sees everything committed before the call."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
            with self._queue_guard:
                self._readers.append(connection)
        return work(connection)

    def close(self) -> None:
        """Write the log back and close. No other call may be under way."""
        with self._writer_guard:
            for reader in self._readers:
                reader.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=30
        )
        connection.executescript(
            f"""
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            PRAGMA foreign_keys = ON;
            PRAGMA wal_autocheckpoint = {_WAL_PAGES};
            PRAGMA cache_size = -2048;
            """
        )
        return connection

    def _commit(self, batch: list[_Job]) -> None:
        connection = self._writer
        alone = len(batch) == 1
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                if alone:
                    job.result = job.work(connection)
                else:
                    self._run_apart(job)
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - handed to the writers that wait for it
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = (
                System(f"write catalogue {self._path}: {error}", hint="check that the disk has room and is healthy")
                if isinstance(error, sqlite3.OperationalError)
                else error
            )
            for job in batch:
                job.error = job.error or failure
        finally:
            for job in batch:
                job.done = True

    def _run_apart(self, job: _Job) -> None:
        """Run one of several jobs of a transaction so that its failure undoes nothing of the others."""
        self._writer.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._writer)
        except Exception as error:  # noqa: BLE001 - handed to the writer whose work it is
            self._writer.execute("ROLLBACK TO job")
            job.error = error
        self._writer.execute("RELEASE job")

    def _migrate(self, migrations: tuple[str, ...]) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise System(
                f"open catalogue {self._path}: its schema {version} is newer than this engine's {len(migrations)}",
                hint="start the newer engine that wrote it",
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            self._writer.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")

    def _grow_log(self) -> None:
        """Write the log to its full size once and check it back in, so that commits find its blocks allocated."""
        self._writer.executescript(
            f"""
            BEGIN;
            CREATE TABLE IF NOT EXISTS log_filler (filler BLOB);
            INSERT INTO log_filler VALUES (zeroblob({_WAL_PAGES * 4096}));
            DELETE FROM log_filler;
            COMMIT;
            """
        )
        self._writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def _keep_private(path: Path) -> None:
    """Make the file, and let nobody but its owner read it: options of volumes may hold passwords.

    SQLite gives its log and its shared memory the mode of the file. Raises System.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    except OSError as error:
        raise System(f"open catalogue {path}: {error.strerror}") from error
