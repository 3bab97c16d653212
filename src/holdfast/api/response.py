"""Answers: plain, empty, streamed; and how their heads are written."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

import msgspec

from holdfast import __version__

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
JSON = "application/json"

_encoder = msgspec.json.Encoder()
_ENGINE_HEADERS = (
    f"Api-Version: {API_VERSION}\r\nDocker-Experimental: false\r\nOstype: linux\r\n"
    f"Server: Holdfast/{__version__} (linux)\r\n"
)
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_JSON_HEADERS = {"Content-Type": JSON}
_NO_HEADERS: Mapping[str, str] = {}


class Response:
    """A whole answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str] = _NO_HEADERS, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class StreamResponse:
    """An answer whose head goes out at once and whose body follows item by item, chunked.

    The iterator is closed when the client goes away. An exception in it cuts the connection, so that the client sees
    that the answer is not whole.
    """

    __slots__ = ("headers", "items", "status")

    def __init__(self, status: int, headers: Mapping[str, str], items: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.items = items

    async def close(self) -> None:
        """Close the iterator, if it can be closed."""
        close = getattr(self.items, "aclose", None)
        if close is not None:
            await close()


def json_response(status: int, obj: object, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Give `obj` as JSON with a newline at its end; `<`, `>` and `&` stay as they are."""
    merged = {**_JSON_HEADERS, **headers} if headers else _JSON_HEADERS
    return Response(status, merged, _encoder.encode(obj) + b"\n")


def empty(status: int, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Give an answer without a body."""
    return Response(status, headers)


def text_response(status: int, text: str, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Give plain text."""
    body = text.encode("utf-8", "replace")
    return Response(status, {"Content-Type": "text/plain; charset=utf-8", **headers}, body)


def json_line(obj: object, end: bytes = b"\n") -> bytes:
    """Give one object of a JSON stream; progress streams end each with `\\r\\n`."""
    return _encoder.encode(obj) + end


async def json_lines(objects: AsyncIterator[object], end: bytes = b"\n") -> AsyncIterator[bytes]:
    """Turn objects into the items of a StreamResponse."""
    async for obj in objects:
        yield _encoder.encode(obj) + end


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_date_second = 0
_date_line = ""


def _date() -> str:
    global _date_line, _date_second
    now = int(time.time())
    if now != _date_second:
        # Not strftime(), which follows the locale.
        day = time.gmtime(now)
        _date_line = (
            f"Date: {_WEEKDAYS[day.tm_wday]}, {day.tm_mday:02} {_MONTHS[day.tm_mon - 1]} {day.tm_year}"
            f" {day.tm_hour:02}:{day.tm_min:02}:{day.tm_sec:02} GMT\r\n"
        )
        _date_second = now
    return _date_line


def encode_head(status: int, headers: Mapping[str, str], framing: str, *, engine_headers: bool = True) -> bytes:
    """Write a head. `framing` holds the lines about length and connection, each with its `\\r\\n`."""
    lines = "".join([f"{name}: {_one_line(value)}\r\n" for name, value in headers.items()])
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n"
    common = _ENGINE_HEADERS if engine_headers else ""
    return f"{line}{common}{lines}{_date()}{framing}\r\n".encode("latin-1", "replace")


def encode_hijack_head(content_type: str, *, upgrade: bool, engine_headers: bool) -> bytes:
    """Write the head before a taken-over stream; the reason phrase and the absence of Date are Docker's."""
    common = _ENGINE_HEADERS if engine_headers else ""
    if upgrade:
        return (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"{common}\r\n"
        ).encode("latin-1")
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{common}\r\n".encode("latin-1")


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ") if "\n" in value or "\r" in value else value
