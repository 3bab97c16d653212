"""A file system that stops answering when it is told to: a few files in memory over FUSE, without any library.

`python -m tests.support.fuse_server PLACE` mounts it and serves it. SIGSTOP makes it hang as a dead file server does,
SIGCONT brings it back, and its end fails whatever waits for it. SIGUSR1 makes it slow, and quick again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.kernel.mount import MS_NODEV, MS_NOSUID, mount
from tests.support.engine import PATH, PROJECT

PIECE_BYTES = 128 << 10
SLOW_S = 0.2
"""How long a slow server takes to read or write a piece."""
# Source: Linux, include/uapi/linux/fuse.h.
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42
_SILENT = (_FORGET, _INTERRUPT, _BATCH_FORGET)
_MODE, _UID, _GID, _SIZE, _MTIME = 1, 2, 4, 8, 32
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_NOREPLACE = 1


@dataclass
class Node:
    """A file, directory or link. `content` is a link's target, too."""

    number: int
    mode: int
    content: bytearray = field(default_factory=bytearray)
    children: dict[str, int] = field(default_factory=dict)
    owner: tuple[int, int] = (0, 0)
    mtime: tuple[int, int] = (0, 0)
    links: int = 1


class Files:
    """The files, and what is asked of them. Nothing may be remembered by the kernel: every look asks again."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.nodes: dict[int, Node] = {}
        self.is_slow = False
        root = self._make(stat.S_IFDIR | 0o755)
        hello, sub = self._make(stat.S_IFREG | 0o644, b"over fuse\n"), self._make(stat.S_IFDIR | 0o755)
        root.children = {"hello": hello.number, "sub": sub.number}
        self.operations: dict[int, Callable[[Node, bytes], bytes]] = {
            1: lambda node, body: self._entry(self._child(node, body)),
            3: lambda node, _: struct.pack("=QII", 0, 0, 0) + self._attributes(node),
            4: self._set_attributes,
            5: lambda node, _: bytes(node.content),
            6: self._symlink,
            8: lambda node, body: self._add(node, body[16:], struct.unpack_from("=I", body)[0]),
            9: lambda node, body: self._add(node, body[8:], struct.unpack_from("=I", body)[0] | stat.S_IFDIR),
            10: self._remove,
            11: self._remove,
            12: lambda node, body: self._rename(node, body[8:], struct.unpack_from("=Q", body)[0], 0),
            13: self._link,
            14: self._open,
            15: self._read,
            16: self._write,
            17: lambda *_: struct.pack("=5Q4I6I", 0, 0, 0, 3, 0, 4096, 255, 4096, 0, *[0] * 6),
            18: lambda *_: b"",
            26: self._init,
            27: self._open,
            28: self._list,
            29: lambda *_: b"",
            35: self._create,
            45: lambda node, body: self._rename(node, body[16:], *struct.unpack_from("=QI", body)),
        }

    def _init(self, _: Node, __: bytes) -> bytes:
        flags = _BIG_WRITES | _MAX_PAGES
        return struct.pack("=4I2H2I2H8I", 7, 31, 0, flags, 0, 0, PIECE_BYTES, 1, PIECE_BYTES // 4096, 0, *[0] * 8)

    def _open(self, _: Node, __: bytes) -> bytes:
        return struct.pack("=QII", 0, 1, 0)  # read and written without the page cache

    def _create(self, parent: Node, body: bytes) -> bytes:
        return self._add(parent, body[16:], struct.unpack_from("=I", body, 4)[0]) + self._open(parent, b"")

    def _make(self, mode: int, content: bytes = b"") -> Node:
        node = Node(next(self._numbers), mode, bytearray(content))
        self.nodes[node.number] = node
        return node

    def _child(self, parent: Node, name: bytes) -> Node:
        try:
            return self.nodes[parent.children[os.fsdecode(name.rstrip(b"\0"))]]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file") from None

    def _attributes(self, node: Node) -> bytes:
        size = len(node.content)
        seconds, nanoseconds = node.mtime
        times = (seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds)
        blocks = (size + 511) // 512
        return struct.pack(
            "=6Q3I7I", node.number, size, blocks, *times, node.mode, node.links, *node.owner, 0, 4096, 0
        )

    def _entry(self, node: Node) -> bytes:
        return struct.pack("=4Q2I", node.number, 0, 0, 0, 0, 0) + self._attributes(node)

    def _set_attributes(self, node: Node, body: bytes) -> bytes:
        valid, size, mtime, mtime_ns, mode, uid, gid = struct.unpack_from("=I12xQ8x8xQ8x4xI4xI4xII", body)
        if valid & _MODE:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        if valid & _SIZE:
            node.content = (node.content + bytes(max(0, size - len(node.content))))[:size]
        if valid & _MTIME:
            node.mtime = (mtime, mtime_ns)
        node.owner = (uid if valid & _UID else node.owner[0], gid if valid & _GID else node.owner[1])
        return struct.pack("=QII", 0, 0, 0) + self._attributes(node)

    def _add(self, parent: Node, name: bytes, mode: int, content: bytes = b"") -> bytes:
        text = os.fsdecode(name.rstrip(b"\0"))
        if text in parent.children:
            raise FileExistsError(errno.EEXIST, "it is there")
        node = self._make(mode, content)
        parent.children[text] = node.number
        return self._entry(node)

    def _symlink(self, parent: Node, body: bytes) -> bytes:
        name, target = body.split(b"\0")[:2]
        return self._add(parent, name, stat.S_IFLNK | 0o777, target)

    def _link(self, parent: Node, body: bytes) -> bytes:
        node = self.nodes[struct.unpack_from("=Q", body)[0]]
        node.links += 1
        parent.children[os.fsdecode(body[8:].rstrip(b"\0"))] = node.number
        return self._entry(node)

    def _remove(self, parent: Node, body: bytes) -> bytes:
        if self._child(parent, body).children:
            raise OSError(errno.ENOTEMPTY, "not empty")
        del parent.children[os.fsdecode(body.rstrip(b"\0"))]
        return b""

    def _rename(self, parent: Node, names: bytes, into: int, flags: int) -> bytes:
        old, new = (os.fsdecode(name) for name in names.split(b"\0")[:2])
        node = self._child(parent, os.fsencode(old))
        there = self.nodes[into].children
        if flags & _NOREPLACE and new in there:
            raise FileExistsError(errno.EEXIST, "it is there")
        del parent.children[old]
        there[new] = node.number
        return b""

    def _read(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", body)
        self._take_time(size)
        return bytes(node.content[offset : offset + size])

    def _write(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", body)
        self._take_time(size)
        node.content += bytes(max(0, offset - len(node.content)))
        node.content[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("=II", size, 0)

    def _take_time(self, size_bytes: int) -> None:
        if self.is_slow:
            time.sleep(SLOW_S * size_bytes / PIECE_BYTES)

    def _list(self, node: Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", body)
        entries = b""
        for number, (name, child) in enumerate(node.children.items(), 1):
            if number <= offset:
                continue
            encoded = os.fsencode(name)
            entry = struct.pack("=QQII", child, number, len(encoded), self.nodes[child].mode >> 12) + encoded
            entry += b"\0" * (-len(entry) % 8)
            if len(entries) + len(entry) > size:
                break
            entries += entry
        return entries


def serve(place: str) -> None:
    """Mount and answer until it is unmounted."""
    files = Files()

    def toggle(*_: object) -> None:
        files.is_slow = not files.is_slow

    signal.signal(signal.SIGUSR1, toggle)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mount("hung", place, "fuse", MS_NOSUID | MS_NODEV, f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other")
    print("mounted", flush=True)
    while True:
        try:
            request = os.read(fd, 2 * PIECE_BYTES)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR):
                continue
            raise
        _, opcode, unique, node = struct.unpack_from("=IIQQ", request)
        if opcode in _SILENT:
            continue
        number, body = 0, b""
        try:
            if opcode not in files.operations:
                raise OSError(errno.ENOSYS, "not known")
            body = files.operations[opcode](files.nodes.get(node, files.nodes[1]), request[40:])
        except OSError as error:
            number = -(error.errno or errno.EIO)
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

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Take SLOW_S for every piece of a file, for the length of a block."""
        self._process.send_signal(signal.SIGUSR1)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGUSR1)

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
