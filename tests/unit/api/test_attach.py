"""Streams of attach and exec without an engine: what waits for a client, detach keys, frames."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from holdfast.api import attach
from holdfast.api.attach import Backlog, KeyWatch, SocketPromise, frame, parse_detach_keys
from holdfast.errors import InvalidParameter


def test_frame() -> None:
    assert frame(2, b"abc") == b"\x02\x00\x00\x00\x00\x00\x00\x03abc"


def test_backlog_keeps_order_through_memory_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "MEMORY_BYTES", 100)
    monkeypatch.setattr(attach, "_PIECE_BYTES", 64)
    backlog = Backlog(tmp_path)
    written = os.urandom(5000)
    taken = b""
    for start in range(0, 5000, 50):
        backlog.put(written[start : start + 50])
        if start % 150 == 0:
            taken += backlog.take()
    assert backlog
    assert os.listdir(tmp_path) == [], "the file has no name"
    while data := backlog.take():
        taken += data
    assert taken == written
    assert not backlog
    backlog.put(b"again")
    assert backlog.take() == b"again"
    backlog.close()
    backlog.close()


def test_backlog_tells_when_it_is_full_and_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "MEMORY_BYTES", 10)
    monkeypatch.setattr(attach, "FILE_BYTES", 100)
    backlog = Backlog(tmp_path)
    while not backlog.is_full:
        backlog.put(b"x" * 10)
    while backlog:
        backlog.take()
    room = not backlog.is_full
    assert room
    backlog.close()


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-a,b", b"\x01b"),
        ("ctrl-@,ctrl-_", b"\x00\x1f"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "abc", "ctrl-p,,", "ctrl-aa", "ctrl-A"])
def test_bad_detach_keys(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        parse_detach_keys(text)


@pytest.mark.parametrize(
    ("pieces", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"\x10x"], b"\x10x", False),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_keys_are_found_across_pieces(pieces: list[bytes], passed: bytes, detached: bool) -> None:
    keys = KeyWatch(b"\x10\x11")
    found = [keys.feed(piece) for piece in pieces]
    assert b"".join(data for data, _ in found) == passed
    assert found[-1][1] is detached


@given(some.lists(some.binary(max_size=8)))
def test_without_keys_everything_passes(pieces: list[bytes]) -> None:
    keys = KeyWatch(b"")
    assert b"".join(keys.feed(piece)[0] for piece in pieces) == b"".join(pieces)


def test_a_socket_that_comes_too_late_is_closed() -> None:
    ours, theirs = socket.socketpair()

    async def scene() -> None:
        promise = SocketPromise()
        promise.future.cancel()
        promise.give(ours)
        await asyncio.sleep(0.01)

    asyncio.run(scene())
    assert theirs.recv(1) == b""
    theirs.close()
    assert ours.fileno() == -1
