"""What tar leaves to us of a layer: whiteouts, which it takes for files, and the headers of hard links.

Both are told from its long list of what it unpacked, and done by descriptor below the layer's directory.
Source: OCI image specification, `layer.md`; Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InvalidParameter
from holdfast.kernel.path import open_in_root, owned_fd, remove_tree

_WHITEOUT: Final = b".wh."
_WHITEOUT_META: Final = b".wh..wh."
_OPAQUE: Final = b".wh..wh..opq"
_OPAQUE_XATTR: Final = "trusted.overlay.opaque"
_LINE: Final = re.compile(
    rb"(?P<kind>.)(?P<mode>[-rwxsStT]{9})[.+*]? +(?P<uid>\d+)/(?P<gid>\d+) +\d+(?:,\d+)?"
    rb" +(?:\d+-\d\d-\d\d \d\d:\d\d|-?\d+) (?P<name>(?:[^\\ \n]|\\.)*)"
)
_ESCAPE: Final = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED: Final = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class HardLink:
    """A further name of a file, with the owner and the mode that its own header gives."""

    name: bytes
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What needs a second look of all that tar unpacked: whiteouts, each once, and hard links."""

    whiteouts: list[bytes]
    hard_links: list[HardLink]

    @classmethod
    def parse(cls, lines: Iterable[bytes]) -> Listing:
        """Read tar's long list, one entry a line, `\\` escapes as GNU tar writes them. Pure.

        What lies below a whiteout (aufs's `.wh..wh.plnk/`) counts as that whiteout.
        """
        whiteouts: list[bytes] = []
        links: dict[bytes, HardLink] = {}
        for line in lines:
            if _WHITEOUT not in line and not line.startswith(b"h"):
                continue
            match = _LINE.match(line)
            if match is None:
                continue
            name = posixpath.normpath(_ESCAPE.sub(_unescape, match["name"])).lstrip(b"/")
            parts = name.split(b"/")
            first = next((place for place, part in enumerate(parts) if part.startswith(_WHITEOUT)), None)
            if first is not None:
                whiteouts.append(b"/".join(parts[: first + 1]))
            elif match["kind"] == b"h":
                links[name] = HardLink(name, _mode(match["mode"]), int(match["uid"]), int(match["gid"]))
        return cls(list(dict.fromkeys(whiteouts)), list(links.values()))


def apply_hard_links(root: int, links: Iterable[HardLink]) -> None:
    """Give files the owner and mode of the last header that named them, as Docker does; tar goes by the first.

    Raises OSError.
    """
    for link in links:
        try:
            opened = open_in_root(root, os.fsdecode(link.name), os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            continue  # a later entry took its place
        with owned_fd(opened) as fd:
            found = os.fstat(fd)
            if (found.st_uid, found.st_gid) != (link.uid, link.gid):
                os.chown(f"/proc/self/fd/{fd}", link.uid, link.gid)
            if stat.S_IMODE(os.fstat(fd).st_mode) != link.mode and not stat.S_ISLNK(found.st_mode):
                os.chmod(f"/proc/self/fd/{fd}", link.mode)


def apply_whiteouts(root: int, names: Iterable[bytes]) -> None:
    """Turn `.wh.` files below the directory `root` into what overlayfs understands.

    `.wh.x` hides `x` of the layers below, `.wh..wh..opq` all of them in its directory; other names that begin with
    `.wh..wh.` are aufs's own and go. A whiteout says nothing about what this layer itself brings: a file stays, a
    directory becomes opaque. Raises InvalidParameter for one that hides no name, OSError.
    """
    for name in names:
        directory, _, base = name.rpartition(b"/")
        with owned_fd(open_in_root(root, os.fsdecode(directory) or ".", os.O_RDONLY | os.O_DIRECTORY)) as parent:
            times = os.stat(parent)
            with contextlib.suppress(FileNotFoundError):
                remove_tree(parent, os.fsdecode(base))
            if base == _OPAQUE:
                os.setxattr(parent, _OPAQUE_XATTR, b"y")
            elif not base.startswith(_WHITEOUT_META):
                _hide(parent, base.removeprefix(_WHITEOUT))
            os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))


def _hide(parent: int, name: bytes) -> None:
    if name in (b"", b".", b".."):
        raise InvalidParameter(f"invalid layer: whiteout of {os.fsdecode(name)!r}")
    try:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            with owned_fd(os.open(name, flags, dir_fd=parent)) as own:
                os.setxattr(own, _OPAQUE_XATTR, b"y")


def _mode(text: bytes) -> int:
    """The number for nine letters of `ls -l`."""
    mode = 0
    for place, letter in enumerate(text.decode("ascii")):
        bit = 0o400 >> place
        if letter in "rwxst":
            mode |= bit
        if letter in "sStT":
            mode |= {2: stat.S_ISUID, 5: stat.S_ISGID, 8: stat.S_ISVTX}[place]
    return mode


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else _ESCAPED.get(code, code)
