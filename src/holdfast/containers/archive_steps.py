"""The steps of `docker cp` that touch what a container sees, for whoever may touch it (`drivers.base.Hands`).

Where a volume's storage may hang they are done by a process that can be given up, from the clone of a source to the
last byte. So each takes descriptors first, then plain arguments, and gives a value and descriptors, the caller's to
close.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.containers.archive_extract import Rules, extract
from holdfast.containers.archive_paths import absolute, follow, look, words
from holdfast.containers.archive_reader import Members, Source
from holdfast.containers.archive_view import Part, assemble, clone, running_trees, writable_at
from holdfast.containers.archive_walk import write_tree
from holdfast.errors import InvalidParameter, System
from holdfast.kernel.path import open_in_root, owned_fd
from holdfast.runtime.user import resolve_user

if TYPE_CHECKING:
    from holdfast.kernel.storage_worker import Answer


def clone_source(fds: Sequence[int], recursive: bool, readonly: bool, readonly_submounts: bool) -> Answer:
    """Clone the tree at a descriptor, see `archive_view.clone`."""
    return None, (clone(fds[0], recursive=recursive, readonly=readonly, readonly_submounts=readonly_submounts),)


def clone_running(fds: Sequence[int], destinations: Sequence[str]) -> Answer:
    """Clone what is mounted in a namespace, see `archive_view.running_trees`; the value are the destinations."""
    found = running_trees(fds[0], destinations)
    return [destination for destination, _ in found], [tree for _, tree in found]


def assemble_view(
    fds: Sequence[int], destinations: Sequence[str], at: str, readonly_root: bool, readonly: bool
) -> Answer:
    """Put a view together from a root and what belongs at the destinations, see `archive_view.assemble`."""
    root, *trees = fds
    parts = [Part(destination, tree, True) for destination, tree in zip(destinations, trees, strict=True)]
    return None, (assemble(root, parts, Path(at), readonly_root=readonly_root, readonly=readonly),)


def look_at(fds: Sequence[int], path: str) -> Answer:
    """Find what lies at a path in a view, see `archive_paths.look`; the value are the fields of its PathStat."""
    fd, found = look(fds[0], path)
    return dataclasses.astuple(found), (fd,)


def write(fds: Sequence[int], name: str, emit: Callable[[bytes], object]) -> Answer:
    """Emit what a descriptor stands for as an archive, see `archive_walk.write_tree`."""
    write_tree(fds[0], name, emit)
    return None, ()


def open_target(
    fds: Sequence[int], path: str, writable: Sequence[tuple[str, bool]], readonly_root: bool, user: str
) -> Answer:
    """Open the directory in a view to unpack into; the value are its resolved path and what the user's ids are, if any.

    `writable` says of each destination whether it is. Raises FileNotFoundError, InvalidParameter, System.
    """
    wanted = absolute(path)
    directory = _open_directory(fds[0], wanted)
    try:
        where = follow(fds[0], wanted)
        may = writable_at(where, [Part(destination, -1, may) for destination, may in writable])
        if may is False:
            raise InvalidParameter("mounted volume is marked read-only")
        if may is None and readonly_root:
            raise InvalidParameter("container rootfs is marked read-only")
        owner = None
        if user:
            found = resolve_user(Path(f"/proc/self/fd/{fds[0]}"), user)
            owner = (found.uid, found.gid)
    except BaseException:
        os.close(directory)
        raise
    return (where, owner), (directory,)


def unpack(
    fds: Sequence[int], where: str, owner: Sequence[int] | None, keep_kinds: bool, stream: Source
) -> Answer:
    """Unpack a plain archive into a directory, see `archive_extract.extract`, and read it to its end."""
    members = Members(stream)
    extract(fds[0], members, Rules(where, (owner[0], owner[1]) if owner else None, keep_kinds=keep_kinds))
    members.drain()
    return None, ()


def _open_directory(root: int, path: str) -> int:
    """Open (O_PATH) the directory to unpack into; links are followed, one at the end too."""
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except NotADirectoryError as error:
        with contextlib.suppress(OSError), owned_fd(open_in_root(root, path, os.O_PATH)):
            raise InvalidParameter("extraction point is not a directory") from error
        if path.endswith(("/", "/.")):
            raise System(f"lstat {path}: not a directory") from error
        raise System("not a directory") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise System("EvalSymlinks: too many links") from error
        raise System(f"lstat {path}: {words(error)}") from error
