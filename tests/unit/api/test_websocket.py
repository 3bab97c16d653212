"""The frames and the handshake of web sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.websocket import BadFrame, Frames, accept, frame
from holdfast.errors import InvalidParameter

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
HEADERS = {
    "host": "docker",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def masked(opcode: int, data: bytes, *, final: bool = True, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame as a client sends it."""
    whole = frame(opcode, data)
    head = whole[: len(whole) - len(data)]
    first = opcode | (0x80 if final else 0)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes((first, head[1] | 0x80)) + head[2:] + mask + body


def test_the_example_of_the_rfc() -> None:
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in accept(HEADERS)
    assert Frames().feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [(BINARY, b"Hello")]


@pytest.mark.parametrize(
    "change",
    [
        {"upgrade": "tcp"}, {"sec-websocket-key": ""}, {"sec-websocket-key": "eA=="}, {"sec-websocket-key": "?"},
        {"sec-websocket-version": "8"}, {"origin": "https://elsewhere.example"}, {"origin": "null"},
    ],
)  # fmt: skip
def test_handshakes_that_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter):
        accept({**HEADERS, **change})


def test_an_origin_of_our_own() -> None:
    assert accept({**HEADERS, "origin": "http://docker"}).startswith(b"HTTP/1.1 101 ")


@given(
    st.lists(st.tuples(st.sampled_from([BINARY, TEXT, PING]), st.binary(max_size=125))), st.lists(st.integers(1, 40)),
    st.binary(min_size=4, max_size=4),
)  # fmt: skip
def test_however_it_is_cut(messages: list[tuple[int, bytes]], cuts: list[int], mask: bytes) -> None:
    sent = b"".join(masked(opcode, data, mask=mask) for opcode, data in messages)
    frames, found = Frames(), []
    for size in cuts:
        piece, sent = sent[:size], sent[size:]
        found += frames.feed(piece)
    found += frames.feed(sent)
    data = b"".join(piece for opcode, piece in found if opcode == BINARY)
    assert data == b"".join(data for opcode, data in messages if opcode != PING)
    assert [piece for opcode, piece in found if opcode == PING] == [data for opcode, data in messages if opcode == PING]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 200_000])
def test_sizes(size: int) -> None:
    data = bytes(size)
    assert b"".join(piece for _, piece in Frames().feed(masked(BINARY, data))) == data
    assert frame(BINARY, data).endswith(data)


def test_a_message_in_pieces_with_a_ping_between() -> None:
    sent = masked(TEXT, b"a", final=False) + masked(PING, b"?") + masked(0, b"b", final=False) + masked(0, b"c")
    assert Frames().feed(sent + masked(BINARY, b"d")) == [
        (BINARY, b"a"), (PING, b"?"), (BINARY, b"b"), (BINARY, b"c"), (BINARY, b"d"),
    ]  # fmt: skip


def test_a_huge_frame_is_not_kept() -> None:
    frames = Frames()
    assert frames.feed(b"\x82\xff" + (1 << 62).to_bytes(8, "big") + bytes(4)) == []
    for _ in range(3):
        assert frames.feed(b"x" * 1000) == [(BINARY, b"x" * 1000)]


@pytest.mark.parametrize(
    "sent",
    [
        frame(BINARY, b"no mask"), b"\xc2\x80\0\0\0\0", masked(3, b""), masked(0, b"rest of nothing"),
        masked(TEXT, b"a", final=False) + masked(TEXT, b"b"), masked(PING, b"", final=False),
        b"\x89\xfe\x00\x7e\0\0\0\0", b"\x82\xff" + b"\xff" * 8 + bytes(4),
    ],
)  # fmt: skip
def test_what_is_no_frame(sent: bytes) -> None:
    with pytest.raises(BadFrame):
        Frames().feed(sent)
