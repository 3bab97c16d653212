"""A connection to the engine as two streams of bytes, each of which ends on its own."""

from __future__ import annotations

import io
import select
import socket

Buffer = bytearray | memoryview


class Stream(io.RawIOBase):
    """Reads for a BufferedReader; writes whole. One thread may read while another writes."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket = connection

    def readable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def readinto(self, buffer: Buffer, /) -> int:  # type: ignore[override]
        """Read what is there, wait if nothing is; 0 at the end."""
        return self._socket.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """Write all of it."""
        self._socket.sendall(data)

    def end_output(self) -> None:
        """Write no more; the other side reads an end. Reading goes on."""
        self._shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """End both directions; a reader in another thread comes to its end."""
        self._shutdown(socket.SHUT_RDWR)

    def idle_and_open(self) -> bool:
        """Whether another request can be sent: false when the engine closed it, or sent what nobody asked for."""
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        """Close the socket."""
        super().close()
        self._socket.close()

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            pass  # the engine was first
