"""The files of a log: the one that is written, those rotated away from it, and how one becomes the other.

    container.log          conmon writes it
    container.log.1        the one before; .2 is older, and so on
    container.log.2.gz     the same, compressed
    container.log.spare    a second name of container.log: see below

The engine rotates: it renames the file and has conmon open a new one. While no engine runs conmon itself begins a new
file in the place of one that became far too big; thanks to its second name the old one is still there afterwards, and
the next look of an engine makes it `.1`. So a log is bounded in any case, and loses something only if it runs full
twice while no engine looks.

Whoever opens several of these files or renames one holds the log's lock.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.locks import NamedLocks

_locks = NamedLocks()

SPARE: Final = ".spare"
SLACK_BYTES: Final = 64 << 20
"""How far a log may grow beyond its size while no engine runs."""
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Rotation:
    """How much of a log is kept: `files` of about `size_bytes` each, the older ones compressed if that is asked."""

    size_bytes: int
    files: int = 1
    compress: bool = False

    @property
    def monitor_bytes(self) -> int:
        """The size at which conmon begins a new file by itself: with a single file there is nothing else to do."""
        return self.size_bytes if self.files == 1 else self.size_bytes + SLACK_BYTES


class LogFile:
    """One of a log's files, open; a compressed one is unpacked, into a file without a name, when it is first read."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError."""
        self._file = path.open("rb")
        self._folder = path.parent
        self._packed = path.suffix == ".gz"

    @property
    def reader(self) -> io.BufferedReader:
        """What it holds. Raises OSError."""
        if self._packed:
            fd = os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            plain = open(fd, "w+b")  # noqa: SIM115
            try:
                with gzip.open(self._file) as packed, contextlib.suppress(EOFError, gzip.BadGzipFile):
                    shutil.copyfileobj(packed, plain, _COPY_BYTES)
                plain.flush()
                plain.seek(0)
                reader = open(os.dup(fd), "rb")  # noqa: SIM115
            finally:
                plain.close()
            self._file.close()
            self._file, self._packed = reader, False
        return self._file

    def is_same(self, other: os.stat_result) -> bool:
        """Whether this is the file with that identity."""
        return not self._packed and os.path.samestat(os.fstat(self._file.fileno()), other)

    def close(self) -> None:
        """Close it. Harmless to repeat."""
        self._file.close()


def open_all(path: Path) -> list[LogFile]:
    """The log and the files rotated away from it, oldest first; those that exist."""
    with _locks.hold(os.fspath(path)), contextlib.ExitStack() as undo:
        found: list[LogFile] = []
        for file in [*(file for _, file in sorted(_rotated(path), reverse=True)), path]:
            with contextlib.suppress(FileNotFoundError):
                found.append(LogFile(file))
                undo.callback(found[-1].close)
        undo.pop_all()
        return found


def look(
    path: Path, rotation: Rotation, reopen: Callable[[], None] | None, *, first: bool = False
) -> Path | None:
    """Rotate the log if it is due. `reopen` has conmon open a new file, None says that there is no conmon any more.

    At the `first` look of an engine a log that is not there is one that the engine before had renamed and no more.
    Returns the file that is to be compressed, if any. Raises OSError, and what `reopen` raises; nothing is lost then.
    """
    spare = Path(f"{path}{SPARE}")
    with _locks.hold(os.fspath(path)):
        current, kept = _identity(path), _identity(spare)
        if kept is not None and (current is None or not os.path.samestat(current, kept)):
            _shift(path, rotation)
            os.rename(spare, f"{path}.1")               # conmon has begun a new file by itself
            if reopen is not None:
                _link(path, spare)
            return Path(f"{path}.1") if rotation.compress else None
        if reopen is None:
            spare.unlink(missing_ok=True)
            return None
        if first and current is None and _rotated(path):
            reopen()
        if current is None or current.st_size < rotation.size_bytes:
            if kept is None and rotation.files > 1:
                _link(path, spare)
            return None
        if rotation.files == 1:
            return None
        spare.unlink(missing_ok=True)
        _shift(path, rotation)
        os.rename(path, f"{path}.1")
        if not path.exists():                           # else conmon has begun a new file at this very moment
            reopen()
    return Path(f"{path}.1") if rotation.compress else None


def begin(path: Path, rotation: Rotation | None) -> None:
    """Make a log ready for a container's start: a single file that is full makes room. Raises OSError."""
    if rotation is None or rotation.files > 1:
        return
    with _locks.hold(os.fspath(path)):
        current = _identity(path)
        if current is not None and current.st_size >= rotation.size_bytes:
            path.unlink()


def compress(file: Path) -> None:
    """Compress a file that was rotated away; one that has moved on meanwhile, too. Raises OSError."""
    with contextlib.ExitStack() as stack:
        try:
            plain = stack.enter_context(file.open("rb"))
        except FileNotFoundError:
            return
        fresh = file.with_name(f"{file.name}.new")
        stack.callback(fresh.unlink, missing_ok=True)
        with gzip.open(fresh, "wb", compresslevel=6) as packed:
            shutil.copyfileobj(plain, packed, _COPY_BYTES)
        os.chmod(fresh, 0o600)
        path = file.with_suffix("")
        with _locks.hold(os.fspath(path)):
            for _, place in _rotated(path):
                found = _identity(place)
                if found is not None and os.path.samestat(found, os.fstat(plain.fileno())):
                    os.rename(fresh, f"{place}.gz")
                    place.unlink()


def _shift(path: Path, rotation: Rotation) -> None:
    """Make room for a new `.1`; what is beyond the last number goes."""
    for number, file in sorted(_rotated(path), reverse=True):
        if number >= rotation.files - 1:
            file.unlink()
        else:
            os.rename(file, f"{path}.{number + 1}{'.gz' if file.suffix == '.gz' else ''}")


def _rotated(path: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of the files rotated away; where a file is there twice, the compressed one is not whole yet."""
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]*)(\.gz)?")
    found: dict[int, Path] = {}
    for entry in os.scandir(path.parent):
        match = pattern.fullmatch(entry.name)
        if match and (int(match[1]) not in found or not match[2]):
            found[int(match[1])] = Path(entry.path)
    return list(found.items())


def _identity(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _link(path: Path, spare: Path) -> None:
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        os.link(path, spare)
