"""Streams between a client and a process: output framed or raw, standard input, detach keys, a client that lags.

    conmon's socket ──▶ Backlog: memory, then an unnamed file ──▶ client
    client ──▶ detach keys ──▶ conmon's socket

conmon waits for everybody who is attached, so whoever does not read would stop the container. Its socket is therefore
always drained: what the client does not take at once waits in memory and then in a file. When that is full too, the
container is held back as a pipe would hold it back, for as long as the client takes anything at all; one that takes
nothing is told that its stream is not whole, and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from pathlib import Path
from typing import Final, Protocol

from holdfast import log
from holdfast.api.request import ClientGone
from holdfast.errors import InvalidParameter
from holdfast.runtime.attach import PACKET_BYTES, STDERR, STDOUT, hang_up, split_packet, stdin_packets

logger = log.get(__name__)

MEMORY_BYTES: Final = 1 << 20
FILE_BYTES: Final = 64 << 20
STALL_S: Final = 60.0
"""How long a client may take nothing at all while everything that can wait is waiting."""
SYSTEM_ERROR: Final = 3
"""The stream number that carries the engine's own words to the client."""

_PIECE_BYTES = 128 << 10
_PACKETS_AT_ONCE = 64
DEFAULT_DETACH_KEYS: Final = "ctrl-p,ctrl-q"


def frame(stream: int, data: bytes) -> bytes:
    """Give `data` with the header of Docker's multiplexed format. Source: Docker Engine API, ContainerAttach."""
    return frame_head(stream, len(data)) + data


def frame_head(stream: int, length: int) -> bytes:
    """Give the header of `frame` for data of that length."""
    return bytes((stream, 0, 0, 0)) + length.to_bytes(4, "big")


class Backlog:
    """What waits for the client, in order: up to `MEMORY_BYTES` in memory, up to `FILE_BYTES` more in a file."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where the unnamed file is made, if it comes to that."""
        self._folder = folder
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._fd = -1
        self._written = 0
        self._read = 0

    def __bool__(self) -> bool:
        return bool(self._memory) or self._read < self._written

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be put in for now."""
        return self._written >= FILE_BYTES

    def put(self, data: bytes) -> None:
        """Add bytes. Raises OSError if the file cannot be written."""
        if self._read == self._written and self._memory_bytes < MEMORY_BYTES:
            self._memory.append(data)
            self._memory_bytes += len(data)
            return
        if self._fd < 0:
            self._fd = os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, self._written)
            self._written += count
            view = view[count:]

    def take(self) -> bytes:
        """Give the next bytes, b"" if nothing waits. Raises OSError."""
        if self._memory:
            pieces = []
            size = 0
            while self._memory and size < _PIECE_BYTES:
                piece = self._memory.popleft()
                pieces.append(piece)
                size += len(piece)
            self._memory_bytes -= size
            return b"".join(pieces)
        if self._read == self._written:
            return b""
        data = os.pread(self._fd, min(_PIECE_BYTES, self._written - self._read), self._read)
        self._read += len(data)
        if self._read == self._written:
            self._read = self._written = 0
            os.ftruncate(self._fd, 0)
        return data

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Duplex(Protocol):
    """A client's end: a stream that was taken over, or a web socket."""

    disconnected: asyncio.Future[None]

    async def read(self) -> bytes:
        """Give the next bytes, b"" once the client has no more to say."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client does not read. Raises ClientGone."""
        ...


