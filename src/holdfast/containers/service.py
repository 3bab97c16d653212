"""The containers of this engine: the calls that the API makes, each in one place of this room."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import log
from holdfast.containers import listing, logconfig, names
from holdfast.containers.archive import Archives
from holdfast.containers.archive_walk import Emit
from holdfast.containers.commit import CommitRequest, Committer
from holdfast.containers.connecting import Connector
from holdfast.containers.container import CONDITIONS, Condition, Container, OnExit, OnSocket, Registry
from holdfast.containers.create import Creator
from holdfast.containers.exec import Execs
from holdfast.containers.exits import Exits
from holdfast.containers.export import export
from holdfast.containers.healthmonitor import HealthMonitor
from holdfast.containers.logconfig import LogRules
from holdfast.containers.logrotation import LogRotator
from holdfast.containers.model import CreateRequest, EndpointConfig, HostConfig, encode_document
from holdfast.containers.networking import networks_of
from holdfast.containers.remove import Remover
from holdfast.containers.restore import Restorer
from holdfast.containers.rooms import Rooms
from holdfast.containers.staging import Staging
from holdfast.containers.start import Starter
from holdfast.containers.stats import Stats
from holdfast.containers.stop import Stopper
from holdfast.containers.update import update
from holdfast.errors import Conflict, EngineError, InvalidParameter, NotFound, NotModified
from holdfast.network.model import Endpoint
from holdfast.runtime.exits import ExitWatcher
from holdfast.runtime.runtime import Task

if TYPE_CHECKING:
    from holdfast.config import Config
    from holdfast.events import EventBus
    from holdfast.images.differences import Change
    from holdfast.images.rootfs import RootFs
    from holdfast.images.service import Images
    from holdfast.network.service import Network
    from holdfast.runtime.runtime import Runtime
    from holdfast.store import Store
    from holdfast.volumes.service import Volumes

logger = log.get(__name__)

_SETTLING_THREADS = 64
_STARTING_THREADS = 32
_RETRYING_THREADS = 16


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed."""

    ids: tuple[str, ...]
    reclaimed_bytes: int


