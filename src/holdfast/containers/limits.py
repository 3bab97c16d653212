"""Limits that a request sets, checked and brought to what this machine can do.

A number that makes no sense is refused. What the kernel cannot enforce is taken out and said in a warning, so that the
record, and inspect, show what is in force. Texts and order are Docker's (`daemon/daemon_unix.go`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from holdfast.containers.model import HostConfig
from holdfast.errors import InvalidParameter
from holdfast.runtime.host import HostFacts

SMALLEST_MEMORY_BYTES = 6 << 20
_LARGEST_CPU_NUMBER = 8192
_SHARES = (2, 262_144)
_LACKING = "Your kernel does not support {} or the cgroup is not mounted. {} discarded."

Note = Callable[..., None]
"""`note(text, field=value)` adds a warning and changes fields; the text may be empty."""


def settle_limits(host: HostConfig, facts: HostFacts) -> tuple[HostConfig, tuple[str, ...]]:
    """Give the limits that will be in force, and warnings about those that will not. Raises InvalidParameter."""
    changes: dict[str, object] = {}
    warnings: list[str] = []

    def note(text: str, **fields: object) -> None:
        changes.update(fields)
        if text:
            warnings.append(text)

    for part in (_memory, _swappiness, _oom, _pids, _cpu, _cpuset, _block_io):
        part(host, facts, note)
    _check_realtime(host, facts)
    _windows(host, note)
    return dataclasses.replace(host, **changes), tuple(warnings)  # type: ignore[arg-type]


def _memory(host: HostConfig, facts: HostFacts, note: Note) -> None:
    if host.memory and host.memory < SMALLEST_MEMORY_BYTES:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_reservation and host.memory_reservation < SMALLEST_MEMORY_BYTES:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.kernel_memory and host.kernel_memory < SMALLEST_MEMORY_BYTES:
        raise InvalidParameter("Minimum kernel memory limit allowed is 6MB")
    if host.kernel_memory:
        note(_lacking("kernel memory limit capabilities", "Limitation"), kernel_memory=0)
    if host.kernel_memory_tcp:
        note(_lacking("kernel memory TCP limit capabilities", "Limitation"), kernel_memory_tcp=0)
    if "memory" not in facts.controllers:
        if host.memory:
            note(_lacking("memory limit capabilities", "Limitation"), memory=0, memory_swap=-1)
        if host.memory_reservation:
            note(_lacking("memory soft limit capabilities", "Limitation"), memory_reservation=0)
    elif host.memory and host.memory_swap != -1 and not facts.swap_limit:
        note(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap.",
            memory_swap=-1,
        )


def _swappiness(host: HostConfig, facts: HostFacts, note: Note) -> None:
    value = host.memory_swappiness
    if value in (None, -1):
        return
    assert value is not None, "just asked"
    if not 0 <= value <= 100:
        raise InvalidParameter(f"Invalid value: {value}, valid memory swappiness range is 0-100")
    if not facts.swappiness:
        note(_lacking("memory swappiness capabilities", "Memory swappiness"), memory_swappiness=None)


def _oom(host: HostConfig, facts: HostFacts, note: Note) -> None:
    if not host.oom_kill_disable:
        return
    if "memory" not in facts.controllers or facts.cgroup_v2:
        note("Your kernel does not support OomKillDisable. OomKillDisable discarded.", oom_kill_disable=None)
    elif not host.memory:
        note(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )


def _pids(host: HostConfig, facts: HostFacts, note: Note) -> None:
    if host.pids_limit and host.pids_limit > 0 and "pids" not in facts.controllers:
        note(_lacking("PIDs limit capabilities", "PIDs limit"), pids_limit=None)


def _cpu(host: HostConfig, facts: HostFacts, note: Note) -> None:
    if host.nano_cpus and host.cpu_period:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.nano_cpus and host.cpu_quota:
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    most = facts.cpu_count * 1_000_000_000
    if host.nano_cpus and (host.nano_cpus < 10_000_000 or (most and host.nano_cpus > most)):
        raise InvalidParameter(
            f"range of CPUs is from 0.01 to {facts.cpu_count}.00, as there are only {facts.cpu_count} CPUs available"
        )
    if host.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_shares and host.cpu_shares < _SHARES[0]:
        raise InvalidParameter(f"the minimum allowed cpu-shares is {_SHARES[0]}")
    if host.cpu_shares > _SHARES[1]:
        raise InvalidParameter(f"the maximum allowed cpu-shares is {_SHARES[1]}")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if "cpu" not in facts.controllers:
        if host.nano_cpus:
            raise InvalidParameter(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler "
                "or the cgroup is not mounted"
            )
        if host.cpu_shares:
            note(_lacking("CPU shares", "Shares"), cpu_shares=0)
        if host.cpu_period or host.cpu_quota:
            note(
                "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.", cpu_period=0, cpu_quota=0
            )


def _check_realtime(host: HostConfig, facts: HostFacts) -> None:
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not facts.cpu_realtime:
        raise InvalidParameter("kernel does not support CPU real-time scheduler")
    if host.cpu_realtime_period and host.cpu_realtime_runtime > host.cpu_realtime_period:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")


def _cpuset(host: HostConfig, facts: HostFacts, note: Note) -> None:
    if not (host.cpuset_cpus or host.cpuset_mems):
        return
    if "cpuset" not in facts.controllers:
        note(_lacking("cpuset", "Cpuset"), cpuset_cpus="", cpuset_mems="")
        return
    for asked, available, field, things in (
        (host.cpuset_cpus, facts.cpuset_cpus, "cpus", "CPUs"),
        (host.cpuset_mems, facts.cpuset_mems, "mems", "memory nodes"),
    ):
        try:
            wanted = parse_numbers(asked)
        except ValueError as error:
            raise InvalidParameter(f"Invalid value {asked} for cpuset {field}: {error}") from None
        if available and not wanted <= parse_numbers(available):
            raise InvalidParameter(f"Requested {things} are not available - requested {asked}, available: {available}")


def parse_numbers(text: str) -> frozenset[int]:
    """Parse `0-3,8` to the numbers it stands for; empty text is none. Raises ValueError in Docker's words.

    Source: moby, pkg/parsers, ParseUintListMaximum.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() for end in ends) or int(ends[0]) > int(ends[1]):
            raise ValueError(f"invalid format: {text}")
        if int(ends[1]) > _LARGEST_CPU_NUMBER:
            raise ValueError(f"value of out range, maximum is {_LARGEST_CPU_NUMBER}")
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return frozenset(found)


