"""Limits of a container: Docker's numbers into the OCI spec's, within what machine and engine can do. Pure.

Sources: OCI runtime spec 1.0.2, `config-linux.md`; the warnings are Docker's (`daemon/daemon_unix.go`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InvalidParameter
from holdfast.runtime.host import HostFacts

_CPU_PERIOD_US: Final = 100_000
_CPU_SHARES: Final = 1024
_BLOCK_IO_WEIGHT: Final = 500


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit by Docker's name, `nofile` say; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class DeviceLimit:
    """A weight or a limit of one block device, in bytes or operations a second."""

    major: int
    minor: int
    value: int


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits in Docker's terms; 0 or "" is unset. `memory_swap_bytes` and `pids_limit` take -1 for unlimited."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_reservation_bytes: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpu_realtime_runtime_us: int = 0
    cpu_realtime_period_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceLimit, ...] = ()
    blkio_read_bps: tuple[DeviceLimit, ...] = ()
    blkio_write_bps: tuple[DeviceLimit, ...] = ()
    blkio_read_iops: tuple[DeviceLimit, ...] = ()
    blkio_write_iops: tuple[DeviceLimit, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()


def rlimit(limit: Ulimit, host: HostFacts, warnings: list[str]) -> dict[str, object]:
    """One entry of the spec's `process.rlimits`, within what the engine may give. Raises InvalidParameter."""
    name = limit.name.lower()
    if name not in host.hard_limits:
        raise InvalidParameter(f"invalid ulimit type: {limit.name}")
    own = host.hard_limits[name]
    soft, hard = limit.soft, limit.hard
    if own >= 0 and "CAP_SYS_RESOURCE" not in host.capabilities:
        if hard < 0 or hard > own:
            warnings.append(f"The engine may not raise the limit {name} above {own}; the container gets {own}.")
            hard = own
        soft = hard if soft < 0 else min(soft, hard)
    unsigned = (1 << 64) - 1
    return {"type": f"RLIMIT_{name.upper()}", "soft": soft & unsigned, "hard": hard & unsigned}


def linux_resources(limits: Resources, host: HostFacts, warnings: list[str]) -> dict[str, object]:
    """The `linux.resources` of limits, without devices; also what an update hands to the runtime."""
    result: dict[str, object] = {}
    memory = _memory(limits, host, warnings)
    if memory:
        result["memory"] = memory
    cpu: dict[str, object] = {}
    if limits.nano_cpus:
        cpu["period"] = _CPU_PERIOD_US
        cpu["quota"] = limits.nano_cpus * _CPU_PERIOD_US // 1_000_000_000
    if limits.cpu_period_us:
        cpu["period"] = limits.cpu_period_us
    if limits.cpu_quota_us > 0:                 # below: no limit, which is the default
        cpu["quota"] = limits.cpu_quota_us
    if limits.cpu_realtime_period_us:
        cpu["realtimePeriod"] = limits.cpu_realtime_period_us
    if limits.cpu_realtime_runtime_us:
        cpu["realtimeRuntime"] = limits.cpu_realtime_runtime_us
    if limits.cpu_shares:
        cpu["shares"] = limits.cpu_shares
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    if cpu:
        result["cpu"] = cpu
    if limits.pids_limit > 0:
        if "pids" in host.controllers:
            result["pids"] = {"limit": limits.pids_limit}
        else:
            warnings.append("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. "
                            "PIDs limit discarded.")
    block_io = _block_io(limits, host, warnings)
    if block_io:
        result["blockIO"] = block_io
    return result


def changed_resources(before: Resources, after: Resources, host: HostFacts) -> dict[str, object]:
    """The `linux.resources` that turn one set of limits into another; what `after` does not limit becomes unlimited.

    Limits that the kernel weighs against each other come together.
    """
    old, new = linux_resources(before, host, []), linux_resources(after, host, [])
    result: dict[str, object] = {}
    for section, defaults in _unlimited(host).items():
        was, wanted = _section(old, section), _section(new, section)
        changed = {key for key in was.keys() | wanted.keys() if was.get(key) != wanted.get(key)}
        for together in _TOGETHER:
            if changed & together:
                changed |= together & (was.keys() | wanted.keys())
        values = {key: wanted.get(key, defaults.get(key)) for key in sorted(changed)}
        values = {key: value for key, value in values.items() if value not in (None, "")}
        if values:
            result[section] = values
    return result


