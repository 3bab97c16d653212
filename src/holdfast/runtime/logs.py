"""Container logs as conmon writes them (`k8s-file`), read from either end and followed.

    2026-01-02T03:04:05.678901234+00:00 stdout F a whole line
    2026-01-02T03:04:05.678901234+00:00 stderr P the beginning of a longer line

A `P` record goes on in the stream's next record; an `F` record ends with a newline that the file shows as its own. A
program that ends without one leaves a last `P` record. Pieces are joined here, up to a limit, so that a program that
never writes a newline cannot fill the engine's memory.

A log may have been rotated: see `logfiles`.
"""

from __future__ import annotations

import calendar
import contextlib
import io
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from holdfast.kernel.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    Inotify,
)
from holdfast.runtime.logfiles import LogFile, open_all

Stream = Literal["stdout", "stderr"]

JOIN_LIMIT_BYTES: Final = 1 << 20
"""A longer line is handed out in pieces of about this size."""

_BLOCK_BYTES: Final = 64 << 10
_READ_BYTES: Final = 64 << 10
_NANOSECONDS: Final = 1_000_000_000


_RECORD: Final = re.compile(rb"^(\S+) (stdout|stderr) ([FP])[^ \n]* (.*\n)", re.MULTILINE)
_NAMES: Final[dict[bytes, Stream]] = {b"stdout": "stdout", b"stderr": "stderr"}


class LogEntry(NamedTuple):
    """A line of output with its newline, or the rest of output that had none. `time_ns` is since the epoch."""

    stream: Stream
    time_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Record:
    """One line of the file."""

    stream: Stream
    time_ns: int
    data: bytes
    partial: bool


def read_entries(
    path: Path, *, tail: int | None = None, since_ns: int = 0, until_ns: int = 0
) -> Iterator[LogEntry]:
    """What the log at `path`, and those rotated away from it, hold so far; oldest first.

    `tail` limits to that many entries at the end, both streams counted together and before the times are looked at,
    as Docker does. `since_ns` is inclusive, `until_ns` is too, 0 is no limit. A log that is not there is empty.
    """
    opened = open_all(path)
    with contextlib.ExitStack() as files:
        for file in opened:
            files.callback(file.close)
        for entries in _entries(opened, tail):
            yield from _within(entries, since_ns, until_ns)


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC with nine digits, as `timestamps=1` shows it. Source: Docker, `RFC3339NanoFixed`."""
    seconds, fraction = divmod(time_ns, _NANOSECONDS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


def parse_time(text: bytes) -> int:
    """Nanoseconds since the epoch of conmon's RFC 3339 time. Pure. Raises ValueError."""
    if len(text) < 20 or text[10:11] not in (b"T", b" "):
        raise ValueError(f"not a time: {text!r}")
    seconds = calendar.timegm((int(text[0:4]), int(text[5:7]), int(text[8:10]),
                               int(text[11:13]), int(text[14:16]), int(text[17:19])))
    rest = text[19:]
    fraction = 0
    if rest.startswith(b"."):
        digits = rest[1:].split(b"Z")[0].split(b"+")[0].split(b"-")[0]
        rest = rest[1 + len(digits):]
        fraction = int(digits.ljust(9, b"0")[:9])
    if rest != b"Z":
        offset = int(rest[1:3]) * 3600 + int(rest[4:6]) * 60
        seconds += offset if rest.startswith(b"-") else -offset
    return seconds * _NANOSECONDS + fraction


def parse_record(line: bytes) -> _Record:
    """One line of the file, without its newline. Pure. Raises ValueError."""
    stamp, stream, tag, data = line.split(b" ", 3)
    if stream not in (b"stdout", b"stderr") or tag[:1] not in (b"F", b"P"):
        raise ValueError(f"not a log record: {line[:80]!r}")
    partial = tag.startswith(b"P")
    return _Record("stdout" if stream == b"stdout" else "stderr", parse_time(stamp),
                   data if partial else data + b"\n", partial)


