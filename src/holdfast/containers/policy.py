"""Whether and when a container that ended is started again. Pure."""

from __future__ import annotations

from holdfast.containers.model import RestartPolicy
from holdfast.errors import InvalidParameter

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
STORAGE_DELAY_S = 10.0
"""A container whose storage is away is tried again at least this often."""
STEADY_S = 10.0
"""A container that ran this long starts over with the first delay."""


def check(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Raise InvalidParameter, in Docker's words, if the policy makes no sense."""
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    negative = policy.maximum_retry_count < 0
    if policy.name != "on-failure" and policy.maximum_retry_count:
        raise InvalidParameter(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            + (" and cannot be negative" if negative else "")
        )
    if negative:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def wants_restart(policy: RestartPolicy, *, exit_code: int, restart_count: int, stopped_by_user: bool) -> bool:
    """Whether a container that just ended is started again. Source: Docker, "Start containers automatically"."""
    if stopped_by_user:
        return False
    if policy.name == "on-failure":
        limit = policy.maximum_retry_count
        return exit_code != 0 and (limit == 0 or restart_count < limit)
    return policy.name in ("always", "unless-stopped")


def is_kept_up(policy: RestartPolicy) -> bool:
    """Whether a container that cannot be started for a reason outside of it is tried again, however often."""
    return policy.name in ("always", "unless-stopped", "on-failure")


def wants_start_with_engine(
    policy: RestartPolicy, *, exit_code: int, restart_count: int, stopped_by_user: bool
) -> bool:
    """Whether a container that is not running when the engine starts is started: `always` forgives a manual stop."""
    return wants_restart(
        policy,
        exit_code=exit_code,
        restart_count=restart_count,
        stopped_by_user=stopped_by_user and policy.name != "always",
    )


def next_delay_s(previous_s: float, ran_s: float) -> float:
    """Seconds to wait before the next start, given the last wait (0 at first) and how long the container ran."""
    if not previous_s or ran_s >= STEADY_S:
        return FIRST_DELAY_S
    return min(previous_s * 2, LONGEST_DELAY_S)
