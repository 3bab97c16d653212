"""A container in memory: its record, its state, and who waits for what.

`Container.record` and `.state` are replaced whole, under the container's lock (see `Registry.hold`); reading them needs
no lock. Waiters have a small lock of their own, so that waiting never meets a start that takes long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from holdfast.containers.model import ContainerRecord, Health, State, encode_state
from holdfast.errors import Conflict, InvalidParameter, NotFound, Unavailable
from holdfast.locks import NamedLocks
from holdfast.store.containers import ContainerTable

if TYPE_CHECKING:
    import socket

    from holdfast.containers.exec import Exec

Condition = Literal["not-running", "next-exit", "removed"]
CONDITIONS: tuple[Condition, ...] = ("not-running", "next-exit", "removed")

OnExit = Callable[[int], None]
OnSocket = Callable[["socket.socket | None"], None]


class Container:
    """One container and those who wait for it."""

    __slots__ = (
        "_attachers", "_guard", "_waiters", "execs", "health", "keep", "record", "removing", "restart_delay_s", "run",
        "state",
    )

    def __init__(self, record: ContainerRecord, state: State) -> None:
        self.record = record
        self.state = state
        self.health: Health | None = state.health
        """What its checks have found; None without any. Kept by `HealthMonitor`, written down with the state."""
        self.execs: dict[str, Exec] = {}
        self.restart_delay_s = 0.0
        self.run = 0
        """Counts starts and manual stops: a restart that was planned before the last of them is void."""
        self.keep = False
        """While the user restarts it: AutoRemove waits."""
        self.removing = False
        self._guard = threading.Lock()
        self._waiters: list[tuple[Condition, OnExit]] = []
        self._attachers: list[OnSocket] = []

    @property
    def id(self) -> str:
        """The full id."""
        return self.record.id

    @property
    def name(self) -> str:
        """The name, without a slash."""
        return self.record.name

    def wait(self, condition: Condition, on_exit: OnExit) -> Callable[[], None]:
        """Call `on_exit` with the exit code once `condition` is met, at once if it is; it must not block.

        Gives a function that ends the waiting. Source: Docker Engine API, operationId ContainerWait.
        """
        entry = (condition, on_exit)
        with self._guard:
            met = condition == "not-running" and not self.state.running
            if not met:
                self._waiters.append(entry)
        if met:
            on_exit(self.state.exit_code)

        def cancel() -> None:
            with self._guard:
                if entry in self._waiters:
                    self._waiters.remove(entry)

        return cancel

    def ended(self) -> threading.Event:
        """Give an event that is set at the next exit."""
        event = threading.Event()
        self.wait("next-exit", lambda _code: event.set())
        return event

    def removed(self) -> threading.Event:
        """Give an event that is set when the container is removed."""
        event = threading.Event()
        self.wait("removed", lambda _code: event.set())
        return event

    def wait_until_stopped(self, timeout_s: float | None, waits: Waits) -> bool:
        """Block until the container is not running or waits to be restarted; False if that took too long.

        Raises Unavailable if the engine ends first.
        """
        with waits.one() as stopped:
            cancel = self.wait("next-exit", lambda _code: stopped.set())
            try:
                if self.state.task is None:
                    return True
                in_time = stopped.wait(timeout_s)
            finally:
                cancel()
        if waits.over and self.state.task is not None:
            raise Unavailable(f"container {self.name}: the engine ends before the container does")
        return in_time

    def tell_exit(self) -> None:
        """Wake those who wait for an exit."""
        self._wake(("not-running", "next-exit"))

    def tell_removal(self) -> None:
        """Wake everybody: nothing more will happen to this container."""
        self._wake(CONDITIONS)
        for on_socket in self.take_attachers():
            on_socket(None)

    def add_attacher(self, on_socket: OnSocket) -> Callable[[], None]:
        """Call `on_socket` when the container starts, before its first byte; with None if it never will."""
        with self._guard:
            self._attachers.append(on_socket)

        def cancel() -> None:
            self.drop_attacher(on_socket)

        return cancel

    def drop_attacher(self, on_socket: OnSocket) -> bool:
        """Take back `add_attacher`; False if the socket was given out already."""
        with self._guard:
            waiting = on_socket in self._attachers
            if waiting:
                self._attachers.remove(on_socket)
        return waiting

    def take_attachers(self) -> list[OnSocket]:
        """Give those who wait to attach, once."""
        with self._guard:
            attachers, self._attachers = self._attachers, []
        return attachers

    def _wake(self, conditions: tuple[Condition, ...]) -> None:
        with self._guard:
            met = [on_exit for condition, on_exit in self._waiters if condition in conditions]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] not in conditions]
        for on_exit in met:
            on_exit(self.state.exit_code)


class Waits:
    """Waits for containers that hold up a caller, to be ended together when the engine ends."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._events: set[threading.Event] = set()
        self.over = False
        """Whether the engine is about to end."""

    @contextlib.contextmanager
    def one(self) -> Iterator[threading.Event]:
        """Give an event to wait for, which is set when the engine ends, too."""
        event = threading.Event()
        with self._guard:
            self._events.add(event)
            if self.over:
                event.set()
        try:
            yield event
        finally:
            with self._guard:
                self._events.discard(event)

    def end(self) -> None:
        """End every wait, now and from now on."""
        with self._guard:
            self.over = True
            for event in self._events:
                event.set()


