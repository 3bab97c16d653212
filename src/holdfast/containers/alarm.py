"""Calls planned for later, all by one thread that only exists while something is planned."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Alarm:
    """Makes calls at given times. A call must be quick; one that raises ends the thread, so it must not."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._running = False
        self._closed = False

    def after(self, delay_s: float, call: Callable[[], object]) -> None:
        """Make `call` in `delay_s` seconds; nothing happens after `close`."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._planned, (time.monotonic() + delay_s, next(self._numbers), call))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="alarm", daemon=True).start()
            self._changed.notify()

    def close(self) -> None:
        """Forget everything that is planned."""
        with self._changed:
            self._closed = True
            self._planned.clear()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._planned:
                    self._running = False
                    return
                due, _, call = self._planned[0]
                left_s = due - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                heapq.heappop(self._planned)
            call()
