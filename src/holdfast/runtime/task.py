"""The processes of a running container, as they are remembered across restarts of the engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """The container's first process and its conmon.

    Start times, in clock ticks since boot, tell them from later owners of the ids.
    """

    pid: int
    pid_start_time: int
    conmon_pid: int
    conmon_start_time: int
