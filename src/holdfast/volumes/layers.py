"""One directory out of many layers, by overlayfs's own rules, without an overlay in between.

Reading through an overlay costs a second look-up for every file and hides that source and destination lie on one file
system, so that extents could be shared. Here a directory is what its layers make of it: descriptors, topmost first.

    a name            the topmost layer that has it decides
    a directory       continues in the layers below, until one has something else there, or one is opaque
    a whiteout        device 0:0; hides the name in the layers below, and itself

Source: Linux, Documentation/filesystems/overlayfs.rst, sections "Merged directories", "whiteouts and opaque
directories". Redirected directories and metadata-only copies never occur: layers are unpacked without overlayfs's own
attributes (see `images/unpack`), and nothing but empty directories was made in the upper layer of a new container.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"
_NOT_A_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})
_NO_XATTR = frozenset({errno.ENODATA, errno.ENOTSUP})


@dataclass(slots=True)
class Listing:
    """What a merged directory contains. Numbers are places in the list of its layers."""

    files: list[tuple[os.DirEntry[str], int]] = field(default_factory=list)
    """Everything that is no directory, each with the layer that has it, in the order of that layer's inodes."""
    directories: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    """Each with the layers that have it, topmost first; opaque ones are not regarded yet, see `enter`."""


def open_merged(layers: Iterable[str | os.PathLike[str]], path: Sequence[str]) -> list[tuple[str, int]]:
    """Open a directory, given by its names from the root, in every layer that has a part in it.

    Gives pairs of that layer's path and a descriptor of the caller's, topmost first; none if no layer has it. No name
    may be a symlink. Raises OSError.
    """
    here: list[tuple[str, int]] = []
    try:
        here.extend((os.fspath(layer), os.open(layer, DIRECTORY)) for layer in layers)
        for name in path:
            below = enter([fd for _, fd in here], name, range(len(here)))
            by_number = dict(below)
            there = [(layer, by_number[number]) for number, (layer, _) in enumerate(here) if number in by_number]
            close(fd for _, fd in here)
            here = there
    except BaseException:
        close(fd for _, fd in here)
        raise
    return here


def enter(sources: Sequence[int], name: str, numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Open directory `name` in those of the layers that have a part in it: pairs of number and descriptor.

    Raises OSError.
    """
    opened: list[tuple[int, int]] = []
    candidates = list(numbers)
    try:
        for number in candidates:
            try:
                fd = os.open(name, DIRECTORY, dir_fd=sources[number])
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in _NOT_A_DIRECTORY:
                    break
                raise
            opened.append((number, fd))
            if len(candidates) > 1 and _is_opaque(fd):
                break
    except BaseException:
        close(fd for _, fd in opened)
        raise
    return opened


def scan(sources: Sequence[int]) -> Listing:
    """List a merged directory. Raises OSError."""
    listing = Listing()
    taken: set[str] = set()
    merging: dict[str, list[int]] = {}
    directories: dict[str, list[int]] = {}
    for number, fd in enumerate(sources):
        files: list[tuple[os.DirEntry[str], int]] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                if name in taken:
                    if name in merging:
                        if entry.is_dir(follow_symlinks=False):
                            merging[name].append(number)
                        else:
                            del merging[name]
                    continue
                taken.add(name)
                if entry.is_dir(follow_symlinks=False):
                    directories[name] = merging[name] = [number]
                elif entry.is_file(follow_symlinks=False) or entry.is_symlink() or not _is_whiteout(entry):
                    files.append((entry, number))
        files.sort(key=_by_inode)
        listing.files += files
    listing.directories += [(name, tuple(numbers)) for name, numbers in directories.items()]
    return listing


def is_empty(directory: int) -> bool:
    """Tell whether a directory fd has no entry at all."""
    with contextlib.suppress(StopIteration), os.scandir(directory) as entries:
        next(entries)
        return False
    return True


def close(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def _by_inode(found: tuple[os.DirEntry[str], int]) -> int:
    return found[0].inode()


def _is_whiteout(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError as error:
        if error.errno in _NO_XATTR:
            return False
        raise
