"""The OCI spec of a container, from what Docker's API says about it. Pure: the machine comes in as `HostFacts`.

Sources: OCI runtime spec 1.0.2, `config.md` and `config-linux.md`; defaults and their order are Docker's
(`oci/defaults.go`, `daemon/oci_linux.go`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdfast.errors import InvalidParameter
from holdfast.runtime import capabilities
from holdfast.runtime.devices import DeviceNode
from holdfast.runtime.host import HostFacts
from holdfast.runtime.limits import Resources, Ulimit, device_rule, linux_resources, rlimit
from holdfast.runtime.seccomp import Profile
from holdfast.runtime.sysctls import check_sysctl
from holdfast.runtime.user import User

__all__ = [
    "DEFAULT_PATH", "DEFAULT_SHM_BYTES", "INIT_DESTINATION", "MASKED_PATHS", "READONLY_PATHS", "HostFacts", "OciMount",
    "Resources", "SpecInput", "Ulimit", "build_environment", "build_spec", "capability_sets", "check_cwd",
    "process_limits",
]

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES: Final = 64 << 20
INIT_DESTINATION: Final = "/sbin/docker-init"

MASKED_PATHS: Final = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_KERNEL_MOUNTS: Final = frozenset({"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"})
_DESCRIPTOR_DIRECTORY: Final = re.compile(r"/proc/(self|thread-self|[0-9]+)(/task/[0-9]+)?/(fd|cwd|root)(/|$)")


@dataclass(frozen=True, slots=True)
class OciMount:
    """One entry of the spec's `mounts`."""

    destination: str
    source: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True, slots=True)
