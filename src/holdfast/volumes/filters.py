"""Docker's filters on volumes, decoded once and asked once per volume."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.errors import InvalidParameter
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes.model import ANONYMOUS_LABEL

_LIST_KEYS = frozenset({"dangling", "driver", "label", "name"})
_PRUNE_KEYS = frozenset({"all", "label", "label!"})
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class VolumeFilters:
    """What a volume must be to pass. Different keys must all hold."""

    dangling: bool | None = None
    drivers: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()
    """`key` or `key=value`; all must hold."""
    without_labels: tuple[str, ...] = ()
    """Passes unless all of these hold."""
    names: tuple[str, ...] = ()
    patterns: tuple[re.Pattern[str], ...] = ()

    def match(self, record: VolumeRecord, *, referenced: bool) -> bool:
        """Tell whether a volume passes."""
        if self.dangling is not None and self.dangling == referenced:
            return False
        if self.drivers and record.driver not in self.drivers:
            return False
        labels = record.labels or {}
        if not all(_has_label(labels, wanted) for wanted in self.labels):
            return False
        if self.without_labels and all(_has_label(labels, unwanted) for unwanted in self.without_labels):
            return False
        if not self.names:
            return True
        return record.name in self.names or any(pattern.search(record.name) for pattern in self.patterns)


def parse_list_filters(filters: Mapping[str, Sequence[str]]) -> VolumeFilters:
    """Decode the filters of `GET /volumes`. Raises InvalidParameter in Docker's words.

    A name matches whole or as a regular expression anywhere in it. Source: Docker Engine API, VolumeList.
    """
    _check_keys(filters, _LIST_KEYS)
    dangling: bool | None = None
    if values := filters.get("dangling"):
        words = {word: word in ("true", "1") for word in values}
        if any(word not in ("true", "1", "false", "0") for word in values) or len(set(words.values())) != 1:
            raise InvalidParameter(f"invalid filter 'dangling=[{' '.join(values)}]'")
        dangling = next(iter(words.values()))
    names = tuple(filters.get("name", ()))
    return VolumeFilters(
        dangling=dangling,
        drivers=frozenset(filters.get("driver", ())),
        labels=tuple(filters.get("label", ())),
        names=names,
        patterns=tuple(pattern for pattern in map(_compile, names) if pattern is not None),
    )


def parse_prune_filters(filters: Mapping[str, Sequence[str]], api_version: tuple[int, int]) -> VolumeFilters:
    """Decode the filters of `POST /volumes/prune`: only unreferenced volumes pass, only anonymous ones unless `all`.

    Before API 1.42 `all` is implied. Raises InvalidParameter in Docker's words. Source: Docker Engine API, VolumePrune.
    """
    _check_keys(filters, _PRUNE_KEYS)
    everything = api_version < (1, 42)
    values = tuple(filters.get("all", ()))
    if len(values) > 1:
        raise InvalidParameter(f"invalid filter 'all=[{' '.join(values)}]': only one value is expected")
    if values:
        if values[0] not in _TRUE | _FALSE:
            raise InvalidParameter(f"invalid filter 'all': strconv.ParseBool: parsing \"{values[0]}\": invalid syntax")
        everything = everything or values[0] in _TRUE
    labels = tuple(filters.get("label", ()))
    return VolumeFilters(
        dangling=True,
        labels=labels if everything else (*labels, ANONYMOUS_LABEL),
        without_labels=tuple(filters.get("label!", ())),
    )


def _check_keys(filters: Mapping[str, Sequence[str]], allowed: frozenset[str]) -> None:
    for key in filters:
        if key not in allowed:
            raise InvalidParameter(f"invalid filter '{key}'")


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _compile(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error:
        return None
