"""Records of a container: what was asked for, what became of it, and the state it is in.

Field names are those of the Docker Engine API in Python's spelling. None means that the client sent nothing or null,
where inspect must show that again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NewType

import msgspec

from holdfast.runtime.runtime import Task
from holdfast.shapes import know
from holdfast.store.containers import ContainerRow
from holdfast.volumes.mounts import MountPoint, MountSpec

ContainerID = NewType("ContainerID", str)

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
STATUSES: tuple[Status, ...] = ("created", "running", "paused", "restarting", "removing", "exited", "dead")

Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """How to ask a container whether it is well; times are in nanoseconds, 0 inherits."""

    test: Texts | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


HealthStatus = Literal["starting", "healthy", "unhealthy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """How one health check went; times are aware UTC."""

    start: datetime
    end: datetime
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the health checks of a container have found so far. Source: Docker Engine API, `Health`."""

    status: HealthStatus = "starting"
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """The portable half of a request. Source: Docker Engine API, `ContainerConfig`."""

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
    cmd: Texts | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    entrypoint: Texts | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: Texts | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: Texts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When to start a container again: `no`, `always`, `unless-stopped` or `on-failure`."""

    name: str = ""
    maximum_retry_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding:
    """Where a port is published; empty texts leave the choice to the engine."""

    host_ip: str = ""
    host_port: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node given to a container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """A resource limit, setrlimit(2); -1 is no limit."""

    name: str = ""
    soft: int = 0
    hard: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDevice:
    """A block device's share."""

    path: str = ""
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleDevice:
    """A block device's limit, in bytes or operations a second."""

    path: str = ""
    rate: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """Devices that a driver would choose; there is none, so no container has one."""

    driver: str = ""
    count: int = 0
    device_ids: Texts | None = None
    capabilities: tuple[Texts, ...] | None = None
    options: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Where the output goes."""

    type: str = ""
    config: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """The half of a request that depends on the machine. Source: Docker Engine API, `HostConfig`."""

    binds: Texts | None = None
    container_id_file: str = ""
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: Texts | None = None
    console_size: tuple[int, int] = (0, 0)
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
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] | None = None
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = None
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
    kernel_memory_tcp: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    mounts: tuple[dict[str, object], ...] | None = None
    """As the client sent them; what they came to is in `ContainerRecord.mounts`."""
    masked_paths: Texts | None = None
    readonly_paths: Texts | None = None
    init: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """What a container wants of one network."""

    aliases: Texts | None = None
    links: Texts | None = None
    ipv4_address: str = ""
    ipv6_address: str = ""
    asks_addresses: bool = False
    """Whether the client sent an IPAMConfig, be it empty: inspect shows it again."""
    mac_address: str = ""
    link_local_ips: Texts = ()
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """Everything that POST /containers/create can ask for. `name` is "" where the engine chooses."""

    name: str = ""
    platform: str = ""
    config: ContainerConfig = ContainerConfig()
    host_config: HostConfig = HostConfig()
    mounts: tuple[MountSpec, ...] = ()
    endpoints: dict[str, EndpointConfig] = field(default_factory=dict)
    api_version: tuple[int, int] = (1, 51)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a container is doing. Times are aware UTC, None until they happen.

    `stopped_by_user` keeps the restart policy off. `task` is there while a process exists, `mounted` are the volumes
    mounted for it, with their mount ids. Source: Docker Engine API, `ContainerState`.
    """

    status: Status = "created"
    task: Task | None = None
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restart_count: int = 0
    stopped_by_user: bool = False
    mounted: tuple[MountPoint, ...] = ()
    health: Health | None = None
    """As it was when the state was last written; what it is now is in `Container.health`."""

    @property
    def running(self) -> bool:
        """Whether Docker calls it running: a paused one is, and so is one that waits to be started again."""
        return self.status in ("running", "paused", "restarting")

    @property
    def pid(self) -> int:
        """The first process on the host, 0 if there is none."""
        return self.task.pid if self.task else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """One container as it was made. `config` is the request merged with the image's."""

    id: str
    name: str
    created_at: datetime
    image_id: str
    layers: Texts
    config: ContainerConfig
    host_config: HostConfig
    endpoints: dict[str, EndpointConfig] = field(default_factory=dict)
    bare: bool = False
    """Whether it was taken out of all its networks; else no `endpoints` means the network of its mode."""
    mounts: tuple[MountPoint, ...] = ()
    platform: str = "linux"

    @property
    def short_id(self) -> str:
        """The first twelve digits of the id."""
        return self.id[:12]

    @property
    def argv(self) -> Texts:
        """The command: entrypoint, then arguments."""
        return (self.config.entrypoint or ()) + (self.config.cmd or ())

    @property
    def image_ids(self) -> frozenset[str]:
        """The images that the container cannot do without: its own and those mounted in it."""
        return frozenset({self.image_id, *(point.image_id for point in self.mounts if point.image_id)})

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels, none included."""
        return self.config.labels or {}


def now() -> datetime:
    """The present, aware and in UTC."""
    return datetime.now(UTC)


def encode_row(record: ContainerRecord, state: State) -> ContainerRow:
    """Give the row that the catalogue keeps."""
    return ContainerRow(record.id, record.name, record.image_id, encode_document(record), encode_state(state))


def encode_document(record: ContainerRecord) -> bytes:
    """Give the row's `document`."""
    return msgspec.json.encode(record)


def encode_state(state: State) -> bytes:
    """Give the row's `state`."""
    return msgspec.json.encode(state)


def decode_row(row: ContainerRow) -> tuple[ContainerRecord, State]:
    """Read a row back; a field that an older engine did not write gets its default. Raises msgspec.MsgspecError."""
    record = msgspec.json.decode(row.document, type=ContainerRecord)
    return dataclasses.replace(record, name=row.name), msgspec.json.decode(row.state, type=State)


know(ContainerRecord, State)
