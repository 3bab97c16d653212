"""Ending, pausing and signalling a container's process."""

from __future__ import annotations

import signal

from holdfast import log
from holdfast.containers import policy
from holdfast.containers.container import Container, Waits
from holdfast.containers.exits import Exits
from holdfast.containers.healthmonitor import HealthMonitor
from holdfast.containers.rooms import Rooms
from holdfast.containers.signals import parse_signal, stop_signal
from holdfast.errors import Conflict, EngineError, InvalidParameter, NotModified, System

logger = log.get(__name__)

KILL_TIMEOUT_S = 10.0
"""How long a process may take to vanish after SIGKILL before that counts as a failure."""


class Stopper:
    """Sends signals and waits for what they lead to."""

    def __init__(self, rooms: Rooms, exits: Exits, health: HealthMonitor) -> None:
        self._rooms = rooms
        self._exits = exits
        self._health = health
        self.waits = Waits()

    def stop(self, container: Container, timeout_s: int | None = None, signal_text: str = "") -> None:
        """Ask the process to end and, after `timeout_s` (negative: never), kill it; returns once it is put away.

        None takes the container's own timeout, else the engine's. Raises NotModified if it does not run,
        InvalidParameter for a signal that is none, System if it survives SIGKILL, Unavailable if the engine ends
        before that. Source: Docker Engine API, operationId ContainerStop.
        """
        number = parse_signal(signal_text) if signal_text else stop_signal(container.record.config.stop_signal)
        if timeout_s is None:
            configured = container.record.config.stop_timeout
            timeout_s = self._rooms.config.stop_timeout_s if configured is None else configured
        with self._rooms.registry.hold(container):
            if not container.state.running:
                raise NotModified(f"container {container.name} is not running")
            if container.state.status == "restarting":
                self._exits.cancel_restart(container)
                container.tell_exit()
                self._rooms.tell(container, "stop")
                return
            self._mark_stopped(container)
            self._send_if_alive(container, number)
        if not container.wait_until_stopped(None if timeout_s < 0 else timeout_s, self.waits):
            self.kill_and_wait(container)
        self._rooms.tell(container, "stop")

    def kill_and_wait(self, container: Container) -> None:
        """Kill the process and wait until it is put away; nothing happens if there is none. Raises System."""
        with self._rooms.registry.hold(container):
            if container.state.status == "restarting":
                self._exits.cancel_restart(container)
                container.tell_exit()
                return
            if container.state.task is None:
                return
            self._mark_stopped(container)
            self._send_if_alive(container, signal.SIGKILL)
        if not container.wait_until_stopped(KILL_TIMEOUT_S, self.waits):
            raise System(
                f"cannot stop container: {container.name}: tried to kill container, but did not receive an exit event"
            )

    def kill(self, container: Container, reference: str, signal_text: str = "") -> None:
        """Send a signal, SIGKILL unless told otherwise; waits for the end after SIGKILL only.

        A container with a stop signal of its own is only meant to end by that one or SIGKILL; any other by every
        signal, so that its restart policy rests. Raises Conflict if nothing runs, InvalidParameter for a signal that is
        none. Source: Docker Engine API, operationId ContainerKill; moby, daemon/kill.go.
        """
        what = f"cannot kill container: {reference}"
        try:
            number = parse_signal(signal_text) if signal_text else int(signal.SIGKILL)
        except InvalidParameter as error:
            raise error.within(what) from None
        if number == signal.SIGKILL and container.state.running:
            self.kill_and_wait(container)
            return
        with self._rooms.registry.hold(container):
            if container.state.task is None:
                raise Conflict(f"{what}: container {container.id} is not running")
            own = container.record.config.stop_signal
            ends = not own or number in (stop_signal(own), signal.SIGKILL)
            if ends:
                self._mark_stopped(container)
            try:
                self._send(container, number, unpause=ends)
            except Conflict as error:
                raise error.within(what) from None

    def pause(self, container: Container) -> None:
        """Freeze every process. Raises Conflict in Docker's words. Operation ContainerPause."""
        with self._rooms.registry.hold(container):
            if container.state.status == "paused":
                raise Conflict(f"Container {container.id} is already paused")
            if container.state.status == "restarting":
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            if container.state.status != "running":
                raise Conflict(f"container {container.id} is not running")
            self._health.end(container, kill=True)
            try:
                self._rooms.runtime.pause(container.id)
                self._rooms.registry.save(container, status="paused")
            except EngineError as error:
                task = container.state.task
                if task is None or not self._rooms.runtime.is_alive(task):  # it has just ended by itself
                    raise Conflict(f"container {container.id} is not running") from error
                self._health.begin(container)
                raise
        self._rooms.tell(container, "pause")

    def unpause(self, container: Container) -> None:
        """Let the processes go on. Raises System if it is not paused, as Docker does. Operation ContainerUnpause."""
        with self._rooms.registry.hold(container):
            self._unpause(container)

    def _unpause(self, container: Container) -> None:
        if container.state.status != "paused":
            raise System(f"Container {container.id} is not paused")
        self._rooms.runtime.resume(container.id)
        self._rooms.registry.save(container, status="running")
        self._health.begin(container)
        self._rooms.tell(container, "unpause")

    def _mark_stopped(self, container: Container) -> None:
        """Keep the restart policy off. Where there is one, an engine that takes over in between must know, too."""
        registry = self._rooms.registry
        if policy.is_kept_up(container.record.host_config.restart_policy):
            registry.save(container, stopped_by_user=True)
        else:
            registry.note(container, stopped_by_user=True)

    def _send_if_alive(self, container: Container, number: int) -> None:
        """Send a signal; a process that has ended by itself is as good, and is about to be put away."""
        try:
            self._send(container, number)
        except Conflict:
            logger.debug("ended before the signal", extra={"container": container.id})

    def _send(self, container: Container, number: int, *, unpause: bool = True) -> None:
        """Send a signal; a paused container must go on to notice it. The lock is held and a task is there."""
        task = container.state.task
        assert task is not None
        self._rooms.runtime.signal(task, container.id, number)
        self._rooms.tell(container, "kill", {"signal": str(int(number))})
        if unpause and container.state.status == "paused":
            self._unpause(container)
