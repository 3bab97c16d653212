"""Requests to the engine: paths, queries and bodies on the way out, status to exception on the way back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Self
from urllib.parse import quote, urlencode

from holdfast import errors
from holdfast.client.address import Address, Tls, connect
from holdfast.client.document import Document, decode, decode_stream, documents
from holdfast.client.http import Connection, Response
from holdfast.errors import EngineError

API_VERSION = "1.51"
Json = Mapping[str, object]

_ERRORS: dict[int, type[EngineError]] = {
    304: errors.NotModified,
    400: errors.InvalidParameter,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
}


class Hijacked:
    """A connection that an attach or exec took over: bytes both ways, no more HTTP.

    One thread may read while another writes.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream = connection.stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def chunks(self) -> Iterator[bytes]:
        """What the process writes, as it comes: framed unless it has a terminal. Ends when the engine closes."""
        try:
            while data := self._connection.reader.read1(1 << 16):
                yield data
        except ConnectionResetError:
            return

    def write(self, data: bytes) -> None:
        """Send to the process's stdin. Raises OSError when nobody reads any more."""
        self._stream.sendall(data)

    def end_input(self) -> None:
        """Tell the process that its stdin ends; its output goes on."""
        self._stream.end_output()

    def leave(self) -> None:
        """Stop taking part; a reader in another thread comes to its end."""
        self._stream.leave()


_HINT = "holdfast-hint"


class Transport:
    """Sends requests; keeps one idle connection for the next one.

    For one thread; a signal handler in it may send requests of its own in between.
    """

    def __init__(self, address: Address, tls: Tls | None = None) -> None:
        self.address = address
        self._tls = tls
        self._idle: Connection | None = None

    def close(self) -> None:
        """Close the idle connection."""
        if self._idle:
            self._idle.close()
            self._idle = None

    def call(self, method: str, path: str, query: Json | None = None, document: Json | None = None) -> object:
        """Send a request and decode the whole answer; None for an empty one. Raises EngineError by its status."""
        connection = self._take()
        response = _exchange(connection, method, path, query, document)
        body = response.read()
        if response.reusable and self._idle is None:
            self._idle = connection
        else:
            connection.close()
        raise_for(response.status, body, response.headers.get(_HINT, ""))
        return decode(body) if body.strip() else None

    def get(self, path: str, query: Json | None = None) -> Document:
        """GET one object."""
        return Document(_object(self.call("GET", path, query)))

    def get_list(self, path: str, query: Json | None = None) -> list[Document]:
        """GET an array of objects."""
        return documents(self.call("GET", path, query))

    def post(self, path: str, query: Json | None = None, document: Json | None = None) -> Document:
        """POST; the object that comes back, an empty one where none does."""
        return Document(_object(self.call("POST", path, query, document)))

    def delete(self, path: str, query: Json | None = None) -> list[Document]:
        """DELETE; what was deleted, where the engine says so."""
        return documents(self.call("DELETE", path, query))

    def open(
        self,
        method: str,
        path: str,
        query: Json | None = None,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request on a connection of its own and return once the head of the answer is there.

        The body is for the caller to read. Raises EngineError by the answer's status.
        """
        connection = Connection(connect(self.address, self._tls))
        own = {"Content-Type": "application/x-tar"} if body is not None else {}
        response = connection.exchange(method, target(path, query), {**own, **(headers or {})}, body)
        if response.status >= 300:
            with response:
                raise_for(response.status, response.read(), response.headers.get(_HINT, ""))
        return response

    def stream(
        self,
        method: str,
        path: str,
        query: Json | None = None,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Document]:
        """Like open(), for an answer that is a stream of objects."""
        with self.open(method, path, query, body, headers) as response:
            yield from decode_stream(response.chunks())

    def hijack(self, path: str, query: Json | None = None, document: Json | None = None) -> Hijacked:
        """POST, and take over the connection. Raises EngineError by the answer's status."""
        connection = Connection(connect(self.address, self._tls))
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        response = _exchange(connection, "POST", path, query, document, upgrade)
        if response.status >= 300:
            with response:
                raise_for(response.status, response.read(), response.headers.get(_HINT, ""))
        return Hijacked(connection)

    def _take(self) -> Connection:
        idle, self._idle = self._idle, None
        if idle and idle.stream.idle_and_open():
            return idle
        if idle:
            idle.close()
        return Connection(connect(self.address, self._tls))


def segment(name: str) -> str:
    """A name as one segment of a path; slashes stay, as volume and image names may hold them."""
    return quote(name, safe="/:@")


def target(path: str, query: Json | None) -> str:
    """The request target below the API's version. True is `1`; None, False and `""` are left out; lists repeat;
    a mapping (filters) is sent as JSON."""
    pairs: list[tuple[str, str]] = []
    for key, value in (query or {}).items():
        if value is None or value is False or value == "":
            continue
        if isinstance(value, Mapping):
            if value:
                pairs.append((key, json.dumps(value, separators=(",", ":"))))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            pairs.extend((key, str(item)) for item in value)
        else:
            pairs.append((key, "1" if value is True else str(value)))
    text = urlencode(pairs, errors="surrogateescape")  # paths in containers need not be UTF-8
    return f"/v{API_VERSION}{path}" + (f"?{text}" if text else "")


def raise_for(status: int, body: bytes, hint: str = "") -> None:
    """Raise the error that a status stands for, with the engine's message; do nothing below 300."""
    if status < 300:
        return
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        answer = decode(body)
        text = Document(answer).text("message") if isinstance(answer, dict) else text
    raise _ERRORS.get(status, errors.System)(text or f"the engine answered {status}", hint=hint)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file in pieces, for a request's body."""
    while data := file.read(1 << 16):
        yield data


def _exchange(
    connection: Connection,
    method: str,
    path: str,
    query: Json | None,
    document: Json | None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    if document is None:
        return connection.exchange(method, target(path, query), headers or {}, None)
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    return connection.exchange(method, target(path, query), headers, body)


def _object(answer: object) -> Json:
    return answer if isinstance(answer, dict) else {}
