"""A process and what came from it: found by parents and sessions, killed together. Source: proc_pid_stat(5)."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.kernel import pidfd
from holdfast.kernel.path import owned_fd

_PASSES: Final = 50
_PAUSE_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Kin:
    """Where a process comes from."""

    parent: int
    session: int
    start_time: int


def parse_kin(text: str) -> Kin:
    """Parent (field 4), session (field 6) and start time (field 22) of a /proc/PID/stat. Raises ValueError.

    The program's name may hold spaces and brackets, so fields are counted from the last bracket.
    """
    fields = text[text.rindex(")") + 1:].split()
    try:
        return Kin(int(fields[1]), int(fields[3]), int(fields[19]))
    except IndexError:
        raise ValueError(f"not a line of /proc/PID/stat: {text!r}") from None


def members(root: int, processes: Mapping[int, Kin], sessions: Iterable[int] = ()) -> frozenset[int]:
    """Those of `processes` that descend from `root`, or are in a session that one of these began. Pure.

    `sessions` are further ones that count, from an earlier look.
    """
    found = {root} & processes.keys()
    ours = set(sessions)
    while True:
        ours |= {pid for pid in found if processes[pid].session == pid}
        more = {pid for pid, kin in processes.items() if kin.parent in found or kin.session in ours}
        if more <= found:
            return frozenset(found)
        found |= more


def kill(root: int, candidates: Callable[[], Iterable[int]]) -> bool:
    """Kill `root` and its family with SIGKILL, until none is left; False if some would not go.

    Only processes that `candidates` gives are touched. One that began a session of its own after its parent had ended
    is not known as family.
    """
    sessions: set[int] = set()
    for attempt in range(_PASSES):
        processes = {pid: kin for pid in candidates() if (kin := _read(pid)) is not None}
        found = members(root, processes, sessions)
        if not found:
            return True
        sessions |= {pid for pid in found if processes[pid].session == pid}
        for pid in found:
            with contextlib.suppress(ProcessLookupError), owned_fd(pidfd.pidfd_open(pid)) as process:
                if pidfd.process_start_time(pid) == processes[pid].start_time:
                    pidfd.pidfd_send_signal(process, signal.SIGKILL)
        time.sleep(_PAUSE_S * (attempt + 1))
    return False


def _read(pid: int) -> Kin | None:
    """None for a process that is gone, or dead and not yet reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if pidfd.parse_stat(text)[0] in "ZX" else parse_kin(text)
