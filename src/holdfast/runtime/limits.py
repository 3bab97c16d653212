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


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit by Docker's name, `nofile` say; -1 is unlimited."""

    name: str
    soft: int
    hard: int


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
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    blkio_weight: int = 0
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
    if limits.cpu_quota_us:
        cpu["quota"] = limits.cpu_quota_us
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
    if limits.blkio_weight:
        if host.blkio_weight:
            result["blockIO"] = {"weight": limits.blkio_weight}
        else:
            warnings.append("Your kernel does not support Block I/O weight or the cgroup is not mounted. "
                            "Weight discarded.")
    return result


def _memory(limits: Resources, host: HostFacts, warnings: list[str]) -> dict[str, object]:
    memory: dict[str, object] = {}
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
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0 and not host.cgroup_v2:
        memory["swappiness"] = limits.memory_swappiness
    if limits.oom_kill_disable and not host.cgroup_v2:
        memory["disableOOMKiller"] = True
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