class SpecInput:
    """A container as the spec sees it. Namespaces are `private`, `host` or the path of one to join."""

    id: str
    rootfs: Path
    args: tuple[str, ...]
    cgroups_path: str
    hostname: str = ""
    domainname: str = ""
    env: tuple[str, ...] = ()
    """`KEY=value`; `KEY` alone takes a default away. Later ones win."""
    cwd: str = ""
    user: User = field(default_factory=User)
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    """Rows and columns."""
    readonly_rootfs: bool = False
    mounts: tuple[OciMount, ...] = ()
    """In the order in which they are made; one on a default mount's destination replaces it."""
    network_namespace: str = "private"
    network_is_shared: bool = False
    """Another container's: its parameters stay as that one has them."""
    pid_namespace: str = "private"
    ipc_namespace: str = "private"
    uts_namespace: str = "private"
    cgroup_namespace: str = ""
    """Empty: private on cgroup v2, the host's on v1, as Docker."""
    resources: Resources = field(default_factory=Resources)
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    seccomp: str = "default"
    """`default` (nothing for a privileged container), `builtin`, `unconfined`, or a profile as JSON text."""
    apparmor_profile: str = ""
    no_new_privileges: bool = False
    writable_cgroups: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    shm_size_bytes: int = 0
    """Of /dev/shm: 0 is the default, -1 none at all."""
    devices: tuple[DeviceNode, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    masked_paths: tuple[str, ...] | None = None
    """None: the default."""
    readonly_paths: tuple[str, ...] | None = None
    init: Path | None = None
    """A static init program of the host, to run in front of `args`."""
    rootfs_propagation: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


def build_spec(given: SpecInput, host: HostFacts) -> tuple[dict[str, object], tuple[str, ...]]:
    """Build the OCI spec; also return warnings for what this machine or engine cannot give.

    Raises InvalidParameter for unknown capabilities, limits, sysctls, seccomp profiles, and for a working directory
    that would be an open descriptor of the engine or runtime (CVE-2024-21626).
    """
    warnings: list[str] = []
    caps = _capabilities(given, host, warnings)
    spec: dict[str, object] = {
        "ociVersion": "1.0.2",
        "process": _process(given, host, caps, warnings),
        "root": {"path": str(given.rootfs), "readonly": given.readonly_rootfs},
        "mounts": _mounts(given),
        "linux": _linux(given, host, caps, warnings),
    }
    if given.hostname and given.uts_namespace != "host":
        spec["hostname"] = given.hostname
    if given.annotations:
        spec["annotations"] = dict(given.annotations)
    return spec, tuple(warnings)


def build_environment(given: SpecInput) -> list[str]:
    """Docker's default variables, then the container's own over them, in a stable order."""
    values = {"PATH": DEFAULT_PATH}
    if given.hostname:
        values["HOSTNAME"] = given.hostname
    if given.terminal:
        values["TERM"] = "xterm"
    for entry in given.env:
        key, equals, value = entry.partition("=")
        if equals:
            values[key] = value
        else:
            values.pop(key, None)
    values.setdefault("HOME", given.user.home)
    return [f"{key}={value}" for key, value in values.items()]


def capability_sets(uid: int, caps: tuple[str, ...]) -> dict[str, object]:
    """The `process.capabilities` of a user. Nothing is inheritable or ambient (CVE-2022-24769).

    For anybody but root only the bounding set is given, which is what execve(2) would leave.
    """
    if uid:
        return {"bounding": list(caps)}
    return {"bounding": list(caps), "effective": list(caps), "permitted": list(caps)}


def check_cwd(cwd: str) -> str:
    """Normalise a working directory, `/` if empty. Raises InvalidParameter if it is relative or a descriptor."""
    path = posixpath.normpath(cwd or "/").replace("//", "/")
    if not path.startswith("/"):
        raise InvalidParameter(f"the working directory '{cwd}' is invalid, it needs to be an absolute path")
    if _DESCRIPTOR_DIRECTORY.match(path):
        raise InvalidParameter(f"the working directory '{cwd}' is invalid, it must not be an open descriptor")
    return path


def _capabilities(given: SpecInput, host: HostFacts, warnings: list[str]) -> tuple[str, ...]:
    wanted = capabilities.effective(given.cap_add, given.cap_drop, privileged=given.privileged)
    lacking = [name for name in wanted if name not in host.capabilities]
    if lacking:
        warnings.append(f"The engine itself lacks {', '.join(lacking)}; the container runs without.")
    return tuple(name for name in wanted if name in host.capabilities)


def _process(
    given: SpecInput, host: HostFacts, caps: tuple[str, ...], warnings: list[str]
) -> dict[str, object]:
    args = list(given.args)
    if given.init is not None:
        args = [INIT_DESTINATION, "--", *args]
    user = given.user
    process: dict[str, object] = {
        "terminal": given.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": args,
        "env": build_environment(given),
        "cwd": check_cwd(given.cwd),
        "capabilities": capability_sets(user.uid, caps),
        "noNewPrivileges": given.no_new_privileges,
    }
    if given.terminal and given.console_size and all(given.console_size):
        process["consoleSize"] = {"height": given.console_size[0], "width": given.console_size[1]}
    process |= process_limits(given.ulimits, given.oom_score_adj, host, warnings)
    if given.apparmor_profile and host.apparmor:  # without AppArmor crun refuses even `unconfined`
        process["apparmorProfile"] = given.apparmor_profile
    return process


def process_limits(
    ulimits: Sequence[Ulimit], score: int, host: HostFacts, warnings: list[str]
) -> dict[str, object]:
    """The `rlimits` and `oomScoreAdj` of a process, within what the engine may give. Raises InvalidParameter."""
    process: dict[str, object] = {}
    limits = [rlimit(limit, host, warnings) for limit in ulimits]
    if limits:
        process["rlimits"] = limits
    if score < host.oom_score_adj and "CAP_SYS_RESOURCE" not in host.capabilities:
        if score:                               # 0 is what nobody asked for
            warnings.append(f"The engine may not lower oom_score_adj to {score}; "
                            f"the container keeps {host.oom_score_adj}.")
        score = host.oom_score_adj
    if score != host.oom_score_adj:
        process["oomScoreAdj"] = score
    return process


def _mounts(given: SpecInput) -> list[dict[str, object]]:
    """Default mounts that no mount of the container replaces, then the container's, then the init program."""
    taken = {mount.destination for mount in given.mounts}
    cgroup_mode = "rw" if given.privileged or given.writable_cgroups else "ro"
    shm_size = given.shm_size_bytes or DEFAULT_SHM_BYTES
    defaults = [
        OciMount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        OciMount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        OciMount("/dev/pts", "devpts", "devpts",
                 ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
        OciMount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "rw" if given.privileged else "ro")),
        OciMount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", cgroup_mode)),
        OciMount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ]
    if given.ipc_namespace == "host":
        defaults.append(OciMount("/dev/shm", "/dev/shm"))
    elif given.shm_size_bytes >= 0:
        defaults.append(
            OciMount("/dev/shm", "shm", "tmpfs", ("nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size}"))
        )
    if given.pid_namespace == "host" and given.privileged:
        defaults[0] = OciMount("/proc", "/proc", "bind", ("rbind", "rprivate"))
    kept = [
        mount for mount in defaults
        if mount.destination not in taken and not ("/dev" in taken and mount.destination.startswith("/dev/"))
    ]
    if given.readonly_rootfs:
        kept = [
            mount if mount.destination in _KERNEL_MOUNTS or {"ro", "rw"} & set(mount.options)
            else OciMount(mount.destination, mount.source, mount.type, (*mount.options, "ro"))
            for mount in kept
        ]
    chosen = kept + list(given.mounts)
    if given.init is not None:
        chosen.append(OciMount(INIT_DESTINATION, str(given.init), "bind", ("bind", "ro")))
    return [
        {"destination": m.destination, "source": m.source, "type": m.type, "options": list(m.options)} for m in chosen
    ]


