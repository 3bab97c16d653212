"""A small process that touches storage which may never answer, so that the engine's threads do not.

A thread that waits for a dead server inside the kernel cannot be given up; a process can. The engine runs this file as
a program, `python -I -S storage_worker.py FD`, and talks to it over FD, a SOCK_SEQPACKET socket, one message a call:

    {"do": "mount", "with": [...]}  and descriptors   →   {"value": ...}               and at most one descriptor
                                                      →   {"errno": 2, "at": "mount"}  what failed, and at which step

It lives in the engine's mount namespace and ends when the socket does. It imports little and nothing of ours: it must
be up within 20 ms. `perform` is also called by the engine itself, where storage cannot hang (tmpfs).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence

MESSAGE_BYTES = 1 << 17
READ_LIMIT_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_mount = _libc.mount
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = _libc.umount2
_umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_statx = _libc.statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_syscall = _libc.syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long

_OPENAT2 = 437  # the same on every architecture
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_EMPTY_PATH, _FORCE_SYNC = 0x1000, 0x2000
_STATX_BASIC, _STATX_BYTES = 0x7FF, 256
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_RETRIES = 64  # openat2(2) says EAGAIN when a rename on the way raced with it

Answer = tuple[object, int | None]


class Failed(OSError):
    """What failed and at which step: `mount-0`, `mount-1`, ..., `stat`, `resolve`, ...

    `subpath-2` is a path of which the first two names lead somewhere.
    """

    def __init__(self, number: int, text: str, at: str) -> None:
        super().__init__(number, text)
        self.number, self.text, self.at = number, text, at


def mount(directory: int, name: str, calls: Sequence[tuple[str, str, int, str]]) -> Answer:
    """Mount at `name` in `directory` by these calls of mount(2), source, type, flags, data; see that it answers.

    One attempt at a time holds the directory's lock, also one of an engine that is gone: nothing is mounted twice. What
    is mounted already is only asked for an answer. Nothing stays mounted if a call fails.
    """
    if calls:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not is_mount_point(directory, name):
            _mount_all(f"/proc/self/fd/{directory}/{name}", calls)
    data = _open(directory, name, os.O_DIRECTORY | os.O_NOFOLLOW, _BENEATH | _NO_SYMLINKS, "stat")
    try:
        _ask(data, "stat")
    finally:
        os.close(data)
    return None, None


def unmount(directory: int, name: str) -> Answer:
    """Detach what is mounted at `name` in `directory`: it is gone at once, however long the storage takes to end."""
    target = f"/proc/self/fd/{directory}/{name}"
    _check(_umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW), "umount")
    return None, None


def open_data(directory: int, name: str, subpath: str) -> Answer:
    """Give a descriptor (O_PATH) on the directory `name` of `directory`, or on what lies at `subpath` in it.

    Links below it are followed as long as they stay there. The storage has answered when this returns.
    """
    data = _open(directory, name, os.O_DIRECTORY | os.O_NOFOLLOW, _BENEATH | _NO_SYMLINKS, "stat")
    try:
        _ask(data, "stat")
        if not subpath:
            return None, os.dup(data)
        return None, _open_subpath(data, subpath)
    finally:
        os.close(data)


def look(directory: int, name: str) -> Answer:
    """Read one entry of the directory `name`: the storage lists what it has."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            with os.scandir(fd) as entries:
                return next(entries, None) is not None, None
        finally:
            os.close(fd)
    except OSError as error:
        raise _failed(error, "list") from error


def resolve(host: str) -> Answer:
    """Give the addresses of a host, IPv4 first. The errno of a failure is that of getaddrinfo(3), EAI_*."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        raise _failed(error, "resolve") from error
    except UnicodeError as error:
        raise Failed(socket.EAI_NONAME, str(error), "resolve") from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [entry[4][0] for entry in found], None


def connect(address: str, port: int) -> Answer:
    """Connect to a TCP port and hang up."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as connection:
            connection.connect((address, port))
    except OSError as error:
        raise _failed(error, "connect") from error
    return None, None


