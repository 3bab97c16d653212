"""Gather what `build_spec` has to know about the machine: the impure half of `host.HostFacts`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from holdfast.kernel import identity
from holdfast.kernel.cgroup import CgroupLayout, paths
from holdfast.runtime import seccomp
from holdfast.runtime.devices import host_devices
from holdfast.runtime.host import HostFacts

_THROTTLE: Final = "cpu[0-9]*/thermal_throttle"
_CPUS: Final = Path("/sys/devices/system/cpu")
_SWAP_FILES: Final = ("memory.memsw.limit_in_bytes", "memory.swap.max")
_WEIGHT_FILES: Final = ("blkio.weight", "io.weight", "io.bfq.weight")
"""Those that crun and runc write: of version 1's, `blkio.bfq.weight` is not among them."""
_THROTTLE_FILES: Final = ("blkio.throttle.read_bps_device", "io.max")
_CPUSET_FILES: Final = ("cpuset.{}.effective", "cpuset.effective_{}", "cpuset.{}")
_APPARMOR: Final = Path("/sys/module/apparmor/parameters/enabled")


def gather(
    layout: CgroupLayout, controllers: frozenset[str], cgroup_parent: str, *, devices: bool = False
) -> HostFacts:
    """Read the facts. `controllers` are those that work below `cgroup_parent`, which exists. Raises OSError.

    With `devices`, every device node of the host as well, for a privileged container.
    """
    places = paths(layout, cgroup_parent)
    return HostFacts(
        machine=identity.machine(),
        kernel=parse_release(identity.kernel_release()),
        cgroup_v2=layout.kind == "v2",
        controllers=controllers,
        capabilities=identity.own_capabilities(),
        hard_limits={
            name.removeprefix("RLIMIT_").lower(): hard for name, (_, hard) in identity.rlimits().items()
        },
        oom_score_adj=identity.own_oom_score_adj(),
        swap_limit=_has(places, *_SWAP_FILES),
        swappiness=_has(places, "memory.swappiness"),
        cpu_realtime=_has(places, "cpu.rt_runtime_us"),
        cpu_count=identity.cpu_count(),
        cpuset_cpus=_cpuset(places, "cpus"),
        cpuset_mems=_cpuset(places, "mems"),
        blkio_weight=_has(places, *_WEIGHT_FILES),
        blkio_weight_device=_has(places, "blkio.weight_device"),
        blkio_throttle=_has(places, *_THROTTLE_FILES),
        apparmor=_has_apparmor(),
        seccomp=seccomp.default_profile(),
        thermal_throttle_paths=tuple(sorted(str(path) for path in _CPUS.glob(_THROTTLE))),
        devices=host_devices() if devices else (),
    )


def _has(places: Iterable[Path], *names: str) -> bool:
    return any((place / name).exists() for place in places for name in names)


def _cpuset(places: Iterable[Path], what: str) -> str:
    for place in places:
        for name in _CPUSET_FILES:
            with contextlib.suppress(FileNotFoundError):
                if text := (place / name.format(what)).read_text().strip():
                    return text
    return ""


def _has_apparmor() -> bool:
    try:
        return _APPARMOR.read_text().startswith("Y")
    except FileNotFoundError:
        return False


def parse_release(release: str) -> tuple[int, int]:
    """Major and minor of a kernel release such as `6.1.0-18-amd64`; (0, 0) if it is none. Pure."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)
