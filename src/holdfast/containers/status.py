"""A container's state in people's words, as `docker ps` prints it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from holdfast.containers.model import State


def describe(state: State, at: datetime, health: str = "") -> str:
    """Give the text, such as `Up 5 seconds` or `Exited (0) 2 minutes ago`. `health` is `healthy`, … or ""."""
    if state.status == "running":
        suffix = {"": "", "starting": " (health: starting)"}.get(health, f" ({health})")
        return f"Up {duration(_since(state.started_at, at))}{suffix}"
    if state.status == "paused":
        return f"Up {duration(_since(state.started_at, at))} (Paused)"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {duration(_since(state.finished_at, at))} ago"
    if state.status == "removing":
        return "Removal In Progress"
    if state.status == "dead":
        return "Dead"
    if state.status == "created" or state.finished_at is None:
        return "Created"
    return f"Exited ({state.exit_code}) {duration(_since(state.finished_at, at))} ago"


def duration(length: timedelta) -> str:
    """Give a length of time in one rounded unit. Source: what `docker ps` prints."""
    seconds = int(length.total_seconds())
    minutes, hours = seconds // 60, int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 14:
        return f"{hours // 24} days"
    if hours < 24 * 60:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def _since(moment: datetime | None, at: datetime) -> timedelta:
    return timedelta() if moment is None else max(timedelta(), at - moment)
