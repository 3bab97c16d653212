"""Named places where a test can cut the engine short: between a side effect and its record, mostly.

`HOLDFAST_FAULTS` holds a comma list. `NAME` kills the process there with SIGKILL; `NAME=ENOSPC` (any errno name) makes
the step fail; `NAME=HANG` writes the name into the file that `HOLDFAST_FAULT_FILE` names and waits there for ever, for
a test that then cuts the power of the whole machine; `NAME@3` waits for the third pass. Unset, as on every real
machine, a point costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time


def _parse(text: str) -> dict[str, tuple[int, str]]:
    """Map each armed point to (passes still to go, errno name or "")."""
    armed: dict[str, tuple[int, str]] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, failure = entry.partition("=")
        name, _, passes = name.partition("@")
        armed[name] = (int(passes or 1), failure)
    return armed


_armed = _parse(os.environ.get("HOLDFAST_FAULTS", ""))
_guard = threading.Lock()


def arm(text: str) -> None:
    """Replace what is armed in this process; the same syntax as `HOLDFAST_FAULTS`. For tests that stay in-process."""
    global _armed
    _armed = _parse(text)


def point(name: str) -> None:
    """Die or fail here if a test armed this point. Raises OSError with the armed errno."""
    if not _armed or name not in _armed:
        return
    with _guard:
        passes, failure = _armed.get(name, (0, ""))
        if passes > 1:
            _armed[name] = (passes - 1, failure)
            return
        if passes < 1:
            return
        if failure and failure != "HANG":
            del _armed[name]
            code = int(getattr(errno, failure))
            raise OSError(code, f"{os.strerror(code)} (fault point {name})")
    if failure:
        _hang(name)
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(name: str) -> None:
    """Say where we are, on disk at once, and stay there; other threads that come by stay as well."""
    file = os.open(os.environ["HOLDFAST_FAULT_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC, 0o600)
    os.write(file, f"{name}\n".encode())
    while True:
        time.sleep(60)