def _linux(
    given: SpecInput, host: HostFacts, caps: tuple[str, ...], warnings: list[str]
) -> dict[str, object]:
    linux: dict[str, object] = {
        "cgroupsPath": given.cgroups_path,
        "namespaces": _namespaces(given, host),
        "resources": _resources(given, host, warnings),
        "sysctl": _sysctls(given),
    }
    devices = list(host.devices if given.privileged else ())
    own = {node.path for node in given.devices}
    devices = [node for node in devices if node.path not in own] + list(given.devices)
    if devices:
        linux["devices"] = [
            {"path": node.path, "type": node.type, "major": node.major, "minor": node.minor,
             "fileMode": node.mode, "uid": node.uid, "gid": node.gid}
            for node in devices
        ]
    masked, readonly = given.masked_paths, given.readonly_paths
    if masked is None:
        masked = () if given.privileged else MASKED_PATHS + host.thermal_throttle_paths
    if readonly is None:
        readonly = () if given.privileged else READONLY_PATHS
    if masked:
        linux["maskedPaths"] = list(masked)
    if readonly:
        linux["readonlyPaths"] = list(readonly)
    if given.rootfs_propagation:
        linux["rootfsPropagation"] = given.rootfs_propagation
    profile = _seccomp(given, host, warnings)
    if profile is not None:
        linux["seccomp"] = profile.for_container(frozenset(caps), host.machine, host.kernel)
    return linux


def _seccomp(given: SpecInput, host: HostFacts, warnings: list[str]) -> Profile | None:
    if given.seccomp == "unconfined" or (given.privileged and given.seccomp == "default"):
        return None
    if given.seccomp not in ("default", "builtin"):
        return Profile(given.seccomp)
    if host.seccomp is None:
        warnings.append("No seccomp profile is installed; the container runs without system call filtering.")
    return host.seccomp


def _namespaces(given: SpecInput, host: HostFacts) -> list[dict[str, str]]:
    wanted = {
        "mount": "private",
        "network": given.network_namespace,
        "pid": given.pid_namespace,
        "ipc": given.ipc_namespace,
        "uts": given.uts_namespace,
        "cgroup": given.cgroup_namespace or ("private" if host.cgroup_v2 else "host"),
    }
    return [
        {"type": kind} if choice == "private" else {"type": kind, "path": choice}
        for kind, choice in wanted.items()
        if choice != "host"
    ]


def _sysctls(given: SpecInput) -> dict[str, str]:
    """The container's sysctls over Docker's defaults, which let anybody ping and bind low ports in its own network."""
    result: dict[str, str] = {}
    if given.network_namespace != "host" and not given.network_is_shared:
        result["net.ipv4.ip_unprivileged_port_start"] = "0"
        result["net.ipv4.ping_group_range"] = "0 2147483647"
    if given.domainname and given.uts_namespace != "host":
        result["kernel.domainname"] = given.domainname
    for name, value in given.sysctls.items():
        check_sysctl(name, network=given.network_namespace, ipc=given.ipc_namespace, uts=given.uts_namespace)
        result[name] = value
    return result


def _resources(given: SpecInput, host: HostFacts, warnings: list[str]) -> dict[str, object]:
    return linux_resources(given.resources, host, warnings) | {"devices": _device_rules(given)}


def _device_rules(given: SpecInput) -> list[dict[str, object]]:
    """Deny everything first; the runtimes add the standard devices (null, zero, tty, ...) themselves."""
    if given.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
    rules += [
        {"allow": True, "type": node.type, "major": node.major, "minor": node.minor, "access": node.access}
        for node in given.devices
    ]
    return rules + [device_rule(rule) for rule in given.resources.device_cgroup_rules]