def _block_io(host: HostConfig, facts: HostFacts, note: Note) -> None:
    if host.blkio_weight and not facts.blkio_weight:
        note(_lacking("Block I/O weight", "Weight"), blkio_weight=0)
    elif host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")
    if host.blkio_weight_device and not facts.blkio_weight_device:
        note(_lacking("Block I/O weight_device", "Weight-device"), blkio_weight_device=())
    if facts.blkio_throttle:
        return
    for field, what, shown in (
        ("blkio_device_read_bps", "BPS Block I/O read limit", "Block I/O BPS read limit"),
        ("blkio_device_write_bps", "BPS Block I/O write limit", "Block I/O BPS write limit"),
        ("blkio_device_read_iops", "IOPS Block read limit", "Block I/O IOPS read limit"),
        ("blkio_device_write_iops", "IOPS Block write limit", "Block I/O IOPS write limit"),
    ):
        if getattr(host, field):
            note(_lacking(what, shown), **{field: ()})


def _windows(host: HostConfig, note: Note) -> None:
    """Limits that only Windows has."""
    if host.cpu_count:
        note("linux does not support CPU count. Count discarded.", cpu_count=0)
    if host.cpu_percent:
        note("linux does not support CPU percent. Percent discarded.", cpu_percent=0)
    if host.io_maximum_iops:
        raise InvalidParameter("invalid option: QoS maximum IOPs configuration is not supported on linux")
    if host.io_maximum_bandwidth:
        raise InvalidParameter("invalid option: QoS maximum bandwidth configuration is not supported on linux")


def _lacking(what: str, lost: str) -> str:
    return _LACKING.format(what, lost)
