"""From a container's record to what the runtime's spec is built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.containers.model import ContainerRecord, HostConfig, ThrottleDevice
from holdfast.containers.security import parse_security_options
from holdfast.containers.staging import Staged
from holdfast.runtime.devices import DeviceNode, block_device, resolve_device
from holdfast.runtime.limits import DeviceLimit
from holdfast.runtime.spec import OciMount, Resources, SpecInput, Ulimit
from holdfast.runtime.user import resolve_user

_TMPFS_BASE = ("noexec", "nosuid", "nodev")
_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "ro": "rw"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a start has made ready for a container."""

    rootfs: Path
    staged: Sequence[Staged]
    files: Path
    """The folder with its resolv.conf, hostname and hosts."""
    network_namespace: str
    cgroups_path: str
    init: Path | None = None
    shared_memory: Path | None = None
    """Where another container's /dev/shm is staged, for one that joins its IPC."""


def spec_input(record: ContainerRecord, around: Surroundings, pid_of: Callable[[str, str], int]) -> SpecInput:
    """Describe a container to `build_spec`. `pid_of` gives the first process of a container whose namespace is joined:
    it takes the kind, `PID` or `IPC`, and the container.

    Raises InvalidParameter for a user, device or option that makes no sense, and what `pid_of` raises.
    """
    config, host = record.config, record.host_config
    security = parse_security_options(host.security_opt or ())
    return SpecInput(
        id=record.id,
        rootfs=around.rootfs,
        args=record.argv,
        cgroups_path=around.cgroups_path,
        hostname=config.hostname,
        domainname=config.domainname,
        env=config.env or (),
        cwd=config.working_dir,
        user=resolve_user(around.rootfs, config.user, host.group_add or ()),
        terminal=config.tty,
        console_size=host.console_size,
        readonly_rootfs=host.readonly_rootfs,
        mounts=_mounts(record, around),
        network_namespace=around.network_namespace,
        network_is_shared=host.network_mode.startswith("container:"),
        pid_namespace=_namespace("PID", host.pid_mode, pid_of),
        ipc_namespace=_namespace("IPC", host.ipc_mode, pid_of),
        uts_namespace=_namespace("UTS", host.uts_mode, pid_of),
        cgroup_namespace=host.cgroupns_mode,
        resources=resources(host),
        cap_add=host.cap_add or (),
        cap_drop=host.cap_drop or (),
        privileged=host.privileged,
        seccomp=security.seccomp,
        apparmor_profile=security.apparmor,
        no_new_privileges=security.no_new_privileges,
        writable_cgroups=security.writable_cgroups,
        sysctls=host.sysctls or {},
        shm_size_bytes=-1 if host.ipc_mode == "none" else host.shm_size,
        devices=_devices(host),
        ulimits=tuple(Ulimit(limit.name, limit.soft, limit.hard) for limit in host.ulimits or ()),
        oom_score_adj=host.oom_score_adj,
        masked_paths=host.masked_paths,
        readonly_paths=host.readonly_paths,
        init=around.init if host.init else None,
        rootfs_propagation=_rootfs_propagation(around.staged),
        annotations=host.annotations or {},
    )


def resources(host: HostConfig) -> Resources:
    """Give the limits of a request in the runtime's terms. Raises InvalidParameter for what is no block device."""
    return Resources(
        memory_bytes=host.memory,
        memory_swap_bytes=host.memory_swap,
        memory_reservation_bytes=host.memory_reservation,
        memory_swappiness=host.memory_swappiness,
        oom_kill_disable=bool(host.oom_kill_disable),
        nano_cpus=host.nano_cpus,
        cpu_shares=host.cpu_shares,
        cpu_quota_us=host.cpu_quota,
        cpu_period_us=host.cpu_period,
        cpu_realtime_runtime_us=host.cpu_realtime_runtime,
        cpu_realtime_period_us=host.cpu_realtime_period,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        pids_limit=host.pids_limit or 0,
        blkio_weight=host.blkio_weight,
        blkio_weight_device=tuple(_device_limit(one.path, one.weight) for one in host.blkio_weight_device or ()),
        blkio_read_bps=_throttles(host.blkio_device_read_bps),
        blkio_write_bps=_throttles(host.blkio_device_write_bps),
        blkio_read_iops=_throttles(host.blkio_device_read_iops),
        blkio_write_iops=_throttles(host.blkio_device_write_iops),
        device_cgroup_rules=host.device_cgroup_rules or (),
    )


