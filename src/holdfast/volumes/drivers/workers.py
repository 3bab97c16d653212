"""Storage that may hang, behind processes that can be given up.

A call goes to a process of its own for as long as it lasts. One that answers is kept for the next call; one that does
not answer in time is killed and forgotten. Where even SIGKILL must wait until the server is back, it waits alone: the
next call gets another process.

The time starts anew whenever the process says that it gets on (`kernel/progress`), so long work is not cut while it
does. What goes through a pipe counts only while the engine waits for the process: a slow client is no dead server.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import io
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from holdfast import errors, log
from holdfast.errors import EngineError, Unavailable
from holdfast.kernel import storage_worker
from holdfast.kernel.libc import AT_FDCWD
from holdfast.kernel.mountinfo import read_mountinfo
from holdfast.kernel.path import RESOLVE_NO_XDEV, openat2, owned_fd
from holdfast.kernel.storage_worker import MESSAGE_BYTES, Answer, Failed
from holdfast.process.run import spawn
from holdfast.volumes.drivers.base import Emit, MountFailed, Stream
from holdfast.volumes.drivers.mounting import NETWORK_TYPES

logger = log.get(__name__)

TIMEOUT_S = 30.0
_KEPT_IDLE = 2
_LOOK_AFTER_S = 1.0
_DYING_S = 0.1
_PIPE_BYTES = 1 << 20
_SERVED_TYPES = NETWORK_TYPES | {"9p", "afs", "beegfs", "ceph", "coda", "gfs2", "gpfs", "lustre", "ocfs2", "virtiofs"}


def on_network(path: str) -> bool:
    """Tell whether a path of the host may lead to a file server, or have one's files below it, without asking any.

    In doubt, as on another mount of a machine that has such mounts, it may. Raises OSError.
    """
    servers = [
        entry.mount_point
        for entry in read_mountinfo()
        if entry.fstype in _SERVED_TYPES or entry.fstype.startswith("fuse")
    ]
    if not servers:
        return False
    try:
        with owned_fd(openat2(AT_FDCWD, path, os.O_PATH, 0, RESOLVE_NO_XDEV)) as fd:
            found = os.readlink(f"/proc/self/fd/{fd}").rstrip("/") + "/"
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return any(server.startswith(found) for server in servers)


class Workers:
    """Processes for calls that may hang: hands (`base.Hands`) that can be given up. Safe from any thread."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """`timeout_s` is how long a process may stay without a sign of life."""
        self.timeout_s = timeout_s
        self._guard = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._given_up: list[_Worker] = []
        self._closed = False

    def do(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object) -> Answer:
        """See `base.Hands`."""
        with self._asked(work, fds, arguments) as job:
            return job.answer()

    def pour(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object, emit: Emit) -> None:
        """See `base.Hands`."""
        with (
            _pipe(reading=True) as (ours, theirs),
            self._asked(work, [*fds, theirs.fileno()], arguments, "out") as job,
        ):
            theirs.close()
            while data := job.read(ours.fileno(), _PIPE_BYTES):
                emit(data)
            job.answer()

    def feed(self, work: Callable[..., Answer], fds: Sequence[int], *arguments: object, stream: Stream) -> None:
        """See `base.Hands`."""
        with (
            _pipe(reading=False) as (ours, theirs),
            self._asked(work, [*fds, theirs.fileno()], arguments, "in") as job,
        ):
            theirs.close()
            while (data := stream.read(_PIPE_BYTES)) and job.write(ours.fileno(), data):
                pass
            ours.close()
            job.answer()

    def mount(self, directory: int, name: str, calls: Sequence[tuple[str, str, int, str]]) -> None:
        """Mount at `name` in the directory fd `directory`, and see that the storage answers. Without calls only that.

        Raises Failed, with ETIMEDOUT for no answer in time.
        """
        self._call("mount", [name, calls], [directory])

    def unmount(self, directory: int, name: str, *, gone: Callable[[], bool] | None = None) -> None:
        """Detach what is mounted at `name`. Ending a file system may take long after it was detached.

        With `gone`, which tells whether it is detached, that is not waited for. Raises Failed.
        """
        self._call("unmount", [name], [directory], enough=gone)

    def open(self, directory: int, name: str, subpath: str) -> tuple[int, int]:
        """Give a descriptor (O_PATH) on the directory `name`, or on what lies at `subpath` in it, and its mode.

        Raises Failed.
        """
        mode, (fd,) = self._call("open_data", [name, subpath], [directory])
        assert isinstance(mode, int)
        return fd, mode

    def look(self, directory: int, name: str) -> None:
        """Have the storage list the directory `name`. Raises Failed."""
        self._call("look", [name], [directory])

    def resolve(self, host: str) -> list[str]:
        """Give the addresses of a host, IPv4 first. Raises Failed with a number of getaddrinfo(3), EAI_*."""
        value, _ = self._call("resolve", [host])
        assert isinstance(value, list)
        return [str(address) for address in value]

    def connect(self, address: str, port: int) -> None:
        """See that somebody listens on a TCP port. Raises Failed."""
        self._call("connect", [address, port])

    def read_text(self, path: str) -> str:
        """Give what a small file says. Raises Failed."""
        value, _ = self._call("read_text", [path])
        return str(value)

    def close(self) -> None:
        """Give up every call, now and in future: the engine stops."""
        with self._guard:
            self._closed = True
            busy, idle = list(self._busy), self._idle.copy()
            self._idle.clear()
        for worker in busy:
            worker.give_up()
        for worker in idle:
            worker.end()

    def _call(
        self,
        do: str,
        arguments: Sequence[object],
        fds: Sequence[int] = (),
        *,
        enough: Callable[[], bool] | None = None,
    ) -> Answer:
        with self._working(do, arguments, fds) as job:
            if enough is not None:
                with contextlib.suppress(TimeoutError):
                    return job.answer(min(_LOOK_AFTER_S, self.timeout_s))
                if enough():
                    return None, ()
            return job.answer()

    @contextlib.contextmanager
    def _asked(
        self, work: Callable[..., Answer], fds: Sequence[int], arguments: Sequence[object], pipe: str = ""
    ) -> Iterator[_Job]:
        """Have a process call a function of ours. Raises what it raises, MountFailed if it does not answer."""
        do = f"{work.__module__}:{work.__qualname__}"
        try:
            with self._working(do, arguments, fds, pipe) as job:
                yield job
        except Failed as error:
            if error.at != "wait":
                raise
            hint = "the storage of a volume does not answer"
            raise MountFailed(os.strerror(error.number).lower(), hint=hint) from None

    @contextlib.contextmanager
    def _working(
        self, do: str, arguments: Sequence[object], fds: Sequence[int], pipe: str = ""
    ) -> Iterator[_Job]:
        """Have a process work on a call for the length of the block; without an answer at its end it is killed."""
        worker = self._take()
        job = _Job(worker, self.timeout_s)
        try:
            job.ask(do, arguments, fds, pipe)
            yield job
        except TimeoutError as error:
            logger.warning("storage does not answer", extra={"call": do, "after_s": self.timeout_s})
            raise Failed(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), "wait") from error
        except ConnectionError as error:
            if self._closed:
                raise Unavailable("the engine is stopping") from error
            if not job.is_lost:
                raise
            raise Failed(errno.EIO, f"the process for {do} ended: {error}", "wait") from error
        finally:
            self._give_back(worker, job.is_answered)

    def _take(self) -> _Worker:
        with self._guard:
            if self._closed:
                raise Unavailable("the engine is stopping")
            self._given_up = [worker for worker in self._given_up if not worker.has_ended()]
            while self._idle:
                worker = self._idle.pop()
                if not worker.has_ended():
                    self._busy.add(worker)
                    return worker
        worker = _Worker()
        with self._guard:
            self._busy.add(worker)
        return worker

    def _give_back(self, worker: _Worker, answered: bool) -> None:
        with self._guard:
            self._busy.discard(worker)
            keep = answered and not self._closed and len(self._idle) < _KEPT_IDLE
            if keep:
                self._idle.append(worker)
        if keep:
            return
        if answered:
            worker.end()
            return
        worker.give_up()
        worker.hang_up()
        if not worker.has_ended(_DYING_S):
            with self._guard:
                self._given_up.append(worker)


class _Job:
    """A call that a process works on."""

    def __init__(self, worker: _Worker, timeout_s: float) -> None:
        self._worker = worker
        self._timeout_s = timeout_s
        self._answer: Answer | EngineError | OSError | None = None
        self.is_lost = False

    @property
    def is_answered(self) -> bool:
        """Whether the process is done with it and ready for another."""
        return self._answer is not None

    def ask(self, do: str, arguments: Sequence[object], fds: Sequence[int], pipe: str) -> None:
        """Send the call. Raises ConnectionError if the process is gone, OSError."""
        with self._losing():
            self._worker.ask(do, arguments, fds, pipe)

    def answer(self, timeout_s: float | None = None) -> Answer:
        """Wait for the answer. Raises TimeoutError, ConnectionError if the process is gone, whatever it raised."""
        while self._answer is None:
            self._wait(timeout_s or self._timeout_s)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def read(self, pipe: int, size: int) -> bytes:
        """Give what the process has written, at most `size` bytes, nothing at the end. Raises as `answer`."""
        while True:
            with contextlib.suppress(BlockingIOError):
                return os.read(pipe, size)
            self._wait(self._timeout_s, pipe, select.POLLIN)

    def write(self, pipe: int, data: bytes | memoryview) -> bool:
        """Give the process what it reads; False if it wants no more. Raises as `answer`."""
        rest = memoryview(data)
        while rest:
            if self._answer is not None:
                return False
            try:
                rest = rest[os.write(pipe, rest) :]
            except BlockingIOError:
                self._wait(self._timeout_s, pipe, select.POLLOUT)
            except BrokenPipeError:
                return False
        return True

    def _wait(self, timeout_s: float, pipe: int = -1, events: int = 0) -> None:
        """Wait for the answer, a sign of life or the pipe."""
        poll = select.poll()
        if self._answer is None:
            poll.register(self._worker.channel, select.POLLIN)
        if pipe >= 0:
            poll.register(pipe, events)
        ready = dict(poll.poll(timeout_s * 1000))
        if not ready:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if self._worker.channel.fileno() in ready:
            with self._losing():
                self._answer = self._worker.hear()

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.is_lost = True
            raise


class _Worker:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                argv = [sys.executable, "-I", "-S", storage_worker.__file__, str(theirs.fileno())]
                self._process = spawn(argv, pass_fds=[theirs.fileno()], stderr=None)  # a bug shows in the engine's log
        except BaseException:
            self.channel.close()
            raise

    def ask(self, do: str, arguments: Sequence[object], fds: Sequence[int], pipe: str = "") -> None:
        """Send a call. Raises OSError."""
        message = json.dumps({"do": do, "with": list(arguments), "pipe": pipe}).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.channel.sendmsg([message], rights)

    def hear(self) -> Answer | EngineError | OSError | None:
        """Give the answer, or the error that is one; None for a sign of life. Raises OSError if the process is gone."""
        # Not socket.recv_fds: that of Python 3.11 forgets its flags, and the descriptor would be inherited.
        room = socket.CMSG_LEN(4 * storage_worker.DESCRIPTORS_MAX)
        message, rights, _, _ = self.channel.recvmsg(MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for _, _, content in rights:
            fds.frombytes(content)
        if not message:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        answer = json.loads(message)
        if "value" in answer:
            return answer["value"], tuple(fds)
        if "kind" in answer:
            kind: type[EngineError] = getattr(errors, answer["kind"])
            return kind(answer["text"], hint=answer["hint"])
        if answer.get("at"):
            return Failed(answer["errno"], answer["text"], answer["at"])
        return OSError(answer["errno"], answer["text"], answer["path"]) if "errno" in answer else None

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Tell whether the process is gone, and collect it if so."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return self._process.returncode is not None

    def end(self) -> None:
        """Let an idle process end and wait for it."""
        self.hang_up()
        if not self.has_ended(within_s=2):
            self._process.kill()

    def give_up(self) -> None:
        """Kill the process, waking whoever waits for its answer, and do not wait for its end."""
        self._process.kill()
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Close the socket; nobody may wait on it any more."""
        self.channel.close()


@contextlib.contextmanager
def _pipe(*, reading: bool) -> Iterator[tuple[io.FileIO, io.FileIO]]:
    """A pipe for the block, our end first, which never waits; either may be closed in it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    with io.FileIO(read, "r") as out, io.FileIO(write, "w") as into:
        with contextlib.suppress(OSError):  # more than the user may have: it stays small
            fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        ours, theirs = (out, into) if reading else (into, out)
        os.set_blocking(ours.fileno(), False)
        yield ours, theirs
