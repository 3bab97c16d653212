"""JSON shapes of the engine itself: version, info, events, disk usage. Source: Docker Engine API 1.51, tag System."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.events import Event

_GO_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "loongarch64": "loong64",
    "mips64": "mips64le",
}
_LEGACY_KEYS_UNTIL = (1, 51)


@dataclass(frozen=True, slots=True)
class Part:
    """A program that the engine uses, with its version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What the engine knows of the machine."""

    name: str
    kernel_release: str
    architecture: str
    """As `uname -m` has it."""
    operating_system: str
    os_version: str
    cpus: int
    memory_bytes: int
    cgroup_version: str
    controllers: frozenset[str]
    swap_limit: bool
    ipv4_forwarding: bool
    backing_filesystem: str
    security_options: Sequence[str]
    open_files: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How many objects there are."""

    running: int
    paused: int
    stopped: int
    images: int


def go_architecture(machine: str) -> str:
    """Give Go's name for a machine: amd64 for x86_64."""
    return _GO_MACHINES.get(machine, machine)


def encode_version(
    *, version: str, api_version: str, min_api_version: str, machine: str, kernel_release: str, parts: Sequence[Part]
) -> dict[str, Any]:
    """Give a SystemVersion. Go's version and the build's time and commit have no meaning here, and are empty."""
    architecture = go_architecture(machine)
    engine = {
        "ApiVersion": api_version,
        "Arch": architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": kernel_release,
        "MinAPIVersion": min_api_version,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Holdfast"},
        "Components": [
            {"Name": "Engine", "Version": version, "Details": engine},
            *({"Name": part.name, "Version": part.version, "Details": {"GitCommit": ""}} for part in parts),
        ],
        "Version": version,
        "ApiVersion": api_version,
        "MinAPIVersion": min_api_version,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": kernel_release,
        "BuildTime": "",
    }


def encode_info(
    *,
    engine_id: str,
    version: str,
    state_root: str,
    labels: Sequence[str],
    debug: bool,
    counts: Counts,
    machine: Machine,
    runtime: Part,
    runtimes: Mapping[str, str],
    init_binary: str,
    volume_drivers: Sequence[str],
    listeners: int,
    threads: int,
    now: str,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Give a SystemInfo with every field that `docker info` prints."""
    has = machine.controllers.__contains__
    return {
        "ID": engine_id,
        "Containers": counts.running + counts.paused + counts.stopped,
        "ContainersRunning": counts.running,
        "ContainersPaused": counts.paused,
        "ContainersStopped": counts.stopped,
        "Images": counts.images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", machine.backing_filesystem], ["Supports d_type", "true"]],
        "Plugins": {
            "Volume": list(volume_drivers),
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file", "local", "none"],
        },
        "MemoryLimit": has("memory"),
        "SwapLimit": machine.swap_limit,
        "CpuCfsPeriod": has("cpu"),
        "CpuCfsQuota": has("cpu"),
        "CPUShares": has("cpu"),
        "CPUSet": has("cpuset"),
        "PidsLimit": has("pids"),
        "IPv4Forwarding": machine.ipv4_forwarding,
        "Debug": debug,
        "NFd": machine.open_files,
        "OomKillDisable": machine.cgroup_version == "1" and has("memory"),
        "NGoroutines": threads,
        "SystemTime": now,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": machine.cgroup_version,
        "NEventsListener": listeners,
        "KernelVersion": machine.kernel_release,
        "OperatingSystem": machine.operating_system,
        "OSVersion": machine.os_version,
        "OSType": "linux",
        "Architecture": machine.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": {
                "docker.io": {"Mirrors": [], "Name": "docker.io", "Official": True, "Secure": True},
            },
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "Mirrors": None,
        },
        "NCPU": machine.cpus,
        "MemTotal": machine.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": state_root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": machine.name,
        "Labels": list(labels),
        "ExperimentalBuild": False,
        "ServerVersion": version,
        "Runtimes": {name: {"path": path} for name, path in runtimes.items()},
        "DefaultRuntime": runtime.name,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": init_binary,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": runtime.version},
        "InitCommit": {"ID": ""},
        "SecurityOptions": list(machine.security_options),
        "FirewallBackend": {"Driver": "nftables"},
        "CDISpecDirs": [],
        "Warnings": list(warnings) or None,
    }


def encode_event(event: Event, api_version: tuple[int, int]) -> dict[str, Any]:
    """Give an EventMessage; up to API 1.51 those of containers and images begin with `status`, `id`, `from`."""
    shape: dict[str, Any] = {}
    if event.type in {"container", "image"} and api_version <= _LEGACY_KEYS_UNTIL:
        shape = {"status": event.action, "id": event.actor_id}
        if event.type == "container" and event.attributes.get("image"):
            shape["from"] = event.attributes["image"]
    return {
        **shape,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": dict(sorted(event.attributes.items()))},
        "scope": event.scope,
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }


def encode_disk_usage(
    *,
    images: Sequence[object] | None,
    layers_size_bytes: int,
    containers: Sequence[object] | None,
    volumes: Sequence[object] | None,
    build_cache: Sequence[object] | None,
    builder_size_bytes: int = 0,
) -> dict[str, Any]:
    """Give a SystemDataUsage; what was not asked for is null. `BuilderSize` is of API versions before 1.42."""
    return {
        "LayersSize": layers_size_bytes,
        "Images": images,
        "Containers": containers,
        "Volumes": volumes,
        "BuildCache": build_cache,
        **({"BuilderSize": builder_size_bytes} if builder_size_bytes else {}),
    }