class Pump:
    """Carries the streams of one process to and from one client until either has enough."""

    def __init__(
        self,
        stream: Duplex,
        connection: socket.socket,
        folder: Path,
        *,
        tty: bool,
        framed: bool | None = None,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        detach_keys: bytes = b"",
        stdin_once: bool,
    ) -> None:
        """`connection` is conmon's socket, closed at the end; conmon ends the input of a `stdin_once` process then.

        What comes from a process without a terminal is `framed`, unless told otherwise.

        Docker's rule is followed: with `stdin_once` and without a terminal, the end of what a client with `stdin` has
        to say is the end of the process's input; else it is the end of this stream alone. Source: moby,
        container/stream/attach.go.
        """
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._connection = connection
        self._tty = tty
        self._framed = not tty if framed is None else framed
        self._stdin = stdin
        self._wanted = {number for number, wish in ((STDOUT, stdout), (STDERR, stderr)) if wish}
        self._keys = KeyWatch(detach_keys if tty and stdin else b"")
        self._ends_stdin = stdin_once and not tty
        self._backlog = Backlog(folder)
        self._more = asyncio.Event()
        self._ended = False
        self._reading = False
        self._moved_at = self._loop.time()

    async def run(self) -> bool:
        """Pump until the process has ended (True), or the client has gone or detached (False)."""
        self._connection.setblocking(False)
        self._resume()
        tasks = [self._loop.create_task(self._send_output())]
        if self._stdin:
            tasks.append(self._loop.create_task(self._take_input()))
        try:
            return await self._until_done(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._pause()
            self._leave()
            self._backlog.close()

    def _leave(self) -> None:
        if self._ends_stdin and not self._stdin and not self._ended:
            _linger(self._connection)
        else:
            hang_up(self._connection)

    async def _until_done(self, tasks: list[asyncio.Task[bool]]) -> bool:
        waiting: set[asyncio.Future[bool] | asyncio.Future[None]] = {*tasks, self._stream.disconnected}
        while True:
            done, _ = await asyncio.wait(waiting, timeout=STALL_S / 4, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0] in done:
                return self._outcome(tasks[0])
            if self._stream.disconnected in done:
                return False
            if len(tasks) > 1 and tasks[1] in done:
                if not self._outcome(tasks[1]):
                    return False
                waiting.discard(tasks[1])
            if self._backlog.is_full and self._loop.time() - self._moved_at > STALL_S:
                logger.warning("client takes no output and is dropped")
                return False

    def _outcome(self, task: asyncio.Task[bool]) -> bool:
        try:
            return task.result()
        except (ClientGone, OSError) as error:
            logger.debug("stream ended early", extra={"error": error})
            return False

    # --- output -----------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        if not self._reading and not self._ended:
            self._reading = True
            self._loop.add_reader(self._connection.fileno(), self._receive)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._connection.fileno())

    def _receive(self) -> None:
        """Take what the process wrote; a bounded number of packets, so that others get their turn."""
        try:
            for _ in range(_PACKETS_AT_ONCE):
                number, data = split_packet(self._connection.recv(PACKET_BYTES))
                if not number:
                    self._end()
                    break
                if number in self._wanted or (self._tty and self._wanted):
                    self._backlog.put(frame(number, data) if self._framed else data)
                if self._backlog.is_full:
                    self._pause()
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except ConnectionResetError:
            self._end()
        except OSError as error:
            logger.warning("output of a process is lost to its client", extra={"error": error})
            if self._framed:
                with contextlib.suppress(OSError):
                    self._backlog.put(frame(SYSTEM_ERROR, f"output was lost: {error}\n".encode()))
            self._end()
        self._more.set()

    def _end(self) -> None:
        self._pause()
        self._ended = True

    async def _send_output(self) -> bool:
        while True:
            data = self._backlog.take()
            if data:
                await self._stream.write(data)
                self._moved_at = self._loop.time()
                if not self._backlog.is_full:
                    self._resume()
            elif self._ended:
                return True
            else:
                self._more.clear()
                await self._more.wait()

    # --- input ------------------------------------------------------------------------------------------------------

    async def _take_input(self) -> bool:
        """Pass on what the client types; False if the stream ends with that: at the detach keys, or see __init__."""
        while True:
            data = await self._stream.read()
            if not data:
                break
            data, detached = self._keys.feed(data)
            try:
                for packet in stdin_packets(data):
                    await self._loop.sock_sendall(self._connection, packet)
            except (BrokenPipeError, ConnectionResetError):
                return True  # the process has ended or closed its side; its output may still come
            if detached:
                return False
        if not self._ends_stdin:
            return False
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        return True


_lingering: set[asyncio.Task[None]] = set()
"""The loop itself keeps no task alive."""


def _linger(connection: socket.socket) -> None:
    """Keep an onlooker's socket until the process ends: to conmon, whoever leaves ends the input of `stdin_once`."""

    async def drain() -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError):
            while await loop.sock_recv(connection, PACKET_BYTES):
                pass

    task = asyncio.get_running_loop().create_task(drain())
    _lingering.add(task)
    task.add_done_callback(_lingering.discard)


class KeyWatch:
    """Looks for the detach keys in what is typed and keeps them from the process."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Give what is to be passed on, and whether the keys are complete. Source: moby, pools/term, escape proxy."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False


def parse_detach_keys(text: str, *, what: str = "detach") -> bytes:
    """Read `ctrl-p,ctrl-q`: single characters or `ctrl-` with a letter or one of @ [ \\ ] ^ _.

    `what` is how Docker's message calls them, `escape` for an exec. Raises InvalidParameter in Docker's words.
    Source: moby, pkg/term, ToBytes.
    """
    keys = bytearray()
    for word in (text or DEFAULT_DETACH_KEYS).split(","):
        if len(word) == 1 and word.isascii():
            keys.append(ord(word))
            continue
        letter = word.removeprefix("ctrl-")
        if letter == word or len(letter) != 1:
            raise InvalidParameter(f"Invalid {what} keys ({text}) provided")
        if "a" <= letter <= "z":
            keys.append(ord(letter) - ord("a") + 1)
        elif letter in "@[\\]^_":
            keys.append(ord(letter) - ord("@"))
        else:
            raise InvalidParameter(f"Invalid {what} keys ({text}) provided")
    return bytes(keys)


class SocketPromise:
    """A socket that another thread will hand over, or None; one that comes too late is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[socket.socket | None] = self._loop.create_future()
        self.taken = False
        """Whether somebody else closes the socket by now."""

    def give(self, connection: socket.socket | None) -> None:
        """Hand it over; from any thread, never blocks."""
        try:
            self._loop.call_soon_threadsafe(self._settle, connection)
        except RuntimeError:  # the loop has ended with the engine
            if connection is not None:
                connection.close()

    def _settle(self, connection: socket.socket | None) -> None:
        if not self.future.done():
            self.future.set_result(connection)
        elif connection is not None:
            connection.close()
