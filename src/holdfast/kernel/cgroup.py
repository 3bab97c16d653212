"""Control groups: pure v2, pure v1, and v1 beside an almost empty v2 ("hybrid").

A cgroup is named by its path in the hierarchy, `/holdfast/ID`, the same in every hierarchy. Which layout a
machine has follows from the mount table alone (`parse_layout`, pure), by the rule that runtimes use: it is v2
if /sys/fs/cgroup itself is cgroup2. Source: cgroups(7), Linux, Documentation/admin-guide/cgroup-v2.rst.
"""

import contextlib
import dataclasses
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

from holdfast.kernel import mountinfo, pidfd
from holdfast.kernel.libc import AT_FDCWD
from holdfast.kernel.path import mount_id, owned_fd

ROOT: Final = Path("/sys/fs/cgroup")

# What containers are limited by; what the machine lacks of these is left out.
_WANTED: Final = ("cpu", "memory", "pids", "io", "cpuset")
# Options of a v1 mount that are not names of controllers. Source: cgroups(7); systemd's `name=systemd`.
_V1_OPTIONS: Final = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods",
                                "none", "all", "nsdelegate", "seclabel"})
_CANNOT_ENABLE: Final = (errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP)
_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.05
_KILL_PASSES: Final = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Hierarchy:
    """One v1 hierarchy; a named one, such as systemd's, has no controllers."""

    mount_point: Path
    controllers: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class CgroupLayout:
    """How control groups are mounted. `controllers` are those that runtimes can use to limit a container."""

    kind: Literal["v1", "v2", "hybrid"]
    controllers: frozenset[str]
    hierarchies: tuple[Hierarchy, ...]         # v1, empty in a v2 layout
    unified: Path | None                       # where cgroup2 is mounted
    unified_controllers: frozenset[str]        # what cgroup2 offers at its root


# --- layout -----------------------------------------------------------------------------------------------

def parse_layout(mounts: Iterable[mountinfo.MountInfo], unified_controllers: str, root: Path = ROOT) -> CgroupLayout:
    """The layout that these mounts make; `unified_controllers` is cgroup2's `cgroup.controllers`. Pure.

    Raises ValueError if there is no control group below `root` at all.
    """
    offered = frozenset(unified_controllers.split())
    hierarchies: list[Hierarchy] = []
    unified: Path | None = None
    for entry in mounts:
        place = Path(entry.mount_point)
        if not place.is_relative_to(root):
            continue
        if entry.fstype == "cgroup2" and (unified is None or place == root):
            unified = place
        elif entry.fstype == "cgroup":
            names = frozenset(option for option in entry.super_options if "=" not in option) - _V1_OPTIONS
            if not any(names & known.controllers for known in hierarchies):     # a hierarchy mounted twice
                hierarchies.append(Hierarchy(place, names))
    if unified == root:
        return CgroupLayout("v2", offered, (), unified, offered)
    if not hierarchies:
        raise ValueError(f"no control groups are mounted below {root}")
    controllers = frozenset[str]().union(*(hierarchy.controllers for hierarchy in hierarchies))
    kind: Literal["v1", "hybrid"] = "v1" if unified is None else "hybrid"
    return CgroupLayout(kind, controllers, tuple(hierarchies), unified, offered if unified else frozenset())


def layout(root: Path = ROOT) -> CgroupLayout:
    """The layout of this machine as the calling thread sees it. Raises OSError, ENOENT if there is none."""
    mounts = [entry for entry in mountinfo.mounts_below(root) if _is_visible(entry)]
    offered = ""
    for entry in mounts:
        if entry.fstype == "cgroup2":
            offered = (Path(entry.mount_point) / "cgroup.controllers").read_text()
    try:
        return parse_layout(mounts, offered, root)
    except ValueError as error:
        raise OSError(errno.ENOENT, str(error), os.fspath(root)) from None