class Joiner:
    """Puts partial records together, stream by stream."""

    def __init__(self) -> None:
        self._pieces: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}
        self._sizes: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        self._since: dict[Stream, int] = {}

    def feed(self, lines: bytes) -> list[LogEntry]:
        """Take whole lines of the file; gives the entries that they complete. Damaged lines are skipped."""
        entries: list[LogEntry] = []
        stamp, time_ns = b"", 0
        pieces = self._pieces
        for written_at, name, tag, data in _RECORD.findall(lines):
            if written_at != stamp:             # conmon writes many lines at one time
                try:
                    stamp, time_ns = written_at, parse_time(written_at)
                except ValueError:
                    stamp = b""
                    continue
            stream = _NAMES[name]
            if tag == b"F" and not pieces[stream]:
                entries.append(LogEntry(stream, time_ns, data))
            elif entry := self._join(stream, time_ns, data, partial=tag == b"P"):
                entries.append(entry)
        return entries

    def _join(self, stream: Stream, time_ns: int, data: bytes, *, partial: bool) -> LogEntry | None:
        pieces = self._pieces[stream]
        if not pieces:
            self._since[stream] = time_ns
        pieces.append(data[:-1] if partial else data)
        self._sizes[stream] += len(pieces[-1])
        if partial and self._sizes[stream] < JOIN_LIMIT_BYTES:
            return None
        return self._take(stream)

    def rest(self) -> list[LogEntry]:
        """What is incomplete at the end of the log, oldest first."""
        streams = [stream for stream in self._pieces if self._pieces[stream]]
        return sorted((self._take(stream) for stream in streams), key=lambda entry: entry.time_ns)

    def _take(self, stream: Stream) -> LogEntry:
        data = b"".join(self._pieces[stream])
        self._pieces[stream] = []
        self._sizes[stream] = 0
        return LogEntry(stream, self._since[stream], data)


class LogFollower:
    """Reads a log and what is added to it later, across rotations.

    `read` gives what there is; when it gives nothing, wait until `fileno` is readable. At the container's end, read
    until nothing comes, then take `rest`. It may be closed while another thread reads.
    """

    def __init__(self, path: Path, *, tail: int | None = None, since_ns: int = 0, until_ns: int = 0) -> None:
        """Begin as `read_entries` with the same limits would. The log's directory exists. Raises OSError."""
        self._path = path
        self._since_ns, self._until_ns = since_ns, until_ns
        self._joiner = Joiner()
        self._buffer = b""
        self._guard = threading.Lock()
        self._closed = False
        self._inotify = Inotify()
        self._inotify.add_watch(path.parent, IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM)
        self._queue: deque[LogFile] = deque(open_all(path))
        self._skip = 0
        if tail is not None:
            self._skip = _skip_to_tail(self._queue, tail)

    def fileno(self) -> int:
        """A descriptor that becomes readable when the log may have grown; `read` takes its news away."""
        return self._inotify.fd

    def read(self) -> list[LogEntry]:
        """The next entries, from some 64 KiB of the log at most; empty once all has been read."""
        with self._guard:
            if self._closed:
                return []
            self._inotify.read_events()
            while True:
                entries, grew = self._read_once()
                if entries or not grew:
                    return entries

    def rest(self) -> list[LogEntry]:
        """Output without a newline at the very end. Only once nothing more is written."""
        return _within(self._joiner.rest()[self._skip:], self._since_ns, self._until_ns)

    def close(self) -> None:
        """Close everything, after a `read` that is under way. Harmless to repeat."""
        with self._guard:
            self._closed = True
            for file in self._queue:
                file.close()
            self._queue.clear()
            self._inotify.close()

    def _read_once(self) -> tuple[list[LogEntry], bool]:
        if not self._queue:
            self._queue.extend(open_all(self._path))
        if not self._queue:
            return [], False
        piece = self._queue[0].reader.read(_READ_BYTES)
        if not piece:
            return [], self._next_file()
        lines, newline, rest = piece.rpartition(b"\n")
        if not newline:
            self._buffer += rest
            return [], True
        entries = self._joiner.feed(self._buffer + lines + newline)
        self._buffer = rest
        if self._skip:
            skipped = min(self._skip, len(entries))
            self._skip -= skipped
            entries = entries[skipped:]
        return _within(entries, self._since_ns, self._until_ns), True

    def _next_file(self) -> bool:
        """Go on to a newer file if there is one and this one has been read to its end for good."""
        current = self._queue[0].reader
        if len(self._queue) == 1:
            with contextlib.suppress(FileNotFoundError):
                newest = os.stat(self._path)
                mine = os.fstat(current.fileno())
                if os.path.samestat(newest, mine):
                    if newest.st_size < current.tell():         # somebody cut it
                        current.seek(0)
                        self._buffer = b""
                        return True
                else:
                    self._queue.extend(self._newer_than(mine))
        if len(self._queue) == 1:
            return False
        if current.peek(1):                     # written between our look and the rotation
            return True
        self._queue.popleft().close()
        self._buffer = b""
        return True

    def _newer_than(self, mine: os.stat_result) -> list[LogFile]:
        """Open the files that were begun after the one with this identity, oldest first."""
        opened = open_all(self._path)
        place = next((place for place, file in enumerate(opened) if file.is_same(mine)), len(opened) - 2)
        for file in opened[:place + 1]:
            file.close()
        return opened[place + 1:]


