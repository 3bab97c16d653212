"""What an engine does first: bring its records into agreement with what runs, and finish or undo what was under way.

    rows → volumes → runtime → staged mounts → intents → tasks: adopted, settled or lost → leftovers → network

Containers whose process lives are taken over, with their volumes counted as mounted. Those that ended meanwhile are
settled with the exit code that conmon wrote. Those that vanished with the last boot are recorded as exited. Policies
are applied by `apply_policies` afterwards, in the background.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from holdfast import log
from holdfast.containers import create, policy, remove, update
from holdfast.containers.connecting import Connector
from holdfast.containers.container import Container
from holdfast.containers.exits import Exits
from holdfast.containers.folders import Folders
from holdfast.containers.health import at_end
from holdfast.containers.model import decode_row, now
from holdfast.containers.networking import networks_of
from holdfast.containers.remove import Remover
from holdfast.containers.rooms import Rooms
from holdfast.containers.start import Starter
from holdfast.errors import EngineError, NotFound, NotModified, Unavailable
from holdfast.volumes.drivers.base import MountFailed

if TYPE_CHECKING:
    from holdfast.runtime.exits import ExitInfo, ExitWatcher
    from holdfast.store.intents import Intent

logger = log.get(__name__)

LOST = 255
"""Docker's exit code for a container that vanished without a trace."""
SETTLING_S = 2.0
"""How long the engine waits for ended containers to be put away before it answers; the rest goes on behind."""
PLUGIN_WAIT_S = 15.0
"""How long containers that are to be started with the engine wait for a volume driver that is not there yet."""
_RETRY_S = 1.0


