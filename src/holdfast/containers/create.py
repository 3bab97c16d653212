"""Making a container: what was asked for is checked, its volumes are taken and filled, and it is recorded.

    intent "container.create"  →  folders  →  volumes.attach  →  volumes.fill  →  one transaction: row, intent ended

An exception undoes these in reverse; after a death `restore` finds the intent and does the same. Named volumes that
were made stay, as with Docker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import faults, log
from holdfast.containers import merge, names, policy
from holdfast.containers.container import Container
from holdfast.containers.folders import Folders
from holdfast.containers.health import validate as validate_health
from holdfast.containers.model import (
    ContainerRecord,
    CreateRequest,
    HostConfig,
    LogConfig,
    RestartPolicy,
    State,
    encode_row,
    now,
)
from holdfast.containers.networking import port_requests
from holdfast.containers.rooms import Rooms
from holdfast.containers.signals import parse_signal
from holdfast.containers.spec import parse_security_options
from holdfast.errors import InvalidParameter, NotFound
from holdfast.kernel.path import make_dirs_beneath, open_in_root, owned_fd
from holdfast.runtime.spec import DEFAULT_SHM_BYTES, MASKED_PATHS, READONLY_PATHS
from holdfast.volumes import mounts
from holdfast.volumes.mounts import MountPoint

if TYPE_CHECKING:
    from holdfast.images.model import Image

logger = log.get(__name__)

INTENT = "container.create"
_ALL_DIGITS = re.compile(r"[0-9]{12}")
_SMALLEST_MEMORY_BYTES = 6 << 20


class Creator:
    """Makes containers."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def create(self, request: CreateRequest) -> tuple[Container, tuple[str, ...]]:
        """Make a container; gives it with warnings for the user.

        Raises NotFound only for a missing image (a client would pull it), InvalidParameter, Conflict for a taken name,
        System. Source: Docker Engine API, operationId ContainerCreate.
        """
        name = names.check(request.name) if request.name else ""
        _check(request)
        with contextlib.ExitStack() as held:
            image = held.enter_context(self._rooms.images.held(request.config.image))
            return self._create(request, name, image, held), _warnings(request)

    def _create(self, request: CreateRequest, name: str, image: Image, held: contextlib.ExitStack) -> Container:
        container_id = _new_id()
        config = merge.merge(request.config, image.config, container_id)
        points = mounts.parse(
            mounts.MountRequest(
                binds=request.host_config.binds or (),
                mounts=request.mounts,
                volumes=request.config.volumes or {},
                image_volumes=merge.image_volumes(image.config),
                volumes_from=[self._inherited(spec) for spec in request.host_config.volumes_from or ()],
                tmpfs=request.host_config.tmpfs or {},
                volume_driver=request.host_config.volume_driver,
                api_version=request.api_version,
                daemon_root=str(self._rooms.config.state_root),
            )
        )
        points = tuple(self._with_image(point, held) if point.type == "image" else point for point in points)
        _check_points(points)
        name = name or names.make(self._rooms.registry.has_name)
        self._rooms.registry.reserve(name, container_id)
        record = ContainerRecord(
            id=container_id,
            name=name,
            created_at=now(),
            image_id=image.id,
            layers=tuple(image.layers),
            config=config,
            host_config=settle(request.host_config, cgroup_v2=self._rooms.runtime.host_facts().cgroup_v2),
            endpoints=request.endpoints,
            mounts=points,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._rooms.registry.free, name, container_id)
            container = self._make(record, undo)
            undo.pop_all()
        self._rooms.tell(container, "create")
        return container

    def _make(self, record: ContainerRecord, undo: contextlib.ExitStack) -> Container:
        rooms = self._rooms
        intent = rooms.store.intents.begin(INTENT, record.id)
        undo.callback(rooms.store.intents.end, intent)
        undo.callback(Folders(rooms).discard, record.id)
        rooms.files_of(record.id).mkdir(parents=True, mode=0o710)
        rooms.rootfs.prepare(record.id, record.layers)
        faults.point("container-folders-made")
        points = self._rooms.volumes.attach(record.id, record.mounts)
        undo.callback(rooms.volumes.release, record.id, remove_anonymous=True)
        faults.point("container-volumes-attached")
        record = dataclasses.replace(record, mounts=points)
        self._fill(record)
        faults.point("container-created-not-recorded")
        container = Container(record, State())
        rooms.store.containers.add(encode_row(record, container.state), intent=intent)
        undo.pop_all()
        rooms.registry.add(container)
        return container

    def _fill(self, record: ContainerRecord) -> None:
        """Copy what the image has at the volumes' destinations into those that are empty."""
        points = [point for point in record.mounts if point.type == "volume" and point.copy_data]
        if not points:
            return
        rooms, working_dir = self._rooms, record.config.working_dir
        if working_dir and working_dir != "/":
            with rooms.rootfs.viewed(record.id, record.layers) as (rootfs, _):
                missing = not _has_directory(rootfs, working_dir)
            if missing:
                try:
                    _make_working_dir(rooms.rootfs.mount(record.id, record.layers), working_dir)
                finally:
                    rooms.rootfs.unmount(record.id)
        with rooms.rootfs.viewed(record.id, record.layers) as (rootfs, layers):
            for point in points:
                try:
                    rooms.volumes.fill(point, rootfs, layers)
                except NotFound as error:
                    logger.info("volume not filled", extra={"volume": point.name, "why": error})

    def _with_image(self, point: MountPoint, held: contextlib.ExitStack) -> MountPoint:
        """Find the image that a mount point names and keep it until the container is recorded. Raises NotFound."""
        image = held.enter_context(self._rooms.images.held(point.name))
        layers = self._rooms.images.layers_of(image)
        return dataclasses.replace(point, image_id=image.id, source=str(layers[0]) if layers else "")

    def _inherited(self, spec: str) -> tuple[str, tuple[MountPoint, ...]]:
        """Look up an entry of `VolumesFrom`; a missing container is a bad parameter, as 404 would mean the image."""
        reference, mode = mounts.parse_volumes_from(spec)
        try:
            return mode, self._rooms.registry.get(reference).record.mounts
        except NotFound as error:
            raise InvalidParameter(str(error)) from None


