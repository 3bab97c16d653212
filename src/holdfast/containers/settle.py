"""From what was asked for to what is recorded: defaults, other containers by their id, limits that are in force."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from holdfast.containers.limits import settle_limits
from holdfast.containers.logconfig import DEFAULT_DRIVER
from holdfast.containers.model import HostConfig, LogConfig, RestartPolicy
from holdfast.containers.security import check_security, with_labels
from holdfast.errors import InvalidParameter, NotFound
from holdfast.runtime.host import HostFacts
from holdfast.runtime.spec import DEFAULT_SHM_BYTES, MASKED_PATHS, READONLY_PATHS

_DOCKERS_RUNTIME = ("runc", "io.containerd.runc.v2")
"""What Docker calls its own default, and what its `inspect` hands to those who make a container again."""

_LARGEST = (1 << 63) - 1

FindID = Callable[[str], str]
"""The full id of a container, by name, id or the beginning of its id. Raises NotFound."""


def settle(host: HostConfig, facts: HostFacts, runtime: str, find_id: FindID) -> tuple[HostConfig, tuple[str, ...]]:
    """Give what will be in force, as inspect shows it, and warnings.

    `runtime` is the name of the one that works here. Raises InvalidParameter, Unsupported.
    """
    limited, limits = settle_limits(host, facts)
    warnings = (*check_security(host, facts), *limits)
    if host.runtime not in ("", runtime):
        if host.runtime not in _DOCKERS_RUNTIME:
            raise InvalidParameter(f"unknown or invalid runtime name: {host.runtime}")
        warnings += (f"The runtime here is {runtime}; the container does not run with {host.runtime}.",)
    return dataclasses.replace(
        limited,
        runtime=runtime,
        log_config=LogConfig(type=host.log_config.type or DEFAULT_DRIVER, config=host.log_config.config or {}),
        restart_policy=RestartPolicy(
            name=host.restart_policy.name or "no", maximum_retry_count=host.restart_policy.maximum_retry_count
        ),
        network_mode=_network_mode(host.network_mode, find_id),
        cgroupns_mode=host.cgroupns_mode or ("private" if facts.cgroup_v2 else "host"),
        ipc_mode=_joined(host.ipc_mode or "private", find_id),
        pid_mode=_joined(host.pid_mode, find_id),
        security_opt=with_labels(host),
        shm_size=host.shm_size or DEFAULT_SHM_BYTES,
        memory_swap=max(limited.memory_swap, -1) or min(2 * limited.memory, _LARGEST),
        memory_swappiness=None if limited.memory_swappiness == -1 else limited.memory_swappiness,
        pids_limit=limited.pids_limit if (limited.pids_limit or 0) > 0 else None,
        oom_kill_disable=bool(limited.oom_kill_disable),
        masked_paths=_paths(host.masked_paths, MASKED_PATHS, host),
        readonly_paths=_paths(host.readonly_paths, READONLY_PATHS, host),
    ), warnings


def _network_mode(mode: str, find_id: FindID) -> str:
    """A network that is not there yet may be there when the container starts; so may a container."""
    if mode in ("", "default"):
        return "bridge"
    try:
        return _joined(mode, find_id)
    except InvalidParameter:
        return mode


def _joined(mode: str, find_id: FindID) -> str:
    """`container:NAME` with the id in place of the name. A missing one is a bad parameter: 404 means the image."""
    kind, colon, name = mode.partition(":")
    if kind != "container" or not colon:
        return mode
    try:
        return f"container:{find_id(name)}"
    except NotFound as error:
        raise InvalidParameter(str(error)) from None


def _paths(asked: tuple[str, ...] | None, default: tuple[str, ...], host: HostConfig) -> tuple[str, ...] | None:
    if asked is not None:
        return asked
    return None if host.privileged else default
