"""What probes print: read by one thread for all of them, and no more kept of it than is shown."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from typing import Final

from holdfast.containers.health import OUTPUT_LIMIT_BYTES
from holdfast.runtime.attach import PACKET_BYTES, split_packet

_PACKETS_AT_ONCE: Final = 64


class ProbeOutput:
    """The output of one probe."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._kept = bytearray()
        self._cut = False

    def read(self) -> bool:
        """Take what has come, never waiting; False at the end, and while there is nothing more."""
        for _ in range(_PACKETS_AT_ONCE):
            try:
                packet = self.connection.recv(PACKET_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not packet:
                return False
            _, data = split_packet(packet)
            room = OUTPUT_LIMIT_BYTES - len(self._kept)
            self._kept += data[:room]
            self._cut = self._cut or len(data) > room
        return True

    def text(self) -> str:
        """Give what is kept, with dots if it is not all."""
        text = self._kept.decode(errors="replace")
        return f"{text}..." if self._cut else text


class OutputReader:
    """Reads from every probe that runs, so that none is held up by what it prints; the thread begins with the first."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._selector: selectors.BaseSelector | None = None
        self._outputs: set[ProbeOutput] = set()
        self._wake_read, self._wake_write = -1, -1
        self._closed = False

    def add(self, connection: socket.socket) -> ProbeOutput:
        """Read from a connection until `finish`."""
        output = ProbeOutput(connection)
        with self._guard:
            if self._selector is None and not self._closed:
                self._begin()
            if self._selector is not None:
                self._outputs.add(output)
                self._selector.register(connection, selectors.EVENT_READ, output)
        return output

    def finish(self, output: ProbeOutput) -> str:
        """Take what is still there and stop reading; gives the text. The connection may be closed afterwards."""
        with self._guard:
            self._drop(output)
        while output.read() and _has_more(output.connection):
            continue
        return output.text()

    def close(self) -> None:
        """End the thread."""
        with self._guard:
            self._closed = True
            for output in list(self._outputs):
                self._drop(output)
            if self._selector is not None:
                os.write(self._wake_write, b"\0")

    def _begin(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        threading.Thread(target=self._run, args=(self._selector,), name="probe-output", daemon=True).start()

    def _drop(self, output: ProbeOutput) -> None:
        if output in self._outputs and self._selector is not None:
            self._outputs.discard(output)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(output.connection)

    def _run(self, selector: selectors.BaseSelector) -> None:
        while True:
            ready = selector.select()
            with self._guard:
                if self._closed:
                    self._selector = None
                    selector.close()
                    os.close(self._wake_read)
                    os.close(self._wake_write)
                    return
                for key, _ in ready:
                    if isinstance(key.data, ProbeOutput) and key.data in self._outputs and not key.data.read():
                        self._drop(key.data)


def _has_more(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    except OSError:
        return False
