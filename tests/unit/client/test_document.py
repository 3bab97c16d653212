"""Reading JSON without trusting its shape, whole and in streams."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.document import Document, decode, decode_stream
from holdfast.client.failures import Garbled


def test_absent_and_null_are_empty() -> None:
    for document in (Document({}), Document(dict.fromkeys(("t", "n", "f", "d", "s", "m")))):
        assert document.text("t") == ""
        assert document.number("n", -1) == -1
        assert document.flag("f") is False
        assert document.document("d").raw == {}
        assert document.documents("d") == []
        assert document.strings("s") == []
        assert document.mapping("m") == {}


def test_values() -> None:
    document = Document({"t": "x", "n": 3, "f": True, "d": {"a": "b"}, "l": [{"a": 1}, 2], "s": ["x", 1, "y"]})
    assert document.text("t") == "x"
    assert document.number("n") == 3
    assert document.flag("f")
    assert document.document("d").mapping("a") == {}
    assert [item.number("a") for item in document.documents("l")] == [1]
    assert document.strings("s") == ["x", "y"]
    assert document.number("f", 7) == 7, "true is no number"


def test_not_json() -> None:
    with pytest.raises(Garbled):
        decode(b"<html>")


@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=3), max_size=5),
    st.sampled_from([b"\n", b"\r\n", b"", b" "]),
    st.integers(1, 9),
)
def test_stream_survives_any_cut(objects: list[dict[str, object]], separator: bytes, size: int) -> None:
    data = separator.join(json.dumps(item, ensure_ascii=False).encode() for item in objects)
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    assert [dict(document.raw) for document in decode_stream(chunks)] == objects


def test_each_object_comes_as_soon_as_it_is_whole() -> None:
    stream = decode_stream(iter([b'{"a":1}{"b"', b":2}"]))
    assert next(stream).raw == {"a": 1}


def test_an_end_in_the_middle_is_an_error() -> None:
    with pytest.raises(Garbled, match="middle"):
        list(decode_stream(iter([b'{"a":1}{"b":'])))
