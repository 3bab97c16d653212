"""Starting a container: its root, volumes, network and files are made ready, then the runtime is let loose.

    rootfs.mount → volumes.mount → network → files → stage → runtime.create → unstage → attachers → runtime.start → row

The process exists from `create` on but runs nothing before `start`, so whoever attaches gets the first byte. The row is
written last: an engine that dies before has acknowledged nothing, and `restore` takes such a process down again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast import faults, log
from holdfast.containers import health, logconfig
from holdfast.containers.bindsource import open_bind
from holdfast.containers.container import Container
from holdfast.containers.imagemounts import open_image
from holdfast.containers.joins import Joins
from holdfast.containers.logconfig import LogRules
from holdfast.containers.model import ContainerRecord, HostConfig, now
from holdfast.containers.networking import Networking
from holdfast.containers.rooms import Rooms
from holdfast.containers.spec import Surroundings, spec_input
from holdfast.containers.staging import settle_propagation
from holdfast.containers.targets import make_target
from holdfast.errors import Conflict, DeadlineExceeded, EngineError, NotModified, Unavailable
from holdfast.kernel.path import owned_fd
from holdfast.runtime import logfiles
from holdfast.runtime.messages import OTHER, StartFailed
from holdfast.runtime.runtime import Task, TaskRequest
from holdfast.runtime.spec import build_spec
from holdfast.volumes.drivers.base import HERE, MountFailed, Opened, opened_here
from holdfast.volumes.mounts import MountPoint

logger = log.get(__name__)

INIT_PROGRAMS = (
    Path("/usr/bin/catatonit"), Path("/usr/libexec/podman/catatonit"), Path("/usr/bin/tini-static"),
    Path("/usr/libexec/docker/docker-init"), Path("/usr/bin/docker-init"),
)


class Starter:
    """Starts containers and puts away what they leave behind."""

    def __init__(
        self, rooms: Rooms, watch: Callable[[str, Task], None], on_started: Callable[[Container], None]
    ) -> None:
        """`watch` waits for a task's end from then on; `on_started` is called once a start is recorded."""
        self._rooms = rooms
        self._watch = watch
        self._on_started = on_started
        self._networking = Networking(rooms)
        self._joins = Joins(rooms.registry)

    def start(self, container: Container) -> None:
        """Start a container; its lock is held.

        Raises NotModified if it runs, Conflict if it is paused or being removed; whatever else goes wrong is noted in
        its state, and it stays as it was. Source: Docker Engine API, operationId ContainerStart.
        """
        if container.state.status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        if container.state.status == "running":
            raise NotModified(f"container {container.name} is already running")
        if container.state.status in ("removing", "dead"):
            raise Conflict("container is marked for removal and cannot be started")
        if container.state.task is not None:  # it ended while no engine ran and has not been put away yet
            self.clean_up(container)
        try:
            self._launch(container)
        except EngineError as error:
            exit_code = error.exit_code if isinstance(error, StartFailed) else OTHER
            status = "created" if container.state.started_at is None else "exited"
            self._rooms.registry.save(container, status=status, error=str(error), exit_code=exit_code, task=None)
            for on_socket in container.take_attachers():
                on_socket(None)
            raise
        self._on_started(container)
        self._rooms.tell(container, "start")

    def clean_up(self, container: Container, *, root: bool = True) -> None:
        """Put away what an ended process leaves: runtime state, network, mounts; the lock is held.

        The root can be left for `unmount_root`, which may take long. What fails is logged: the container has ended
        whatever happens here.
        """
        rooms, record = self._rooms, container.record
        with _logged("runtime state stays", record.id):
            rooms.runtime.delete(record.id)
        with _logged("network stays", record.id):
            self._networking.disconnect(record)
        self._unmount(record.id, container.state.mounted)
        if root:
            self.unmount_root(container)

    def unmount_root(self, container: Container) -> None:
        """Unmount the root of a container that has ended, which flushes its file system; the lock is held."""
        with _logged("root stays mounted", container.id):
            self._rooms.unmount_root(container.id)

    def _launch(self, container: Container) -> None:
        rooms, record = self._rooms, container.record
        log_rules = logconfig.settle(record)
        logconfig.details(record)
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as fds:
            rootfs = rooms.rootfs.mount(record.id, record.layers, volatile=record.host_config.auto_remove)
            undo.callback(rooms.unmount_root, record.id)
            faults.point("container-root-mounted")
            mounted: list[MountPoint] = []
            undo.callback(self._unmount, record.id, mounted)
            sources = self._open_sources(container, mounted, fds)
            faults.point("container-volumes-mounted")
            for point, opened in sources:
                make_target(rootfs, point.destination, directory=stat.S_ISDIR(opened.mode))
            network = self._networking.connect(record)
            undo.callback(self._networking.disconnect, record)
            owner = self._joins.network_owner(container)
            if owner is container:
                self._networking.write_files(record, network)
            else:
                record = _with_names_of(owner.record, record)
            staged = rooms.staging.stage(record.id, sources)
            undo.callback(rooms.staging.unstage, record.id)
            fds.close()
            around = Surroundings(
                rootfs,
                staged,
                rooms.files_of(owner.id),
                network.namespace,
                rooms.cgroup_of(record),
                _init_of(record.host_config),
                self._stage_shared_memory(record),
            )
            facts = rooms.runtime.host_facts(privileged=record.host_config.privileged)
            spec, warnings = build_spec(spec_input(record, around, self._joins.pid), facts)
            for warning in warnings:
                logger.warning("limits of this engine", extra={"container": record.id, "what": warning})
            request = self._request(container, spec, log_rules)
            task = self._create(request, may_hang=any(opened.hands is not HERE for _, opened in sources))
            undo.callback(rooms.runtime.delete, record.id)
            rooms.staging.unstage(record.id)
            faults.point("container-task-created")
            self._release(container, task, tuple(mounted))
            undo.pop_all()

    def _create(self, request: TaskRequest, *, may_hang: bool) -> Task:
        """Have the runtime create the container; where it binds storage that may hang it has that storage's deadline.

        Raises MountFailed then, what `Runtime.create` raises.
        """
        if not may_hang:
            return self._rooms.runtime.create(request)
        try:
            timeout_s = self._rooms.config.mount_timeout_s
            return self._rooms.runtime.create(dataclasses.replace(request, timeout_s=timeout_s))
        except DeadlineExceeded as error:
            raise MountFailed(f"{error}: the storage of a volume does not answer: connection timed out") from error

    def _release(self, container: Container, task: Task, mounted: tuple[MountPoint, ...]) -> None:
        """Hand out the streams, let the process run, record it."""
        rooms = self._rooms
        attachers = container.take_attachers()
        opened = [(on_socket, rooms.runtime.open_attach(container.id)) for on_socket in attachers]
        if len(opened) > 1:
            rooms.runtime.let_attach(task)
        for on_socket, connection in opened:
            on_socket(connection)
        self._watch(container.id, task)
        rooms.runtime.start(container.id)
        faults.point("container-started-not-recorded")
        container.run += 1
        container.health = health.at_start(container.record.config, container.health)
        rooms.registry.save(
            container,
            status="running",
            task=task,
            mounted=mounted,
            started_at=now(),
            error="",
            exit_code=0,
            oom_killed=False,
            stopped_by_user=False,
        )

    def _request(self, container: Container, spec: dict[str, object], log_rules: LogRules) -> TaskRequest:
        record = container.record
        log_path = self._rooms.log_of(record.id) if log_rules.is_kept else None
        rotation = log_rules.rotation
        if log_path is not None:
            with _logged("log not rotated", record.id):
                logfiles.begin(log_path, rotation)
        return TaskRequest(
            id=record.id,
            name=record.name,
            spec=spec,
            terminal=record.config.tty,
            open_stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            log_path=log_path,
            log_size_bytes=rotation.monitor_bytes if rotation else None,
        )

    def _open_sources(
        self, container: Container, mounted: list[MountPoint], fds: contextlib.ExitStack
    ) -> list[tuple[MountPoint, Opened]]:
        """Mount the volumes and open every source; each volume mounted is added to `mounted` at once."""
        record = container.record
        hidden = record.host_config.tmpfs or {}
        sources = []
        for number, point in enumerate(record.mounts):
            if point.destination in hidden or point.type not in ("volume", "bind", "image"):
                continue
            if point.type == "volume":
                point = dataclasses.replace(point, mount_id=secrets.token_hex(32))
                opened = self._rooms.volumes.mount(record.id, point)
                mounted.append(point)
            elif point.type == "image":
                opened = opened_here(open_image(self._rooms, record.id, number, point, fds))
            else:
                opened = open_bind(point, self._rooms.volumes.hands_at(point.source))
            fds.callback(os.close, opened.fd)
            if point.type == "bind":
                point = settle_propagation(point, opened.fd, self._rooms.config.state_root)
            sources.append((point, opened))
        return sources

    def _unmount(self, container_id: str, mounted: list[MountPoint] | tuple[MountPoint, ...]) -> None:
        for point in mounted:
            with _logged("error while unmounting volume", container_id):
                self._rooms.volumes.unmount(container_id, point)

    def _stage_shared_memory(self, record: ContainerRecord) -> Path | None:
        """Make /dev/shm of the container ready whose IPC is joined, if one is."""
        mount = self._joins.shared_memory(record.host_config.ipc_mode)
        if mount is None:
            return None
        with owned_fd(mount):
            return self._rooms.staging.stage_mount(record.id, "shm", mount)


def _init_of(host: HostConfig) -> Path | None:
    """Give the init program to run in front, if any: where the container joins others' processes, one is there.

    Source: moby, daemon, WithCommonOptions: only with a PID namespace of its own.
    """
    return find_init() if host.init and not host.pid_mode else None


def find_init() -> Path:
    """Give a small static init program of the host. Raises Unavailable if none is installed."""
    for path in INIT_PROGRAMS:
        if path.exists():
            return path
    raise Unavailable("no init program for containers is installed", hint="apt install catatonit")


def _with_names_of(owner: ContainerRecord, record: ContainerRecord) -> ContainerRecord:
    """A container on another's network has its names, too. Source: moby, daemon, initializeNetworking."""
    own, config = owner.config, record.config
    named = dataclasses.replace(config, hostname=own.hostname, domainname=own.domainname)
    return dataclasses.replace(record, config=named)


@contextlib.contextmanager
def _logged(message: str, container_id: str) -> Iterator[None]:
    """Log what goes wrong in the block and go on."""
    try:
        yield
    except (EngineError, OSError) as error:
        logger.warning("%s", message, extra={"container": container_id, "error": error})
