"""What the spec of a container has to know about the machine it will run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.runtime.devices import DeviceNode
from holdfast.runtime.seccomp import Profile


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the spec has to know about the machine and about the engine's own privileges."""

    machine: str
    kernel: tuple[int, int]
    cgroup_v2: bool
    controllers: frozenset[str]
    capabilities: frozenset[str]
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    """The engine's hard limits by lower-case name, -1 for unlimited."""
    oom_score_adj: int = 0
    swap_limit: bool = True
    swappiness: bool = False
    cpu_realtime: bool = False
    cpu_count: int = 0
    """Processors that the engine may run on; 0 if that was not looked at."""
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    """What a container's cpuset can choose from, as `0-3,8`; empty if that is not known."""
    blkio_weight: bool = True
    blkio_weight_device: bool = False
    blkio_throttle: bool = True
    apparmor: bool = False
    seccomp: Profile | None = None
    thermal_throttle_paths: tuple[str, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    """Only gathered for privileged containers."""
