"""A tar archive read once from a stream.

Headers are the standard library's to understand (pax, GNU's long names and sparse files); this reader bounds what they
may ask for and hands out the data without copying it around.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast, runtime_checkable

from holdfast.errors import System
from holdfast.kernel import progress

_BLOCK = 512
_HEADER_DATA_MAX = 1 << 20
_PIECE_BYTES = 1 << 20
_DRAIN_BYTES = 64 << 20

UNEXPECTED_END = "unexpected EOF"
INVALID = "archive/tar: invalid tar header"


Piece = bytes | memoryview


class Source(Protocol):
    """Where an archive comes from. `read` gives what is there, at most `size` bytes; nothing at the end."""

    def read(self, size: int, /) -> Piece | None: ...


@runtime_checkable
class Batches(Source, Protocol):
    """A source that can give several pieces at once, to be written with one call."""

    def take(self, size: int, /) -> Sequence[Piece]:
        """Give what is there, together at most `size` bytes; nothing at the end."""
        ...


def take(source: Source, size: int) -> Sequence[Piece]:
    """Give what is there in pieces, together at most `size` bytes; nothing at the end."""
    if isinstance(source, Batches):
        return source.take(size)
    piece = source.read(size)
    return [piece] if piece else []


class Members:
    """The members of an archive, in order. Data is asked for by `copy`; what was not asked for is skipped."""

    def __init__(self, source: Source, rename: Callable[[str], str] | None = None) -> None:
        """`rename` gives entries, and the targets of hard links, other names."""
        self._headers = _Headers(source)
        self._left = 0
        self._rename = rename

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yield members to the end of the archive. Raises System in Docker's words where it is damaged or cut off."""
        headers = self._headers
        while True:
            try:
                member = tarfile.TarInfo.fromtarfile(headers)
            except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
                return
            except (tarfile.TarError, ValueError, OverflowError, IndexError, RecursionError) as error:
                raise System(UNEXPECTED_END if headers.ended else INVALID) from error
            headers.pax_headers = {}  # those for every member to come are not applied, as Docker does not
            self._left = headers.offset - headers.tell()
            if self._left < 0 or member.size < 0:
                raise System(INVALID)
            if self._rename is not None:
                member.name = self._rename(member.name)
                if member.islnk():
                    member.linkname = self._rename(member.linkname)
            yield member
            self._skip(self._left)

    def copy(self, member: tarfile.TarInfo, fd: int) -> None:
        """Write the present member's data into the empty file `fd`, holes as holes. Raises System, OSError."""
        if member.sparse is None:
            self._pour(member.size, fd)
            return
        for offset, size in cast("list[tuple[int, int]]", member.sparse):
            if not 0 <= offset <= offset + size <= member.size:
                raise System(INVALID)
            os.lseek(fd, offset, os.SEEK_SET)
            self._pour(size, fd)
        os.ftruncate(fd, member.size)

    def drain(self) -> None:
        """Read what is behind the archive, within reason, so that the sender sees everything taken."""
        self._headers.skip_to_end(_DRAIN_BYTES)

    def _pour(self, size: int, fd: int) -> None:
        if size > self._left:
            raise System(INVALID)
        self._left -= size
        self._headers.pour(size, fd)

    def _skip(self, size: int) -> None:
        self._left = 0
        self._headers.pour(size, -1)


class _Headers(tarfile.TarFile):
    """As much of a TarFile as TarInfo.fromtarfile() asks of one; it is its own file."""

    def __init__(self, source: Source) -> None:  # the archive is not opened: nothing of it may be read ahead
        self._source = source
        self._position = 0
        self.fileobj: _Headers = self  # type: ignore[assignment]
        self.encoding, self.errors = "utf-8", "surrogateescape"
        self.pax_headers = {}
        self.offset = 0
        self.ended = False

    def tell(self) -> int:
        """The number of bytes read."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read so many bytes, less only at the end. Raises tarfile.ReadError for more than a header may have."""
        if not 0 <= size <= _HEADER_DATA_MAX:
            raise tarfile.ReadError("header too large")
        data = b""
        while len(data) < size:
            piece = self._source.read(size - len(data))
            if not piece:
                self.ended = True
                break
            data += piece
        self._position += len(data)
        return data

    def pour(self, size: int, fd: int) -> None:
        """Write so many bytes to `fd`; with -1 pass over them. Raises System if there are not so many."""
        while size:
            pieces = take(self._source, min(size, _PIECE_BYTES))
            count = sum(map(len, pieces))
            if not count:
                raise System(UNEXPECTED_END)
            size -= count
            self._position += count
            if fd >= 0:
                _write(fd, pieces)
                progress.wrote(fd, count)

    def skip_to_end(self, limit: int) -> None:
        """Pass over what is left, at most about `limit` bytes."""
        while limit > 0 and (piece := self._source.read(_PIECE_BYTES)):
            limit -= len(piece)


def _write(fd: int, pieces: Sequence[Piece]) -> None:
    """Write all of them. Raises OSError."""
    written = os.writev(fd, pieces)
    for piece in pieces:
        rest = piece[written:]
        written = max(0, written - len(piece))
        while rest:  # a disk that is nearly full takes a part
            rest = rest[os.write(fd, rest) :]
