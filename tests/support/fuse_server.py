"""A file system that stops answering when it is told to: a few read-only files over FUSE, without any library.

`python -m tests.support.fuse_server PLACE` mounts it and serves it. SIGSTOP makes it hang as a dead file server does,
SIGCONT brings it back, and its end fails whatever waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.kernel.mount import MS_NODEV, MS_NOSUID, mount
from tests.support.engine import PATH, PROJECT

# Node → name, mode, content; directories hold the nodes that name them. Source: Linux, include/uapi/linux/fuse.h.
NODES = {
    1: ("", stat.S_IFDIR | 0o755, b""),
    2: ("hello", stat.S_IFREG | 0o644, b"over fuse\n"),
    3: ("sub", stat.S_IFDIR | 0o755, b""),
}
PARENT = {2: 1, 3: 1}
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_INIT, _OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 26, 27, 28, 29, 36, 42
_SILENT = (_FORGET, _INTERRUPT, _BATCH_FORGET)


def _attributes(node: int) -> bytes:
    _, mode, content = NODES[node]
    return struct.pack("=6Q3I7I", node, len(content), 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int, body: bytes) -> bytes | int:
    """The body of an answer, or the number of an error. Nothing may be remembered: every look asks again."""
    if opcode == _INIT:
        return struct.pack("=4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, *[0] * 8)
    if opcode == _GETATTR:
        return struct.pack("=QII", 0, 0, 0) + _attributes(node)
    if opcode == _LOOKUP:
        name = body.rstrip(b"\0").decode()
        for child, parent in PARENT.items():
            if parent == node and NODES[child][0] == name:
                return struct.pack("=4Q2I", child, 0, 0, 0, 0, 0) + _attributes(child)
        return errno.ENOENT
    if opcode in (_OPEN, _OPENDIR):
        return struct.pack("=QII", 0, 1, 0)
    if opcode in (_READ, _READDIR):
        _, offset, size = struct.unpack_from("=QQI", body)
        if opcode == _READ:
            return NODES[node][2][offset : offset + size]
        if offset:
            return b""
        entries = b""
        for number, child in enumerate([child for child in PARENT if PARENT[child] == node], 1):
            entry = NODES[child][0].encode()
            entries += struct.pack("=QQII", child, number, len(entry), NODES[child][1] >> 12) + entry
            entries += b"\0" * (-len(entries) % 8)
        return entries
    if opcode == _STATFS:
        return struct.pack("=5Q4I6I", 0, 0, 0, 3, 0, 4096, 255, 4096, 0, *[0] * 6)
    if opcode in (_RELEASE, _RELEASEDIR):
        return b""
    return errno.ENOSYS


def serve(place: str) -> None:
    """Mount and answer until it is unmounted."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mount("hung", place, "fuse", MS_NOSUID | MS_NODEV, f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other")
    print("mounted", flush=True)
    while True:
        try:
            request = os.read(fd, 1 << 17)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR):
                continue
            raise
        _, opcode, unique, node = struct.unpack_from("=IIQQ", request)
        if opcode in _SILENT:
            continue
        answer = _answer(opcode, node, request[40:])
        body = answer if isinstance(answer, bytes) else b""
        number = 0 if isinstance(answer, bytes) else -answer
        with contextlib.suppress(FileNotFoundError):  # whoever asked has given up
            os.write(fd, struct.pack("=IiQ", 16 + len(body), number, unique) + body)


class FuseServer:
    """The server as a process, in the namespaces that the command `enter` leads to."""

    def __init__(self, place: Path, enter: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*enter, sys.executable, "-m", __name__, str(place)],
            cwd=PROJECT, env={"PATH": PATH, "PYTHONPATH": str(PROJECT)}, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"mounted\n"

    def hang(self) -> None:
        """Answer nothing any more."""
        self._process.send_signal(signal.SIGSTOP)

    def come_back(self) -> None:
        """Answer again, first whatever was asked meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End for good."""
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def fuse_server(place: Path, enter: Sequence[str] = ()) -> Iterator[FuseServer]:
    """Serve for the length of a block."""
    server = FuseServer(place, enter)
    try:
        yield server
    finally:
        server.end()


if __name__ == "__main__":
    serve(sys.argv[1])
