"""What the processes of a control group have used, and what the whole machine has: counters, read and parsed.

The same facts stand in other files in each layout; what a kernel does not count is None or empty here.
Source: Linux, Documentation/admin-guide/cgroup-v1 (cpuacct, memory, blkio-controller, pids) and cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdfast.kernel.cgroup import CgroupLayout, parse_flat_keyed, paths

UNLIMITED: Final = (1 << 64) - 1
"""What stands for `max` where a number is expected."""

_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_STAT: Final = Path("/proc/stat")
_SYSTEM_FIELDS: Final = 7       # user nice system idle iowait irq softirq; what follows is counted in these already
_BLKIO_V1: Final = {
    "io_service_bytes": ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"),
    "io_serviced": ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"),
}


@dataclass(frozen=True, slots=True)
class CpuUsage:
    """Processor time in nanoseconds; `percpu_ns` is None on cgroup v2."""

    total_ns: int = 0
    user_ns: int = 0
    kernel_ns: int = 0
    percpu_ns: tuple[int, ...] | None = None
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory in bytes. `limit_bytes` is the group's own; `max_usage_bytes` and `fail_count` are 0 on cgroup v2."""

    usage_bytes: int
    limit_bytes: int
    max_usage_bytes: int = 0
    fail_count: int = 0
    stats: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IoEntry:
    """One counter of a block device."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The counters of a control group. `io` has `io_service_bytes` and, on cgroup v1, `io_serviced`.

    `memory` is None and `pids` is 0 where the machine has no such controller; `pids_limit` is 0 for none on v1.
    """

    cpu: CpuUsage
    memory: MemoryUsage | None
    pids: int
    pids_limit: int
    io: Mapping[str, tuple[IoEntry, ...]]
    v2: bool


@dataclass(frozen=True, slots=True)
class InterfaceUsage:
    """The counters of a network interface."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Counters of a container and of the machine at one moment, in Unix time; the default: it does not run.

    `memory_limit_bytes` is never more than the machine has. `networks` is empty without a network of its own.
    """

    at_ns: int = 0
    usage: Usage | None = None
    system_cpu_ns: int = 0
    processors: int = 0
    memory_limit_bytes: int = 0
    networks: Mapping[str, InterfaceUsage] = field(default_factory=dict)


NOT_RUNNING: Final = Moment()


# --- a control group --------------------------------------------------------------------------------------------------

def usage(layout: CgroupLayout, cgroup: str) -> Usage:
    """Read a control group's counters. Raises FileNotFoundError if it is not there, OSError. Below 1 ms."""
    if layout.kind == "v2":
        return _usage_v2(paths(layout, cgroup)[0])
    places: dict[str, Path] = {}
    for hierarchy, place in zip(layout.hierarchies, paths(layout, cgroup), strict=False):
        for controller in hierarchy.controllers:
            places[controller] = place
    return _usage_v1(places)


def _usage_v1(places: Mapping[str, Path]) -> Usage:
    cpuacct, cpu = places.get("cpuacct"), places.get("cpu")
    usage = CpuUsage()
    if cpuacct is not None:
        ticks = parse_flat_keyed((cpuacct / "cpuacct.stat").read_text())
        throttling = parse_flat_keyed(_text(cpu, "cpu.stat")) if cpu is not None else {}
        usage = CpuUsage(
            int((cpuacct / "cpuacct.usage").read_text()),
            ticks.get("user", 0) * _TICK_NS,
            ticks.get("system", 0) * _TICK_NS,
            tuple(map(int, (cpuacct / "cpuacct.usage_percpu").read_text().split())),
            throttling.get("nr_periods", 0),
            throttling.get("nr_throttled", 0),
            throttling.get("throttled_time", 0),
        )
    memory, pids, blkio = places.get("memory"), places.get("pids"), places.get("blkio")
    return Usage(
        usage,
        None if memory is None else MemoryUsage(
            int((memory / "memory.usage_in_bytes").read_text()),
            int((memory / "memory.limit_in_bytes").read_text()),
            int((memory / "memory.max_usage_in_bytes").read_text()),
            int((memory / "memory.failcnt").read_text()),
            parse_flat_keyed((memory / "memory.stat").read_text()),
        ),
        0 if pids is None else int((pids / "pids.current").read_text()),
        0 if pids is None else _number((pids / "pids.max").read_text(), unlimited=0),
        {} if blkio is None else {kind: parse_blkio(_text(blkio, *names)) for kind, names in _BLKIO_V1.items()},
        v2=False,
    )


