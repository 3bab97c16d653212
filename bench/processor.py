"""Processor time of everything that a run starts, whatever else the machine does: by control groups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/cpuacct")
_V2 = Path("/sys/fs/cgroup")
ROOT = _V1 if _V1.is_dir() else _V2


@contextlib.contextmanager
def group() -> Iterator[Path]:
    """A control group of our own, for this process and those that it starts in the time of a `with`."""
    place = ROOT / f"bench-{os.getpid()}"
    place.mkdir()
    before = ROOT / _own().lstrip("/")
    (place / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield place
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):
            place.rmdir()


def spent_s(place: Path, container_ids: Sequence[str]) -> float:
    """Seconds of processor time spent in a group and in those of some containers, so far."""
    wanted = set(container_ids)
    groups = [Path(folder) for folder, _, _ in os.walk(ROOT) if os.path.basename(folder) in wanted]
    return sum(map(_usage_s, [place, *groups]))


def _own() -> str:
    """The group that this process is in. Source: proc_pid_cgroup(5)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if ("cpuacct" in controllers.split(",")) if ROOT == _V1 else not controllers:
            return path
    return "/"


def _usage_s(place: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        if ROOT == _V1:
            return int((place / "cpuacct.usage").read_text()) / 1e9
        return int((place / "cpu.stat").read_text().split()[1]) / 1e6
    return 0.0
