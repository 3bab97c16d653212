"""Web sockets, the server's side: the handshake, frames, and a connection that reads and writes like a raw stream.

Messages are not kept apart: an attach's bytes are a stream, and where it is cut means nothing. Frames are taken as they
come, so a client that announces a huge one costs no memory. Source: RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from holdfast.api.request import ClientGone
from holdfast.errors import InvalidParameter

if TYPE_CHECKING:
    from holdfast.api.hijack import HijackedStream

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = "13"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_DATA: Final = (_CONTINUATION, _TEXT, _BINARY)
_CONTROL_BYTES: Final = 125
NORMAL, PROTOCOL_ERROR = 1000, 1002
_AHEAD: Final = 16


class BadFrame(Exception):
    """The client does not speak the protocol."""


def accept(headers: Mapping[str, str]) -> bytes:
    """Check a handshake's headers (lower-case names) and give the head of the answer. Pure.

    Raises InvalidParameter for what is no handshake, and for one that a page from elsewhere made in somebody's browser.
    """
    key = headers.get("sec-websocket-key", "")
    try:
        whole = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        whole = False
    if headers.get("upgrade", "").lower() != "websocket" or not whole:
        raise InvalidParameter("bad request: not a web socket's handshake")
    if headers.get("sec-websocket-version", "") != _VERSION:
        raise InvalidParameter(f"bad request: only version {_VERSION} of web sockets is served")
    origin = headers.get("origin", "")
    if origin and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise InvalidParameter(f"bad request: web sockets are not served to pages of {origin}")
    answer = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {answer}\r\n\r\n"
    ).encode()


def frame(opcode: int, data: bytes) -> bytes:
    """Give a whole frame as a server sends it. Pure."""
    size = len(data)
    if size <= _CONTROL_BYTES:
        head = bytes((0x80 | opcode, size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
    return head + data


class Frames:
    """Takes a client's frames apart, however they were cut."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._opcode = -1
        self._left = 0
        self._mask = b""
        self._in_message = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Give what `data` completes: pieces of messages as binary ones, whole control frames. Raises BadFrame."""
        self._waiting += data
        found: list[tuple[int, bytes]] = []
        while True:
            if self._opcode < 0 and not self._take_head():
                return found
            whole = self._opcode not in _DATA
            size = min(self._left, len(self._waiting))
            if (whole and size < self._left) or (not size and self._left):
                return found
            piece = self._unmask(bytes(self._waiting[:size]))
            del self._waiting[:size]
            self._left -= size
            if whole:
                found.append((self._opcode, piece))
            elif piece:
                found.append((_BINARY, piece))
            if not self._left:
                self._opcode = -1

    def _take_head(self) -> bool:
        """Read a frame's head; False while it is not all there."""
        waiting = self._waiting
        if len(waiting) < 2:
            return False
        opcode, final, size = waiting[0] & 0x0F, bool(waiting[0] & 0x80), waiting[1] & 0x7F
        if waiting[0] & 0x70 or not waiting[1] & 0x80:
            raise BadFrame("reserved bits, or a frame without a mask")
        if opcode not in (*_DATA, _CLOSE, _PING, _PONG):
            raise BadFrame(f"unknown kind of frame {opcode}")
        if opcode in _DATA and (opcode == _CONTINUATION) != self._in_message:
            raise BadFrame("a message inside another, or the rest of none")
        if opcode not in _DATA and (not final or size > _CONTROL_BYTES):
            raise BadFrame("a control frame that is too long, or in pieces")
        more = {126: 2, 127: 8}.get(size, 0)
        if len(waiting) < 2 + more + 4:
            return False
        if more:
            size = int.from_bytes(waiting[2 : 2 + more], "big")
        if size >= 1 << 63:
            raise BadFrame("a frame of an impossible size")
        self._mask = bytes(waiting[2 + more : 6 + more])
        del waiting[: 6 + more]
        if opcode in _DATA:
            self._in_message = not final
        self._opcode, self._left = opcode, size
        return True

    def _unmask(self, data: bytes) -> bytes:
        """Undo the mask, and turn it to where the next piece begins."""
        size = len(data)
        repeated = (self._mask * (size // 4 + 1))[:size]
        turn = size % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


class WebSocket:
    """A connection after its handshake; what is read and written are the bytes of its messages."""

    def __init__(self, stream: HijackedStream) -> None:
        """Begin to take frames, so that pings are answered whoever reads."""
        loop = asyncio.get_running_loop()
        self.disconnected: asyncio.Future[None] = loop.create_future()
        self._stream = stream
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Condition()
        self._wanted = True
        self._closed = False
        self._task = loop.create_task(self._receive())
        stream.disconnected.add_done_callback(lambda _: self._lose())

    def ignore_input(self) -> None:
        """Nobody reads: what comes is dropped."""
        self._wanted = False

    async def read(self) -> bytes:
        """Give the next bytes; b"" once the client has closed its side."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces or self.disconnected.done())
            data = self._pieces.popleft() if self._pieces else b""
            self._changed.notify_all()
            return data

    async def write(self, data: bytes) -> None:
        """Send bytes as one message; waits while the client does not read. Raises ClientGone."""
        if self._closed or self.disconnected.done():
            raise ClientGone
        await self._stream.write(frame(_BINARY, data))

    async def end(self, code: int = NORMAL) -> None:
        """Say goodbye and close."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(ClientGone):
                await self._stream.write(frame(_CLOSE, code.to_bytes(2, "big")))
        if self._task is not asyncio.current_task():
            self._task.cancel()
        self._stream.close()

    async def _receive(self) -> None:
        frames = Frames()
        try:
            while data := await self._stream.read():
                for opcode, piece in frames.feed(data):
                    if opcode == _CLOSE:
                        await self.end(int.from_bytes(piece[:2], "big") if len(piece) >= 2 else NORMAL)
                        return
                    if opcode == _PING:
                        await self._stream.write(frame(_PONG, piece))
                    elif opcode == _BINARY and self._wanted:
                        await self._put(piece)
        except BadFrame:
            await self.end(PROTOCOL_ERROR)
        except ClientGone:
            pass
        finally:
            self._lose()

    async def _put(self, piece: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._pieces) < _AHEAD or not self._wanted)
            self._pieces.append(piece)
            self._changed.notify_all()

    def _lose(self) -> None:
        if self.disconnected.done():
            return
        self.disconnected.set_result(None)
        self._waker = asyncio.get_running_loop().create_task(self._wake())  # the loop itself keeps no task alive

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
