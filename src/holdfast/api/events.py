"""GET /events: what happened and what happens, filtered, as a stream of JSON objects."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from holdfast import log
from holdfast.api.filters import (
    Filters,
    decode_filters,
    matches_exactly,
    matches_labels,
    matches_prefix,
)
from holdfast.api.response import JSON, StreamResponse, json_line
from holdfast.api.router import Router
from holdfast.errors import InvalidParameter, System
from holdfast.wire.system import encode_event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.events import Event, EventBus

logger = log.get(__name__)
routes = Router()

_NS = 1_000_000_000
_LONGEST_BACKLOG = 10_000
_OBJECTS = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config")
_WITH_DETAILS = frozenset({"health_status", "exec_create", "exec_start"})


@routes.add("GET", "/events")
async def system_events(request: Request, engine: Engine) -> StreamResponse:
    """GET /events → 200, one object a line; ends at `until`. Operation SystemEvents."""
    query = request.query
    since_ns, until_ns = parse_time(query.get("since")), parse_time(query.get("until"))
    if until_ns is not None and since_ns is not None and until_ns < since_ns:
        raise InvalidParameter(
            f"`since` time ({query.get('since')}) cannot be after `until` time ({query.get('until')})"
        )
    filters = decode_filters(query.get("filters"))
    stream = EventStream(engine.events, filters, since_ns, until_ns, request.api_version)
    return StreamResponse(200, {"Content-Type": JSON}, stream)


def parse_time(text: str) -> int | None:
    """Read seconds since the Unix epoch with up to nine decimals, to nanoseconds; None for "".

    Raises System for anything else, as Docker answers 500. Source: moby, daemon/internal/timestamp, ParseTimestamps.
    """
    if not text:
        return None
    seconds, point, decimals = text.partition(".")
    sign = -1 if seconds.startswith("-") else 1
    for part in (seconds.removeprefix("-"), decimals if point else "0"):
        if not (part.isascii() and part.isdigit()) or len(part) > 18:
            raise System(f'strconv.ParseInt: parsing "{part}": invalid syntax')
    return int(seconds) * _NS + sign * int(decimals[:9].ljust(9, "0") if point else 0)


class EventStream:
    """The events that pass `filters`, encoded; an iterator that subscribes at once and must be closed."""

    def __init__(
        self,
        bus: EventBus,
        filters: Filters,
        since_ns: int | None,
        until_ns: int | None,
        api_version: tuple[int, int],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._filters = filters
        self._until_ns = until_ns
        self._api_version = api_version
        self._queue: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        first_ns = 0 if since_ns is None and until_ns is not None else since_ns
        past, self._unsubscribe = bus.subscribe(self._heard, since_ns=first_ns)
        self._queue.extend(event for event in past if self._wanted(event))
        if until_ns is not None:
            wait_s = until_ns / _NS - time.time()
            if wait_s <= 0:
                self._end()
            else:
                self._timer = self._loop.call_later(wait_s, self._end)

    def __aiter__(self) -> Self:
        """Give itself."""
        return self

    async def __anext__(self) -> bytes:
        """Give the next event, encoded."""
        while not self._queue:
            if self._over:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return json_line(encode_event(self._queue.popleft(), self._api_version))

    async def aclose(self) -> None:
        """End the subscription."""
        if self._timer is not None:
            self._timer.cancel()
        self._unsubscribe()

    def _heard(self, event: Event) -> None:
        # In the publisher's thread, which must not wait. A loop that has ended is an engine that stops.
        if self._wanted(event) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: Event) -> None:
        if self._over:
            return
        self._queue.append(event)
        if len(self._queue) > _LONGEST_BACKLOG:
            logger.warning("client of the event stream does not read; ending it", extra={"waiting": len(self._queue)})
            self._queue.clear()
            self._end()
        self._changed.set()

    def _end(self) -> None:
        self._over = True
        self._unsubscribe()
        self._changed.set()

    def _wanted(self, event: Event) -> bool:
        if self._until_ns is not None and event.time_ns > self._until_ns:
            return False
        return not self._filters or matches(self._filters, event)


def matches(filters: Filters, event: Event) -> bool:
    """Say whether an event passes: values of one key are alternatives, keys add up, unknown keys do not count.

    The filter of an object matches the id or name of any event, whatever its type.
    Source: moby, daemon/events, Filter.Include.
    """
    name = event.attributes.get("name", "")
    return (
        _matches_action(filters, event.action)
        and matches_exactly(filters, "type", event.type)
        and matches_exactly(filters, "scope", event.scope)
        and all(
            matches_prefix(filters, key, event.actor_id) or matches_prefix(filters, key, name)
            for key in _OBJECTS
            if key in filters
        )
        and ("image" not in filters or _matches_image(filters, event.type, event.actor_id, event.attributes))
        and matches_labels(filters.get("label", ()), event.attributes)
    )


def _matches_action(filters: Filters, action: str) -> bool:
    wanted = filters.get("event")
    if not wanted:
        return True
    # `exec_create: CMD` is found by `exec_create`; as in Docker, asking for one such word loosens the others too.
    return matches_prefix(filters, "event", action) if _WITH_DETAILS.intersection(wanted) else action in wanted


def _matches_image(filters: Filters, kind: str, actor_id: str, attributes: Mapping[str, str]) -> bool:
    image = attributes.get("name" if kind == "image" else "image", "")
    names = (actor_id, image, _without_tag(actor_id), _without_tag(image))
    return any(matches_exactly(filters, "image", name) for name in names)


def _without_tag(reference: str) -> str:
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0]}"
    return name.removeprefix("docker.io/").removeprefix("library/")
