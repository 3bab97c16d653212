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
        self._given_up: set[int] = set()
        self._numbers = itertools.count()
        self._running = False
        self._closed = False

    def after(self, delay_s: float, call: Callable[[], object]) -> int:
        """Make `call` in `delay_s` seconds; nothing happens after `close`. Gives a number for `give_up`."""
        with self._changed:
            number = next(self._numbers)
            if self._closed:
                return number
            heapq.heappush(self._planned, (time.monotonic() + delay_s, number, call))
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="alarm", daemon=True).start()
            self._changed.notify()
            return number

    def give_up(self, number: int) -> None:
        """Do not make that call, and forget it before long; harmless if it has been made."""
        with self._changed:
            self._given_up.add(number)
            if 2 * len(self._given_up) > len(self._planned):
                self._planned = [entry for entry in self._planned if entry[1] not in self._given_up]
                heapq.heapify(self._planned)
                self._given_up.clear()

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
                due, number, call = self._planned[0]
                if number in self._given_up:
                    self._given_up.discard(number)
                    heapq.heappop(self._planned)
                    continue
                left_s = due - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                heapq.heappop(self._planned)
            call()
