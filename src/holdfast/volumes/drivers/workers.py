"""Storage that may hang, behind processes that can be given up.

A call goes to a process of its own for as long as it lasts. One that answers is kept for the next call; one that does
not answer in time is killed and forgotten. Where even SIGKILL must wait until the server is back, it waits alone: the
next call gets another process.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from holdfast import log
from holdfast.errors import Unavailable
from holdfast.kernel import storage_worker
from holdfast.kernel.storage_worker import MESSAGE_BYTES, Failed
from holdfast.process.run import spawn

logger = log.get(__name__)

TIMEOUT_S = 30.0
_KEPT_IDLE = 2
_LOOK_AFTER_S = 1.0
_DYING_S = 0.1


class Workers:
    """Processes for calls that may hang. Each call ends within the deadline. Safe from any thread."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """`timeout_s` is how long a call may take in all."""
        self.timeout_s = timeout_s
        self._guard = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._given_up: list[_Worker] = []
        self._closed = False

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

    def open(self, directory: int, name: str, subpath: str) -> int:
        """Give a descriptor (O_PATH) on the directory `name`, or on what lies at `subpath` in it. Raises Failed."""
        _, fd = self._call("open_data", [name, subpath], [directory])
        assert fd is not None
        return fd

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
    ) -> tuple[object, int | None]:
        deadline = time.monotonic() + self.timeout_s
        worker = self._take()
        answered = False
        try:
            worker.ask(do, arguments, fds)
            if enough is not None:
                with contextlib.suppress(TimeoutError):
                    answer = worker.answer(time.monotonic() + min(_LOOK_AFTER_S, self.timeout_s))
                    answered = True
                    return answer
                if enough():
                    return None, None
            answer = worker.answer(deadline)
            answered = True
            return answer
        except TimeoutError as error:
            logger.warning("storage does not answer", extra={"call": do, "after_s": self.timeout_s})
            raise Failed(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), "wait") from error
        except Failed:
            answered = True
            raise
        except OSError as error:
            if self._closed:
                raise Unavailable("the engine is stopping") from error
            raise Failed(errno.EIO, f"the process for {do} ended: {error}", "wait") from error
        finally:
            self._give_back(worker, answered)

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


class _Worker:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                argv = [sys.executable, "-I", "-S", storage_worker.__file__, str(theirs.fileno())]
                self._process = spawn(argv, pass_fds=[theirs.fileno()])
        except BaseException:
            self._socket.close()
            raise

    def ask(self, do: str, arguments: Sequence[object], fds: Sequence[int]) -> None:
        """Send a call. Raises OSError."""
        message = json.dumps({"do": do, "with": list(arguments)}).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._socket.sendmsg([message], rights)

    def answer(self, deadline: float) -> tuple[object, int | None]:
        """Wait for the answer. Raises TimeoutError, Failed, OSError if the process is gone."""
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        # Not socket.recv_fds: that of Python 3.11 forgets its flags, and the descriptor would be inherited.
        message, rights, _, _ = self._socket.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for _, _, content in rights:
            fds.frombytes(content)
        if not message:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        answer = json.loads(message)
        if "errno" in answer:
            raise Failed(answer["errno"], answer["text"], answer["at"])
        return answer["value"], fds[0] if fds else None

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
            self._socket.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Close the socket; nobody may wait on it any more."""
        self._socket.close()
