"""A conmon that runs: talk to its control fifo, wait for its end. Source: conmon(8), and conmon 2.1's `ctrl.c`."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from pathlib import Path
from typing import Final

from holdfast.errors import Conflict, System
from holdfast.kernel import pidfd
from holdfast.kernel.path import owned_fd

_RESIZE: Final = "1 {rows} {columns}\n"
_REOPEN_LOG: Final = "2 0 0\n"
_TURN_S: Final = 0.0002


def resize(bundle: Path, what: str, rows: int, columns: int) -> None:
    """Set the size of the terminal. `what` is for the message of the Conflict if the process has ended."""
    _control(bundle, what, _RESIZE.format(rows=rows, columns=columns))


def reopen_log(bundle: Path, what: str) -> None:
    """Have the log file opened anew, after a rename. `what` is for the message of the Conflict."""
    _control(bundle, what, _REOPEN_LOG)


def wait_until_idle(pid: int, timeout_s: float = 1.0) -> None:
    """Wait until the conmon of that id has done what it was asked to, for `timeout_s` at most.

    It accepts one connection in each turn of its loop, where output of the process may come first and is lost to those
    behind. A connection wakes it before connect(2) returns, so once it sleeps it has accepted them all.
    """
    deadline = time.monotonic() + timeout_s
    while not pidfd.is_asleep(pid) and time.monotonic() < deadline:
        time.sleep(_TURN_S)


def wait_for_end(bundle: Path, timeout_s: float) -> bool:
    """Wait until the conmon of this bundle has ended, as it does after its process; kill it if it does not.

    It takes its socket away last, so a bundle that is removed before is removed under its hands. Returns whether it
    ended by itself. Raises OSError.
    """
    pid = _pid(bundle)
    if pid is None:
        return True
    try:
        with owned_fd(pidfd.pidfd_open(pid)) as process:
            if _pid(bundle) != pid or _ended(process, timeout_s):
                return True
            pidfd.pidfd_send_signal(process, signal.SIGKILL)
            _ended(process, timeout_s)
            return False
    except ProcessLookupError:
        return True


def runs(bundle: Path) -> bool:
    """Whether the conmon of this bundle runs, and with it the process that it watches."""
    return _pid(bundle) is not None


def _pid(bundle: Path) -> int | None:
    """The id of the bundle's conmon if it runs: the number in the bundle, checked against its command line."""
    try:
        pid = int((bundle / "conmon.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if os.fsencode(bundle) in words else None


def _ended(process: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(int(timeout_s * 1000)))


def _control(bundle: Path, what: str, line: str) -> None:
    try:
        with owned_fd(os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as fifo:
            os.write(fifo, line.encode())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.EPIPE):
            raise Conflict(f"{what} is not running") from error
        raise System(f"{what}: {error}") from error
