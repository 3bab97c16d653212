"""Rotating logs while the engine runs: one thread, woken by the kernel when a log that has a size limit grows."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast import log
from holdfast.containers.container import Container
from holdfast.containers.logconfig import rules_of
from holdfast.containers.rooms import Rooms
from holdfast.errors import EngineError
from holdfast.kernel.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, IN_Q_OVERFLOW, Inotify
from holdfast.runtime import logfiles
from holdfast.runtime.logfiles import Rotation

logger = log.get(__name__)

_PAUSE_S: Final = 0.05
"""How long news are collected: a container that writes all the time is looked at twenty times a second."""


@dataclass(frozen=True, slots=True)
class _Log:
    """A log that has a limit."""

    id: str
    path: Path
    rotation: Rotation


class LogRotator:
    """Rotates the logs of containers that run; the thread begins with the first of them."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._guard = threading.Lock()
        self._inotify: Inotify | None = None
        self._logs: dict[int, _Log] = {}
        self._packing = ThreadPoolExecutor(1, thread_name_prefix="log-compress")
        self._wake = -1
        self._closed = False

    def begin(self, container: Container) -> None:
        """Look after a container's log from now on, if it has a limit that the monitor does not keep by itself."""
        rotation = rules_of(container.record).rotation
        if rotation is None or rotation.files == 1:
            return
        path = self._rooms.log_of(container.id)
        found = _Log(container.id, path, rotation)
        with self._guard:
            if self._closed:
                return
            try:
                if self._inotify is None:
                    self._inotify, self._wake = Inotify(), os.eventfd(0, os.EFD_CLOEXEC)
                    threading.Thread(target=self._run, args=(self._inotify,), name="log-rotation", daemon=True).start()
                number = self._inotify.add_watch(path.parent, IN_MODIFY | IN_CREATE | IN_MOVED_TO)
            except OSError as error:
                logger.warning("a log is not rotated", extra={"container": container.id, "error": error})
                return
            self._logs[number] = found
        self._look(found, first=True)

    def end(self, container: Container) -> None:
        """Put in order what a container's monitor left, and look after its log no more. Harmless to repeat."""
        rotation = rules_of(container.record).rotation
        if rotation is None or rotation.files == 1:
            return
        with self._guard:
            for number in [number for number, found in self._logs.items() if found.id == container.id]:
                del self._logs[number]
                if self._inotify is not None:
                    self._inotify.rm_watch(number)
        self._look(_Log(container.id, self._rooms.log_of(container.id), rotation), ended=True)

    def close(self) -> None:
        """Stop; logs are then bounded by the monitors alone."""
        with self._guard:
            self._closed = True
            self._logs.clear()
            if self._inotify is not None:
                os.eventfd_write(self._wake, 1)
        self._packing.shutdown(wait=True, cancel_futures=True)

    def _run(self, inotify: Inotify) -> None:
        poll = select.poll()
        poll.register(inotify.fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            poll.poll()
            if self._closed:
                inotify.close()
                os.close(self._wake)
                return
            time.sleep(_PAUSE_S)
            events = inotify.read_events()
            with self._guard:
                if any(event.mask & IN_Q_OVERFLOW for event in events):
                    due = list(self._logs.values())
                else:
                    due = [self._logs[number] for number in {event.wd for event in events} & self._logs.keys()]
            for found in due:
                self._look(found)

    def _look(self, found: _Log, *, first: bool = False, ended: bool = False) -> None:
        reopen = None if ended else lambda: self._rooms.runtime.reopen_log(found.id)
        try:
            full = logfiles.look(found.path, found.rotation, reopen, first=first)
        except (EngineError, OSError) as error:
            logger.debug("log not rotated", extra={"container": found.id, "error": error})
            return
        if full is not None:
            with contextlib.suppress(RuntimeError):  # the engine ends
                self._packing.submit(self._pack, full)

    def _pack(self, full: Path) -> None:
        try:
            logfiles.compress(full)
        except OSError as error:
            logger.warning("log not compressed", extra={"file": full, "error": error})
