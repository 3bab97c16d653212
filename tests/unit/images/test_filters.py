"""Filters on images."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.errors import InvalidParameter, System
from holdfast.images.filters import parse_list_filters, parse_prune_filters, parse_timestamp
from holdfast.images.model import Image

NOW = datetime(2024, 6, 1, tzinfo=UTC)
DIGEST = "sha256:" + "cd" * 32


def image(*tags: str, digests: tuple[str, ...] = (), labels: dict[str, str] | None = None, age_s: int = 60) -> Image:
    config: dict[str, Any] = {"config": {"Labels": labels}}
    return Image("sha256:" + "ab" * 32, tags, digests, NOW - timedelta(seconds=age_s), None, config, (), 0)


def shown(filters: dict[str, list[str]], each: Image) -> list[str] | None:
    wanted = parse_list_filters(filters, lambda _: NOW - timedelta(hours=1), NOW.timestamp())
    names = wanted.match(each)
    return None if names is None else [*names[0], *names[1]]


@pytest.mark.parametrize(
    ("filters", "each", "names"),
    [
        ({}, image("a:1"), ["a:1"]),
        ({"dangling": ["true"]}, image("a:1"), None),
        ({"dangling": ["true"]}, image(), []),
        ({"dangling": ["false"]}, image(), None),
        ({"dangling": ["true"]}, image(digests=(f"a@{DIGEST}",)), [f"a@{DIGEST}"]),
        ({"label": ["x"]}, image("a:1", labels={"x": "1"}), ["a:1"]),
        ({"label": ["x=1", "y"]}, image("a:1", labels={"x": "1"}), None),
        ({"label": ["x=2"]}, image("a:1", labels={"x": "1"}), None),
        ({"reference": ["a"]}, image("a:1", "b:1"), ["a:1"]),
        ({"reference": ["*:1"]}, image("a:1", "b:2"), ["a:1"]),
        ({"reference": ["*"]}, image("a:1", "team/b:2"), ["a:1"]),
        ({"reference": ["*/*"]}, image("a:1", "team/b:2"), ["team/b:2"]),
        ({"reference": ["[a-b]:?"]}, image("a:1", "c:2"), ["a:1"]),
        ({"reference": ["[^a]:?"]}, image("a:1", "c:2"), ["c:2"]),
        ({"reference": ["z"]}, image("a:1"), None),
        ({"reference": ["a"]}, image(), None),
        ({"before": ["x"]}, image("a:1", age_s=7200), ["a:1"]),
        ({"before": ["x"]}, image("a:1"), None),
        ({"since": ["x"]}, image("a:1"), ["a:1"]),
        ({"since": ["x"]}, image("a:1", age_s=7200), None),
        ({"until": ["30m"]}, image("a:1"), None),
        ({"until": ["30m"]}, image("a:1", age_s=3600), ["a:1"]),
        ({"until": ["2024-05-31"]}, image("a:1"), None),
    ],
)
def test_match(filters: dict[str, list[str]], each: Image, names: list[str] | None) -> None:
    assert shown(filters, each) == names


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"colour": ["red"]}, "invalid filter 'colour'"),
        ({"dangling": ["maybe"]}, "invalid filter 'dangling=[maybe]'"),
        ({"until": ["soon"]}, 'failed to parse value as time or duration: "soon"'),
    ],
)
def test_refused(filters: dict[str, list[str]], message: str) -> None:
    with pytest.raises((InvalidParameter, System)) as refused:
        shown(filters, image())
    assert str(refused.value) == message
    with pytest.raises(System, match="more than one until filter specified"):
        parse_prune_filters({"until": ["1h", "2h"]}, 0)


def test_a_wrong_pattern_fits_nothing() -> None:
    assert shown({"reference": ["["]}, image("a:1")) is None


def test_prune_takes_untagged_images_unless_told_otherwise() -> None:
    assert parse_prune_filters({}, 0).match(image("a:1")) is None
    assert parse_prune_filters({}, 0).match(image()) is not None
    assert parse_prune_filters({"dangling": ["false"]}, 0).match(image("a:1")) is not None
    assert parse_prune_filters({"label!": ["keep"]}, 0).match(image(labels={"keep": ""})) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", -600), ("1h30m", -5400), ("1.5s", -1.5), ("1717200000", 0), ("2024-06-01T00:00:00Z", 0),
     ("2024-06-01", 0), ("2024-06-01T02:00:00+02:00", 0)],
)  # fmt: skip
def test_timestamp(text: str, seconds: float) -> None:
    assert parse_timestamp(text, NOW.timestamp()) == NOW + timedelta(seconds=seconds)
