"""Processes by descriptor, and who a process id belongs to. Sources: pidfd_open(2), proc_pid_stat(5)."""

import errno
import fcntl
import os
import signal
import struct
from pathlib import Path
from typing import Final

from holdfast.kernel.libc import ioctl_number

# struct pidfd_info: u64 mask, u64 cgroupid, 11 ids of u32, s32 exit_code. Source: Linux, include/uapi/linux/pidfd.h.
_INFO: Final = struct.Struct("=QQ11Ii")
_INFO_EXIT: Final = 1 << 3
_PIDFD_GET_INFO: Final = ioctl_number("RW", 0xFF, 11, _INFO.size)


def pidfd_open(pid: int) -> int:
    """Return a close-on-exec descriptor of a process; readable once it has ended. ProcessLookupError: none such."""
    return os.pidfd_open(pid)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal to exactly this process. ProcessLookupError: it has ended. pidfd_send_signal(2)."""
    signal.pidfd_send_signal(pidfd, number)


def parse_stat(text: str) -> tuple[str, int]:
    """State letter and start time (field 22, clock ticks since boot) of a /proc/PID/stat. Raises ValueError.

    The program's name may hold spaces and brackets, so fields are counted from the last bracket.
    """
    fields = text[text.rindex(")") + 1:].split()
    try:
        return fields[0], int(fields[19])
    except IndexError:
        raise ValueError(f"not a line of /proc/PID/stat: {text!r}") from None


def process_start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot, or None if there is no such process."""
    found = _read_stat(pid)
    return None if found is None else found[1]


def is_same_process(pid: int, start_time: int) -> bool:
    """Whether `pid` is still the process that started then. A zombie counts as gone."""
    found = _read_stat(pid)
    return found is not None and found[1] == start_time and found[0] not in "ZX"


def is_asleep(pid: int) -> bool:
    """Whether the process waits for something, in the kernel; one that has ended counts as asleep."""
    found = _read_stat(pid)
    return found is None or found[0] not in "RD"


def exit_code_of(pidfd: int) -> int | None:
    """The exit code of a process that has ended and been reaped, by whomever; 128 + N after signal N.

    None if it still runs, is not yet reaped, or the kernel cannot tell (before Linux 6.15).
    Source: PIDFD_GET_INFO in ioctl_pidfd(2).
    """
    request = _INFO.pack(_INFO_EXIT, *([0] * 13))
    try:
        answer = fcntl.ioctl(pidfd, _PIDFD_GET_INFO, request)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
            return None
        raise
    mask, *_, status = _INFO.unpack(answer)
    if not mask & _INFO_EXIT:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _read_stat(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(text)
