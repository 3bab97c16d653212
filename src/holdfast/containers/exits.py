"""What happens when a container ends: it is put away, told, and started again or removed as was asked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from holdfast import log
from holdfast.containers import policy
from holdfast.containers.alarm import Alarm
from holdfast.containers.container import Container
from holdfast.containers.rooms import Rooms
from holdfast.containers.start import Starter
from holdfast.errors import EngineError, NotFound
from holdfast.volumes.drivers.base import MountFailed

if TYPE_CHECKING:
    from holdfast.runtime.exits import ExitInfo

logger = log.get(__name__)


class Exits:
    """Settles ended containers in `lane`, so that one with a hanging volume holds up no other."""

    def __init__(
        self, rooms: Rooms, starter: Starter, lane: Executor, *,
        starting: Executor, retrying: Executor,
        remove: Callable[[Container], None], on_ended: Callable[[Container], None],
    ) -> None:
        """`remove` removes a container whose lock is held, as AutoRemove asks. `on_ended` is told of every end first.

        Restarts are made in `starting`. Those whose storage is away are tried again in `retrying`: they may hold a
        thread for as long as a mount may take, and hold up only each other.
        """
        self._starting = starting
        self._retrying = retrying
        self._on_ended = on_ended
        self._rooms = rooms
        self._starter = starter
        self._lane = lane
        self._remove = remove
        self._alarm = Alarm()

    def on_exit(self, container_id: str, info: ExitInfo) -> None:
        """Take the news from the runtime's watcher; returns at once."""
        self._lane.submit(self.settle, container_id, info)

    def on_oom(self, container_id: str) -> None:
        """Take the news that a container's memory ran out; returns at once."""
        self._lane.submit(self._note_oom, container_id)

    def _note_oom(self, container_id: str) -> None:
        """Note it once a run, whatever becomes of the container: the kernel may have killed but a child."""
        try:
            container = self._rooms.registry.get(container_id)
            with self._rooms.registry.hold(container):
                if container.state.task is not None and not container.state.oom_killed:
                    self._rooms.registry.save(container, oom_killed=True)
                    self._rooms.tell(container, "oom")
        except NotFound:
            return
        except EngineError as error:
            logger.error("lack of memory not noted", extra={"container": container_id, "error": error})

    def settle(self, container_id: str, info: ExitInfo) -> None:
        """Settle one exit; a container that is gone or was settled before is left alone."""
        try:
            container = self._rooms.registry.get(container_id)
            with self._rooms.registry.hold(container):
                if container.state.task is not None:
                    self._settle(container, info)
        except NotFound:
            return
        except EngineError as error:
            logger.error("exit could not be settled", extra={"container": container_id, "error": error})

    def close(self) -> None:
        """Plan no more restarts."""
        self._alarm.close()

    def cancel_restart(self, container: Container) -> None:
        """Turn a container that waits to be started again into one that has ended; the lock is held."""
        container.run += 1
        self._rooms.registry.save(container, status="exited", stopped_by_user=True)

    def start_later(self, container: Container, delay_s: float) -> None:
        """Start a container after a while, unless somebody starts, stops or removes it first."""
        self._plan(container, delay_s, self._starting)

    def retry_later(self, container: Container) -> None:
        """Try again, for as long as it takes, to start a container whose storage is away; its lock is held."""
        self._rooms.registry.note(container, status="restarting")
        container.restart_delay_s = min(policy.next_delay_s(container.restart_delay_s, 0.0), policy.STORAGE_DELAY_S)
        self._plan(container, container.restart_delay_s, self._retrying)

    def _plan(self, container: Container, delay_s: float, lane: Executor) -> None:
        run = container.run
        self.later(delay_s, lambda: lane.submit(self._start_again, container, run))

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Make a quick call in `delay_s` seconds, unless the engine stops first."""
        self._alarm.after(delay_s, call)

    def _settle(self, container: Container, info: ExitInfo) -> None:
        state, record = container.state, container.record
        self._on_ended(container)
        if info.oom_killed and not state.oom_killed:
            self._rooms.tell(container, "oom")
        self._starter.clean_up(container, root=False)
        ran_s = (info.finished_at - state.started_at).total_seconds() if state.started_at else 0.0
        again = policy.wants_restart(
            record.host_config.restart_policy,
            exit_code=info.exit_code,
            restart_count=state.restart_count,
            stopped_by_user=state.stopped_by_user,
        )
        changes: dict[str, object] = {
            "status": "restarting" if again else "exited",
            "task": None,
            "mounted": (),
            "exit_code": info.exit_code,
            "oom_killed": info.oom_killed or state.oom_killed,
            "finished_at": info.finished_at,
        }
        gone = record.host_config.auto_remove and not again and not container.keep
        if gone:  # nothing to write: the row is about to go, and restore would remove it as well
            self._rooms.registry.note(container, **changes)
        else:
            self._rooms.registry.save(container, **changes)
        self._rooms.tell(
            container, "die", {"exitCode": str(info.exit_code), "execDuration": str(max(0, int(ran_s)))}
        )
        container.tell_exit()
        self._starter.unmount_root(container)  # last, as nobody need wait until the disk has everything
        if again:
            container.restart_delay_s = policy.next_delay_s(container.restart_delay_s, ran_s)
            self.start_later(container, container.restart_delay_s)
        elif gone:
            self._remove(container)

    def _start_again(self, container: Container, run: int) -> None:
        try:
            with self._rooms.registry.hold(container):
                if container.run != run:
                    return
                count = container.state.restart_count
                self._rooms.registry.note(container, restart_count=count + 1)
                try:
                    self._starter.start(container)
                except MountFailed as error:
                    if not policy.is_kept_up(container.record.host_config.restart_policy):
                        raise
                    logger.warning("storage is away", extra={"container": container.name, "error": error})
                    self._rooms.registry.note(container, restart_count=count)
                    self.retry_later(container)
        except NotFound:
            return
        except EngineError as error:
            logger.error("restart failed", extra={"container": container.id, "error": error})
            self._give_up(container)

    def _give_up(self, container: Container) -> None:
        """A restart that could not be made ends the container: whoever waits for it must not wait for ever."""
        container.tell_exit()
        if container.record.host_config.auto_remove:
            try:
                with self._rooms.registry.hold(container):
                    self._remove(container)
            except EngineError as error:
                logger.error("removal failed", extra={"container": container.id, "error": error})
