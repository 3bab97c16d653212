"""What `cp SOURCE DESTINATION` means: which directory an archive is unpacked into, and which name its top gets. Pure,
but for `local_source` and `local_destination`, which look at this machine's files.

Source: Docker, `docker cp --help` and its table of existing and missing files and directories.
"""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass

from holdfast.cli.session import Refused
from holdfast.containers.archive_paths import base_name, keep_ending, quoted

_LINKS_MAX = 10


@dataclass(frozen=True, slots=True)
class End:
    """One end of a copy: a path, and what is there. `shown_as` is the name that the user knows a link's target by."""

    path: str
    exists: bool = True
    is_directory: bool = False
    shown_as: str = ""

    @property
    def top(self) -> str:
        """The name that the copy has in an archive."""
        return self.shown_as or split(self.path)[1]


@dataclass(frozen=True, slots=True)
class Plan:
    """Unpack into `directory`; the archive's top entry is to be called `name`."""

    directory: str
    name: str


def parse_argument(argument: str) -> tuple[str, str]:
    """Tell `CONTAINER:PATH` from a local path, which gives an empty container.

    A local path with a colon starts with `/` or `.`.
    """
    container, colon, path = argument.partition(":")
    if argument.startswith("/") or not colon or container.startswith("."):
        return "", argument
    return container, path


def split(path: str) -> tuple[str, str]:
    """Split a path into directory and last component, `.` where it ends in `/.`."""
    cleaned = posixpath.normpath(path)
    if base_name(path) == ".":
        cleaned += "/."
    return posixpath.dirname(cleaned) or ".", base_name(cleaned)


def plan(source: End, destination: End) -> Plan:
    """Decide where a copy goes. Raises Refused where it cannot go anywhere, in Docker's words."""
    if destination.exists and destination.is_directory:
        return Plan(destination.path, source.top)
    if destination.exists and source.is_directory:
        raise Refused("cannot copy directory")
    if not destination.exists and not source.is_directory and asserts_directory(destination.path):
        raise Refused("no such directory")
    return Plan(*split(destination.path))


def asserts_directory(path: str) -> bool:
    """Whether a path can only be meant as a directory."""
    return path.endswith("/") or base_name(path) == "."


def rebased(name: str, old: str, new: str) -> str:
    """Give an entry's name with the top `old` called `new`. For the root, entries begin with a slash."""
    if old == "/":
        return new + (name if name.startswith("/") or not name else f"/{name}")
    if name == old or name.startswith(old + "/"):
        return new + name[len(old) :]
    return name


def link_target(path: str, target: str) -> tuple[str, str]:
    """Give a link's target with the ending of `path`, and the name to show it as if that is another."""
    followed = keep_ending(target, path)
    shown_as = base_name(path) if base_name(path) != base_name(followed) else ""
    return followed, shown_as


def local(path: str) -> str:
    """Give a local path from `/`, its ending kept."""
    return keep_ending(os.path.abspath(path), path)


def local_source(path: str, *, follow: bool) -> End:
    """Look at what is to be copied from here. Raises Refused if nothing is there."""
    try:
        if follow:
            resolved, shown_as = link_target(path, os.path.realpath(path, strict=True))
        else:
            directory, base = os.path.split(path)
            resolved = os.path.join(os.path.realpath(directory, strict=True), base)
            shown_as = base_name(path) if path.endswith("/") and base_name(path) != base_name(resolved) else ""
        return End(resolved, True, stat.S_ISDIR(os.lstat(resolved).st_mode), shown_as)
    except OSError as error:
        raise Refused(f"lstat {path}: {(error.strerror or str(error)).lower()}") from error


def local_destination(path: str) -> End:
    """Look at where to copy to here, through links. Raises Refused if not even its directory is there."""
    directory = os.path.dirname(posixpath.normpath(path))
    if not os.path.exists(directory or "."):
        raise Refused(f"invalid output path: directory {quoted(directory)} does not exist")
    current = path
    try:
        for _ in range(_LINKS_MAX + 1):
            try:
                found = os.lstat(current)
            except FileNotFoundError:
                above = split(current)[0]
                if not stat.S_ISDIR(os.stat(above).st_mode):
                    raise Refused("not a directory") from None
                return End(current, exists=False)
            if not stat.S_ISLNK(found.st_mode):
                _refuse_odd(path, found.st_mode)
                return End(current, True, stat.S_ISDIR(found.st_mode))
            target = os.readlink(current)
            current = posixpath.normpath(posixpath.join(split(current)[0], target))
    except OSError as error:
        raise Refused(f"lstat {current}: {(error.strerror or str(error)).lower()}") from error
    raise Refused(f"too many symlinks in {path}")


def _refuse_odd(path: str, mode: int) -> None:
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise Refused(f"invalid output path: {quoted(path)} must be a directory or a regular file: got a device")
