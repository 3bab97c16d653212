"""A request's body read by a worker straight from the socket, for bodies of any size.

While it is lent, the event loop reads nothing from the connection. The bytes go from the kernel into one buffer and
from there to where they belong; through the loop each would be copied three times more.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterable

from holdfast.api.framing import BadRequest, Body
from holdfast.api.request import ClientGone
from holdfast.errors import InvalidParameter

_BUFFER_BYTES = 1 << 20
_PIECES_MAX = 512  # writev(2) takes 1024


class LentBody:
    """The rest of a body. Made and closed in the event loop; `read` blocks and belongs to one worker."""

    def __init__(self, connection: socket.socket, body: Body, first: Iterable[bytes]) -> None:
        """Read from `connection`, non-blocking and ours to close, after the payload in `first`."""
        self._socket = connection
        self._body = body
        self._pieces = [memoryview(piece) for piece in first if piece]
        self._pieces.reverse()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._receiving = threading.Lock()
        self._closed = False
        self.rest = b""
        """What came behind the body."""

    @property
    def done(self) -> bool:
        """Whether everything has come from the socket."""
        return self._body.done

    def read(self, size: int) -> memoryview:
        """Give what is there, at most `size` bytes, waiting for at least one; nothing at the end.

        Good until the next call. Raises ClientGone, InvalidParameter where the body's framing is broken.
        """
        while not self._pieces:
            if self._body.done:
                return self._buffer[:0]
            self._receive()
        piece = self._pieces.pop()
        if len(piece) > size:
            self._pieces.append(piece[size:])
            return piece[:size]
        return piece

    def take(self, size: int) -> list[memoryview]:
        """Give as `read` does, but all the pieces that have come together, to be written with one call."""
        pieces: list[memoryview] = []
        first = self.read(size)
        while first:
            pieces.append(first)
            size -= len(first)
            if not size or not self._pieces or len(pieces) == _PIECES_MAX:
                break
            first = self.read(size)
        return pieces

    def cut(self) -> None:
        """End the waiting: the connection is gone. Called in the event loop."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # the client was first

    def close(self) -> None:
        """Let go of the socket; a worker that still reads, because its request was given up, gets ClientGone."""
        self._closed = True
        if self._receiving.locked():
            self.cut()
        with self._receiving:
            self._socket.close()

    def _receive(self) -> None:
        with self._receiving:
            if self._closed:
                raise ClientGone
            try:
                count = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._socket, select.POLLIN)
                poll.poll()
                return
            except ConnectionResetError:
                count = 0
        if not count:
            raise ClientGone
        try:
            pieces, rest = self._body.split(self._buffer[:count])
        except BadRequest as error:
            raise InvalidParameter(str(error)) from error
        if self._body.done:
            self.rest = bytes(rest)
        self._pieces = [piece for piece in reversed(pieces) if piece]
