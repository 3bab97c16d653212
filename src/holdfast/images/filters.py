"""Docker's filters on images, decoded once and asked once per image.

Source: Docker Engine API, ImageList and ImagePrune.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from holdfast.errors import InvalidParameter, System
from holdfast.images import reference
from holdfast.images.model import Image

_LIST_KEYS: Final = frozenset({"dangling", "label", "before", "since", "reference", "until"})
_PRUNE_KEYS: Final = frozenset({"dangling", "label", "label!", "until"})
_DURATION: Final = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NOTHING: Final = re.compile(r"(?!)")
_UNIX: Final = re.compile(r"-?\d{1,12}(?:\.\d{1,9})?")

Names = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ImageFilters:
    """What an image must be to pass. Different keys must all hold."""

    dangling: bool | None = None
    labels: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()
    references: tuple[re.Pattern[str], ...] = ()
    older_than: datetime | None = None
    newer_than: datetime | None = None

    def match(self, image: Image) -> Names | None:
        """Give the tags and digests to show if the image passes, None if it does not."""
        if self.older_than is not None and image.created_at >= self.older_than:
            return None
        if self.newer_than is not None and image.created_at <= self.newer_than:
            return None
        labels = image.labels or {}
        if not all(_has_label(labels, wanted) for wanted in self.labels):
            return None
        if self.without_labels and all(_has_label(labels, unwanted) for unwanted in self.without_labels):
            return None
        tags, digests = image.tags, image.digests
        if self.references:
            tags = tuple(tag for tag in tags if self._named(tag))
            digests = tuple(digest for digest in digests if self._named(digest))
            if not tags and not digests:
                return None
        unnamed = not image.tags and not image.digests
        if self.dangling is True and image.tags:
            return None
        if self.dangling is False and unnamed:
            return None
        return tags, digests

    def _named(self, name: str) -> bool:
        repository = reference.parse(name).familiar_name
        return any(pattern.fullmatch(name) or pattern.fullmatch(repository) for pattern in self.references)


def parse_list_filters(
    filters: Mapping[str, Sequence[str]], created_at: Callable[[str], datetime], now: float
) -> ImageFilters:
    """Decode the filters of `GET /images/json`. `created_at` looks up an image for `before` and `since`, or raises.

    Raises InvalidParameter in Docker's words.
    """
    _check_keys(filters, _LIST_KEYS)
    older = [created_at(name) for name in filters.get("before", ())] + _until(filters, now)
    newer = [created_at(name) for name in filters.get("since", ())]
    return ImageFilters(
        dangling=_dangling(filters),
        labels=tuple(filters.get("label", ())),
        references=tuple(_glob(pattern) for pattern in filters.get("reference", ())),
        older_than=min(older) if older else None,
        newer_than=max(newer) if newer else None,
    )


def parse_prune_filters(filters: Mapping[str, Sequence[str]], now: float) -> ImageFilters:
    """Decode the filters of `POST /images/prune`: images without a tag, or with `dangling=false` all of them.

    Raises InvalidParameter in Docker's words.
    """
    _check_keys(filters, _PRUNE_KEYS)
    if len(filters.get("until", ())) > 1:
        raise System("more than one until filter specified")
    older = _until(filters, now)
    return ImageFilters(
        dangling=None if _dangling(filters) is False else True,
        labels=tuple(filters.get("label", ())),
        without_labels=tuple(filters.get("label!", ())),
        older_than=min(older) if older else None,
    )


def parse_timestamp(text: str, now: float) -> datetime:
    """Read a point in time: Unix seconds, a date or time of RFC 3339, or a Go duration before now.

    Raises System, as Docker answers 500. Source: Docker Engine API, filter `until`.
    """
    if _DURATION.fullmatch(text):
        seconds = sum(float(amount) * _UNITS_S[unit] for amount, unit in _DURATION_PART.findall(text))
        return _at(now + seconds if text.startswith("-") else now - seconds, text)
    if _UNIX.fullmatch(text):
        return _at(float(text), text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise System(f'failed to parse value as time or duration: "{text}"') from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _at(seconds: float, text: str) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise System(f'failed to parse value as time or duration: "{text}"') from None


def _until(filters: Mapping[str, Sequence[str]], now: float) -> list[datetime]:
    return [parse_timestamp(value, now) for value in filters.get("until", ())]


def _dangling(filters: Mapping[str, Sequence[str]]) -> bool | None:
    values = filters.get("dangling")
    if values is None:
        return None
    yes, no = any(v in ("1", "true") for v in values), any(v in ("0", "false") for v in values)
    if yes == no:
        raise InvalidParameter(f"invalid filter 'dangling=[{' '.join(values)}]'")
    return yes


def _check_keys(filters: Mapping[str, Sequence[str]], allowed: frozenset[str]) -> None:
    for key in filters:
        if key not in allowed:
            raise InvalidParameter(f"invalid filter '{key}'")


def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of Go's path.Match: `*` and `?` cross no `/`. A wrong one fits nothing, as in Docker."""
    out, place = [], 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            end = pattern.find("]", place + 1)
            if end < 0:
                return _NOTHING
            body = pattern[place:end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"(?!/)[{body}]")
            place = end + 1
        elif char == "\\" and place < len(pattern):
            out.append(re.escape(pattern[place]))
            place += 1
        else:
            out.append(re.escape(char))
    try:
        return re.compile("".join(out))
    except re.error:
        return _NOTHING


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
