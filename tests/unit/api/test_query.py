"""Query strings and filters by Docker's rules, and the status table."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import errors
from holdfast.api.filters import (
    boolean_filter,
    decode_filters,
    encode_filters,
    matches_exactly,
    matches_labels,
    matches_prefix,
)
from holdfast.api.query import Query, percent_decode
from holdfast.api.status import STATUS_BY_KIND, error_response, plain_error, status_of
from holdfast.errors import EngineError, InvalidParameter, System


def test_get_and_all() -> None:
    query = Query("a=1&a=2&b&c=x+y%2Bz&&d=")
    assert query.get("a") == "1"
    assert query.all("a") == ["1", "2"]
    assert query.get("b", "default") == ""
    assert query.get("c") == "x y+z"
    assert query.get("e", "default") == "default"
    assert query.all("e") == []
    assert "b" in query
    assert "e" not in query


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", False), ("0", False), ("no", False), ("false", False), ("none", False), ("FALSE", False), ("+No+", False),
        ("1", True), ("true", True), ("yes", True), ("bogus", True), ("00", True), ("f", True),
    ],
)  # fmt: skip
def test_flags(value: str, expected: bool) -> None:
    assert Query(f"force={value}").flag("force") is expected
    assert Query(f"force={value}").flag("force", default=not expected) is expected


def test_an_absent_flag_has_its_default() -> None:
    assert Query("").flag("force") is False
    assert Query("").flag("force", default=True) is True
    assert Query("force").flag("force", default=True) is False


def test_integers() -> None:
    assert Query("t=10").integer("t") == 10
    assert Query("t=-1").integer("t") == -1
    assert Query("t=").integer("t", 7) == 7
    assert Query("").integer("t", 7) == 7
    with pytest.raises(System, match=r'^strconv.Atoi: parsing "a": invalid syntax$'):
        Query("t=a").integer("t", parser="Atoi")
    for text in ("1.5", "1_000", "٣", "-", "0x10"):
        with pytest.raises(System, match="invalid syntax"):
            Query(f"t={quote(text)}").integer("t")
    for text in ("9223372036854775808", "9" * 5000):
        with pytest.raises(System, match="value out of range"):
            Query(f"t={text}").integer("t")


@pytest.mark.parametrize("text", ["a=%", "a=%z1", "a=%1", "%gg=1", "a;b"])
def test_broken_queries(text: str) -> None:
    with pytest.raises(InvalidParameter):
        Query(text)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_decoding_undoes_encoding(text: str) -> None:
    assert percent_decode(quote(text)) == text
    assert Query(f"k={quote_plus(text)}").get("k") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("null", {}),
        ("{}", {}),
        ('{"a":["b","c","b"]}', {"a": ["b", "c"]}),
        ('{"a":{"b":true,"c":false}}', {"a": ["b", "c"]}),
        ('{"a":{}}', {"a": []}),
        ('{"a":null,"b":["c"]}', {"a": [], "b": ["c"]}),
    ],
)
def test_filters(text: str, expected: dict[str, list[str]]) -> None:
    assert decode_filters(text) == expected


@pytest.mark.parametrize(
    "text", ["x", "[]", '"a"', '{"a":"b"}', '{"a":{"b":1}}', '{"a":[1]}', '{"a":["b"],"c":{"d":true}}', "[" * 100_000]
)
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid filter$"):
        decode_filters(text)
    with pytest.raises(InvalidParameter, match=r"^error reading volume filters: invalid filter$"):
        decode_filters(text, context="error reading volume filters")


def test_unknown_filters_are_named() -> None:
    assert decode_filters('{"label":["a"]}', {"label"}) == {"label": ["a"]}
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'foo'$"):
        decode_filters('{"label":["a"],"foo":["b"]}', {"label"})


def test_boolean_filters() -> None:
    assert boolean_filter({}, "dangling", True) is True
    assert boolean_filter({"dangling": ["1"]}, "dangling", False) is True
    assert boolean_filter({"dangling": ["false", "0"]}, "dangling", True) is False
    for values, text in ((["maybe"], "dangling=[maybe]"), (["1", "false"], "dangling=[1 false]"), ([], "dangling")):
        with pytest.raises(InvalidParameter) as refused:
            boolean_filter({"dangling": values}, "dangling", True)
        assert str(refused.value) == f"invalid filter '{text}'"


def test_matching() -> None:
    labels = {"a": "1", "b": ""}
    assert matches_labels([], None)
    assert matches_labels(["a", "a=1", "b="], labels)
    assert not matches_labels(["a", "c"], labels)
    assert not matches_labels(["a=2"], labels)
    assert not matches_labels(["a"], None)
    assert matches_exactly({}, "k", "v")
    assert matches_exactly({"k": []}, "k", "v")
    assert not matches_exactly({"k": ["w"]}, "k", "v")
    assert matches_prefix({"k": ["x", "ab"]}, "k", "abc")
    assert not matches_prefix({"k": ["abc"]}, "k", "ab")


@given(st.dictionaries(st.text(), st.lists(st.text(), unique=True)))
def test_what_we_encode_we_decode(filters: dict[str, list[str]]) -> None:
    assert decode_filters(encode_filters(filters)) == filters


def test_every_kind_of_error_has_a_status() -> None:
    kinds = {cls.kind for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, EngineError)}
    assert kinds == set(STATUS_BY_KIND)
    assert status_of(errors.Conflict("x").within("remove a")) == 409


def test_error_bodies() -> None:
    answer = error_response(errors.NotFound("get <x>: no such volume"))
    assert (answer.status, answer.body) == (404, b'{"message":"get <x>: no such volume"}\n')
    assert (error_response(errors.NotModified("x")).status, error_response(errors.NotModified("x")).body) == (304, b"")
    assert plain_error(errors.NotFound("No such container: nope")).body == b"No such container: nope\r\n"
