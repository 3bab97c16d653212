"""Slow removals, off the path of the request that asked for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from holdfast import log

logger = log.get(__name__)

_HEAD_START_S: Final = 0.05
"""A pair of cards usually goes with its namespace; a moment later there is mostly nothing left to do."""


class Reaper:
    """Removes devices in a thread of its own and knows which addresses may still answer meanwhile."""

    def __init__(self, remove: Callable[[str], object]) -> None:
        self._remove = remove
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, float]] = deque()
        """Each device with the time on the monotonic clock from which it is removed."""
        self._leaving: dict[str, tuple[int, ...]] = {}
        self._hurry = False
        self._thread: threading.Thread | None = None

    def add(self, device: str, *addresses: int) -> None:
        """Remove `device` soon; until then `addresses`, numbers, should not be given out again."""
        with self._changed:
            self._waiting.append((device, time.monotonic() + _HEAD_START_S))
            self._leaving[device] = addresses
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="holdfast-network-reaper", daemon=True)
                self._thread.start()

    def has(self, device: str) -> bool:
        """Whether `device` is still to be removed."""
        with self._changed:
            return device in self._leaving

    def leaving(self) -> frozenset[int]:
        """Give the addresses that may still answer."""
        with self._changed:
            return frozenset(address for addresses in self._leaving.values() for address in addresses)

    def finish(self) -> None:
        """Wait until nothing is left to remove."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._leaving)
            self._hurry = False

    def _work(self) -> None:
        """Remove what waits, then end; the next device starts a new thread."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    return
                device, due = self._waiting.popleft()
                self._changed.wait_for(lambda: self._hurry, max(0.0, due - time.monotonic()))
            try:
                self._remove(device)
            except OSError as error:
                logger.warning("cannot remove a network device", extra={"device": device, "error": str(error)})
            with self._changed:
                del self._leaving[device]
                self._changed.notify_all()