class Restorer:
    """Restores all containers, once, before anything else is asked of them."""

    def __init__(
        self, rooms: Rooms, watcher: ExitWatcher, starter: Starter, exits: Exits, remover: Remover, lane: Executor,
        take_over: Callable[[Container], None],
    ) -> None:
        """`take_over` is told of every container that runs."""
        self._rooms = rooms
        self._watcher = watcher
        self._starter = starter
        self._exits = exits
        self._remover = remover
        self._lane = lane
        self._take_over = take_over
        self._folders = Folders(rooms)

    def restore(self) -> None:
        """Do all but start containers. Raises Unavailable or System if nothing can run here at all."""
        rooms = self._rooms
        known = {row.id for row in rooms.store.containers.all()}
        containers = self._load()
        rooms.volumes.restore(known)
        rooms.runtime.probe()
        rooms.staging.recover()
        for intent in rooms.store.intents.open():
            self._finish(intent, containers)
        for container_id in self._folders.sweep(known):
            self._lane.submit(self._folders.reclaim, container_id)
        for container in containers.values():
            self._mend_folder(container)
        live: dict[str, Path] = {}
        ended: list[tuple[Container, ExitInfo]] = []
        for container in containers.values():
            self._recover(container, live, ended)
        self._clear_leftovers(containers, live, {container.id for container, _ in ended})
        rooms.network.restore(
            live, {container_id: frozenset(networks_of(containers[container_id].record)) for container_id in live}
        )
        for container_id in live:
            task = containers[container_id].state.task
            if task is not None:
                self._watcher.watch(container_id, task)
                self._take_over(containers[container_id])
        settling = [self._lane.submit(self._exits.settle, container.id, info) for container, info in ended]
        wait(settling, timeout=SETTLING_S)

    def apply_policies(self) -> None:
        """Start what is to run, each container by itself: one that cannot start holds up no other."""
        deadline = time.monotonic() + PLUGIN_WAIT_S
        for container in sorted(self._rooms.registry.all(), key=self._may_wait):
            state = container.state
            if state.task is not None:
                continue
            host = container.record.host_config
            if state.status == "restarting" or (
                state.started_at is not None
                and state.status == "exited"
                and policy.wants_start_with_engine(
                    host.restart_policy,
                    exit_code=state.exit_code,
                    restart_count=state.restart_count,
                    stopped_by_user=state.stopped_by_user,
                )
            ):
                self._lane.submit(self._start, container, container.run, deadline)
            elif host.auto_remove and state.started_at is not None:
                self._lane.submit(self._remove_ended, container)

    def _may_wait(self, container: Container) -> bool:
        """Tell whether a start may have to wait for a server: these come last."""
        points = container.record.mounts
        return any(point.type == "volume" and self._rooms.volumes.may_hang(point.name) for point in points)

    def _load(self) -> dict[str, Container]:
        containers = {}
        for row in self._rooms.store.containers.all():
            try:
                container = Container(*decode_row(row))
            except msgspec.MsgspecError as error:
                logger.error("container cannot be read, it is left alone", extra={"container": row.id, "error": error})
                continue
            self._rooms.registry.add(container)
            containers[row.id] = container
        return containers

    def _finish(self, intent: Intent, containers: dict[str, Container]) -> None:
        """Undo a create or an update that was never recorded; finish a removal that was begun."""
        rooms, container_id = self._rooms, intent.subject
        if intent.kind not in (create.INTENT, remove.INTENT, update.INTENT):
            return
        container = containers.get(container_id)
        try:
            if intent.kind == update.INTENT:
                if container is not None:
                    update.undo(rooms, container, intent.details["host_config"])
            elif intent.kind == create.INTENT:
                if container is None:
                    logger.info("undoing a create that was not finished", extra={"container": container_id})
                    rooms.volumes.release(container_id, remove_anonymous=True)
                    self._folders.discard(container_id)
            else:
                logger.info("finishing a removal", extra={"container": container_id})
                rooms.runtime.delete(container_id)
                if container is not None:
                    rooms.volumes.release(container_id, remove_anonymous=bool(intent.details.get("volumes")))
                    self._folders.discard(container_id)
                    rooms.store.containers.remove(container_id)
                    rooms.registry.remove(container)
                    del containers[container_id]
            rooms.store.intents.end(intent.id)
        except (EngineError, OSError) as error:
            facts = {"container": container_id, "kind": intent.kind, "error": error}
            logger.error("unfinished work stays", extra=facts)

    def _mend_folder(self, container: Container) -> None:
        """Make a container's folder again that a power cut took: all that was in it was never flushed either."""
        rootfs, record = self._rooms.rootfs, container.record
        if rootfs.is_prepared(record.id):
            return
        logger.warning("making a container's folder again", extra={"container": record.id})
        try:
            rootfs.prepare(record.id, record.layers)
        except OSError as error:
            logger.error("a container has no folder", extra={"container": record.id, "error": error})

    def _recover(
        self, container: Container, live: dict[str, Path], ended: list[tuple[Container, ExitInfo]]
    ) -> None:
        state = container.state
        if state.task is None:
            return
        found = self._watcher.recover(container.id, state.task)
        if found is None:
            container.health = at_end(container.health)
            self._rooms.registry.save(
                container,
                status="exited",
                task=None,
                mounted=(),
                exit_code=LOST,
                finished_at=now(),
            )
            return
        for point in state.mounted:
            try:
                self._rooms.volumes.remount(container.id, point)
            except EngineError as error:
                logger.warning("volume not taken over", extra={"container": container.id, "error": error})
        if found == "running":
            live[container.id] = Connector(self._rooms).namespace_of(container)
            return
        self._rooms.registry.note(
            container, status="exited", exit_code=found.exit_code, finished_at=found.finished_at
        )
        ended.append((container, found))

    def _clear_leftovers(self, containers: dict[str, Container], live: dict[str, Path], ended: set[str]) -> None:
        """Take down what a start left that was never acknowledged, and what belongs to no container at all."""
        kept = live.keys() | ended
        known = set(self._rooms.runtime.known())
        for container_id in containers.keys() - kept - known:
            if self._rooms.rootfs.is_mounted(container_id):
                self._rooms.rootfs.unmount(container_id)
        for container_id in known - kept:
            logger.info("taking down a start that was not finished", extra={"container": container_id})
            container = containers.get(container_id)
            if container is not None:
                self._starter.clean_up(container)
                continue
            try:
                self._rooms.runtime.delete(container_id)
            except EngineError as error:
                logger.warning("runtime state stays", extra={"container": container_id, "error": error})

    def _start(self, container: Container, run: int, deadline: float) -> None:
        """Start one container; a driver that is missing may still be on its way up."""
        try:
            with self._rooms.registry.hold(container):
                if container.run == run and container.state.task is None:
                    try:
                        self._starter.start(container)
                    except MountFailed as error:
                        self._report(container, error)
                        self._exits.retry_later(container)
        except (NotFound, Unavailable) as error:
            if time.monotonic() < deadline:
                self._exits.later(_RETRY_S, self._again(container, run, deadline))
                return
            self._report(container, error)
        except NotModified:
            return
        except EngineError as error:
            self._report(container, error)

    def _again(self, container: Container, run: int, deadline: float) -> Callable[[], None]:
        def submit() -> None:
            self._lane.submit(self._start, container, run, deadline)

        return submit

    def _report(self, container: Container, error: EngineError) -> None:
        logger.error("container not started with the engine", extra={"container": container.name, "error": error})

    def _remove_ended(self, container: Container) -> None:
        try:
            with self._rooms.registry.hold(container):
                if container.state.task is None:
                    self._remover.remove_ended(container)
        except EngineError as error:
            logger.warning("AutoRemove failed", extra={"container": container.id, "error": error})
