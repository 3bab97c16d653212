"""conmon: its command line and the pipes on which it reports.

    engine                          conmon                        runtime
    one byte on STARTPIPE  ──────▶  forks away, opens sockets ──▶ create (or exec)
                           ◀──────  SYNCPIPE: {"data": PID} or {"data": -1, "message": ...}
    for exec with streams: ATTACHPIPE says that the socket listens, a second byte lets the process go,
    and SYNCPIPE carries a second line, the exit code.

The process that is spawned forks the lasting one and ends; that one's id is in `conmon.pid`. It is put into a cgroup
before the first byte, so everything it starts is born there. Source: conmon(8); conmon 2.1, `conn_sock.c`, `cli.c`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast import log
from holdfast.errors import DeadlineExceeded
from holdfast.process import CLEAN_ENVIRONMENT, spawn

logger = log.get(__name__)

PROGRAMS: Final = (Path("/usr/bin/conmon"), Path("/usr/local/bin/conmon"), Path("/usr/libexec/podman/conmon"))

_LINE_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Streams:
    """Which streams the process gets."""

    terminal: bool = False
    stdin: bool = False
    leave_stdin_open: bool = False


def command(
    conmon: Path, *, container_id: str, unique_id: str, name: str, bundle: Path, exit_dir: Path, runtime: Path,
    runtime_root: Path, log_path: Path | None, streams: Streams, log_size_bytes: int | None = None,
) -> list[str]:
    """The arguments that create and exec have in common. Pure.

    At `log_size_bytes` conmon begins a new log file in the place of the old one.
    """
    words: list[str | Path] = [
        conmon, "--api-version", "1", "-c", container_id, "-u", unique_id, "-n", name, "-r", runtime, "-b", bundle,
        "-p", bundle / "pid", "-P", bundle / "conmon.pid", "--exit-dir", exit_dir, "--persist-dir", bundle,
        "--full-attach", "-l", f"k8s-file:{log_path}" if log_path else "none", "--log-level", "warning",
        "--no-sync-log", "--runtime-arg", "--root", "--runtime-arg", runtime_root,
    ]
    if log_path and log_size_bytes:
        words += ["--log-size-max", str(log_size_bytes)]
    if streams.terminal:
        words.append("-t")
    if streams.stdin:
        words.append("-i")
    if streams.leave_stdin_open:
        words.append("--leave-stdin-open")
    return [os.fspath(word) for word in words]


def exec_arguments(process_file: Path, *, attach: bool) -> list[str]:
    """What is added to the command line for an exec. Pure."""
    return ["-e", "--exec-process-spec", os.fspath(process_file), *(["--exec-attach"] if attach else [])]


class Launch:
    """One conmon that has been spawned and waits on its start pipe. Close it when its reports have been read."""

    def __init__(self, words: Sequence[str], *, with_attach: bool = False) -> None:
        """Spawn it. Raises ProgramFailed if the program cannot be started."""
        with contextlib.ExitStack() as undo:
            sync_read, sync_write = _pipe(undo)
            start_read, start_write = _pipe(undo)
            error_read, error_write = _pipe(undo)
            passed = {"_OCI_SYNCPIPE": sync_write, "_OCI_STARTPIPE": start_read}
            attach_read = -1
            if with_attach:
                attach_read, passed["_OCI_ATTACHPIPE"] = _pipe(undo)
            self._process = spawn(
                words,
                env={"PATH": CLEAN_ENVIRONMENT["PATH"], "TZ": "UTC", **{key: str(fd) for key, fd in passed.items()}},
                pass_fds=tuple(passed.values()),
                stderr=error_write,
            )
            undo.pop_all()
        for fd in (*passed.values(), error_write):
            os.close(fd)
        self._sync, self._start, self._errors, self._attach = sync_read, start_write, error_read, attach_read
        self._rest = b""

    @property
    def pid(self) -> int:
        """The process that was spawned, which until the first release is the only one."""
        return self._process.pid

    def release(self) -> None:
        """Let it go on: the first time to fork and create, the second time to run an attached exec.

        A conmon that has died meanwhile is not noticed here but by the missing report.
        """
        with contextlib.suppress(BrokenPipeError):
            os.write(self._start, b"\0")

    def end_release(self) -> None:
        """Close the start pipe: no further release follows."""
        self._start = _close(self._start)

    def wait_for_socket(self, timeout_s: float) -> bool:
        """Wait until the attach socket of an exec listens; False if conmon died instead."""
        if not _readable(self._attach, time.monotonic() + timeout_s):
            raise DeadlineExceeded(f"conmon: attach socket not ready within {timeout_s:g} s")
        return bool(os.read(self._attach, 4096))

    def report(self, timeout_s: float | None) -> tuple[int, str] | None:
        """The next line on the sync pipe: (number, message), or None if conmon ended without one.

        Raises DeadlineExceeded.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            if not _readable(self._sync, deadline):
                raise DeadlineExceeded(f"conmon: no report within {timeout_s:g} s")
            piece = os.read(self._sync, 65536)
            if not piece or len(self._rest) > _LINE_LIMIT_BYTES:
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        document = json.loads(line)
        number = document["data"] if "data" in document else document["exit_code"]
        return int(number), str(document.get("message", ""))

    def stderr_text(self) -> str:
        """What conmon itself complained about so far; never waits."""
        os.set_blocking(self._errors, False)
        try:
            return os.read(self._errors, 65536).decode(errors="replace").strip()
        except BlockingIOError:
            return ""

    def reap(self, timeout_s: float = 10.0) -> None:
        """Collect the spawned process, which ends once it has written `conmon.pid`."""
        self._process.wait(timeout_s)

    def abandon(self) -> None:
        """Kill it, if the spawned process is still there, and let go of everything."""
        if self._process.poll() is None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
        self.close()

    def fileno(self) -> int:
        """The sync pipe, readable when a report or the end has come."""
        return self._sync

    def close(self) -> None:
        """Close the pipes. Harmless to repeat."""
        self._sync, self._start = _close(self._sync), _close(self._start)
        self._errors, self._attach = _close(self._errors), _close(self._attach)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    undo.callback(os.close, reader)
    undo.callback(os.close, writer)
    return reader, writer


def _close(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


def _readable(fd: int, deadline: float | None) -> bool:
    """Whether `fd` has data or its end before `deadline`, in time.monotonic() seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    timeout_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
    return bool(poll.poll(timeout_ms))