class Registry:
    """Every container, by id and by name."""

    def __init__(self, table: ContainerTable) -> None:
        self._table = table
        self._guard = threading.Lock()
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._locks = NamedLocks()

    @contextlib.contextmanager
    def hold(self, container: Container) -> Iterator[None]:
        """Hold a container's lock: its record and state change only inside. Raises NotFound if it was removed."""
        with self._locks.hold(container.id):
            if self._by_id.get(container.id) is not container:
                raise NotFound(f"No such container: {container.id}")
            yield

    def all(self) -> list[Container]:
        """Give every container, newest first."""
        with self._guard:
            containers = list(self._by_id.values())
        return sorted(containers, key=lambda container: container.record.created_at, reverse=True)

    def get(self, reference: str) -> Container:
        """Find a container by full id, by name with or without its slash, or by the beginning of its id.

        Raises NotFound, and InvalidParameter if the beginning fits several or is empty.
        """
        if not reference:
            raise InvalidParameter("bad parameter: container name or ID cannot be empty")
        with self._guard:
            found = self._by_id.get(reference)
            if found is None:
                named = self._names.get(reference.removeprefix("/"))
                found = None if named is None else self._by_id.get(named)
            if found is None:
                fitting = [container for key, container in self._by_id.items() if key.startswith(reference)]
                if len(fitting) > 1:
                    raise InvalidParameter(f"multiple IDs found with provided prefix: {reference}")
                found = fitting[0] if fitting else None
        if found is None:
            raise NotFound(f"No such container: {reference}")
        return found

    def has_name(self, name: str) -> bool:
        """Whether a name is taken."""
        return name in self._names

    def reserve(self, name: str, container_id: str) -> None:
        """Take a name for a container that is being made or renamed. Raises Conflict, in Docker's words."""
        with self._guard:
            owner = self._names.setdefault(name, container_id)
        if owner != container_id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". You have to remove '
                "(or rename) that container to be able to reuse that name."
            )

    def free(self, name: str, container_id: str) -> None:
        """Give a name back, if the container still has it."""
        with self._guard:
            if self._names.get(name) == container_id:
                del self._names[name]

    def add(self, container: Container) -> None:
        """Make a container known; its name may be reserved for it already. Raises Conflict as `reserve`."""
        self.reserve(container.name, container.id)
        with self._guard:
            self._by_id[container.id] = container

    def remove(self, container: Container) -> None:
        """Forget a container and its name."""
        with self._guard:
            self._by_id.pop(container.id, None)
        self.free(container.name, container.id)

    def save(self, container: Container, **changes: object) -> None:
        """Change the state's fields, on disk first. The container's lock is held."""
        state = dataclasses.replace(container.state, health=container.health, **changes)  # type: ignore[arg-type]
        self._table.save_state(container.id, encode_state(state))
        container.state = state

    def note(self, container: Container, **changes: object) -> None:
        """Change the state's fields in memory only: what a restarted engine finds out by itself."""
        container.state = dataclasses.replace(container.state, **changes)  # type: ignore[arg-type]
