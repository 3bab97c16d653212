"""A stream that may be compressed, read as what it holds."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from holdfast.containers.archive_reader import UNEXPECTED_END, Piece, Source, take
from holdfast.errors import System
from holdfast.images.unpack import compression_of, start_decompressor

_HEAD_BYTES = 8
_PIECE_BYTES = 1 << 20
_DRAIN_BYTES = 64 << 20


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

    def take(self, size: int, /) -> Sequence[Piece]:
        """Give several pieces at once where the stream can."""
        return [self.read(size) or b""] if self._head else take(self._rest, size)


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
