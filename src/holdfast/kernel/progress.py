"""Long work says that it gets on, so that whoever waits for it can tell slow from stuck.

A process that works on storage which may hang (`storage_worker`) passes this on, and flushes what is written in pieces
that get through in a moment: the end of one long flush could not be told from no answer at all. In the engine's own
threads nobody listens, and a step costs one empty call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_FIRST_BYTES, _LEAST_BYTES, _MOST_BYTES = 256 << 10, 64 << 10, 8 << 20
_SHORT_S, _LONG_S = 0.1, 1.0


class _Pace:
    """How much goes at once, by how long the last piece took."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self.on_step = on_step
        self.piece_bytes = _FIRST_BYTES
        self._waiting_bytes = 0
        self._since = time.monotonic()

    def moved(self, size_bytes: int, flush: Callable[[], None]) -> None:
        """Count what was read or written, and flush it if it is much."""
        self.on_step()
        self._waiting_bytes += size_bytes
        if self._waiting_bytes < self.piece_bytes:
            return
        flush()
        now = time.monotonic()
        took_s = now - self._since
        self._since = now
        self._waiting_bytes = 0
        if took_s < _SHORT_S:
            self.piece_bytes = min(2 * self.piece_bytes, _MOST_BYTES)
        elif took_s > _LONG_S:
            self.piece_bytes = max(self.piece_bytes // 4, _LEAST_BYTES)
        self.on_step()


_pace: _Pace | None = None


def listen(on_step: Callable[[], None]) -> None:
    """Call `on_step`, which must be quick, at every step that this process makes from now on, and go slowly at first.
    """
    global _pace
    _pace = _Pace(on_step)


def step() -> None:
    """Say that something is done."""
    if _pace is not None:
        _pace.on_step()


def wrote(fd: int, size_bytes: int, flush: Callable[[int], None] = os.fdatasync) -> None:
    """Say that so much was written to `fd`, which `flush` brings to the storage. Raises OSError."""
    if _pace is not None:
        _pace.moved(size_bytes, lambda: flush(fd))


def read(size_bytes: int) -> None:
    """Say that so much was read."""
    if _pace is not None:
        _pace.moved(size_bytes, lambda: None)


def piece(most_bytes: int) -> int:
    """Give how much may be read or written at once, at most `most_bytes`."""
    return most_bytes if _pace is None else min(most_bytes, _pace.piece_bytes)