def _within(entries: list[LogEntry], since_ns: int, until_ns: int) -> list[LogEntry]:
    if not since_ns and not until_ns:
        return entries
    return [entry for entry in entries if entry.time_ns >= since_ns and (not until_ns or entry.time_ns <= until_ns)]


def _entries(files: list[LogFile], tail: int | None) -> Iterator[list[LogEntry]]:
    if tail is not None and tail <= 0:
        return
    pending = deque(files)
    skip = 0 if tail is None else _skip_to_tail(pending, tail)
    joiner = Joiner()
    for file in pending:
        for lines in _blocks(file.reader):
            entries = joiner.feed(lines)
            yield entries[skip:] if skip else entries
            skip -= min(skip, len(entries))
        file.close()
    yield joiner.rest()[skip:]


def _blocks(file: io.BufferedReader) -> Iterator[bytes]:
    """Whole lines, many at a time; a last one without its end gets it."""
    rest = b""
    while piece := file.read(_READ_BYTES):
        lines, newline, more = piece.rpartition(b"\n")
        if newline:
            yield rest + lines + newline
            rest = more
        else:
            rest += more
    if rest:
        yield rest + b"\n"


class _TailSearch:
    """Goes backwards over records until the last `tail` entries have been passed whole.

    A line of one stream may have begun before a line of the other ended, so once there are enough entries the search
    goes on to the end of an older entry in each stream concerned. The entries passed meanwhile are `surplus`.
    """

    def __init__(self, tail: int) -> None:
        self._wanted = tail
        self._streams: set[Stream] = set()
        self._open: set[Stream] = set()
        self._looked_back_bytes = 0
        self.surplus = 0

    def reaches(self, record: _Record) -> bool:
        """Take the next older record; True if reading may begin right behind it."""
        if self._wanted > 0:
            if not record.partial or record.stream not in self._streams:
                self._streams.add(record.stream)
                self._wanted -= 1
            if not self._wanted:
                self._open = set(self._streams)
            return False
        self._looked_back_bytes += len(record.data)
        if record.stream not in self._streams:
            self._streams.add(record.stream)
            if record.partial:              # output without an end, which is handed out after everything else
                self._open.add(record.stream)
                self.surplus += 1
                return False
        if not record.partial:
            self._open.discard(record.stream)
        if not self._open or self._looked_back_bytes > JOIN_LIMIT_BYTES:
            return True
        self.surplus += not record.partial
        return False


def _skip_to_tail(files: deque[LogFile], tail: int) -> int:
    """Position `files` so that the last `tail` entries follow; older files are taken out.

    Returns how many entries must still be skipped from there.
    """
    search = _TailSearch(tail)
    for place in range(len(files) - 1, -1, -1):
        file = files[place].reader
        for start, line in _lines_backwards(file):
            try:
                record = parse_record(line)
            except ValueError:
                continue
            if tail <= 0 or search.reaches(record):
                file.seek(start + len(line) + 1)
                for _ in range(place):
                    files.popleft().close()
                return search.surplus
        file.seek(0)
    return search.surplus


def _lines_backwards(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """(offset, line without newline) of every line, the last first."""
    position = file.seek(0, os.SEEK_END)
    rest = b""
    while position > 0:
        size = min(_BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        block = file.read(size) + rest
        lines = block.split(b"\n")
        rest = lines[0]
        end = position + len(block)
        for line in reversed(lines[1:]):
            end -= len(line)
            if line:
                yield end, line
            end -= 1
    if rest:
        yield 0, rest