def _throttles(devices: Sequence[ThrottleDevice] | None) -> tuple[DeviceLimit, ...]:
    return tuple(_device_limit(device.path, device.rate) for device in devices or ())


def _device_limit(path: str, value: int) -> DeviceLimit:
    return DeviceLimit(*block_device(path), value)


def tmpfs_options(options: str) -> tuple[str, ...]:
    """Give mount options for an entry of `HostConfig.Tmpfs`: Docker's defaults, then the user's, the later winning."""
    return _merge_options((*_TMPFS_BASE, *filter(None, options.split(","))))


def _merge_options(options: Sequence[str]) -> tuple[str, ...]:
    merged: dict[str, str] = {}
    for option in options:
        name = option.partition("=")[0]
        merged.pop(group := _OPPOSITES.get(name, name), None)
        merged[group] = option
    return tuple(merged.values())


def _mounts(record: ContainerRecord, around: Surroundings) -> tuple[OciMount, ...]:
    """The container's mounts by depth of destination, then the files the engine manages, unless one is mounted over."""
    host = record.host_config
    staged = {item.point.destination: item for item in around.staged}
    tmpfs = host.tmpfs or {}
    mounts = [
        OciMount(point.destination, str(staged[point.destination].path), "bind", staged[point.destination].options)
        for point in record.mounts
        if point.destination in staged and point.destination not in tmpfs
    ]
    mounts += [
        OciMount(
            point.destination,
            "tmpfs",
            "tmpfs",
            _merge_options((*_TMPFS_BASE, *(() if point.rw else ("ro",)), *point.tmpfs_options)),
        )
        for point in record.mounts
        if point.type == "tmpfs" and point.destination not in tmpfs
    ]
    mounts += [OciMount(path, "tmpfs", "tmpfs", tmpfs_options(options)) for path, options in tmpfs.items()]
    mounts.sort(key=lambda mount: (mount.destination.rstrip("/").count("/"), mount.destination))
    taken = {mount.destination for mount in mounts}
    if around.shared_memory is not None and "/dev/shm" not in taken:
        options = ("bind", "rprivate", "nosuid", "nodev", "noexec")
        mounts.append(OciMount("/dev/shm", str(around.shared_memory), "bind", options))
    mounts += [
        OciMount(f"/etc/{name}", str(around.files / name))
        for name in ("resolv.conf", "hostname", "hosts")
        if f"/etc/{name}" not in taken
    ]
    return tuple(mounts)


def _namespace(kind: str, mode: str, pid_of: Callable[[str, str], int]) -> str:
    """A mode that was checked when the container was made, in the spec's terms."""
    if mode.startswith("container:"):
        return f"/proc/{pid_of(kind, mode.removeprefix('container:'))}/ns/{kind.lower()}"
    return "host" if mode == "host" else "private"


def _devices(host: HostConfig) -> tuple[DeviceNode, ...]:
    return tuple(
        node
        for device in host.devices or ()
        for node in resolve_device(device.path_on_host, device.path_in_container, device.cgroup_permissions or "rwm")
    )


def _rootfs_propagation(staged: Sequence[Staged]) -> str:
    """A shared or slave mount needs a root that lets mounts through. Source: moby, daemon/oci_linux.go, withMounts."""
    words = {item.point.propagation for item in staged}
    if words & {"shared", "rshared"}:
        return "shared"
    return "slave" if words & {"slave", "rslave"} else ""
