"""HTTP/1.1 over one socket, as much of it as the engine's API needs.

The standard client costs 20 ms to import and hides the socket, which attach and exec must take over.
Source: RFC 9112, message syntax; Docker Engine API, the hijacked streams of attach and exec.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import BufferedIOBase, BufferedReader
from typing import Self

from holdfast.client.failures import Garbled
from holdfast.client.stream import Stream

_LINE_LIMIT_BYTES = 65536
_CHUNK_BYTES = 65536
_BODILESS = frozenset({204, 304})


class Response:
    """Status and headers of an answer, and its body, once. Header names are in lower case.

    Closing it, or leaving it as a context manager, closes the connection.
    """

    def __init__(self, status: int, headers: Mapping[str, str], connection: Connection, *, bodiless: bool) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._reader = connection.reader
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "")
        self._left: int | None = int(length) if length.isdecimal() else None
        if bodiless:
            self._left, self._chunked = 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, whatever of the body is left."""
        self._connection.close()

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request once this body is read."""
        ends = self._chunked or self._left is not None
        return ends and self.headers.get("connection", "").lower() != "close"

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives. Raises Garbled when the connection ends before the body."""
        if self._chunked:
            yield from self._chunked_body()
        elif self._left is None:
            while data := self._reader.read1(_CHUNK_BYTES):
                yield data
        else:
            while self._left:
                data = self._reader.read1(min(self._left, _CHUNK_BYTES))
                if not data:
                    raise Garbled(f"the engine closed the connection {self._left} bytes before the end of its answer")
                self._left -= len(data)
                yield data

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def _chunked_body(self) -> Iterator[bytes]:
        while True:
            line = read_line(self._reader)
            try:
                left = int(line.partition(b";")[0], 16)
            except ValueError:
                raise Garbled(f"the engine's answer is garbled: chunk size {line[:32]!r}") from None
            if left == 0:
                while read_line(self._reader):
                    pass  # trailers
                return
            while left:
                data = self._reader.read1(min(left, _CHUNK_BYTES))
                if not data:
                    raise Garbled("the engine closed the connection in the middle of its answer")
                left -= len(data)
                yield data
            read_line(self._reader)


class Connection:
    """One connection, one exchange at a time."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.reader = BufferedReader(stream, _CHUNK_BYTES)

    def close(self) -> None:
        """Close the socket."""
        self.reader.close()

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None
    ) -> Response:
        """Send one request, read the head of its answer. A body that is no `bytes` goes out chunked.

        Raises Garbled when the answer is no HTTP or none came.
        """
        head = [f"{method} {target} HTTP/1.1", "Host: holdfast", "User-Agent: holdfast"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if isinstance(body, bytes):
            head.append(f"Content-Length: {len(body)}")
        elif body is not None:
            head.append("Transfer-Encoding: chunked")
        elif method == "POST":
            head.append("Content-Length: 0")
        start = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1", "replace")
        try:
            self._send(start, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused half way: the engine's answer, if any, says why
        return self._receive(method)

    def _send(self, start: bytes, body: bytes | Iterable[bytes] | None) -> None:
        if body is None or isinstance(body, bytes):
            self.stream.sendall(start + (body or b""))
            return
        self.stream.sendall(start)
        for data in body:
            if data:
                self.stream.sendall(b"%x\r\n%b\r\n" % (len(data), data))
        self.stream.sendall(b"0\r\n\r\n")

    def _receive(self, method: str) -> Response:
        try:
            line = read_line(self.reader)
        except ConnectionResetError as error:
            raise Garbled("the engine closed the connection without an answer") from error
        version, _, rest = line.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise Garbled(
                f"the engine's answer is not HTTP: {line[:80]!r}"
                if line
                else "the engine closed the connection without an answer"
            )
        status = int(rest[:3])
        headers: dict[str, str] = {}
        while field := read_line(self.reader):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if status == 100:
            return self._receive(method)
        return Response(status, headers, self, bodiless=method == "HEAD" or status in _BODILESS)


def read_line(reader: BufferedIOBase) -> bytes:
    """One line without its end; empty at the end of the connection too. Raises Garbled for an endless one."""
    line = reader.readline(_LINE_LIMIT_BYTES)
    if len(line) == _LINE_LIMIT_BYTES:
        raise Garbled("the engine's answer is garbled: a line of more than 64 KiB")
    return line.rstrip(b"\r\n")
