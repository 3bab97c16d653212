"""News about files without polling. Source: inotify(7)."""

import errno
import os
import struct
from types import TracebackType
from typing import Final, NamedTuple, Self

from holdfast.kernel.libc import INT, STRING, UINT, StrPath, check, function

IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_CLOSE_NOWRITE: Final = 0x10
IN_OPEN: Final = 0x20
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x1000000
IN_DONT_FOLLOW: Final = 0x2000000

_inotify_init1 = function("inotify_init1", INT)
_inotify_add_watch = function("inotify_add_watch", INT, STRING, UINT)
_inotify_rm_watch = function("inotify_rm_watch", INT, INT)

_HEADER: Final = struct.Struct("=iIII")        # wd, mask, cookie, length of the name


class InotifyEvent(NamedTuple):
    """One event: the watch, what happened (IN_*), and the name inside a watched directory, else ""."""

    wd: int
    mask: int
    name: str


def parse_events(data: bytes) -> list[InotifyEvent]:
    """Take apart what read(2) gave on an inotify descriptor. Pure."""
    events: list[InotifyEvent] = []
    offset = 0
    while offset < len(data):
        wd, mask, _, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        events.append(InotifyEvent(wd, mask, os.fsdecode(data[offset:offset + length].rstrip(b"\0"))))
        offset += length
    return events


class Inotify:
    """An inotify instance. `fd` is non-blocking and close-on-exec: register it with a loop or a selector."""

    def __init__(self) -> None:
        """Raises OSError; EMFILE when the user has too many instances (fs.inotify.max_user_instances)."""
        self.fd = check("inotify_init1", None, _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add_watch(self, path: StrPath, mask: int) -> int:
        """Watch `path` for the events in `mask` and return the watch's number. Raises OSError."""
        return check("inotify_add_watch", path, _inotify_add_watch(self.fd, os.fsencode(path), mask))

    def rm_watch(self, wd: int) -> None:
        """End a watch; one that the kernel has already ended is no error."""
        try:
            check("inotify_rm_watch", None, _inotify_rm_watch(self.fd, wd))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def read_events(self) -> list[InotifyEvent]:
        """Events that are waiting, perhaps none; never blocks. IN_Q_OVERFLOW means that some were lost."""
        try:
            return parse_events(os.read(self.fd, 65536))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Close the instance and end its watches. Harmless to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
