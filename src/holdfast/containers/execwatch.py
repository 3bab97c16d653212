"""Waiting for execs: one thread for all of them, however long they run."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from typing import Protocol


class Watched(Protocol):
    """Something whose descriptor becomes readable when it has ended."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class ExecWatch:
    """Calls back when what it watches has ended; the thread begins with the first watch."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._added: list[tuple[Watched, Callable[[], None]]] = []
        self._selector: selectors.BaseSelector | None = None
        self._wake_read, self._wake_write = -1, -1
        self._closed = False

    def watch(self, watched: Watched, on_end: Callable[[], None]) -> None:
        """Call `on_end`, once and in the watching thread, when `watched` is readable; it must be quick."""
        with self._guard:
            self._added.append((watched, on_end))
            if self._selector is None:
                self._begin()
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        """End the thread; nobody is called any more."""
        with self._guard:
            self._closed = True
            if self._selector is not None:
                os.write(self._wake_write, b"\0")

    def _begin(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        threading.Thread(target=self._run, args=(self._selector,), name="exec-watch", daemon=True).start()

    def _run(self, selector: selectors.BaseSelector) -> None:
        while True:
            for key, _ in selector.select():
                if key.fileobj != self._wake_read:
                    selector.unregister(key.fileobj)
                    key.data()
                    continue
                os.read(self._wake_read, 4096)
                with self._guard:
                    added, self._added = self._added, []
                    closed = self._closed
                if closed:
                    selector.close()
                    os.close(self._wake_read)
                    os.close(self._wake_write)
                    return
                for watched, on_end in added:
                    selector.register(watched.fileno(), selectors.EVENT_READ, on_end)
