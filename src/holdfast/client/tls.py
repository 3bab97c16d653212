"""The same over TLS. Apart, because most clients talk to a local socket and ssl takes 15 ms to import."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TypeVar

from holdfast.client.address import Tls
from holdfast.client.stream import Buffer, Stream

T = TypeVar("T")
_READ_BYTES = 65536


def client_context(tls: Tls) -> ssl.SSLContext:
    """Make the context from the files. Raises OSError for one that cannot be used."""
    context = ssl.create_default_context(cafile=tls.ca if tls.verify else None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.verify or os.path.exists(tls.certificate):
        context.load_cert_chain(tls.certificate, tls.key)
    return context


class TlsStream(Stream):
    """TLS by memory buffers: Python's own TLS socket cannot end one direction and go on with the other.

    Source: RFC 8446 section 6.1, close_notify ends only the direction of its sender.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        """Shake hands. Raises OSError (ssl.SSLError is one) when that fails."""
        super().__init__(connection)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._state = threading.Lock()
        self._sending = threading.Lock()
        self._until_done(self._tls.do_handshake)

    def readinto(self, buffer: Buffer, /) -> int:  # type: ignore[override]
        """Read what is there, wait if nothing is; 0 at the end."""
        try:
            data = self._until_done(lambda: self._tls.read(len(buffer)))
        except ssl.SSLZeroReturnError:
            return 0
        except ssl.SSLEOFError:
            return 0  # gone without a word; HTTP knows by itself whether the answer was whole
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            with self._state:
                written = self._tls.write(view[:_READ_BYTES])
            self._flush()
            view = view[written:]

    def end_output(self) -> None:
        """Send close_notify; reading goes on."""
        with self._state:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # it wants the other side's close_notify, which comes when it comes
        try:
            self._flush()
        except OSError:
            pass  # the engine was first

    def _until_done(self, step: Callable[[], T]) -> T:
        """Repeat a step of the protocol, with more from the socket whenever it wants that."""
        while True:
            try:
                with self._state:
                    result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._socket.recv(_READ_BYTES)
                with self._state:
                    if data:
                        self._incoming.write(data)
                    else:
                        self._incoming.write_eof()
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        with self._sending:
            with self._state:
                data = self._outgoing.read()
            if data:
                self._socket.sendall(data)
