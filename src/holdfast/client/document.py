"""A JSON object read without trusting its shape: every question has a typed answer, absent and `null` alike empty.

The engine's answers differ between versions in what they leave out, so a client that asks "the text at `Driver`" and
gets `""` is simpler, and breaks less, than one that checks each key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from holdfast.client.failures import Garbled


class Document:
    """One JSON object. `raw` is the object as it came, for printing and templates."""

    __slots__ = ("raw",)

    def __init__(self, raw: Mapping[str, object]) -> None:
        self.raw = raw

    def text(self, key: str) -> str:
        """The string at `key`, `""` where there is none."""
        value = self.raw.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str, default: int = 0) -> int:
        """The whole number at `key`."""
        value = self.raw.get(key)
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else default

    def flag(self, key: str) -> bool:
        """Whether `key` is `true`."""
        return self.raw.get(key) is True

    def document(self, key: str) -> Document:
        """The object at `key`, an empty one where there is none."""
        value = self.raw.get(key)
        return Document(value if isinstance(value, dict) else {})

    def documents(self, key: str) -> list[Document]:
        """The objects in the array at `key`."""
        return documents(self.raw.get(key))

    def strings(self, key: str) -> list[str]:
        """The strings in the array at `key`."""
        value = self.raw.get(key)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def mapping(self, key: str) -> dict[str, str]:
        """The string-to-string map at `key`, such as labels."""
        value = self.raw.get(key)
        return {str(name): str(item) for name, item in value.items()} if isinstance(value, dict) else {}


def documents(value: object) -> list[Document]:
    """The objects in a decoded JSON array."""
    return [Document(item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def decode(data: bytes) -> object:
    """Decode a whole JSON body. Raises Garbled for something that is not JSON."""
    try:
        decoded: object = json.loads(data)
    except ValueError as error:
        raise Garbled(f"the engine's answer is not JSON: {error}") from error
    return decoded


def decode_stream(chunks: Iterator[bytes]) -> Iterator[Document]:
    """Decode objects that follow one another, however separated and cut into chunks, each as soon as it is whole.

    Source: Docker Engine API, the event and progress streams (newline or CRLF between objects).
    """
    decoder = json.JSONDecoder()
    pending = ""
    incomplete = b""
    for chunk in chunks:
        data = incomplete + chunk
        cut = data.rfind(b"}") + 1  # a character of several bytes is never cut before a brace
        incomplete = data[cut:]
        pending = (pending + data[:cut].decode("utf-8", "replace")).lstrip()
        while pending:
            try:
                value, end = decoder.raw_decode(pending)
            except ValueError:
                break  # not whole yet
            pending = pending[end:].lstrip()
            if isinstance(value, dict):
                yield Document(value)
    if pending or incomplete.strip():
        raise Garbled(f"the engine's answer ended in the middle of an object: {pending[:80]!r}")
