"""Paths of `docker cp`, in Docker's rules, and what is found at them.

A path is the container's, so it is resolved by the kernel below the root of the container's view and nowhere else. What
a path ends in matters: `/dir` names the directory, `/dir/.` what is in it, `/link/` what the link leads to.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass

from holdfast.errors import System
from holdfast.kernel.path import open_in_root, owned_fd

_LINKS_MAX = 255


@dataclass(frozen=True, slots=True)
class PathStat:
    """What lies at a path: `mode` as stat(2) gives it, `link_target` the absolute path a link leads to, else ""."""

    name: str
    size_bytes: int
    mode: int
    mtime_ns: int
    link_target: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.mode)


def absolute(path: str) -> str:
    """Give `path` from `/`, cleaned, with an end of `/` or `/.` kept. Pure."""
    return keep_ending(posixpath.normpath("/" + path.lstrip("/")), path)


def keep_ending(cleaned: str, path: str) -> str:
    """Give `cleaned` with the end of `/` or `/.` that `path` had. Pure.

    Source: Docker, `PreserveTrailingDotOrSeparator`.
    """
    if base_name(path) == "." and base_name(cleaned) != ".":
        cleaned = cleaned.rstrip("/") + "/."
    if path.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


def base_name(path: str) -> str:
    """Give the last component of `path` as Go's filepath.Base does: `.` for none, `/` for the root. Pure."""
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def quoted(text: str) -> str:
    """Put a name into an error message. Pure."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def look(root: int, path: str) -> tuple[int, PathStat]:
    """Open (O_PATH) what lies at `path` below directory fd `root`, and describe it; a link at the end is not followed.

    The caller closes the fd. Raises FileNotFoundError, System in Docker's words.
    """
    try:
        fd = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise System(f"lstat {path}: too many levels of symbolic links") from error
        raise System(f"lstat {path}: {words(error)}") from error
    try:
        found = os.fstat(fd)
        target = follow(root, path) if stat.S_ISLNK(found.st_mode) else ""
        return fd, PathStat(base_name(path), found.st_size, found.st_mode, found.st_mtime_ns, target)
    except BaseException:
        os.close(fd)
        raise


def follow(root: int, path: str) -> str:
    """Resolve every link of `path` below `root`; what is not there stays as it is. Only a text to show, never to open.

    Raises System for too many links. Source: Docker, `FollowSymlinkInScope`.
    """
    resolved: list[str] = []
    ahead = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            del resolved[-1:]
            continue
        target = _link_at(root, "/".join([*resolved, part]))
        if target is None:
            resolved.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise System(f"evalSymlinksInScope: too many links in {path}")
        if target.startswith("/"):
            resolved.clear()
        ahead += [step for step in reversed(target.split("/")) if step not in ("", ".")]
    return "/" + "/".join(resolved)


def words(error: OSError) -> str:
    """Give what the kernel said the way Go says it."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _link_at(root: int, path: str) -> str | None:
    """Read the link at `path`, whose directories hold no links; None if there is none."""
    try:
        with owned_fd(open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)) as fd:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    except OSError:
        return None