def read_text(path: str) -> Answer:
    """Give what a small file says."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(READ_LIMIT_BYTES), None
    except UnicodeDecodeError as error:
        raise Failed(errno.EILSEQ, "not text", "read") from error
    except OSError as error:
        raise _failed(error, "read") from error


def is_mount_point(directory: int, name: str) -> bool:
    """Tell whether something is mounted on the directory `name` of `directory`, without asking it. Raises Failed."""
    try:
        os.close(_open(directory, name, os.O_DIRECTORY | os.O_NOFOLLOW, _BENEATH | _NO_XDEV | _NO_SYMLINKS, "stat"))
    except Failed as error:
        if error.errno != errno.EXDEV:
            raise
        return True
    return False


OPERATIONS: dict[str, Callable[..., Answer]] = {
    operation.__name__: operation for operation in (mount, unmount, open_data, look, resolve, connect, read_text)
}


def perform(do: str, arguments: Sequence[object], fds: Sequence[int]) -> Answer:
    """Do one call in this very thread; descriptors come first among the arguments. Raises Failed."""
    return OPERATIONS[do](*fds, *arguments)


def _mount_all(target: str, calls: Sequence[tuple[str, str, int, str]]) -> None:
    for number, (source, fstype, flags, data) in enumerate(calls):
        encoded = os.fsencode(data)
        if len(encoded) >= os.sysconf("SC_PAGE_SIZE"):  # mount(2) would drop the rest in silence
            raise Failed(errno.E2BIG, os.strerror(errno.E2BIG), f"mount-{number}")
        result = _mount(os.fsencode(source), os.fsencode(target), os.fsencode(fstype), flags, encoded)
        try:
            _check(result, f"mount-{number}")
        except Failed:
            if number:
                _umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW)
            raise


def _ask(fd: int, at: str) -> None:
    """Have the storage answer for `fd`, whatever the kernel remembers of it. statx(2), AT_STATX_FORCE_SYNC."""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    _check(_statx(fd, b"", _EMPTY_PATH | _FORCE_SYNC, _STATX_BASIC, answer), at)


def _open_subpath(data: int, subpath: str) -> int:
    try:
        found = _open(data, subpath, 0, _BENEATH | _NO_MAGICLINKS, "subpath-0")
        _ask(found, "subpath-0")
        return found
    except Failed as error:
        names = [name for name in subpath.split("/") if name not in ("", ".")]
        depth = 0
        with contextlib.suppress(Failed):
            while depth < len(names) - 1:
                os.close(_open(data, "/".join(names[: depth + 1]), 0, _BENEATH | _NO_MAGICLINKS, ""))
                depth += 1
        raise Failed(error.number, error.text, f"subpath-{depth}") from None


def _open(directory: int, path: str, flags: int, resolve: int, at: str) -> int:
    """Open with O_PATH by openat2(2)."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC | flags, 0, resolve)
    result = -1
    for _ in range(_RETRIES):
        result = _syscall(_OPENAT2, directory, os.fsencode(path), how, len(how))
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _check(result, at)


def _check(result: int, at: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise Failed(number, os.strerror(number), at)
    return result


def _failed(error: OSError, at: str) -> Failed:
    return Failed(error.errno or errno.EIO, error.strerror or str(error), at)


def serve(channel: socket.socket) -> None:
    """Answer calls until the other side is gone."""
    while True:
        message, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(16))
        if not message:
            return
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content)
        call = json.loads(message)
        given: int | None = None
        try:
            value, given = perform(call["do"], call["with"], fds)
            answer: dict[str, object] = {"value": value}
        except Failed as error:
            answer = {"errno": error.number, "text": error.text, "at": error.at}
        finally:
            for fd in fds:
                os.close(fd)
        rights = [] if given is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given]))]
        try:
            channel.sendmsg([json.dumps(answer).encode()], rights)
        except BrokenPipeError:
            return
        finally:
            if given is not None:
                os.close(given)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
