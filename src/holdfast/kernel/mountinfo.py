"""The mount table, /proc/PID/mountinfo: a pure parser, and reading it. Source: proc_pid_mountinfo(5)."""

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from holdfast.kernel.libc import StrPath

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_SELF: Final = Path("/proc/thread-self/mountinfo")


@dataclasses.dataclass(frozen=True, slots=True)
class MountInfo:
    """One line of the table. `shared` and `master` are numbers of peer groups, None if not in one."""

    mount_id: int
    parent_id: int
    device: str                    # MAJOR:MINOR
    root: str                      # which directory of the file system is mounted; "//deleted" may follow
    mount_point: str
    options: tuple[str, ...]       # of this mount: rw, nosuid, ...
    shared: int | None
    master: int | None
    propagate_from: int | None
    unbindable: bool
    fstype: str
    source: str
    super_options: tuple[str, ...]  # of the file system

    @property
    def readonly(self) -> bool:
        """Whether this mount refuses writes, whatever the file system below allows."""
        return "ro" in self.options


def parse_mountinfo(text: str) -> tuple[MountInfo, ...]:
    """Parse the whole table; order is kept. Raises ValueError on a line that is none of its lines.

    Unknown optional fields are skipped, as the manual asks.
    """
    return tuple(_parse_line(line) for line in text.split("\n") if line)


def read_mountinfo() -> tuple[MountInfo, ...]:
    """The mounts the calling thread sees below its root. Raises OSError."""
    return parse_mountinfo(os.fsdecode(_SELF.read_bytes()))


def mounts_below(path: StrPath, table: Iterable[MountInfo] | None = None) -> tuple[MountInfo, ...]:
    """Mounts at `path` or below it, in the table's order; unmount them in reverse.

    `path` is compared as it stands: it must be absolute and free of links. Raises OSError.
    """
    top = os.path.normpath(path)
    prefix = top.rstrip("/") + "/"
    entries = read_mountinfo() if table is None else table
    return tuple(entry for entry in entries if entry.mount_point == top or entry.mount_point.startswith(prefix))


def mount_at(path: StrPath, table: Iterable[MountInfo] | None = None) -> MountInfo | None:
    """The topmost mount whose mount point is exactly `path`, or None. Raises OSError."""
    wanted = os.path.normpath(path)
    found = [entry for entry in (read_mountinfo() if table is None else table) if entry.mount_point == wanted]
    return found[-1] if found else None


def hides_nothing(entry: MountInfo, table: Iterable[MountInfo]) -> bool:
    """Whether unmounting `entry`, with all below it, leaves the same files in the same places. Pure.

    That is so for a directory bound onto itself, below which there is at most what was copied with it.
    """
    everything = {other.mount_id: other for other in table}
    beneath = everything.get(entry.parent_id)
    if beneath is None or beneath.device != entry.device or entry.root != os.path.normpath(
        os.path.join(beneath.root, os.path.relpath(entry.mount_point, beneath.mount_point))
    ):
        return False
    tree = [entry]
    for above in tree:
        tree += [other for other in everything.values() if other.parent_id == above.mount_id and other is not above]
    gone = {below.mount_id for below in tree}
    stays = {_what(other) for other in everything.values() if other.mount_id not in gone}
    return all(_what(below) in stays for below in tree[1:])


def _what(entry: MountInfo) -> tuple[str, str, str]:
    return entry.mount_point, entry.device, entry.root


def _parse_line(line: str) -> MountInfo:
    fields = line.split(" ")
    try:
        separator = fields.index("-", 6)
        tags = dict(field.partition(":")[::2] for field in fields[6:separator])
        return MountInfo(
            mount_id=int(fields[0]), parent_id=int(fields[1]), device=fields[2], root=_unescape(fields[3]),
            mount_point=_unescape(fields[4]), options=tuple(fields[5].split(",")),
            shared=_group(tags, "shared"), master=_group(tags, "master"),
            propagate_from=_group(tags, "propagate_from"), unbindable="unbindable" in tags,
            fstype=_unescape(fields[separator + 1]), source=_unescape(fields[separator + 2]),
            super_options=tuple(fields[separator + 3].split(",")),
        )
    except (IndexError, ValueError) as error:
        raise ValueError(f"not a line of mountinfo: {line!r}") from error


def _group(tags: dict[str, str], name: str) -> int | None:
    return int(tags[name]) if name in tags else None


def _unescape(field: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline, backslash and `#`."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field) if "\\" in field else field
