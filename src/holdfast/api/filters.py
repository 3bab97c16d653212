"""The `filters` argument: what Docker's filters.Args makes of it, and the tests that several lists share."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from holdfast.errors import InvalidParameter, System
from holdfast.images.filters import parse_timestamp

Filters = dict[str, list[str]]


def decode_filters(text: str, allowed: Collection[str] | None = None, *, context: str = "") -> Filters:
    """Read `{"k": ["v"]}` or `{"k": {"v": true}}`; an empty text means no filters.

    The value behind `v` does not count, as in Docker. Raises InvalidParameter: `invalid filter` for anything else
    (after `context: `, where an endpoint says so), `invalid filter 'k'` for a name not in `allowed`.
    Source: moby, api/types/filters, FromJSON and Validate.
    """
    filters: Filters = {}
    if text:
        try:
            raw: Any = msgspec.json.decode(text.encode("utf-8", "surrogatepass"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raw = ()
        filters = _from_json(raw, f"{context}: invalid filter" if context else "invalid filter")
    if allowed is not None:
        for name in filters:
            if name not in allowed:
                raise invalid_filter(name)
    return filters


def _from_json(raw: object, refusal: str) -> Filters:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidParameter(refusal)
    values = [value for value in raw.values() if value is not None]
    maps = all(isinstance(value, dict) and all(isinstance(v, bool) for v in value.values()) for value in values)
    lists = all(isinstance(value, list) and all(isinstance(v, str) for v in value) for value in values)
    if not (maps or lists):
        raise InvalidParameter(refusal)
    return {name: list(dict.fromkeys(value or ())) for name, value in raw.items()}


def encode_filters(filters: Mapping[str, Sequence[str]]) -> str:
    """Write filters in the form that every API version reads."""
    return json.dumps({name: dict.fromkeys(values, True) for name, values in filters.items()})


def invalid_filter(name: str, value: object = None) -> InvalidParameter:
    """Give the error for a filter: `invalid filter 'status=bad'`; a list of values is shown as Go shows it."""
    if value is None:
        return InvalidParameter(f"invalid filter '{name}'")
    shown = f"[{' '.join(str(item) for item in value)}]" if isinstance(value, (list, tuple)) else value
    return InvalidParameter(f"invalid filter '{name}={shown}'")


def boolean_filter(filters: Mapping[str, Sequence[str]], name: str, default: bool) -> bool:
    """Read a filter that is true or false. Raises InvalidParameter for neither or both.

    Source: moby, api/types/filters, GetBoolOrDefault.
    """
    if name not in filters:
        return default
    values = filters[name]
    yes = "1" in values or "true" in values
    no = "0" in values or "false" in values
    if yes == no:
        raise invalid_filter(name, list(values) if values else None)
    return yes


def matches_labels(wanted: Sequence[str], labels: Mapping[str, str] | None) -> bool:
    """Say whether all of `wanted`, each `k` or `k=v`, hold. Source: moby, api/types/filters, MatchKVList."""
    for entry in wanted:
        name, equals, value = entry.partition("=")
        if labels is None or name not in labels or (equals and labels[name] != value):
            return False
    return True


def matches_exactly(filters: Mapping[str, Sequence[str]], name: str, value: str) -> bool:
    """Say whether `value` is one of those asked for, or none is asked for."""
    values = filters.get(name)
    return not values or value in values


def matches_prefix(filters: Mapping[str, Sequence[str]], name: str, value: str) -> bool:
    """Say whether `value` begins with one of those asked for, or none is asked for."""
    values = filters.get(name)
    return not values or any(value.startswith(prefix) for prefix in values)


def decode_until(filters: Filters) -> float | None:
    """Read `until`, seconds since the Unix epoch: a time or a duration before now, None if it is not asked for.

    Raises InvalidParameter, also for more than one. Source: moby, daemon, getUntilFromPruneFilters.
    """
    values = filters.get("until", ())
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    try:
        return parse_timestamp(values[0], time.time()).timestamp() if values else None
    except System as error:
        raise InvalidParameter(str(error)) from error
