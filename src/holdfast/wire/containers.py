"""JSON shapes of containers: what POST /containers/create takes, what inspect and list give.

Field names follow Docker's; where the spelling is irregular it is given. Source: Docker Engine API 1.51.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import field

Texts = tuple[str, ...]
Uint = Annotated[int, "uint"]
Uint16 = Annotated[int, "uint16"]
Uint64 = Annotated[int, "uint64"]
Words = tuple[str, ...] | str | None
"""A command: Docker takes a text for a list of one."""


class Healthcheck(msgspec.Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """`HealthConfig`; times in nanoseconds."""

    test: Texts | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """`ContainerConfig`."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, str]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Texts | None = None
    cmd: Words = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    entrypoint: Words = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: Texts | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: Texts | None = None

    def __post_init__(self) -> None:
        if isinstance(self.cmd, str):
            self.cmd = (self.cmd,)
        if isinstance(self.entrypoint, str):
            self.entrypoint = (self.entrypoint,)


class LogConfig(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """`LogConfig`."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """`RestartPolicy`."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """`PortBinding`."""

    host_ip: str = ""
    host_port: str = ""


class Device(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """`DeviceMapping`."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class Ulimit(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """An entry of `Ulimits`."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class WeightDevice(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """An entry of `BlkioWeightDevice`."""

    path: str = ""
    weight: Uint16 = 0


class ThrottleDevice(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """`ThrottleDevice`."""

    path: str = ""
    rate: Uint64 = 0


class DeviceRequest(msgspec.Struct, rename="pascal", kw_only=True, frozen=True):
    """`DeviceRequest`; our engine has no device drivers, so it is read to be refused."""

    driver: str = ""
    count: int = 0
    device_ids: Texts | None = field(default=None, name="DeviceIDs")
    capabilities: tuple[Texts, ...] | None = None
    options: dict[str, str] | None = None


class DriverConfig(msgspec.Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """The driver of a volume that a mount may create."""

    name: str = ""
    options: dict[str, str] | None = None


class BindOptions(msgspec.Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """`Mount.BindOptions`."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(msgspec.Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """`Mount.VolumeOptions`."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    subpath: str = ""
    driver_config: DriverConfig | None = None


class ImageOptions(msgspec.Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """`Mount.ImageOptions`."""

    subpath: str = ""


class TmpfsOptions(msgspec.Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """`Mount.TmpfsOptions`."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[Texts, ...] | None = None


class Mount(msgspec.Struct, rename="pascal", omit_defaults=True, kw_only=True):
    """`Mount`, an entry of `HostConfig.Mounts`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: dict[str, Any] | None = None


class HostConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """`HostConfig`."""

    binds: Texts | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: Texts | None = None
    console_size: tuple[Uint, ...] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: Texts | None = None
    cap_drop: Texts | None = None
    cgroupns_mode: str = ""
    dns: Texts | None = None
    dns_options: Texts | None = None
    dns_search: Texts | None = None
    extra_hosts: Texts | None = None
    group_add: Texts | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: Texts | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: Texts | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: Uint16 = 0
    blkio_weight_device: tuple[WeightDevice, ...] | None = None
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[Device, ...] | None = None
    device_cgroup_rules: Texts | None = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: Uint64 = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: Uint64 = field(default=0, name="IOMaximumBandwidth")
    mounts: tuple[Mount, ...] | None = None
    masked_paths: Texts | None = None
    readonly_paths: Texts | None = None
    init: bool | None = None

    def __post_init__(self) -> None:
        self.console_size = (*self.console_size, 0, 0)[:2]  # an array of two in Go: filled up, or cut off


class IPAMConfig(msgspec.Struct, kw_only=True):
    """The addresses that an endpoint asks for."""

    ipv4_address: str = field(default="", name="IPv4Address")
    ipv6_address: str = field(default="", name="IPv6Address")
    link_local_ips: Texts | None = field(default=None, name="LinkLocalIPs")


class EndpointSettings(msgspec.Struct, rename="pascal", kw_only=True):
    """What a container wants of one network; what it has got is not read."""

    ipam_config: IPAMConfig | None = field(default=None, name="IPAMConfig")
    links: Texts | None = None
    aliases: Texts | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(msgspec.Struct, rename="pascal", kw_only=True):
    """`NetworkingConfig`."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class ContainerCreate(ContainerConfig, rename="pascal", kw_only=True):
    """The body of POST /containers/create: a configuration and its surroundings."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class ContainerUpdate(HostConfig, rename="pascal", kw_only=True):
    """The body of POST /containers/{id}/update: what of `HostConfig` is to change. Not all of it can."""


_OMITTED_FROM_CONFIG = (
    "ExposedPorts",
    "ArgsEscaped",
    "Healthcheck",
    "NetworkDisabled",
    "MacAddress",
    "StopSignal",
    "StopTimeout",
    "Shell",
)
_OMITTED_FROM_HOST_CONFIG = (
    "Annotations",
    "StorageOpt",
    "Tmpfs",
    "Sysctls",
    "Mounts",
    "Init",
    "KernelMemory",
    "KernelMemoryTCP",
)
_SHOWN_WHEN_GIVEN = ("Init", "StopTimeout")
"""Pointers in Go: 0 and false are shown, null is not."""


def encode_config(config: object) -> dict[str, Any]:
    """Encode anything with the attributes of `ContainerConfig`; what is empty is left out where Docker does so."""
    return _encode(msgspec.convert(config, ContainerConfig, from_attributes=True), _OMITTED_FROM_CONFIG)


def encode_host_config(host_config: object) -> dict[str, Any]:
    """Encode anything with the attributes of `HostConfig`, its mounts as documents that this module made."""
    return _encode(msgspec.convert(host_config, HostConfig, from_attributes=True), _OMITTED_FROM_HOST_CONFIG)


def encode_mounts(host_config: HostConfig) -> tuple[dict[str, Any], ...] | None:
    """Give the mounts as documents, to be shown again by inspect."""
    return None if host_config.mounts is None else tuple(msgspec.to_builtins(host_config.mounts))


def _encode(struct: msgspec.Struct, omitted: tuple[str, ...]) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(struct)
    for key in omitted:
        if document[key] is None or (not document[key] and key not in _SHOWN_WHEN_GIVEN):
            del document[key]
    return document


ZERO_TIME = "0001-01-01T00:00:00Z"
"""How Docker shows a time that never was."""


class MountPoint(msgspec.Struct, rename="pascal", omit_defaults=True):
    """`MountPoint`, an entry of `Mounts`; empty names and drivers are left out."""

    type: str
    name: str = ""
    source: str | None = None
    destination: str | None = None
    driver: str = ""
    mode: str | None = None
    rw: bool | None = field(default=None, name="RW")
    propagation: str | None = None


class EndpointInfo(msgspec.Struct, rename="pascal", kw_only=True):
    """`EndpointSettings` as inspect and list show it."""

    ipam_config: dict[str, str] | None = field(default=None, name="IPAMConfig")
    links: Texts | None = None
    aliases: Texts | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = field(default="", name="NetworkID")
    endpoint_id: str = field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = field(default="", name="IPAddress")
    ip_prefix_len: int = field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: Texts | None = field(default=None, name="DNSNames")


class NetworkSettings(msgspec.Struct, rename="pascal", kw_only=True):
    """`NetworkSettings`; the single fields repeat those of the default bridge."""

    bridge: str = ""
    sandbox_id: str = field(default="", name="SandboxID")
    sandbox_key: str = ""
    ports: dict[str, list[PortBinding] | None] = {}
    hairpin_mode: bool = False
    link_local_ipv6_address: str = field(default="", name="LinkLocalIPv6Address")
    link_local_ipv6_prefix_len: int = field(default=0, name="LinkLocalIPv6PrefixLen")
    secondary_ip_addresses: None = field(default=None, name="SecondaryIPAddresses")
    secondary_ipv6_addresses: None = field(default=None, name="SecondaryIPv6Addresses")
    endpoint_id: str = field(default="", name="EndpointID")
    gateway: str = ""
    global_ipv6_address: str = field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = field(default=0, name="GlobalIPv6PrefixLen")
    ip_address: str = field(default="", name="IPAddress")
    ip_prefix_len: int = field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = field(default="", name="IPv6Gateway")
    mac_address: str = ""
    networks: dict[str, EndpointInfo] = {}


class HealthcheckResult(msgspec.Struct, rename="pascal", kw_only=True):
    """`HealthcheckResult`."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(msgspec.Struct, rename="pascal", kw_only=True):
    """`Health`."""

    status: str
    failing_streak: int
    log: list[HealthcheckResult]


class ContainerState(msgspec.Struct, rename="pascal", kw_only=True):
    """`ContainerState`."""

    status: str
    running: bool
    paused: bool
    restarting: bool
    oom_killed: bool = field(name="OOMKilled")
    dead: bool
    pid: int
    exit_code: int
    error: str
    started_at: str
    finished_at: str
    health: Health | msgspec.UnsetType = msgspec.UNSET


class GraphDriver(msgspec.Struct, rename="pascal"):
    """`DriverData` of the overlay."""

    data: dict[str, str]
    name: str


class ContainerInspect(msgspec.Struct, rename="pascal", kw_only=True):
    """`ContainerInspectResponse`."""

    id: str
    created: str
    path: str
    args: list[str]
    state: ContainerState
    image: str
    resolv_conf_path: str
    hostname_path: str
    hosts_path: str
    log_path: str
    name: str
    restart_count: int
    driver: str
    platform: str
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: list[str] | None = field(default=None, name="ExecIDs")
    host_config: dict[str, Any]
    graph_driver: GraphDriver
    size_rw: int | msgspec.UnsetType = msgspec.UNSET
    size_root_fs: int | msgspec.UnsetType = msgspec.UNSET
    mounts: list[MountPoint]
    config: dict[str, Any]
    network_settings: NetworkSettings


class Port(msgspec.Struct, kw_only=True):
    """`Port`, an entry of a summary's `Ports`."""

    ip: str | msgspec.UnsetType = field(default=msgspec.UNSET, name="IP")
    private_port: int = field(name="PrivatePort")
    public_port: int | msgspec.UnsetType = field(default=msgspec.UNSET, name="PublicPort")
    type: str = field(name="Type")


class ContainerSummary(msgspec.Struct, rename="pascal", kw_only=True):
    """`ContainerSummary`."""

    id: str
    names: list[str]
    image: str
    image_id: str = field(name="ImageID")
    command: str
    created: int
    ports: list[Port]
    size_rw: int | msgspec.UnsetType = msgspec.UNSET
    size_root_fs: int | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, str]
    state: str
    status: str
    host_config: dict[str, Any]
    network_settings: dict[str, dict[str, EndpointInfo]]
    mounts: list[MountPoint]


def encode_time(at: datetime | None) -> str:
    """Give RFC 3339 in UTC as Go writes it: a fraction without trailing zeros; None is the zero time."""
    if at is None:
        return ZERO_TIME
    fraction = f".{at.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def command_text(path: str, args: Sequence[str]) -> str:
    """Give a command as lists show it: arguments with spaces in quotes. Source: moby, daemon/list.go."""
    return " ".join([path, *(f"'{arg}'" if " " in arg else arg for arg in args)])
