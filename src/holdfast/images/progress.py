"""Progress messages, as Docker's clients draw them. Pure.

Source: Docker Engine API, `CreateImageInfo` and `ProgressDetail`; docker/pkg/jsonmessage draws the bars.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Progress = Callable[[dict[str, object]], None]
"""Takes one message; it may be called from any thread, one call at a time."""

_INTERVAL_S: Final = 0.1


def nowhere(_: dict[str, object]) -> None:
    """Takes messages and forgets them."""


def stream(text: str) -> dict[str, object]:
    """A line that clients print as it is."""
    return {"stream": text}


def status(text: str, *, id: str = "") -> dict[str, object]:
    """A line about the whole, `id` before it if there is one."""
    return {"status": text, "id": id} if id else {"status": text}


def layer_status(text: str, id: str) -> dict[str, object]:
    """A line about one layer that stands in for its bar."""
    return {"status": text, "progressDetail": {}, "id": id}


def amount(text: str, id: str, current_bytes: int, total_bytes: int) -> dict[str, object]:
    """How far the transfer of one layer is; clients draw the bar from `progressDetail`, older ones print `progress`."""
    detail = {"current": current_bytes, "total": total_bytes} if total_bytes > 0 else {"current": current_bytes}
    return {"status": text, "progressDetail": detail, "progress": _bar(current_bytes, total_bytes), "id": id}


class Throttled:
    """Passes on at most ten messages a second for each layer."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last: dict[str, float] = {}

    def amount(self, text: str, id: str, current_bytes: int, total_bytes: int) -> None:
        """Send `amount(...)` unless one was sent for this `id` just now; the last one is never held back."""
        now = time.monotonic()
        if now - self._last.get(id, -1.0) >= _INTERVAL_S or current_bytes == total_bytes > 0:
            self._last[id] = now
            self._progress(amount(text, id, current_bytes, total_bytes))


def human_size(size_bytes: float) -> str:
    """A size as Docker shows it: four digits, decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000:
            return f"{size_bytes:.4g}{unit}"
        size_bytes /= 1000
    return f"{size_bytes:.4g}PB"


def _bar(current: int, total: int) -> str:
    if total <= 0 or current > total:
        return f"{human_size(current):>8}"
    filled = 50 * current // total
    bar = "=" * filled + (">" if filled < 50 else "") + " " * max(0, 49 - filled)
    return f"[{bar}] {human_size(current):>8}/{human_size(total)}"