def _usage_v2(place: Path) -> Usage:
    cpu = parse_flat_keyed((place / "cpu.stat").read_text())
    current = _text(place, "memory.current")
    pids = _text(place, "pids.current")
    return Usage(
        CpuUsage(
            cpu.get("usage_usec", 0) * 1000,
            cpu.get("user_usec", 0) * 1000,
            cpu.get("system_usec", 0) * 1000,
            None,
            cpu.get("nr_periods", 0),
            cpu.get("nr_throttled", 0),
            cpu.get("throttled_usec", 0) * 1000,
        ),
        MemoryUsage(
            int(current),
            _number(_text(place, "memory.max")),
            stats=parse_flat_keyed(_text(place, "memory.stat")),
        ) if current else None,
        int(pids or 0),
        _number(_text(place, "pids.max")) if pids else 0,
        {"io_service_bytes": parse_io_stat(_text(place, "io.stat"))},
        v2=True,
    )


def _text(place: Path, *names: str) -> str:
    """The first of these files that is there; "" if none is: the controller is missing."""
    for name in names:
        try:
            return (place / name).read_text()
        except FileNotFoundError:
            continue
    return ""


def _number(text: str, *, unlimited: int = UNLIMITED) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else unlimited


def parse_blkio(text: str) -> tuple[IoEntry, ...]:
    """Read lines of `MAJOR:MINOR OPERATION NUMBER`, as in blkio.throttle.io_serviced; the grand total is left out."""
    entries = []
    for line in text.splitlines():
        fields = line.replace(":", " ").split()
        if len(fields) == 4 and fields[0].isdigit() and fields[1].isdigit() and fields[3].isdigit():
            entries.append(IoEntry(int(fields[0]), int(fields[1]), fields[2], int(fields[3])))
    return tuple(entries)


def parse_io_stat(text: str) -> tuple[IoEntry, ...]:
    """Read lines of `MAJOR:MINOR rbytes=N wbytes=N ...`, as in io.stat: bytes read and written. Pure."""
    entries = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        major, _, minor = device.partition(":")
        counters = dict(pair.split("=", 1) for pair in rest.split() if "=" in pair)
        if not (major.isdigit() and minor.isdigit()):
            continue
        for key, operation in (("rbytes", "read"), ("wbytes", "write")):
            if counters.get(key, "").isdigit():
                entries.append(IoEntry(int(major), int(minor), operation, int(counters[key])))
    return tuple(entries)


# --- the machine ------------------------------------------------------------------------------------------------------

def system_cpu() -> tuple[int, int]:
    """Give the processor time of the whole machine, idle included, in nanoseconds, and how many processors work."""
    return parse_stat(_STAT.read_text())


def parse_stat(text: str) -> tuple[int, int]:
    """Read /proc/stat as `system_cpu` does. Pure. Source: proc_stat(5)."""
    total_ns = processors = 0
    for line in text.splitlines():
        name, *fields = line.split()
        if name == "cpu":
            total_ns = sum(map(int, fields[:_SYSTEM_FIELDS])) * _TICK_NS
        elif name.startswith("cpu"):
            processors += 1
    return total_ns, processors


def memory_bytes() -> int:
    """How much memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def interfaces(pid: int, is_same: Callable[[], bool]) -> dict[str, InterfaceUsage]:
    """Read the counters of the interfaces, but `lo`, that a process sees; none once it has ended.

    `is_same` says, after reading, whether the id still belonged to that process. Raises OSError.
    """
    try:
        text = Path(f"/proc/{pid}/net/dev").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    except OSError as error:
        if error.errno == errno.EINVAL:  # a zombie is in no namespace
            return {}
        raise
    return parse_net_dev(text) if is_same() else {}


def parse_net_dev(text: str) -> dict[str, InterfaceUsage]:
    """Read /proc/PID/net/dev, without `lo`. Pure. Source: proc_pid_net(5)."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(number) for number in rest.split()]
        if name.strip() != "lo" and len(numbers) >= 12:
            found[name.strip()] = InterfaceUsage(*numbers[:4], *numbers[8:12])
    return found
