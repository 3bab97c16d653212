"""Storage that does not answer fails everybody who waits for it at once, not one deadline after the other.

Mounts and checks of one volume follow each other under its lock. When the first of them fails, those that asked before
it failed have waited just as long for the same thing: its failure is theirs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from holdfast.volumes.drivers.base import MountFailed
from holdfast.volumes.drivers.check import Step


class Outages:
    """The last failure of each volume. Safe from any thread; the volume's lock is held around `attempt` and `check`."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._failures: dict[str, tuple[float, MountFailed]] = {}
        self._checks: dict[str, tuple[float, Sequence[Step]]] = {}

    @contextlib.contextmanager
    def attempt(self, volume_id: str, asked_at: float) -> Iterator[None]:
        """Reach for a volume's storage in the block, on behalf of someone who asked at `asked_at` (time.monotonic).

        Raises MountFailed at once if an attempt has failed since.
        """
        with self._guard:
            failed_at, failure = self._failures.get(volume_id, (asked_at, None))
        if failure is not None and failed_at > asked_at:
            raise MountFailed(failure.message, hint=failure.hint)
        try:
            yield
        except MountFailed as error:
            with self._guard:
                self._failures[volume_id] = (time.monotonic(), error)
            raise
        with self._guard:
            self._failures.pop(volume_id, None)

    def check(self, volume_id: str, asked_at: float, check: Callable[[], Sequence[Step]]) -> Sequence[Step]:
        """Give what `check` finds, or what a check found that has failed since `asked_at`."""
        with self._guard:
            failed_at, steps = self._checks.get(volume_id, (asked_at, ()))
        if steps and failed_at > asked_at:
            return steps
        steps = check()
        with self._guard:
            if steps[-1].ok:
                self._checks.pop(volume_id, None)
            else:
                self._checks[volume_id] = (time.monotonic(), steps)
        return steps
