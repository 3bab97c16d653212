"""A body read straight from the socket: framed in any way, cut anywhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from holdfast.api.framing import ChunkedBody, LengthBody
from holdfast.api.lent import LentBody
from holdfast.api.request import ClientGone
from holdfast.errors import InvalidParameter


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def read_all(lent: LentBody, size: int = 1 << 20) -> bytes:
    data = b""
    while piece := lent.read(size):
        data += piece
    return data


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_chunked(pair: tuple[socket.socket, socket.socket], size: int, step: int) -> None:
    ours, theirs = pair
    sent = b"5\r\nhello\r\n1;ext=1\r\n \r\nb\r\nwide worlds\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\n"
    lent = LentBody(ours, ChunkedBody(), [b"first ", b""])

    def send() -> None:
        for at in range(0, len(sent), step):
            theirs.sendall(sent[at : at + step])

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(lent, size) == b"first hello wide worlds"
    sender.join()
    assert lent.done
    assert lent.rest == b"GET / HTTP/1.1\r\n"[: len(lent.rest)]


@pytest.mark.parametrize("size", [1, 4, 1 << 20])
def test_in_batches(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = pair
    theirs.sendall(b"1\r\na\r\n" * 2000 + b"0\r\n\r\n")
    lent = LentBody(ours, ChunkedBody(), [b"first"])
    data, most = b"", 0
    while pieces := lent.take(size):
        most = max(most, len(pieces))
        assert sum(map(len, pieces)) <= size
        data += b"".join(pieces)
    assert data == b"first" + b"a" * 2000
    assert most == min(size, 512)


def test_by_length(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"0123456789next")
    lent = LentBody(ours, LengthBody(10), [])
    assert read_all(lent) == b"0123456789"
    assert lent.rest == b"next"
    assert not lent.read(10)


def test_a_client_that_leaves(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    lent = LentBody(ours, LengthBody(10), [])
    theirs.sendall(b"012")
    assert bytes(lent.read(10)) == b"012"
    theirs.close()
    with pytest.raises(ClientGone):
        lent.read(10)


def test_broken_framing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"zz\r\nhello")
    with pytest.raises(InvalidParameter):
        LentBody(ours, ChunkedBody(), []).read(10)


def test_closed_under_a_reader(pair: tuple[socket.socket, socket.socket]) -> None:
    """A request that is given up takes the socket from a worker that still waits on it."""
    ours, _theirs = pair
    lent = LentBody(ours, LengthBody(10), [])
    failures: list[BaseException] = []

    def read() -> None:
        try:
            lent.read(10)
        except ClientGone as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while not lent._receiving.locked():
        pass
    lent.close()
    reader.join(5)
    assert len(failures) == 1
    with pytest.raises(ClientGone):
        lent.read(10)