def settle(host: HostConfig, *, cgroup_v2: bool) -> HostConfig:
    """Fill in what Docker's inspect shows where a request says nothing."""
    return dataclasses.replace(
        host,
        log_config=LogConfig(type=host.log_config.type or "json-file", config=host.log_config.config or {}),
        restart_policy=RestartPolicy(
            name=host.restart_policy.name or "no", maximum_retry_count=host.restart_policy.maximum_retry_count
        ),
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        cgroupns_mode=host.cgroupns_mode or ("private" if cgroup_v2 else "host"),
        ipc_mode=host.ipc_mode or "private",
        shm_size=host.shm_size or DEFAULT_SHM_BYTES,
        memory_swap=host.memory_swap or 2 * host.memory,
        memory_swappiness=None if host.memory_swappiness in (None, -1) else host.memory_swappiness,
        pids_limit=host.pids_limit or None,
        oom_kill_disable=bool(host.oom_kill_disable),
        masked_paths=_paths(host.masked_paths, MASKED_PATHS, host),
        readonly_paths=_paths(host.readonly_paths, READONLY_PATHS, host),
    )


def _has_directory(rootfs: Path, path: str) -> bool:
    with owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        try:
            os.close(open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
    return True


def _make_working_dir(rootfs: Path, path: str) -> None:
    """Make the working directory, as a volume there would be filled from it; the runtime tells better why it cannot."""
    with contextlib.suppress(OSError), owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        os.close(make_dirs_beneath(root, path, in_root=True))


def _paths(asked: tuple[str, ...] | None, default: tuple[str, ...], host: HostConfig) -> tuple[str, ...] | None:
    if asked is not None:
        return asked
    return None if host.privileged else default


def _check(request: CreateRequest) -> None:
    """Raise InvalidParameter for what no container can be. Source: moby, verifyContainerSettings."""
    host = request.host_config
    validate_health(request.config.healthcheck)
    policy.check(host.restart_policy, auto_remove=host.auto_remove)
    parse_security_options(host.security_opt or ())
    if request.config.stop_signal:
        parse_signal(request.config.stop_signal)
    if request.config.working_dir and not request.config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{request.config.working_dir}' is invalid, it needs to be an absolute path"
        )
    for variable in request.config.env or ():
        if not variable or variable.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {variable}")
    port_requests(host, {})
    if 0 < host.memory < _SMALLEST_MEMORY_BYTES:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidParameter(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.oom_score_adj < -1000 or host.oom_score_adj > 1000:
        raise InvalidParameter(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")


def _check_points(points: tuple[MountPoint, ...]) -> None:
    for point in points:
        if point.type == "bind" and point.must_exist and not os.path.lexists(point.source):
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )


def _warnings(request: CreateRequest) -> tuple[str, ...]:
    host = request.host_config
    warnings = []
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    if host.volume_driver and any(mount.type == "volume" and not mount.driver for mount in request.mounts):
        warnings.append(
            "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
            "Use '--mount type=volume,volume-driver=...' instead"
        )
    return tuple(warnings)


def _new_id() -> str:
    """Give 64 random hexadecimal digits; the first twelve are not all decimal, as that would not do for a host name."""
    while True:
        candidate = secrets.token_hex(32)
        if not _ALL_DIGITS.match(candidate):
            return candidate
