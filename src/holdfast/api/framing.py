"""HTTP/1.1 framing without input or output: one head, then the bytes that belong to its body.

httptools checks and takes apart the head. The body is counted here, because its last byte must be known exactly: what
follows belongs to the stream of an attach or exec, not to another request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import httptools

HEAD_LIMIT_BYTES = 64 << 10
HEADER_COUNT_LIMIT = 200
_CHUNK_LINE_LIMIT_BYTES = 4096
_LINE_BYTES = 64
_TRAILER_LIMIT_BYTES = 16 << 10


class BadRequest(Exception):
    """The bytes are not HTTP that we accept; `status` is the answer, after which the connection is closed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Body(Protocol):
    """Takes the bytes after a head and tells those of the body from those behind it."""

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Give (payload, rest); `rest` is what follows the body. Raises BadRequest."""
        ...

    def split(self, data: memoryview) -> tuple[list[memoryview], memoryview]:
        """The same without copying: the payload's pieces in order. Raises BadRequest."""
        ...


@dataclass(slots=True)
class Head:
    """The first part of a request. Header names are lower case; repeated ones are joined by `, `."""

    method: str
    target: str
    headers: dict[str, str]
    is_http_1_0: bool
    keep_alive: bool


class _Collector:
    __slots__ = ("count", "headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.count = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text


def parse_head(data: bytes) -> Head:
    """Take apart a whole head, with the blank line that ends it. Raises BadRequest."""
    collected = _Collector()
    parser = httptools.HttpRequestParser(collected)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # whether to upgrade is for the handler to say
    except httptools.HttpParserError as error:
        raise BadRequest(400, "Bad Request") from error
    if collected.count > HEADER_COUNT_LIMIT:
        raise BadRequest(431, "Request Header Fields Too Large")
    version = parser.get_http_version()
    if version not in {"1.0", "1.1"}:
        raise BadRequest(505, "HTTP Version Not Supported: unsupported protocol version")
    if version == "1.1" and "host" not in collected.headers:
        raise BadRequest(400, "Bad Request: missing required Host header")
    if "," in collected.headers.get("host", ""):
        raise BadRequest(400, "Bad Request: too many Host headers")
    return Head(
        parser.get_method().decode("ascii"),
        collected.target.decode("latin-1"),
        collected.headers,
        version == "1.0",
        _keep_alive(version, collected.headers.get("connection", "")),
    )


def _keep_alive(version: str, connection: str) -> bool:
    if not connection:
        return version == "1.1"
    words = {word.strip().lower() for word in connection.split(",")}
    return "close" not in words if version == "1.1" else "keep-alive" in words


def body_of(head: Head) -> Body | None:
    """Give the decoder for the body that `head` announces, None if there is none. Raises BadRequest."""
    encoding = head.headers.get("transfer-encoding")
    if encoding is not None:
        if encoding.strip().lower() != "chunked" or head.is_http_1_0:
            raise BadRequest(501, "Unsupported transfer encoding")
        return ChunkedBody()
    length = head.headers.get("content-length", "0").strip()
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise BadRequest(400, "Bad Request")
    return LengthBody(int(length)) if int(length) else None


class LengthBody:
    """A body of `Content-Length` bytes."""

    __slots__ = ("done", "left_bytes")

    def __init__(self, length_bytes: int) -> None:
        self.left_bytes = length_bytes
        self.done = length_bytes == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Give (payload, rest); never raises."""
        left = self.left_bytes - len(data)
        if left > 0:
            self.left_bytes = left
            return data, b""
        payload, rest = data[: self.left_bytes], data[self.left_bytes :]
        self.left_bytes = 0
        self.done = True
        return payload, rest

    def split(self, data: memoryview) -> tuple[list[memoryview], memoryview]:
        """Give ([payload], rest); never raises."""
        payload = data[: self.left_bytes]
        self.left_bytes -= len(payload)
        self.done = not self.left_bytes
        return [payload], data[len(payload) :]


class ChunkedBody:
    """A chunked body, RFC 9112 section 7.1; extensions and trailers are read and dropped."""

    __slots__ = ("_left_bytes", "_line", "_state", "_trailer_bytes", "done")

    def __init__(self) -> None:
        self.done = False
        self._state = "size"  # size, data, data-end, trailer
        self._line = b""
        self._left_bytes = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Give (payload, rest). Raises BadRequest where the chunks are malformed."""
        payload, rest = self.split(memoryview(data))
        return b"".join(payload), bytes(rest)

    def split(self, data: memoryview) -> tuple[list[memoryview], memoryview]:
        """Give (payload in pieces, rest). Raises BadRequest where the chunks are malformed."""
        payload: list[memoryview] = []
        position = 0
        while position < len(data) and not self.done:
            if self._state == "data":
                piece = data[position : position + self._left_bytes]
                payload.append(piece)
                position += len(piece)
                self._left_bytes -= len(piece)
                if not self._left_bytes:
                    self._state = "data-end"
                continue
            begun = bytes(data[position : position + _LINE_BYTES])
            end = begun.find(b"\n")
            line_piece = begun if end < 0 else begun[: end + 1]
            position += len(line_piece)
            self._line += line_piece
            if len(self._line) > _CHUNK_LINE_LIMIT_BYTES:
                raise BadRequest(400, "Bad Request")
            if end >= 0:
                if not self._line.endswith(b"\r\n"):
                    raise BadRequest(400, "Bad Request")
                line, self._line = self._line[:-2], b""
                self._take_line(line)
        return payload, data[position:]

    def _take_line(self, line: bytes) -> None:
        if self._state == "size":
            digits = line.partition(b";")[0].strip()
            if not digits or len(digits) > 15 or not set(digits) <= set(b"0123456789abcdefABCDEF"):
                raise BadRequest(400, "Bad Request")
            self._left_bytes = int(digits, 16)
            self._state = "data" if self._left_bytes else "trailer"
        elif self._state == "data-end":
            if line:
                raise BadRequest(400, "Bad Request")
            self._state = "size"
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _TRAILER_LIMIT_BYTES:
                raise BadRequest(400, "Bad Request")
        else:
            self.done = True
