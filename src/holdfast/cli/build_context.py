"""The context of a build, packed as it is sent: a tar without what `.dockerignore` names."""

from __future__ import annotations

import io
import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from holdfast.cli.ignore import Ignored
from holdfast.cli.session import Refused

_PIECE_BYTES = 1 << 16
_IGNORE = ".dockerignore"


class Context:
    """A folder to build from, and the Dockerfile in it or elsewhere. Raises Refused for what cannot be read."""

    def __init__(self, folder: str, dockerfile: str) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise Refused(f'unable to prepare context: path "{folder}" not found')
        given = Path(dockerfile or self._folder / "Dockerfile")
        try:
            inside = given.resolve().relative_to(self._folder.resolve())
            self._added = b""
            self.dockerfile = inside.as_posix()
            given.stat()
        except ValueError:
            self._added = _read(given)
            self.dockerfile = f".dockerfile.{secrets.token_hex(10)}"
        except OSError as error:
            why = f"unable to evaluate symlinks in Dockerfile path: {(error.strerror or str(error)).lower()}"
            raise Refused(f"unable to prepare context: {why}") from error

    def pieces(self) -> Iterator[bytes]:
        """The tar, piece by piece. Owners are left out, as the docker client does. Raises Refused."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in self._paths():
                source = self._folder / path
                try:
                    info = archive.gettarinfo(source, arcname=path)
                    info.uid = info.gid = 0
                    info.uname = info.gname = ""
                    if info.isreg():
                        with source.open("rb") as file:
                            archive.addfile(info)
                            yield from _drain(out)
                            yield from _content(file, info.size)
                    else:
                        archive.addfile(info)
                except OSError as error:
                    raise Refused(f"can't send {path}: {(error.strerror or str(error)).lower()}") from error
            if self._added:
                info = tarfile.TarInfo(self.dockerfile)
                info.size = len(self._added)
                archive.addfile(info, io.BytesIO(self._added))
            yield from _drain(out)
        yield from _drain(out)

    def _paths(self) -> Iterator[str]:
        """Everything that goes, folders before what is in them. The Dockerfile and the list always go."""
        try:
            lines = (self._folder / _IGNORE).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        ignored = Ignored(lines)
        always = {_IGNORE, self.dockerfile}
        waiting = [""]
        while waiting:
            below = waiting.pop()
            for name in sorted(os.listdir(self._folder / below)):
                path = f"{below}/{name}" if below else name
                mode = (self._folder / path).lstat().st_mode
                is_folder = stat.S_ISDIR(mode)
                stays = stat.S_ISSOCK(mode) or (path in ignored and path not in always)
                if is_folder and (not stays or ignored.brings_back or self.dockerfile.startswith(f"{path}/")):
                    waiting.append(path)
                if not stays:
                    yield path


def packed(name: str, data: bytes) -> Iterator[bytes]:
    """A tar of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    yield from _drain(out)


def _content(file: io.BufferedReader, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes and the padding to a block, however the file changes meanwhile."""
    left = size
    while left:
        data = file.read(min(left, _PIECE_BYTES)) or bytes(min(left, _PIECE_BYTES))
        left -= len(data)
        yield data
    if padding := -size % tarfile.BLOCKSIZE:
        yield bytes(padding)


def _drain(out: io.BytesIO) -> Iterator[bytes]:
    data = out.getvalue()
    out.seek(0)
    out.truncate()
    if data:
        yield data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise Refused(f"unable to prepare context: failed to read Dockerfile: open {path}: {why}") from error
