"""A tar archive read once from a stream, compressed or not.

Headers are the standard library's to understand (pax, GNU's long names and sparse files); this reader bounds what they
may ask for and hands out the data without copying it around.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from holdfast.errors import System
from holdfast.images.unpack import compression_of, start_decompressor

_BLOCK = 512
_HEADER_DATA_MAX = 1 << 20
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 8
_DRAIN_BYTES = 64 << 20

UNEXPECTED_END = "unexpected EOF"
INVALID = "archive/tar: invalid tar header"


Piece = bytes | memoryview


class Source(Protocol):
    """Where an archive comes from. `read` gives what is there, at most `size` bytes; nothing at the end."""

    def read(self, size: int, /) -> Piece | None: ...


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
            piece = self._source.read(min(size, _PIECE_BYTES))
            if not piece:
                raise System(UNEXPECTED_END)
            size -= len(piece)
            self._position += len(piece)
            while fd >= 0 and piece:
                piece = piece[os.write(fd, piece) :]

    def skip_to_end(self, limit: int) -> None:
        """Pass over what is left, at most about `limit` bytes."""
        while limit > 0 and (piece := self._source.read(_PIECE_BYTES)):
            limit -= len(piece)


@contextlib.contextmanager
def plain(source: Source, scratch: Path) -> Iterator[Source]:
    """Give what a stream holds: itself, or what is in it if it is compressed with gzip, bzip2, xz or zstd.

    The decompressor is the host's, confined (images/unpack.py), and nothing of the container is entered for it: see
    CVE-2026-41567. `scratch` is a directory for temporary files. Raises System after the block if the data was
    damaged, what reading raises if that failed.
    """
    head = b""
    while len(head) < _HEAD_BYTES and (piece := source.read(_HEAD_BYTES - len(head))):
        head += piece
    whole = _Rejoined(head, source)
    compression = compression_of(head)
    if not compression:
        yield whole
        return
    with tempfile.TemporaryDirectory(dir=scratch) as nothing:
        child = start_decompressor(compression, Path(nothing))
        assert child.stdin is not None
        assert child.stdout is not None
        feeder = _Feeder(whole, child.stdin)
        feeder.start()
        try:
            with io.FileIO(child.stdout.fileno(), closefd=False) as unpacked:
                yield unpacked
                _drain(unpacked)
            feeder.join()
            damaged = feeder.error is None and child.wait() != 0
        finally:
            _end(child)
            feeder.join()
    if feeder.error is not None:
        raise feeder.error
    if damaged:
        raise System(UNEXPECTED_END)


class _Feeder(threading.Thread):
    """Gives a compressed stream to its decompressor."""

    def __init__(self, source: Source, sink: IO[bytes]) -> None:
        super().__init__(name="decompress", daemon=True)
        self._source = source
        self._sink = sink
        self.error: OSError | None = None

    def run(self) -> None:
        """Copy to the end, or until the decompressor has had enough."""
        try:
            with self._sink:
                while piece := self._source.read(_PIECE_BYTES):
                    self._sink.write(piece)
        except BrokenPipeError:
            return
        except OSError as error:
            self.error = error


class _Rejoined:
    """A stream whose beginning has been looked at."""

    def __init__(self, head: bytes, rest: Source) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> Piece | None:
        if not self._head:
            return self._rest.read(size)
        piece, self._head = self._head[:size], self._head[size:]
        return piece


def _drain(stream: io.FileIO) -> None:
    left = _DRAIN_BYTES
    while left > 0 and (data := stream.read(_PIECE_BYTES)):
        left -= len(data)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Let go of a decompressor, done or not."""
    if child.poll() is None:
        child.kill()
    child.wait()
    for stream in (child.stdout, child.stdin):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
