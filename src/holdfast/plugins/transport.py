"""One call of a plugin: HTTP/1.1 over a unix socket, TCP or TLS, on a connection of its own.

A plugin is not trusted: the whole call has one deadline, however slowly bytes trickle, and its answer a limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httptools

from holdfast.errors import System, Unavailable
from holdfast.kernel.path import owned_fd
from holdfast.plugins.discovery import Endpoint, Tls

ACCEPT = "application/vnd.docker.plugins.v1.2+json"
_HOST = "plugin.moby.localhost"
_PIECE_BYTES = 1 << 16
_HEADERS_LIMIT_BYTES = 64 << 10
_BACKLOG_FULL_S = 0.05


class Unreachable(System):
    """The plugin did not answer: nobody listens, the connection broke, or time ran out.

    `unsent`: it never had the request. `late`: the deadline passed.
    """

    unsent = False
    late = False


class Answer:
    """A response as it comes in: its status, and its body up to a limit. Has the parser's callbacks."""

    def __init__(self, limit_bytes: int) -> None:
        self.is_complete = False
        self.has_length = False
        self.has_headers = False
        self.body = bytearray()
        self._limit_bytes = limit_bytes
        self.is_too_long = False

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Note a header that says where the body ends."""
        self.has_length = self.has_length or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """Note that the body begins."""
        self.has_headers = True

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if len(self.body) + len(data) > self._limit_bytes:
            self.is_too_long = True
        else:
            self.body += data

    def on_message_complete(self) -> None:
        """Note the end."""
        self.is_complete = True


class Transport:
    """Calls plugins. Safe from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def post(
        self, endpoint: Endpoint, method: str, body: bytes, timeout_s: float, limit_bytes: int
    ) -> tuple[int, bytes]:
        """Send `body` to `/method`; give the status and the body of the answer.

        Raises Unreachable, System for an answer that is no HTTP or longer than `limit_bytes`, Unavailable once closed.
        """
        deadline = time.monotonic() + timeout_s
        head = (
            f"POST /{method} HTTP/1.1\r\nHost: {endpoint.host or _HOST}\r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Content-Length: {len(body)}\r\nAccept: {ACCEPT}\r\nConnection: close\r\n\r\n"
        )
        unsent = True
        try:
            with self._connected(endpoint, deadline) as connection:
                unsent = False
                connection.sendall(head.encode() + body)
                return _receive(connection, limit_bytes, deadline)
        except OSError as error:
            if self._closed:
                raise Unavailable("the engine is stopping") from None
            failure = Unreachable(f'Post "http://{_HOST}/{method}": {_why(error, endpoint, unsent=unsent)}')
            failure.unsent = unsent
            failure.late = isinstance(error, TimeoutError)
            raise failure from None
        except (httptools.HttpParserError, UnicodeError) as error:
            raise System(f'Post "http://{_HOST}/{method}": malformed HTTP response: {error}') from None

    def close(self) -> None:
        """Fail every call, now and in future."""
        with self._guard:
            self._closed = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _connected(self, endpoint: Endpoint, deadline: float) -> Iterator[socket.socket]:
        plain = _connect(endpoint, deadline)
        with plain:
            with self._guard:
                if self._closed:
                    raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
                self._open.add(plain)
            try:
                if endpoint.tls is None:
                    yield plain
                else:
                    plain.settimeout(_left(deadline))
                    with _context(endpoint.tls).wrap_socket(plain, server_hostname=endpoint.host) as secured:
                        with self._guard:
                            self._open.add(secured)
                        try:
                            yield secured
                        finally:
                            with self._guard:
                                self._open.discard(secured)
            finally:
                with self._guard:
                    self._open.discard(plain)


def _connect(endpoint: Endpoint, deadline: float) -> socket.socket:
    if not endpoint.path:
        return socket.create_connection((endpoint.host, endpoint.port), timeout=_left(deadline))
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_left(deadline))
            # A long path does not fit into sun_path; through the folder's descriptor it always does.
            path = Path(endpoint.path)
            with owned_fd(os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
                connection.connect(f"/proc/self/fd/{folder}/{path.name}")
            return connection
        except BlockingIOError:  # more wait there than the plugin lets wait
            connection.close()
            time.sleep(min(_BACKLOG_FULL_S, _left(deadline)))
        except BaseException:
            connection.close()
            raise


def _receive(connection: socket.socket, limit_bytes: int, deadline: float) -> tuple[int, bytes]:
    answer = Answer(limit_bytes)
    parser = httptools.HttpResponseParser(answer)
    received = 0
    while not answer.is_complete:
        connection.settimeout(_left(deadline))
        data = connection.recv(_PIECE_BYTES)
        if not data:
            if answer.has_headers and not answer.has_length:
                break
            raise ConnectionResetError(errno.ECONNRESET, "EOF")
        received += len(data)
        parser.feed_data(data)
        if answer.is_too_long or (not answer.has_headers and received > _HEADERS_LIMIT_BYTES):
            raise System(f"the answer is longer than {limit_bytes} bytes")
    return int(parser.get_status_code()), bytes(answer.body)


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.authorities:
        context.load_verify_locations(tls.authorities)
    if tls.skip_verification or not tls.authorities:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key or None)
    return context


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    return left


def _why(error: OSError, endpoint: Endpoint, *, unsent: bool) -> str:
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    text = (error.strerror or str(error)).strip()
    text = text if text == "EOF" else text.lower()
    if not unsent:
        return text
    where = f"unix {endpoint.path}" if endpoint.path else f"tcp {endpoint.host}:{endpoint.port}"
    return f"dial {where}: connect: {text}"
