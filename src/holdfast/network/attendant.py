"""The engine's side of the attendant, who answers containers' questions and passes ports on: started, told, watched.

It is started when the first container needs it and outlives the engine; the next engine finds it by its socket. One
that dies is started again at once, and takes up its work from the files. See `holdfast.attendant.document`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from holdfast import faults, log
from holdfast.attendant import document
from holdfast.attendant.document import Document
from holdfast.errors import EngineError, System
from holdfast.process.run import spawn

logger = log.get(__name__)

_PROGRAM: Final = "holdfast.attendant.main"
_ANSWER_TIMEOUT_S: Final = 20.0
_PAUSE_S: Final = 1.0
"""Between two starts of one that keeps dying."""


class AttendantLine:
    """The line to the attendant of one engine. Safe from any thread."""

    def __init__(self, run_root: Path) -> None:
        self._directory = run_root / "attendant"
        self._guard = threading.Lock()
        """Held around each exchange and what follows."""
        self._documents: dict[str, Document] = {}
        self._later = ThreadPoolExecutor(1, thread_name_prefix="holdfast-attendant")
        self._connection: _Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def get(self, container_id: str) -> Document | None:
        """Give what is served for a container."""
        with self._guard:
            return self._documents.get(container_id)

    def serve(self, wanted: Document) -> None:
        """Have a container served as the document says, from when this returns. Raises System."""
        with self._guard:
            if self._documents.get(wanted.id) == wanted:
                return
            self._documents[wanted.id] = wanted
            try:
                self._serve(wanted)
            except System:
                self._forget(wanted.id)
                raise

    def serve_later(self, wanted: Document, served: Callable[[], None]) -> None:
        """The same soon, unless the container is dropped or another document comes before; then call `served`.

        For what a container can start without. A failure is logged.
        """

        def work() -> None:
            with self._guard:
                if self._documents.get(wanted.id) is not wanted:
                    return
                try:
                    self._serve(wanted)
                except System as error:
                    logger.warning("ports are not passed on", extra={"container": wanted.id, "error": str(error)})
                    return
            served()

        with self._guard:
            if self._documents.get(wanted.id) == wanted:
                return
            self._documents[wanted.id] = wanted
        self._later.submit(work)

    def drop(self, container_id: str) -> None:
        """Answer a container no more, nor speak of it to others. A failure is logged: it is leaving anyhow."""
        with self._guard:
            if container_id in self._documents:
                self._forget(container_id)

    def restore(self, wanted: Sequence[Document]) -> None:
        """Make the files agree with `wanted` and have them served. What fails is logged."""
        with self._guard:
            self._documents = {}
        keep = {one.id for one in wanted}
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                if path.name not in keep and path.name != document.CONTROL and not path.name.startswith("."):
                    with contextlib.suppress(OSError):
                        path.unlink()
                        if self._find():
                            self._exchange({"do": "drop", "id": path.name})
        for one in wanted:
            try:
                self.serve(one)
            except EngineError as error:
                logger.warning("no names", extra={"container": one.id, "error": str(error)})

    def servers_of(self, container_id: str) -> tuple[str, ...]:
        """Give whom a container's resolver asked when its file was last written."""
        try:
            return document.read(self._directory / container_id).servers
        except (OSError, ValueError, TypeError, KeyError):
            return ()

    def warm_up(self) -> None:
        """Start the attendant, so that nobody waits for that. A failure is logged."""
        with self._guard:
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._connected()
            except (OSError, EngineError) as error:
                logger.warning("cannot start the attendant", extra={"error": str(error)})

    def close(self) -> None:
        """Let go of the attendant, who goes on if there is anything to do."""
        self._later.shutdown(wait=True)
        with self._guard:
            has_work = bool(self._documents)
            self._closed = True
            self._disconnect()
        if not has_work:
            self.end()

    def end(self) -> None:
        """End the attendant and forget everything."""
        with self._guard:
            self._closed = True
            self._documents.clear()
            with contextlib.suppress(OSError, ValueError):
                if self._find():
                    self._exchange({"do": "end"})
            self._disconnect()
            if self._process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(5)
            self._closed = False
            with contextlib.suppress(OSError):
                for path in self._directory.iterdir():
                    path.unlink()
                self._directory.rmdir()

    # --- inside, with the guard held

    def _forget(self, container_id: str) -> None:
        del self._documents[container_id]
        try:
            (self._directory / container_id).unlink(missing_ok=True)
            if self._connection is not None:
                self._exchange({"do": "drop", "id": container_id})
        except (OSError, ValueError) as error:
            logger.warning("names and ports stay", extra={"container": container_id, "error": str(error)})

    def _serve(self, wanted: Document) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            document.write(self._directory, wanted)
            faults.point("attendant-told-by-file-only")
            answer = self._exchange({"do": "serve", "id": wanted.id})
        except (OSError, ValueError) as error:
            raise System(f"set up names and ports: {error}") from error
        if "error" in answer:
            raise System(f"set up names and ports: {answer['error']}")

    def _exchange(self, wish: Mapping[str, str]) -> dict[str, Any]:
        """Say something and give the answer; an attendant that is gone is started again. Raises OSError, ValueError."""
        for last_try in (False, True):
            connection = self._connected()
            try:
                return connection.exchange(wish)
            except (OSError, ValueError):
                self._disconnect()
                if last_try:
                    raise
        raise AssertionError("unreachable")

    def _connected(self) -> _Connection:
        if self._connection is None and not self._find():
            self._start()
        assert self._connection is not None
        return self._connection

    def _find(self) -> bool:
        """Connect to the attendant that is there; False if there is none, or one of another version, which ends."""
        if self._connection is not None:
            return True
        try:
            connection = _Connection(self._directory)
        except OSError:
            return False
        try:
            if connection.exchange({"do": "hello"}).get("version") != document.VERSION:
                connection.exchange({"do": "end"})
                connection.close()
                return False
        except (OSError, ValueError):
            connection.close()
            return False
        self._keep(connection)
        return True

    def _start(self) -> None:
        """Start the program and connect; it answers once it serves what the files say. Raises OSError, System."""
        with _within(self._directory) as control:
            Path(control).unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
                listener.bind(control)
                listener.listen()
                fd = listener.fileno()
                with open(self._directory / ".log", "ab") as stderr:
                    argv = [sys.executable, "-I", "-m", _PROGRAM, str(self._directory), str(fd)]
                    self._process = spawn(argv, pass_fds=[fd], stderr=stderr)
        logger.info("attendant started", extra={"pid": self._process.pid})
        self._keep(_Connection(self._directory))

    def _keep(self, connection: _Connection) -> None:
        self._connection = connection
        threading.Thread(
            target=self._watch, args=(_Connection(self._directory),), name="holdfast-attendant-watch", daemon=True
        ).start()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- the watch

    def _watch(self, line: _Connection) -> None:
        """Wait for the attendant's end, and start another unless the engine ends, too."""
        line.wait_for_end()
        line.close()
        with self._guard:
            if self._process is not None and self._process.poll() is not None:
                self._process = None
            if self._closed:
                return
            self._disconnect()
            if not self._documents:
                return
        logger.warning("the attendant ended; starting another")
        time.sleep(_PAUSE_S)
        self._revive()

    def _revive(self) -> None:
        with self._guard:
            if self._closed:
                return
            try:
                self._connected()
            except (OSError, EngineError) as error:
                logger.error("cannot start the attendant", extra={"error": str(error)})


class _Connection:
    """One connection to the control socket. Raises OSError where nobody listens."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_ANSWER_TIMEOUT_S)
            with _within(directory) as control:
                self._socket.connect(control)
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def exchange(self, wish: Mapping[str, str]) -> dict[str, Any]:
        """Send one line and read one. Raises OSError; ValueError for what is no answer, as at the end."""
        self._socket.sendall(json.dumps(wish).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    def wait_for_end(self) -> None:
        """Block until the other side is gone or this one is closed."""
        self._socket.settimeout(None)
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                continue

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._socket.close()


@contextlib.contextmanager
def _within(directory: Path) -> Iterator[str]:
    """Give a path of the control socket that is short enough for sockaddr_un, however long that of its directory is."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{document.CONTROL}"
    finally:
        os.close(fd)
