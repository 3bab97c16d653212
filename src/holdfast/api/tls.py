"""TLS for TCP: the client must show a certificate too. The engine's API is root; there is no TCP without this.

The event loop has TLS of its own, but closes the connection when the client closes its writing side, so `run -i` and
`exec -i` would lose their output. Here each direction ends on its own, as RFC 8446 section 6.1 allows.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

from holdfast import log
from holdfast.errors import InvalidParameter

logger = log.get(__name__)

HANDSHAKE_DEADLINE_S = 60.0
_READ_BYTES = 256 << 10


def server_context(*, ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """Make the context from three PEM files. Raises InvalidParameter if one is not given or cannot be used."""
    missing = [
        name for name, value in (("tls_ca", ca), ("tls_certificate", certificate), ("tls_key", key)) if not value
    ]
    if missing:
        raise InvalidParameter(f"listening on TCP needs TLS with client certificates: {', '.join(missing)} not set")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidParameter(f"TLS files {certificate}, {key}, {ca}: {error}") from error
    return context


def _no_password() -> str:
    """Refuse a key with a password: OpenSSL would ask for it on the terminal."""
    raise ValueError("the private key must not be protected by a password")


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """A protocol to the socket below, a transport to the connection above, which begins after the handshake."""

    def __init__(self, context: ssl.SSLContext, above: asyncio.Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._above = above
        self._loop = loop
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._below: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._established = False
        self._paused = False
        self._input_ended = False
        self._output_ended = False

    # -- protocol: what the socket tells us ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the handshake."""
        self._below = cast(asyncio.Transport, transport)
        self._deadline = self._loop.call_later(HANDSHAKE_DEADLINE_S, self._below.abort)

    def data_received(self, data: bytes) -> None:
        """Decrypt."""
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        """End: a client that only closes its writing side says so inside TLS, and keeps the socket open."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._established:
            self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._established:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._established:
            self._above.resume_writing()

    def _advance(self) -> None:
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
                if self._deadline is not None:
                    self._deadline.cancel()
                self._flush()
                self._above.connection_made(self)
            while not self._paused and not self._input_ended:
                data = self._tls.read(_READ_BYTES)
                if not data:
                    self._end_input()
                    break
                self._above.data_received(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end_input()
        except ssl.SSLError as error:
            logger.info("TLS refused", extra={"peer": self._below.get_extra_info("peername"), "error": error.reason})
            self._flush()
            self._below.close()
            return
        self._flush()

    def _end_input(self) -> None:
        self._input_ended = True
        if not self._above.eof_received():
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    # -- transport: what the connection asks of us ---------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Encrypt and queue."""
        if data and not self._output_ended and not self._below.is_closing():
            self._tls.write(data)
            self._flush()

    def can_write_eof(self) -> bool:
        """Say yes."""
        return True

    def write_eof(self) -> None:
        """Say that no more will come."""
        if self._output_ended:
            return
        self._output_ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the client has not said the same yet, or sent what we do not want any more
        self._flush()

    def close(self) -> None:
        """Close when everything queued was sent."""
        self.write_eof()
        self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._output_ended = True
        self._below.abort()

    def is_closing(self) -> bool:
        """Tell whether it is being closed."""
        return self._below.is_closing()

    def pause_reading(self) -> None:
        """Hold the client back."""
        self._paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Go on, first with what was decrypted or received already."""
        if self._paused:
            self._paused = False
            self._below.resume_reading()
            self._loop.call_soon(self._advance)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pass it on."""
        self._below.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Pass it on; `ssl_object` and `peercert` are ours."""
        if name == "ssl_object":
            return self._tls
        return self._tls.getpeercert() if name == "peercert" else self._below.get_extra_info(name, default)
