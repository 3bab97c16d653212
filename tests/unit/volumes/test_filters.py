"""Docker's filters on volumes."""

from __future__ import annotations

import pytest

from holdfast.errors import InvalidParameter
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes.filters import parse_list_filters, parse_prune_filters
from holdfast.volumes.model import ANONYMOUS_LABEL


def volume(name: str = "data", labels: dict[str, str] | None = None) -> VolumeRecord:
    return VolumeRecord("0" * 64, name, "local", "default", labels, None, 0.0)


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"name": ["data"]}, True),
        ({"name": ["at"]}, True),
        ({"name": ["^at"]}, False),
        ({"name": ["(", "data"]}, True),
        ({"name": ["("]}, False),
        ({"name": ["x", "y"]}, False),
        ({"driver": ["local", "x"]}, True),
        ({"driver": ["x"]}, False),
        ({"label": ["k"]}, True),
        ({"label": ["k=v"]}, True),
        ({"label": ["k="]}, False),
        ({"label": ["e="]}, True),
        ({"label": ["k", "missing"]}, False),
        ({"dangling": ["true"]}, False),
        ({"dangling": ["0"]}, True),
        ({"dangling": ["false", "0"], "name": ["data"]}, True),
    ],
)
def test_list(filters: dict[str, list[str]], passes: bool) -> None:
    assert parse_list_filters(filters).match(volume(labels={"k": "v", "e": ""}), referenced=True) is passes


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"foo": ["x"]}, "invalid filter 'foo'"),
        ({"dangling": ["maybe"]}, "invalid filter 'dangling=[maybe]'"),
        ({"dangling": ["true", "false"]}, "invalid filter 'dangling=[true false]'"),
    ],
)
def test_list_refusals(filters: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_list_filters(filters)
    assert str(refused.value) == message


ANONYMOUS = {ANONYMOUS_LABEL: ""}


@pytest.mark.parametrize(
    ("filters", "version", "labels", "passes"),
    [
        ({}, (1, 51), None, False),
        ({}, (1, 51), ANONYMOUS, True),
        ({}, (1, 41), None, True),
        ({"all": ["true"]}, (1, 51), None, True),
        ({"all": ["0"]}, (1, 51), None, False),
        ({"all": ["1"], "label": ["k"]}, (1, 51), {"k": ""}, True),
        ({"all": ["1"], "label!": ["k"]}, (1, 51), {"k": ""}, False),
        ({"label!": ["k"]}, (1, 51), ANONYMOUS, True),
    ],
)
def test_prune(
    filters: dict[str, list[str]], version: tuple[int, int], labels: dict[str, str] | None, passes: bool
) -> None:
    assert parse_prune_filters(filters, version).match(volume(labels=labels), referenced=False) is passes


def test_prune_never_takes_what_is_held() -> None:
    assert not parse_prune_filters({"all": ["1"]}, (1, 51)).match(volume(), referenced=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["true", "false"], "invalid filter 'all=[true false]': only one value is expected"),
        (["bar"], "invalid filter 'all': strconv.ParseBool: parsing \"bar\": invalid syntax"),
    ],
)
def test_prune_refusals(values: list[str], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        parse_prune_filters({"all": values}, (1, 51))
    assert str(refused.value) == message
