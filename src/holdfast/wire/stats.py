"""The JSON shape of a container's statistics. Source: Docker Engine API 1.51, operation ContainerStats.

Some fields exist on cgroup v1 only, and Docker leaves out or nulls others where there is nothing to say; so this is
written out as documents, in Docker's order.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from holdfast.kernel.usage import CpuUsage, IoEntry, Moment, Usage
from holdfast.wire.containers import ZERO_TIME

_BLKIO_KINDS = (
    "io_service_bytes", "io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors",
)


def encode_stats(name: str, container_id: str, now: Moment, before: Moment) -> dict[str, Any]:
    """Give `StatsResponse`; `before` is the moment that processor time is to be compared with."""
    usage = now.usage
    document: dict[str, Any] = {
        "name": f"/{name}",
        "id": container_id,
        "read": encode_time_ns(now.at_ns),
        "preread": encode_time_ns(before.at_ns),
        "pids_stats": _filled({"current": usage.pids, "limit": usage.pids_limit}) if usage else {},
        "blkio_stats": {f"{kind}_recursive": _blkio(usage, kind) for kind in _BLKIO_KINDS},
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now),
    }
    if now.networks:
        document["networks"] = {key: asdict(counters) for key, counters in now.networks.items()}
    return document


def encode_time_ns(at_ns: int) -> str:
    """Give RFC 3339 in UTC with nanoseconds as Go writes it, without trailing zeros; 0 is the zero time."""
    if not at_ns:
        return ZERO_TIME
    seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}{fraction}Z"


def _blkio(usage: Usage | None, kind: str) -> list[dict[str, Any]] | None:
    entries: tuple[IoEntry, ...] = usage.io.get(kind, ()) if usage else ()
    if not entries and (usage is None or usage.v2):
        return None
    return [
        {"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value} for entry in entries
    ]


def _cpu(moment: Moment) -> dict[str, Any]:
    cpu = moment.usage.cpu if moment.usage else CpuUsage()
    times: dict[str, Any] = {"total_usage": cpu.total_ns}
    if cpu.percpu_ns:
        times["percpu_usage"] = list(cpu.percpu_ns)
    times |= {"usage_in_kernelmode": cpu.kernel_ns, "usage_in_usermode": cpu.user_ns}
    return {
        "cpu_usage": times,
        **_filled({"system_cpu_usage": moment.system_cpu_ns, "online_cpus": moment.processors}),
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_ns,
        },
    }


def _memory(moment: Moment) -> dict[str, Any]:
    memory = moment.usage.memory if moment.usage else None
    if memory is None:
        return {}
    return _filled({
        "usage": memory.usage_bytes,
        "max_usage": memory.max_usage_bytes,
        "stats": dict(memory.stats),
        "failcnt": memory.fail_count,
        "limit": moment.memory_limit_bytes,
    })


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is 0 or empty, as Go's `omitempty` does."""
    return {key: value for key, value in fields.items() if value}
