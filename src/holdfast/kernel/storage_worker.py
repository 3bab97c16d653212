"""A small process that touches storage which may never answer, so that the engine's threads do not.

A thread that waits for a dead server inside the kernel cannot be given up; a process can. The engine runs this file as
a program, `python -I -S storage_worker.py FD`, and talks to it over FD, a SOCK_SEQPACKET socket, one message a call:

    {"do": "mount", "with": [...]}  and descriptors   →   {}                           it gets on, now and then
                                                      →   {"value": ...}               and descriptors
                                                      →   {"errno": 2, "at": "mount"}  what failed, and at which step
                                                      →   {"kind": "System", ...}      an error of `holdfast.errors`

What is to be done is one of the calls below, or any `module:function` of the engine, called with the list of
descriptors and the arguments. With `"pipe": "out"` the last descriptor takes what the function emits, with
`"pipe": "in"` it is the function's last argument, a stream.

The process lives in the engine's mount namespace and ends when the socket does. Until it is asked for a function of
ours it imports little: it must be up within 20 ms. `perform` is also called by the engine itself, where storage cannot
hang (tmpfs).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import io
import json
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Sequence

MESSAGE_BYTES = 1 << 17
READ_LIMIT_BYTES = 1 << 16
DESCRIPTORS_MAX = 253
"""So many go with one message. Source: Linux, SCM_MAX_FD."""
_PULSE_S = 0.25
_ERRORS = "holdfast.errors"

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

_on_tree = ctypes.CDLL(None, use_errno=True).syscall
_on_tree.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_long,
    ctypes.c_char_p,
    ctypes.c_size_t,
)
_on_tree.restype = ctypes.c_long

_OPENAT2, _OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 437, 428, 429, 442  # the same on every architecture
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_EMPTY_PATH, _FORCE_SYNC = 0x1000, 0x2000
_STATX_BASIC, _STATX_BYTES, _STATX_MODE_AT = 0x7FF, 256, 28
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_AT_FDCWD, _AT_RECURSIVE, _OPEN_TREE_CLONE, _FROM_EMPTY_PATH = -100, 0x8000, 1, 4
_MOUNT_ATTR_RDONLY, _MS_PRIVATE = 1, 1 << 18
_RETRIES = 64  # openat2(2) says EAGAIN when a rename on the way raced with it

Answer = tuple[object, Sequence[int]]
"""What a call gives: a value that JSON knows, and descriptors."""


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
    return None, ()


def unmount(directory: int, name: str) -> Answer:
    """Detach what is mounted at `name` in `directory`: it is gone at once, however long the storage takes to end."""
    target = f"/proc/self/fd/{directory}/{name}"
    _check(_umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW), "umount")
    return None, ()


def open_data(directory: int, name: str, subpath: str) -> Answer:
    """Give a descriptor (O_PATH) on the directory `name` of `directory`, or on what lies at `subpath` in it.

    The value is its mode, as in stat(2). Links below it are followed as long as they stay there. The storage has
    answered when this returns.
    """
    data = _open(directory, name, os.O_DIRECTORY | os.O_NOFOLLOW, _BENEATH | _NO_SYMLINKS, "stat")
    try:
        mode = _ask(data, "stat")
        if not subpath:
            return mode, (os.dup(data),)
        mode, found = _open_subpath(data, subpath)
        return mode, (found,)
    finally:
        os.close(data)


def attach_clone(
    fds: Sequence[int], path: str, kind: int, readonly: bool, recursive: bool, readonly_submounts: bool, private: bool
) -> Answer:
    """Make `path`, a directory or a file as the mode `kind` says, and attach a clone of a tree there. Raises OSError.

    `fds` is the tree's descriptor (O_PATH). The clone is prepared while nobody sees it.
    Source: open_tree(2), mount_setattr(2), move_mount(2).
    """
    if stat.S_ISDIR(kind):
        os.mkdir(path, 0o700)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    below = _AT_RECURSIVE if recursive else 0
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _EMPTY_PATH | below
    tree = _check(_on_tree(_OPEN_TREE, fds[0], b"", flags, None, 0), "open_tree")
    try:
        if readonly:
            attributes = struct.pack("=4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0)
            deep = below if readonly_submounts else 0
            _check(_on_tree(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH | deep, attributes, 32), "mount_setattr")
        if private:
            attributes = struct.pack("=4Q", 0, 0, _MS_PRIVATE, 0)
            _check(_on_tree(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH | below, attributes, 32), "mount_setattr")
        _check(_on_tree(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _FROM_EMPTY_PATH), "move_mount")
    finally:
        os.close(tree)
    return None, ()


def look(directory: int, name: str) -> Answer:
    """Read one entry of the directory `name`: the storage lists what it has."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            with os.scandir(fd) as entries:
                return next(entries, None) is not None, ()
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
    return [entry[4][0] for entry in found], ()


