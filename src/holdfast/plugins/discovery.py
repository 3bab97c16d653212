"""Where plugins are found: sockets and files of the host's administrator, looked at when a plugin is first asked for.

    /run/docker/plugins        NAME.sock  NAME/NAME.sock                                  a socket
    /etc/docker/plugins        NAME.spec  NAME/NAME.spec  NAME.json  NAME/NAME.json       an address, or one with TLS
    /usr/lib/docker/plugins    the same

Who may write there gives every container its data, so a folder that others than root may write to is not looked at.
Source: Docker Engine documentation, "Docker Plugin API", plugin discovery.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from holdfast import log
from holdfast.errors import System
from holdfast.kernel.path import owned_fd

logger = log.get(__name__)

SOCKETS = Path("/run/docker/plugins")
FILES = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_FILE_LIMIT_BYTES = 64 << 10
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Tls(msgspec.Struct, frozen=True):
    """What a `.json` file says of TLS: paths of PEM files. Without authorities the plugin is not verified."""

    skip_verification: bool = msgspec.field(default=False, name="InsecureSkipVerify")
    authorities: str = msgspec.field(default="", name="CAFile")
    certificate: str = msgspec.field(default="", name="CertFile")
    key: str = msgspec.field(default="", name="KeyFile")


class _Document(msgspec.Struct):
    address: str = msgspec.field(name="Addr")
    tls: Tls | None = msgspec.field(default=None, name="TLSConfig")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a plugin listens: the `path` of a socket, or `host` and `port`, with TLS or without."""

    name: str
    path: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None


class Discovery:
    """Looks for plugins below these folders. Keeps nothing."""

    def __init__(self, sockets: Path = SOCKETS, files: Sequence[Path] = FILES) -> None:
        self._sockets = sockets
        self._files = files

    def find(self, name: str) -> Endpoint | None:
        """Give where a plugin listens, None if there is none of that name. Raises System for a file that is wrong."""
        if not _NAME.fullmatch(name):
            return None
        for path in _places(self._sockets, name, ".sock"):
            if _is(path, stat.S_ISSOCK):
                return Endpoint(name, path=str(path))
        for folder in self._files:
            for suffix in (".spec", ".json"):
                for path in _places(folder, name, suffix):
                    if _is(path, stat.S_ISREG):
                        return _read(name, path)
        return None

    def names(self) -> frozenset[str]:
        """Give the names of all plugins that can be found now."""
        found = set(_names(self._sockets, (".sock",), stat.S_ISSOCK))
        for folder in self._files:
            found.update(_names(folder, (".spec", ".json"), stat.S_ISREG))
        return frozenset(found)


NO_PLUGINS = Discovery(Path("/nonexistent"), ())


def parse_address(name: str, address: str, tls: Tls | None = None) -> Endpoint:
    """Decode `unix:///path`, `tcp://host:port`, `http://` or `https://host:port`. Raises System in Docker's words."""
    try:
        url = urlsplit(address.strip())
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise System(f'plugin "{name}": {address!r}: {error}') from None
    if url.scheme == "unix" and url.path.startswith("/"):
        return Endpoint(name, path=url.path)
    if url.scheme not in ("tcp", "http", "https") or not host:
        raise System(f'plugin "{name}": unknown protocol in {address!r}', hint="unix:///PATH or tcp://HOST:PORT")
    if url.scheme == "https" and tls is None:
        tls = Tls()
    return Endpoint(name, host=host, port=port or (443 if url.scheme == "https" else 80), tls=tls)


def _places(folder: Path, name: str, suffix: str) -> Iterator[Path]:
    for place in (folder, folder / name):
        if _is_safe(place):
            yield place / (name + suffix)


def _is_safe(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS_MAY_WRITE:
        logger.warning("plugins are not looked for where others than root may write", extra={"path": folder})
        return False
    return True


def _names(folder: Path, suffixes: Sequence[str], kind: Callable[[int], bool]) -> Iterator[str]:
    if not _is_safe(folder):
        return
    try:
        entries = os.listdir(folder)
    except OSError:
        return
    for entry in entries:
        for suffix in suffixes:
            name = entry.removesuffix(suffix)
            if _NAME.fullmatch(name) and any(_is(path, kind) for path in _places(folder, name, suffix)):
                yield name


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(path.stat().st_mode)
    except OSError:
        return False


def _read(name: str, path: Path) -> Endpoint:
    try:
        with owned_fd(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
            content = os.read(file, _FILE_LIMIT_BYTES)
        if path.suffix == ".spec":
            return parse_address(name, content.decode())
        document = msgspec.json.decode(content, type=_Document)
    except OSError as error:
        raise System(f'plugin "{name}": {path}: {os.strerror(error.errno or 0).lower()}') from None
    except (UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise System(f'plugin "{name}": {path}: {error}') from None
    return parse_address(name, document.address, document.tls)