def crun_needs_hiding(layout: CgroupLayout) -> Path | None:
    """The file that crun must not see filled, or None.

    crun refuses to work with v1 while `unified/cgroup.controllers` names any. Source: crun 1.8,
    "cgroups in hybrid mode not supported, drop all controllers from cgroupv2".
    """
    if layout.kind != "hybrid" or layout.unified is None or not layout.unified_controllers:
        return None
    return layout.unified / "cgroup.controllers"


def _is_visible(entry: mountinfo.MountInfo) -> bool:
    """Whether this mount is what its mount point shows, rather than one covered by another."""
    try:
        return mount_id(AT_FDCWD, entry.mount_point) == entry.mount_id
    except OSError:
        return False


# --- making and filling -----------------------------------------------------------------------------------

def paths(layout: CgroupLayout, cgroup: str) -> tuple[Path, ...]:
    """Where `cgroup` is, or would be, in every hierarchy. Raises ValueError for a name that leaves the hierarchy."""
    parts = [part for part in cgroup.split("/") if part]
    if not parts or {".", ".."} & set(parts):
        raise ValueError(f"not the name of a control group: {cgroup!r}")
    roots = [hierarchy.mount_point for hierarchy in layout.hierarchies]
    if layout.unified is not None:
        roots.append(layout.unified)
    return tuple(root.joinpath(*parts) for root in roots)


def prepare(layout: CgroupLayout, parent: str) -> frozenset[str]:
    """Make `parent`, below which containers are placed, and return the controllers that work below it.

    In v2 each ancestor must hand its controllers down, and cannot while it holds processes itself, save the
    root; what it cannot hand down is missing in the answer. In v1 a new cpuset is empty and accepts no process
    until it has its parent's processors and memory nodes. Harmless to repeat. Raises OSError.
    """
    for place in paths(layout, parent):
        _make(place, _mount_of(layout, place))
    if layout.kind != "v2" or layout.unified is None:
        return layout.controllers
    place = layout.unified
    for part in ("", *(part for part in parent.split("/") if part)):
        place = place / part
        for controller in _WANTED:
            if controller in layout.controllers:
                _enable(place, controller)
    return frozenset((place / "cgroup.subtree_control").read_text().split())


def join(layout: CgroupLayout, cgroup: str, pid: int, *, make: bool = True) -> None:
    """Put a process into `cgroup`, made if it is missing, in every hierarchy.

    Raises OSError: ESRCH if the process is gone; ENOENT or ENODEV if the cgroup is and shall not be made.
    """
    for place in paths(layout, cgroup):
        if make:
            _make(place, _mount_of(layout, place))
        _write(place / "cgroup.procs", str(pid))


def write(layout: CgroupLayout, cgroup: str, name: str, text: str) -> None:
    """Write to the control file `name` of `cgroup`, in the hierarchy that has it. Raises OSError, ENOENT if none."""
    for place in paths(layout, cgroup):
        if (place / name).exists():
            _write(place / name, text)
            return
    raise FileNotFoundError(errno.ENOENT, f"no hierarchy has {name}", cgroup)


def _mount_of(layout: CgroupLayout, place: Path) -> Path:
    roots = [hierarchy.mount_point for hierarchy in layout.hierarchies]
    return next((root for root in roots if place.is_relative_to(root)), layout.unified or ROOT)


def _make(place: Path, root: Path) -> None:
    """Make `place` and its missing ancestors below `root`; give v1 cpusets what their parents have."""
    ancestors = [place, *place.parents]
    for directory in reversed(ancestors[:ancestors.index(root)]):
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
        if (directory / "cpuset.cpu_exclusive").exists():                # v1 only
            _inherit_cpuset(directory)


