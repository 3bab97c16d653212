"""Output frames, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.failures import Garbled
from holdfast.client.frames import frames


def _frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=6), st.integers(1, 50))
def test_any_cut(sent: list[tuple[int, bytes]], size: int) -> None:
    data = b"".join(_frame(stream, payload) for stream, payload in sent)
    got = list(frames(data[start : start + size] for start in range(0, len(data), size)))
    for stream in (1, 2):
        assert b"".join(payload for to, payload in got if to == stream) == b"".join(
            payload for to, payload in sent if to == stream
        )


def test_a_long_payload_comes_as_it_arrives() -> None:
    pieces = frames(iter([_frame(1, b"abcdef")[:11], b"def"]))
    assert next(pieces) == (1, b"abc")


def test_an_end_in_the_middle_is_an_end() -> None:
    assert list(frames(iter([_frame(1, b"abc")[:9]]))) == [(1, b"a")]
    assert list(frames(iter([b"\1\0\0"]))) == []


def test_something_else_is_refused() -> None:
    with pytest.raises(Garbled):
        list(frames(iter([b"no frame at all"])))
