"""Changing the limits and the restart policy of a container that is there.

    intent "container.update"  →  runtime.update, if it runs  →  one transaction: document, intent ended

What is refused leaves everything as it was. If the runtime fails half-way, or the engine dies, the limits on record are
put in force again.
"""

from __future__ import annotations

import contextlib
import dataclasses

import msgspec

from holdfast import faults, log
from holdfast.containers import policy
from holdfast.containers.container import Container
from holdfast.containers.limits import settle_limits
from holdfast.containers.model import ContainerRecord, HostConfig, RestartPolicy, encode_document
from holdfast.containers.rooms import Rooms
from holdfast.containers.spec import resources
from holdfast.errors import Conflict, EngineError, InvalidParameter, System
from holdfast.runtime.limits import Resources

logger = log.get(__name__)

INTENT = "container.update"

_LIMITS = (
    "blkio_weight", "cpu_shares", "nano_cpus", "cpu_period", "cpu_quota", "cpu_realtime_period", "cpu_realtime_runtime",
    "cpuset_cpus", "cpuset_mems", "memory", "memory_swap", "memory_reservation", "pids_limit",
)
"""What a running container can be given anew. 0, "" and None leave it as it is, but `pids_limit` is 0 for no limit."""

_CONFLICTS = (
    ("nano_cpus", "cpu_period", "Nano CPUs cannot be updated as CPU Period has already been set"),
    ("nano_cpus", "cpu_quota", "Nano CPUs cannot be updated as CPU Quota has already been set"),
    ("cpu_period", "nano_cpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
    ("cpu_quota", "nano_cpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
)


def update(rooms: Rooms, container: Container, asked: HostConfig) -> tuple[str, ...]:
    """Change what `asked` sets, in the record and in the running container; gives warnings.

    Raises InvalidParameter for a value that create would refuse, or for what cannot be changed later; Conflict for one
    that does not go with what is there; System if the runtime cannot do it. Source: Docker Engine API, operationId
    ContainerUpdate; moby, UpdateContainer, save that Docker ignores what it cannot change.
    """
    _refuse_others(asked)
    facts = rooms.runtime.host_facts()
    alone = asked if asked.memory else dataclasses.replace(asked, memory_swap=0)  # what it goes with may be there
    limits, warnings = settle_limits(alone, facts)
    limits = dataclasses.replace(limits, memory_swap=limits.memory_swap or asked.memory_swap)
    policy.check(asked.restart_policy, auto_remove=False)
    with rooms.registry.hold(container):
        record = container.record
        try:
            if container.state.status in ("removing", "dead"):
                raise Conflict('container is marked for removal and cannot be "update"')
            host = _merged(record.host_config, limits, asked.restart_policy)
            settle_limits(host, facts)
            _apply(rooms, container, dataclasses.replace(record, host_config=host))
        except (Conflict, System) as error:
            raise error.within(f"Cannot update container {record.id}") from error.__cause__
    rooms.tell(container, "update")
    return warnings


def undo(rooms: Rooms, container: Container, details: str) -> None:
    """Put the recorded limits in force again, after an update that was begun and may have got anywhere.

    `details` is what its intent says. Raises EngineError.
    """
    tried = msgspec.json.decode(details, type=HostConfig)
    task = container.state.task
    if task is not None and rooms.runtime.is_alive(task):
        rooms.runtime.update(container.id, _of(tried), _of(container.record.host_config))


def _apply(rooms: Rooms, container: Container, record: ContainerRecord) -> None:
    """Put a new record in force and on disk."""
    before, after = _of(container.record.host_config), _of(record.host_config)
    intent = None
    with contextlib.ExitStack() as undoing:
        if container.state.task is not None and before != after:
            intent = rooms.store.intents.begin(
                INTENT, record.id, host_config=msgspec.json.encode(record.host_config).decode()
            )
            undoing.callback(rooms.store.intents.end, intent)
            undoing.callback(_take_back, rooms, record.id, after, before)
            rooms.runtime.update(record.id, before, after)
            faults.point("container-limits-changed")
        rooms.store.containers.save_document(record.id, encode_document(record), intent=intent)
        undoing.pop_all()
    container.record = record


def _take_back(rooms: Rooms, container_id: str, tried: Resources, before: Resources) -> None:
    try:
        rooms.runtime.update(container_id, tried, before)
    except EngineError as error:
        logger.warning("limits not taken back", extra={"container": container_id, "error": error})


def _of(host: HostConfig) -> Resources:
    """The limits that can change, in the runtime's terms."""
    return resources(HostConfig(**{name: getattr(host, name) for name in _LIMITS}))


def _refuse_others(asked: HostConfig) -> None:
    nothing = HostConfig()
    for field in dataclasses.fields(HostConfig):
        value = getattr(asked, field.name)
        if field.name in (*_LIMITS, "restart_policy") or not value or value == getattr(nothing, field.name):
            continue
        name = "".join(part.capitalize() for part in field.name.split("_"))
        raise InvalidParameter(f"{name} cannot be changed, it is set when a container is created")


def _merged(host: HostConfig, limits: HostConfig, restart_policy: RestartPolicy) -> HostConfig:
    """What will be on record. Raises Conflict in Docker's words."""
    for wanted, present, text in _CONFLICTS:
        if getattr(limits, wanted) > 0 and getattr(host, present) > 0:
            raise Conflict(f"Conflicting options: {text}")
    if limits.memory > host.memory_swap and limits.memory and not limits.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    if restart_policy.name and host.auto_remove and restart_policy.name != "no":
        raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
    changes: dict[str, object] = {name: getattr(limits, name) for name in _LIMITS if getattr(limits, name)}
    if limits.pids_limit is not None:
        changes["pids_limit"] = limits.pids_limit if limits.pids_limit > 0 else None
    if restart_policy.name:
        changes["restart_policy"] = restart_policy
    return dataclasses.replace(host, **changes)  # type: ignore[arg-type]
