"""Which containers a list shows. Source: Docker Engine API, operationId ContainerList, `filters`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.containers.container import Container
from holdfast.containers.model import STATUSES
from holdfast.containers.networking import parse_port
from holdfast.errors import InvalidParameter, System

Filters = Mapping[str, Sequence[str]]

_KEYS = frozenset({
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
})
_PORTS = ("publish", "expose")
_HEALTH = ("none", "starting", "healthy", "unhealthy")
_LARGEST_PORT = 65535
_BOOLEANS = ({"1", "true"}, {"0", "false"})


@dataclass(frozen=True, slots=True)
class Lookups:
    """What a filter needs to know beyond the container itself."""

    images_of: Callable[[str], frozenset[str]]
    """The image ids that an `ancestor` stands for."""
    find: Callable[[str], Container]
    """Finds a container by reference. Raises NotFound."""
    networks_of: Callable[[Container], Sequence[tuple[str, str]]]
    """Names and ids of a container's networks."""
    health_of: Callable[[Container], str]
    ports_of: Callable[[Container], Sequence[tuple[int, int, str]] | None]
    """What a container publishes: the host's port, its own, the protocol. None while it has no place in a network."""


def check(filters: Filters) -> None:
    """Raise InvalidParameter, in Docker's words, for a key or value that means nothing."""
    for key, values in filters.items():
        if key not in _KEYS:
            raise InvalidParameter(f"invalid filter '{key}'")
        if key == "is-task" and sum(bool(words & {*values}) for words in _BOOLEANS) != 1:
            raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(values)}]'")
        for value in values:
            if key == "status" and value not in STATUSES:
                raise InvalidParameter(
                    f"invalid filter 'status={value}': invalid value for state ({value}): must be one of "
                    + ", ".join(STATUSES)
                )
            if key == "health" and value not in _HEALTH:
                raise InvalidParameter(
                    f"invalid filter 'health={value}': invalid value for health ({value}): must be one of "
                    + ", ".join(_HEALTH)
                )
            if key in _PORTS:
                _parse_range(key, value)
            if key == "exited" and not re.fullmatch(r"-?[0-9]+", value):
                raise InvalidParameter(
                    f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
                )


def select(
    containers: Sequence[Container], filters: Filters, lookups: Lookups, *, everything: bool = False, limit: int = 0
) -> list[Container]:
    """Pick from `containers` (newest first): running ones unless `everything`, `limit` or a filter on states says more.

    Values of one key are alternatives, keys all count; labels all count too. Raises InvalidParameter, NotFound.
    """
    check(filters)
    everything = everything or limit > 0 or bool({"status", "exited"} & filters.keys())
    chosen = list(containers)
    for key in ("before", "since"):
        for value in filters.get(key, ()):
            border = lookups.find(value).record.created_at
            chosen = [
                one
                for one in chosen
                if (one.record.created_at < border if key == "before" else one.record.created_at > border)
            ]
    ancestors = frozenset().union(*map(lookups.images_of, filters.get("ancestor", ())))
    chosen = [
        container
        for container in chosen
        if (everything or container.state.running)
        and ("ancestor" not in filters or container.record.image_id in ancestors)
        and all(_matches(container, key, values, lookups) for key, values in filters.items())
        and _ports_match(container, filters, lookups)
    ]
    return chosen[:limit] if limit > 0 else chosen


def match_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Whether every `KEY` or `KEY=VALUE` is there."""
    for entry in wanted:
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _matches(container: Container, key: str, values: Sequence[str], lookups: Lookups) -> bool:
    record, state = container.record, container.state
    if not values:
        return True
    if key == "id":
        return any(record.id.startswith(value) for value in values)
    if key == "name":
        return any(_name_matches(record.name, value) for value in values)
    if key == "label":
        return match_labels(record.labels, values)
    if key == "status":
        return state.status in values
    if key == "exited":
        return not state.running and state.finished_at is not None and str(state.exit_code) in values
    if key == "health":
        return (lookups.health_of(container) or "none") in values
    if key == "volume":
        held = {text for point in record.mounts for text in (point.name or point.source, point.destination)}
        return any(value in held for value in values)
    if key == "network":
        return any(
            value == name or (network_id and network_id.startswith(value))
            for name, network_id in lookups.networks_of(container)
            for value in values
        )
    if key == "is-task":
        return all(value.lower() in ("false", "0") for value in values)
    return True


def _name_matches(name: str, wanted: str) -> bool:
    """Docker takes the value as a regular expression on the name, with and without its slash."""
    if name == wanted.removeprefix("/"):
        return True
    try:
        return re.search(wanted, "/" + name) is not None or re.search(wanted, name) is not None
    except re.error:
        return wanted in name


def _ports_match(container: Container, filters: Filters, lookups: Lookups) -> bool:
    """Whether a port of the host is among `publish`, or one of the container's own among `expose`, while it runs.

    Source: moby, daemon/list.go, includeContainerInList.
    """
    wanted = {key: [_parse_range(key, value) for value in filters.get(key, ())] for key in _PORTS}
    if not any(wanted.values()):
        return True
    published = lookups.ports_of(container)
    if published is None:
        return False
    exposed = [parse_port(text) for text in container.record.config.exposed_ports or {}]
    found = {
        "publish": {(host, protocol) for host, _, protocol in published},
        "expose": {(own, protocol) for _, own, protocol in published} | set(exposed),
    }
    return any(
        number in numbers and protocol == wished
        for key in _PORTS
        for numbers, wished in wanted[key]
        for number, protocol in found[key]
    )


def _parse_range(key: str, text: str) -> tuple[range, str]:
    """Read `80`, `80/udp` or `80-90/tcp`. Raises System, as Docker answers 500."""
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    if not numbers:
        raise System(f"error while looking up for {key} {text}: Empty string specified for ports.")
    for part in (first, last) if dash else (first,):
        digits = part.isascii() and part.isdigit()
        if not digits or int(part) > _LARGEST_PORT:
            why = f'strconv.ParseUint: parsing "{part}": {"value out of range" if digits else "invalid syntax"}'
            raise System(f"error while looking up for {key} {text}: {why}")
    if int(last or first) < int(first):
        raise System(f"error while looking up for {key} {text}: Invalid range specified for the Port: {text}")
    return range(int(first), int(last or first) + 1), protocol or "tcp"