def connect(address: str, port: int) -> Answer:
    """Connect to a TCP port and hang up."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as connection:
            connection.connect((address, port))
    except OSError as error:
        raise _failed(error, "connect") from error
    return None, ()


def read_text(path: str) -> Answer:
    """Give what a small file says."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(READ_LIMIT_BYTES), ()
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


def perform(do: str, arguments: Sequence[object], fds: Sequence[int], pipe: str = "") -> Answer:
    """Do one call in this very thread. Raises Failed; of a function of ours whatever that raises."""
    if ":" not in do:
        return OPERATIONS[do](*fds, *arguments)
    work = _ours(do)
    if pipe == "out":
        return work(fds[:-1], *arguments, lambda data: _write(fds[-1], data))
    if pipe == "in":
        with io.FileIO(fds[-1], closefd=False) as stream:
            return work(fds[:-1], *arguments, stream)
    return work(fds, *arguments)


def _ours(do: str) -> Callable[..., Answer]:
    """Find a function of the engine, whose folder is not among those of `python -I -S`."""
    module, _, name = do.partition(":")
    if module not in sys.modules:
        folder = os.path.abspath(__file__)
        for _ in range(3):
            folder = os.path.dirname(folder)
        if folder not in sys.path:
            sys.path.append(folder)
        __import__(module)
    function: Callable[..., Answer] = getattr(sys.modules[module], name)
    return function


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


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


def _ask(fd: int, at: str) -> int:
    """Have the storage answer for `fd`, whatever the kernel remembers of it; gives its mode.

    statx(2), AT_STATX_FORCE_SYNC.
    """
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    _check(_statx(fd, b"", _EMPTY_PATH | _FORCE_SYNC, _STATX_BASIC, answer), at)
    return int.from_bytes(answer.raw[_STATX_MODE_AT:][:2], sys.byteorder)


def _open_subpath(data: int, subpath: str) -> tuple[int, int]:
    try:
        found = _open(data, subpath, 0, _BENEATH | _NO_MAGICLINKS, "subpath-0")
        return _ask(found, "subpath-0"), found
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


class _Pulse:
    """Tells the other side that work gets on, and ends the process once there is none: nothing is done for nobody."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PULSE_S
        try:
            self._channel.send(b"{}", socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            os._exit(1)


def serve(channel: socket.socket) -> None:
    """Answer calls until the other side is gone."""
    pulse = _Pulse(channel)
    while True:
        message, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(4 * DESCRIPTORS_MAX))
        if not message:
            return
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content)
        call = json.loads(message)
        if ":" in call["do"]:
            _ours("holdfast.kernel.progress:listen")(pulse)
        given: Sequence[int] = ()
        try:
            answer, given = _answer(call, list(fds))
        finally:
            for fd in fds:
                os.close(fd)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))] if given else []
        try:
            channel.sendmsg([json.dumps(answer).encode()], rights)
        except BrokenPipeError:
            return
        finally:
            for fd in given:
                os.close(fd)


def _answer(call: dict[str, str], fds: Sequence[int]) -> tuple[dict[str, object], Sequence[int]]:
    """Do what a message asks for; an error is an answer, too."""
    try:
        value, given = perform(call["do"], call["with"], fds, call.get("pipe", ""))
    except OSError as error:
        at = error.at if isinstance(error, Failed) else ""
        text = error.strerror or str(error)
        return {"errno": error.errno or errno.EIO, "text": text, "at": at, "path": error.filename}, ()
    except _errors_of_ours() as error:
        kind = next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == _ERRORS)
        return {"kind": kind, "text": str(error), "hint": getattr(error, "hint", "")}, ()
    return {"value": value}, given


def _errors_of_ours() -> tuple[type[Exception], ...]:
    return (sys.modules[_ERRORS].EngineError,) if _ERRORS in sys.modules else ()


if __name__ == "__main__":
    sys.modules["holdfast.kernel.storage_worker"] = sys.modules["__main__"]
    serve(socket.socket(fileno=int(sys.argv[1])))
