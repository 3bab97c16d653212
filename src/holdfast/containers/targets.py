"""Mount targets behind links that lead nowhere yet.

An image may have `/data -> /srv/data` and no `/srv/data`. Docker makes the place that the link names, inside the root,
and mounts there; crun refuses to. So what is missing is made before it comes; other targets are the work of crun.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from holdfast.errors import System
from holdfast.kernel.path import make_dirs_beneath, open_in_root, owned_fd

_MOST_LINKS = 40  # as the kernel follows, path_resolution(7)


def make_target(rootfs: Path, destination: str, *, directory: bool) -> None:
    """Make what a dangling link on the way to `destination` in a mounted root names: a directory or an empty file.

    Nothing is done where there is no such link. Raises System.
    """
    try:
        with owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            if _is_there(root, destination):
                return
            names = _follow(root, destination)
            if names is None:
                return
            parents = names if directory else names[:-1]
            with owned_fd(make_dirs_beneath(root, "/".join(parents), in_root=True)) as parent:
                if not directory:
                    os.close(os.open(names[-1], os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent))
    except OSError as error:
        raise System(f"cannot make mount point {destination}: {error.strerror}") from error


def _is_there(root: int, path: str) -> bool:
    try:
        with owned_fd(open_in_root(root, path, os.O_PATH)):
            return True
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def _follow(root: int, path: str) -> list[str] | None:
    """The names that `path` stands for, every link followed inside the root, also where nothing is there.

    None if no link is on the way or if links go round in circles. Raises OSError.
    """
    found: list[str] = []
    waiting = path.split("/")
    links = 0
    while waiting:
        name = waiting.pop(0)
        if name == "..":
            del found[-1:]
        elif name not in ("", "."):
            target = _link(root, [*found, name])
            if target is None:
                found.append(name)
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            if target.startswith("/"):
                found.clear()
            waiting[:0] = target.split("/")
    return found if links and found else None


def _link(root: int, names: list[str]) -> str | None:
    """What the link says, None if it is none or is not there. Raises OSError."""
    try:
        with owned_fd(open_in_root(root, "/".join(names), os.O_PATH | os.O_NOFOLLOW)) as fd:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