class Containers:
    """The container service. Calls block; errors are in Docker's words. Safe from any thread."""

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventBus,
        volumes: Volumes,
        images: Images,
        rootfs: RootFs,
        runtime: Runtime,
        network: Network,
    ) -> None:
        """Join the other rooms; `restore` must be called before anything else."""
        self._registry = Registry(store.containers)
        self._rooms = Rooms(
            config=config,
            store=store,
            events=events,
            volumes=volumes,
            images=images,
            rootfs=rootfs,
            network=network,
            runtime=runtime,
            registry=self._registry,
            staging=Staging(config.run_root),
        )
        self._settling = ThreadPoolExecutor(_SETTLING_THREADS, thread_name_prefix="settle")
        self._starting = ThreadPoolExecutor(_STARTING_THREADS, thread_name_prefix="start")
        self.archives = Archives(self._rooms)
        self.stats = Stats(self._rooms)
        self._retrying = ThreadPoolExecutor(_RETRYING_THREADS, thread_name_prefix="retry")
        self.execs = Execs(self._rooms, self._settling)
        self._creator = Creator(self._rooms)
        self._connector = Connector(self._rooms)
        self._health = HealthMonitor(self._rooms, self.execs)
        self._logs = LogRotator(self._rooms)
        self._starter = Starter(self._rooms, self._watch, self._on_started)
        self._remover = Remover(self._rooms, self._settling)
        self._exits = Exits(
            self._rooms,
            self._starter,
            self._settling,
            starting=self._starting,
            retrying=self._retrying,
            remove=self._remover.remove_ended,
            on_ended=self._on_ended,
        )
        self._stopper = Stopper(self._rooms, self._exits, self._health)
        self._committer = Committer(self._rooms, self._stopper)
        self._watcher = ExitWatcher(config.run_root, self._exits.on_exit, self._exits.on_oom)
        self._restorer = Restorer(
            self._rooms, self._watcher, self._starter, self._exits, self._remover, self._starting, self._take_over
        )
        images.in_use_by = self._users_of

    def restore(self) -> None:
        """Restore volumes, network and containers after a start of the engine. Raises Unavailable, System."""
        self._restorer.restore()
        self._committer.restore()

    def apply_restart_policies(self) -> None:
        """Start, in the background, what is to run with the engine."""
        self._restorer.apply_policies()

    def give_up_waiting(self) -> None:
        """Fail the calls that wait for a container to end, now and from now on: the engine stops."""
        self._stopper.waits.end()

    def close(self) -> None:
        """Let go of everything; containers run on."""
        self.stats.close()
        self._exits.close()
        self._health.close()
        self._logs.close()
        self._watcher.stop()
        self.execs.shut_down()
        self._starting.shutdown(wait=True, cancel_futures=True)
        self._retrying.shutdown(wait=True, cancel_futures=True)
        self._settling.shutdown(wait=True)

    # --- looked at ------------------------------------------------------------------------------------------------

    def get(self, reference: str) -> Container:
        """Find a container by id, name or the beginning of its id. Raises NotFound, InvalidParameter."""
        return self._registry.get(reference)

    def all(self) -> list[Container]:
        """Give every container, newest first."""
        return self._registry.all()

    def select(
        self, filters: listing.Filters | None = None, *, everything: bool = False, limit: int = 0
    ) -> Sequence[Container]:
        """Give the containers that pass Docker's filters, newest first. Raises InvalidParameter, NotFound."""
        lookups = listing.Lookups(
            self._images_of, self._registry.get, self._networks_of, health_of, self._ports_of
        )
        return listing.select(self._registry.all(), filters or {}, lookups, everything=everything, limit=limit)

    def endpoint(self, container: Container) -> Endpoint | None:
        """Give a container's place in the network that has its default route and ports, while it runs."""
        return self._rooms.network.endpoint(container.id)

    def endpoints(self, container: Container) -> Sequence[Endpoint]:
        """Give a container's places in its networks, while it runs."""
        return self._rooms.network.endpoints(container.id)

    def network_id(self, name: str) -> tuple[str, bool]:
        """Give a network's id, empty if there is none of that name, and whether containers have names on it."""
        try:
            return self._rooms.network.get(name).id, self._rooms.network.has_names(name)
        except NotFound:
            return "", False

    def _ports_of(self, container: Container) -> Sequence[tuple[int, int, str]] | None:
        endpoint = self.endpoint(container)
        if endpoint is None:
            return None
        return [(port.host_port, port.container_port, port.protocol) for port in endpoint.ports]

    def network_namespace(self, reference: str) -> str:
        """Give the path of a running container's network namespace. Raises NotFound, Conflict if it does not run."""
        found = self.get(reference)
        if found.state.status != "running":
            raise Conflict(f"cannot join network of a non running container: {found.id}")
        return f"/proc/{found.state.pid}/ns/net"

    def files_of(self, container: Container) -> Path:
        """Give the folder of a container's log and managed files."""
        return self._rooms.files_of(container.id)

    def log_of(self, container: Container) -> Path:
        """Give the path of a container's log."""
        return self._rooms.log_of(container.id)

    def log_rules(self, container: Container) -> LogRules:
        """Give what becomes of a container's output."""
        return logconfig.rules_of(container.record)

    def log_details(self, container: Container) -> str:
        """Give what `logs --details` puts before each line; see `logconfig.details`."""
        return logconfig.details(container.record)

    @property
    def runtime_name(self) -> str:
        """The OCI runtime that containers run in."""
        return self._rooms.runtime.probe().name

    def rootfs_of(self, container: Container) -> tuple[Path, Path, Sequence[Path]]:
        """Give a container's upper and merged directory and the layers below, topmost first."""
        rootfs, record = self._rooms.rootfs, container.record
        return rootfs.upper(record.id), rootfs.merged(record.id), rootfs.lower_dirs(record.layers)

    def size_of(self, container: Container) -> int:
        """Measure what a container changed, in bytes."""
        return self._rooms.rootfs.size_bytes(container.id)

    def changes(self, reference: str) -> list[Change]:
        """List what a container changed in its root. Raises NotFound, System. Operation ContainerChanges."""
        record = self._registry.get(reference).record
        return self._rooms.rootfs.changes(record.id, record.layers)

    def export(self, reference: str, emit: Emit) -> None:
        """Emit a container's root as a tar archive; see `export.export`."""
        export(self._rooms, reference, emit)

    def processes(self, container: Container) -> Sequence[int]:
        """Give the ids, on the host, of a container's processes. Raises Conflict if it does not run."""
        if container.state.task is None:
            raise Conflict(f"container {container.id} is not running")
        return self._rooms.runtime.processes(container.id)

    def tell(self, container: Container, action: str) -> None:
        """Publish what was done to a container without a call of its own here."""
        self._rooms.tell(container, action)

    def wait(self, reference: str, condition: str, on_exit: OnExit) -> Callable[[], None]:
        """Call `on_exit` with the exit code when `condition` is met; gives a function that ends the waiting.

        Raises InvalidParameter for a condition that is none, NotFound.
        """
        found: Condition = "not-running"
        for known in CONDITIONS:
            if known == condition:
                found = known
                break
        else:
            if condition:
                raise InvalidParameter(f'invalid condition: "{condition}"')
        return self._registry.get(reference).wait(found, on_exit)

    # --- changed --------------------------------------------------------------------------------------------------

    def create(self, request: CreateRequest) -> tuple[Container, tuple[str, ...]]:
        """Make a container; see `Creator.create`."""
        return self._creator.create(request)

    def start(self, reference: str) -> None:
        """Start a container; see `Starter.start`. One with AutoRemove that cannot start is removed."""
        container = self._registry.get(reference)
        with self._registry.hold(container):
            if container.state.task is None:
                container.restart_delay_s = 0.0
                self._registry.note(container, restart_count=0)
            try:
                self._starter.start(container)
            except NotModified:
                raise
            except EngineError:
                if container.record.host_config.auto_remove and container.state.status in ("created", "exited"):
                    self._remover.remove_ended(container)
                raise

    def stop(self, reference: str, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop a container; see `Stopper.stop`."""
        self._stopper.stop(self._registry.get(reference), timeout_s, signal)

    def restart(self, reference: str, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop a container if it runs, then start it. Operation ContainerRestart."""
        container = self._registry.get(reference)
        container.keep = True
        try:
            if container.state.running:
                try:
                    self._stopper.stop(container, timeout_s, signal)
                except NotModified:
                    logger.debug("ended before it was stopped", extra={"container": container.id})
            with contextlib.suppress(NotModified):  # somebody was quicker: it has been started anew all the same
                self.start(container.id)
        finally:
            container.keep = False
        self._rooms.tell(container, "restart")

    def kill(self, reference: str, signal: str = "") -> None:
        """Send a signal to a container's first process; see `Stopper.kill`."""
        self._stopper.kill(self._registry.get(reference), reference, signal)

    def pause(self, reference: str) -> None:
        """Freeze a container; see `Stopper.pause`."""
        self._stopper.pause(self._registry.get(reference))

    def unpause(self, reference: str) -> None:
        """Let a container go on; see `Stopper.unpause`."""
        self._stopper.unpause(self._registry.get(reference))

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container; see `Remover.remove`."""
        container = self._registry.get(reference)
        self._remover.remove(container, self._stopper.kill_and_wait, force=force, volumes=volumes)

    def connect(self, reference: str, network: str, wanted: EndpointConfig | None) -> None:
        """Put a container into a network; see `Connector.connect`."""
        self._connector.connect(reference, network, wanted)

    def disconnect(self, reference: str, network: str, *, force: bool = False) -> None:
        """Take a container out of a network; see `Connector.disconnect`."""
        self._connector.disconnect(reference, network, force=force)

    def rename(self, reference: str, new_name: str) -> None:
        """Give a container another name. Raises InvalidParameter, Conflict. Operation ContainerRename."""
        if not new_name or not reference:
            raise InvalidParameter("Neither old nor new names may be empty")
        container = self._registry.get(reference)
        name = names.check(new_name)
        with self._registry.hold(container):
            old = container.name
            if name == old:
                raise InvalidParameter("Renaming a container with the same name as its current name")
            try:
                self._registry.reserve(name, container.id)
            except Conflict as error:
                raise error.within("Error when allocating new name") from None
            record = replace(container.record, name=name)
            try:
                self._rooms.store.containers.rename(container.id, name, encode_document(record))
            except EngineError:
                self._registry.free(name, container.id)
                raise
            container.record = record
            self._registry.free(old, container.id)
            self._rooms.network.rename(container.id, name, old)
        self._rooms.tell(container, "rename", {"oldName": f"/{old}"})

    def update(self, reference: str, asked: HostConfig) -> tuple[str, ...]:
        """Change a container's limits and restart policy; see `update.update`. Raises NotFound too."""
        return update(self._rooms, self._registry.get(reference), asked)

    def commit(self, request: CommitRequest) -> str:
        """Make an image of a container; see `Committer.commit`."""
        return self._committer.commit(request)

    def prune(self, filters: listing.Filters, before: float | None = None) -> Pruned:
        """Remove every container that does not run and passes the filters; `before` is seconds since the epoch."""
        removed, reclaimed = [], 0
        for container in self._registry.all():
            record = container.record
            if container.state.running or not listing.match_labels(record.labels, filters.get("label", ())):
                continue
            if any(listing.match_labels(record.labels, [entry]) for entry in filters.get("label!", ())):
                continue
            if before is not None and record.created_at.timestamp() >= before:
                continue
            size = self._rooms.rootfs.size_bytes(record.id)
            try:
                self.remove(record.id)
            except (Conflict, NotFound):
                continue
            removed.append(record.id)
            reclaimed += size
        self._rooms.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(tuple(removed), reclaimed)

    # --- streams --------------------------------------------------------------------------------------------------

    def attach(self, reference: str, on_socket: OnSocket) -> tuple[Container, Callable[[], None]]:
        """Hand the socket of a container's streams to `on_socket`: now if it runs, else when it starts.

        `on_socket` gets None if there never will be one; it must not block. Gives the container and a function that
        ends the waiting. Raises NotFound, Conflict if it is paused.
        """
        container = self._registry.get(reference)
        if container.state.status == "paused":
            raise Conflict(f"container {reference} is paused, unpause the container before attach")
        if container.state.status == "restarting":
            raise Conflict(f"container {reference} is restarting, wait until the container is running")
        cancel = container.add_attacher(on_socket)
        if container.state.status == "running":
            with self._registry.hold(container):  # a start that was under way has given out its sockets by now
                if container.state.task is not None and container.drop_attacher(on_socket):
                    connection: socket.socket | None = None
                    try:
                        connection = self._rooms.runtime.open_attach(container.id)
                    except Conflict:
                        logger.debug("ended before it could be attached", extra={"container": container.id})
                    on_socket(connection)
        self._rooms.tell(container, "attach")
        return container, cancel

    def resize(self, reference: str, rows: int, columns: int) -> None:
        """Set the size of a container's terminal. Raises NotFound, Conflict if it does not run."""
        container = self._registry.get(reference)
        if container.state.task is None:
            raise Conflict(f"container {container.id} is not running")
        self._rooms.runtime.resize(container.id, rows, columns)
        self._rooms.tell(container, "resize", {"height": str(rows), "width": str(columns)})

    # --- inside ---------------------------------------------------------------------------------------------------

    def _watch(self, container_id: str, task: Task) -> None:
        self._watcher.watch(container_id, task)

    def _on_started(self, container: Container) -> None:
        self._logs.begin(container)
        self._health.begin(container)

    def _take_over(self, container: Container) -> None:
        self._logs.begin(container)
        self._health.take_over(container)

    def _on_ended(self, container: Container) -> None:
        self._health.recall(container)
        self._health.end(container, kill=False)
        self._logs.end(container)
        self.execs.forget(container)

    def _users_of(self, image_id: str) -> list[tuple[str, bool]]:
        return [
            (container.id, container.state.running)
            for container in self._registry.all()
            if image_id in container.record.image_ids
        ]

    def _images_of(self, reference: str) -> frozenset[str]:
        try:
            return frozenset({self._rooms.images.resolve(reference).id})
        except EngineError:
            return frozenset()

    def _networks_of(self, container: Container) -> Sequence[tuple[str, str]]:
        return [(name, self.network_id(name)[0]) for name in networks_of(container.record)]


def health_of(container: Container) -> str:
    """Give what a container's checks have found: `starting`, `healthy`, `unhealthy`, or "" if it has none."""
    return container.health.status if container.health else ""
