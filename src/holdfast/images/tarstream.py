"""A tar archive read from a stream, once, within limits. Pure but for the stream.

For the outer archive of `docker load`: a handful of members whose names are only ever keys, never paths. The standard
library's reader takes extended headers of any size into memory (CVE-2017-14992 is of that kind); this one does not.
Source of the format: POSIX.1-2001 pax, GNU tar's long names.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from holdfast.errors import InvalidParameter

BLOCK: Final = 512
CHUNK: Final = 1 << 20
_HEADER_DATA_MAX: Final = 1 << 20
_MEMBERS_MAX: Final = 100_000
_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")


class Readable(Protocol):
    """What archives are read from; b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """One member: a normalised name without leading `/` or `./`, and what it is.

    `kind` is "file", "link" (hard or symbolic; `target` is the normalised name it stands for) or "other".
    """

    name: str
    kind: str
    size_bytes: int
    target: str = ""


class TarStream:
    """Iterates over the members; `copy` hands out the data of the present one, else it is skipped."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield members up to the end of the archive. Raises InvalidParameter where it is damaged or too big."""
        extended: dict[str, str] = {}
        for _ in range(_MEMBERS_MAX):
            header = self._take(BLOCK, at_end=True)
            if len(header) < BLOCK or not header.strip(b"\0"):
                return
            fields = _FIELDS.unpack(header)
            _verify(header, fields[6])
            size = _number(fields[4])
            kind = fields[7]
            if kind in b"xLKg":
                data = self._header_data(size)
                if kind == b"x":
                    extended |= _parse_pax(data)
                elif kind != b"g":
                    extended["path" if kind == b"L" else "linkpath"] = _decode(data)
                continue
            member = _member(fields, size, extended)
            extended = {}
            self._left = member.size_bytes if kind not in b"123456" else 0
            self._padding = -self._left % BLOCK
            yield member
            self.copy(_ignore)
        raise InvalidParameter(f"invalid tar archive: more than {_MEMBERS_MAX} members")

    def copy(self, sink: Callable[[bytes], object]) -> None:
        """Give the data of the present member to `sink`, piece by piece."""
        while self._left:
            data = self._stream.read(min(self._left, CHUNK))
            if not data:
                raise InvalidParameter("unexpected EOF")
            self._left -= len(data)
            sink(data)
        self._take(self._padding)
        self._padding = 0

    def _header_data(self, size: int) -> bytes:
        if size > _HEADER_DATA_MAX:
            raise InvalidParameter(f"invalid tar archive: a header of {size} bytes, at most {_HEADER_DATA_MAX}")
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    def _take(self, size: int, *, at_end: bool = False) -> bytes:
        data = b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                if at_end and not data:
                    return data
                raise InvalidParameter("unexpected EOF")
            data += more
        return data


def normal_name(name: str, *, base: str = "") -> str:
    """Bring a member's name to a form that can be compared; what leads outside keeps its `..` and matches nothing."""
    return posixpath.normpath(posixpath.join(base, name)).lstrip("/")


def _member(fields: tuple[bytes, ...], size: int, extended: dict[str, str]) -> Member:
    name, kind = _decode(fields[0]), fields[7]
    if fields[9] == b"ustar\0" and fields[15].strip(b"\0"):
        name = f"{_decode(fields[15])}/{name}"
    name = normal_name(extended.get("path", name))
    if "size" in extended:
        if not extended["size"].isdecimal() or len(extended["size"]) > 19:
            raise InvalidParameter("archive/tar: invalid tar header")
        size = int(extended["size"])
    if any(key.startswith("GNU.sparse.") for key in extended) or kind == b"S":
        return Member(name, "other", size)
    if kind in b"12":
        base = posixpath.dirname(name) if kind == b"2" else ""
        target = extended.get("linkpath", _decode(fields[8]))
        return Member(name, "link", 0, normal_name(target, base=base))
    return Member(name, "file" if kind in b"0\0" + b"7" else "other", size)


def _verify(header: bytes, checksum: bytes) -> None:
    """Check the sum over the header, its own field counted as blanks."""
    if sum(header) - sum(checksum) + 8 * 32 != _number(checksum):
        raise InvalidParameter("archive/tar: invalid tar header")


def _number(field: bytes) -> int:
    """Read an octal number, or GNU's binary form for large ones. Negative ones are refused."""
    try:
        value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 63:
        raise InvalidParameter("archive/tar: invalid tar header")
    return value


def _parse_pax(data: bytes) -> dict[str, str]:
    """Read `LENGTH KEY=VALUE\\n` records."""
    records: dict[str, str] = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 9 or not len(length) + 2 < int(length) <= len(data):
            raise InvalidParameter("archive/tar: invalid tar header")
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = record.partition(b"=")
        records[_decode(key)] = _decode(value)
    return records


def _decode(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _ignore(_: bytes) -> None:
    return
