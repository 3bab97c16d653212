"""News of the engine: what happened to which object, kept for a while and handed to whoever listens."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

KEPT = 256
"""How many past events can be asked for; Docker keeps as many."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event in the words of the Docker Engine API, `EventMessage`; `time_ns` counts from the Unix epoch."""

    type: str
    action: str
    actor_id: str
    attributes: Mapping[str, str]
    scope: str
    time_ns: int


class EventBus:
    """Publishes events to callbacks and remembers the last `KEPT` of them. Safe from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._past: deque[Event] = deque(maxlen=KEPT)
        self._listeners: list[Callable[[Event], None]] = []

    def publish(
        self,
        type: str,
        action: str,
        actor_id: str,
        attributes: Mapping[str, str] | None = None,
        *,
        scope: str = "local",
    ) -> Event:
        """Record an event and call every listener, in this thread; times never run backwards."""
        with self._guard:
            now = time.time_ns()
            if self._past and now <= self._past[-1].time_ns:
                now = self._past[-1].time_ns + 1
            event = Event(type, action, actor_id, dict(attributes or {}), scope, now)
            self._past.append(event)
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(event)
        return event

    @property
    def listener_count(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def subscribe(
        self, listener: Callable[[Event], None], *, since_ns: int | None = None
    ) -> tuple[list[Event], Callable[[], None]]:
        """Call `listener` for every later event; it must not block.

        Gives the remembered events from `since_ns` on (none if it is None) and a function that ends the subscription;
        no event is missed or doubled between the two.
        """
        with self._guard:
            past = [] if since_ns is None else [event for event in self._past if event.time_ns >= since_ns]
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._guard:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return past, unsubscribe