def _inherit_cpuset(directory: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (directory / name).read_text().strip():
            _write(directory / name, (directory.parent / name).read_text().strip())


def _enable(place: Path, controller: str) -> None:
    try:
        _write(place / "cgroup.subtree_control", f"+{controller}")
    except OSError as error:
        if error.errno not in _CANNOT_ENABLE:
            raise


def _write(file: Path, text: str) -> None:
    """One write(2), no creation: a control file that is not there must not be an ordinary new file."""
    with owned_fd(os.open(file, os.O_WRONLY | os.O_CLOEXEC)) as fd:
        try:
            os.write(fd, text.encode())
        except OSError as error:
            raise OSError(error.errno, f"write {text!r}: {error.strerror}", os.fspath(file)) from None


# --- looking ----------------------------------------------------------------------------------------------

def exists(layout: CgroupLayout, cgroup: str) -> bool:
    """Whether `cgroup` is there in any hierarchy."""
    return any(place.is_dir() for place in paths(layout, cgroup))


def pids(layout: CgroupLayout, cgroup: str) -> tuple[int, ...]:
    """The processes in `cgroup` and below it, in any hierarchy, sorted; none if it is not there. Raises OSError."""
    return tuple(sorted(_members(place for top in paths(layout, cgroup) for place in _leaves_first(top))))


def oom_count(layout: CgroupLayout, cgroup: str) -> int:
    """How many processes the kernel has killed here for want of memory; 0 if the cgroup is gone. Raises OSError."""
    name = "memory.events" if layout.kind == "v2" else "memory.oom_control"
    for place in paths(layout, cgroup):
        try:
            return parse_flat_keyed((place / name).read_text()).get("oom_kill", 0)
        except FileNotFoundError:
            continue
    return 0


def parse_flat_keyed(text: str) -> dict[str, int]:
    """Lines of `KEY NUMBER`, as in memory.events, memory.stat and cpu.stat; other lines are skipped. Pure."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _members(places: Iterable[Path]) -> set[int]:
    found: set[int] = set()
    for place in places:
        try:
            found.update(int(line) for line in (place / "cgroup.procs").read_text().split())
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):     # removed just now; a threaded cgroup
                raise
    return found - {0}                          # 0 stands for a process outside our pid namespace


def _leaves_first(top: Path) -> Iterator[Path]:
    """`top` and the cgroups below it, children before their parents; none if `top` is not there."""
    for directory, _, _ in os.walk(top, topdown=False):
        yield Path(directory)


# --- ending -----------------------------------------------------------------------------------------------

def kill(layout: CgroupLayout, cgroup: str) -> None:
    """Send SIGKILL to every process in `cgroup` and below, also to those forked meanwhile; does not wait.

    One write does it in v2 (cgroup.kill, Linux 5.14). In v1 passes are made until none is left that has not
    been sent the signal. Raises OSError.
    """
    if layout.kind == "v2":
        for place in paths(layout, cgroup):
            with contextlib.suppress(FileNotFoundError):
                _write(place / "cgroup.kill", "1")
        return
    sent: set[int] = set()
    for _ in range(_KILL_PASSES):
        fresh = set(pids(layout, cgroup)) - sent
        if not fresh:
            return
        with contextlib.ExitStack() as fds:
            handles: dict[int, int] = {}
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    handles[pid] = fds.enter_context(owned_fd(pidfd.pidfd_open(pid)))
            # A number may have passed to a stranger before its descriptor was opened; members it still has are ours.
            for pid in handles.keys() & set(pids(layout, cgroup)):
                with contextlib.suppress(ProcessLookupError):
                    pidfd.pidfd_send_signal(handles[pid], signal.SIGKILL)
        sent |= fresh
    raise OSError(errno.EAGAIN, "kill: processes appear faster than they can be killed", cgroup)


def remove(layout: CgroupLayout, cgroup: str, *, kill_leftovers: bool = False, timeout_s: float = 2.0) -> None:
    """Remove `cgroup` and those below it in every hierarchy; one that is not there is no error.

    A cgroup stays busy for a moment after its last process has died, so EBUSY is tried again until `timeout_s`
    has passed. With `kill_leftovers` what still lives there is killed first. Raises OSError.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    if kill_leftovers:
        kill(layout, cgroup)
    while True:
        try:
            for top in paths(layout, cgroup):
                for place in _leaves_first(top):
                    with contextlib.suppress(FileNotFoundError):
                        place.rmdir()
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
