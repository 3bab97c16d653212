"""Gather what `build_spec` has to know about the machine: the impure half of `host.HostFacts`."""

from __future__ import annotations

import re
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
_WEIGHT_FILES: Final = ("blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight")


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
        swap_limit=any((place / name).exists() for place in places for name in _SWAP_FILES),
        blkio_weight=any((place / name).exists() for place in places for name in _WEIGHT_FILES),
        seccomp=seccomp.default_profile(),
        thermal_throttle_paths=tuple(sorted(str(path) for path in _CPUS.glob(_THROTTLE))),
        devices=host_devices() if devices else (),
    )


def parse_release(release: str) -> tuple[int, int]:
    """Major and minor of a kernel release such as `6.1.0-18-amd64`; (0, 0) if it is none. Pure."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)