def lifted(changed: dict[str, object], host: HostFacts) -> list[tuple[str, str]]:
    """Take limits to be lifted, which crun 1.8 writes as numbers, out of `changed_resources`; give files and texts."""
    files = []
    for section, key, name, text in (
        ("pids", "limit", "pids.max", "max"),
        ("cpu", "quota", *(("cpu.max", "max") if host.cgroup_v2 else ("cpu.cfs_quota_us", "-1"))),
    ):  # fmt: skip
        values = changed.get(section)
        if isinstance(values, dict) and values.get(key) == -1:
            files.append((name, text))
            del values[key]
            if not values:
                del changed[section]
    return files


_TOGETHER: Final = ({"limit", "swap"}, {"period", "quota"})


def _unlimited(host: HostFacts) -> dict[str, dict[str, object]]:
    """What a container has that no limit was set for."""
    return {
        "memory": {"limit": -1, "swap": -1, "reservation": 0 if host.cgroup_v2 else -1},
        "cpu": {
            "quota": -1, "period": _CPU_PERIOD_US, "shares": _CPU_SHARES, "cpus": host.cpuset_cpus,
            "mems": host.cpuset_mems,
        },
        "pids": {"limit": -1},
        "blockIO": {"weight": _BLOCK_IO_WEIGHT},
    }  # fmt: skip


def _section(resources: dict[str, object], name: str) -> dict[str, object]:
    section = resources.get(name)
    return dict(section) if isinstance(section, dict) else {}


def _block_io(limits: Resources, host: HostFacts, warnings: list[str]) -> dict[str, object]:
    result: dict[str, object] = {}
    if limits.blkio_weight:
        if host.blkio_weight:
            result["weight"] = limits.blkio_weight
        else:
            warnings.append("Your kernel does not support Block I/O weight or the cgroup is not mounted. "
                            "Weight discarded.")
    if limits.blkio_weight_device and host.blkio_weight_device:
        result["weightDevice"] = [
            {"major": device.major, "minor": device.minor, "weight": device.value}
            for device in limits.blkio_weight_device
        ]
    for name, devices in (
        ("throttleReadBpsDevice", limits.blkio_read_bps), ("throttleWriteBpsDevice", limits.blkio_write_bps),
        ("throttleReadIOPSDevice", limits.blkio_read_iops), ("throttleWriteIOPSDevice", limits.blkio_write_iops),
    ):  # fmt: skip
        if devices and host.blkio_throttle:
            result[name] = [
                {"major": device.major, "minor": device.minor, "rate": device.value} for device in devices
            ]
    return result


def _memory(limits: Resources, host: HostFacts, warnings: list[str]) -> dict[str, object]:
    memory: dict[str, object] = {}
    if "memory" in host.controllers and not host.cgroup_v2:
        if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
            memory["swappiness"] = limits.memory_swappiness
        if limits.oom_kill_disable:
            memory["disableOOMKiller"] = True
    if not (limits.memory_bytes or limits.memory_reservation_bytes or limits.memory_swap_bytes):
        return memory
    if "memory" not in host.controllers:
        warnings.append("Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
                        "Limitation discarded.")
        return memory
    if limits.memory_bytes:
        memory["limit"] = limits.memory_bytes
        if host.swap_limit:
            memory["swap"] = limits.memory_swap_bytes or 2 * limits.memory_bytes
        elif limits.memory_swap_bytes != -1:
            warnings.append("Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
                            "Memory limited without swap.")
    if limits.memory_reservation_bytes:
        memory["reservation"] = limits.memory_reservation_bytes
    return memory


def device_rule(text: str) -> dict[str, object]:
    """One `--device-cgroup-rule`: `c 1:3 mr`, with `*` for any number. Raises InvalidParameter."""
    match = re.fullmatch(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})", text, re.ASCII)
    if match is None:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    rule: dict[str, object] = {"allow": True, "type": kind, "access": access}
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule
