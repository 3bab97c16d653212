"""A further process in a running container: conmon's exec, with its own bundle inside the container's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from holdfast import faults
from holdfast.errors import Conflict, DeadlineExceeded, System
from holdfast.kernel.path import owned_fd, remove_tree
from holdfast.runtime import attach, conmon, messages, monitor
from holdfast.runtime.layout import RunLayout
from holdfast.runtime.probe import RuntimeFacts

_REPORT_S: Final = 60.0
_CONMON_END_S: Final = 2.0
_DISPOSABLE: Final = "disposable"
LOST: Final = 137
"""The exit code of an exec whose conmon was killed: nobody can tell any more."""


class ExecTask:
    """A running exec. `socket` carries its streams as `attach` describes, or is None if nobody asked for them.

    Close it once the exit code is recorded; the program, if it still runs, goes on.
    """

    def __init__(self, pid: int, connection: socket.socket | None, launch: conmon.Launch, bundle: Path) -> None:
        self.pid = pid
        self.socket = connection
        self._launch = launch
        self._bundle = bundle
        self._exit_code: int | None = None

    def fileno(self) -> int:
        """A descriptor that is readable when `wait` would not wait, for an event loop."""
        return self._launch.fileno()

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code, 128 + N after signal N. Raises DeadlineExceeded. May be called again."""
        if self._exit_code is None:
            report = self._launch.report(timeout_s)
            self._exit_code = LOST if report is None or report[0] < 0 else report[0]
        return self._exit_code

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal. Raises Conflict if it has ended."""
        monitor.resize(self._bundle, "the exec process", rows, columns)

    def close(self) -> None:
        """Let go of streams and pipes, and remove the bundle if the program has ended. Harmless to repeat."""
        if self.socket is not None:
            self.socket.close()
        self._launch.close()
        if self._exit_code is not None:
            monitor.wait_for_end(self._bundle, _CONMON_END_S)
            _remove(self._bundle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_exec(
    chosen: RuntimeFacts, places: RunLayout, container_id: str, exec_id: str, process: Mapping[str, object], *,
    streams: conmon.Streams, with_attach: bool, disposable: bool, move_monitor: Callable[[int], None],
) -> ExecTask:
    """See `Runtime.exec_start`."""
    bundle = places.exec_bundle(container_id, exec_id)
    args = process.get("args")
    first_word = str(args[0]) if isinstance(args, list) and args else ""
    with contextlib.ExitStack() as undo:
        try:
            bundle.mkdir(mode=0o700)
        except FileNotFoundError:
            raise Conflict(f"container {container_id} is not running") from None
        undo.callback(_remove, bundle)
        process_file = bundle / "process.json"
        process_file.write_text(json.dumps(process))
        if disposable:
            (bundle / _DISPOSABLE).touch()
        command = conmon.command(
            chosen.conmon, container_id=container_id, unique_id=exec_id, name=container_id, bundle=bundle,
            exit_dir=bundle, runtime=chosen.path, runtime_root=places.runtime_root(chosen.name), log_path=None,
            streams=streams,
        )
        command += conmon.exec_arguments(process_file, attach=with_attach)
        launch = chosen.inside(lambda: conmon.Launch(command, with_attach=with_attach))
        undo.callback(monitor.wait_for_end, bundle, _CONMON_END_S)
        undo.callback(launch.abandon)
        move_monitor(launch.pid)
        launch.release()
        connection: socket.socket | None = None
        if with_attach:
            if not launch.wait_for_socket(_REPORT_S):
                raise System(f"conmon ended without a report: {launch.stderr_text() or 'no message'}")
            connection = attach.connect(bundle)
            undo.callback(connection.close)
            launch.release()
        launch.end_release()
        try:
            report = launch.report(_REPORT_S)
        except DeadlineExceeded as error:
            raise error.within(f"exec in container {container_id}") from None
        launch.reap()
        if report is None:
            raise System(f"conmon ended without a report: {launch.stderr_text() or 'no message'}")
        pid, message = report
        if pid < 0:
            raise messages.exec_failed(message or launch.stderr_text(), first_word)
        faults.point("runtime-exec-started")
        _set_oom_score(pid, process)
        undo.pop_all()
        return ExecTask(pid, connection, launch, bundle)


def end_disposable(places: RunLayout, container_id: str, kill: Callable[[int], object]) -> int:
    """See `Runtime.end_disposable_execs`; `kill` ends the process of that id and all that came from it."""
    ended = 0
    for mark in sorted(places.bundle(container_id).glob(f"exec-*/{_DISPOSABLE}")):
        bundle = mark.parent
        with contextlib.suppress(FileNotFoundError, ValueError):
            if monitor.runs(bundle):  # else the id may belong to another process by now
                kill(int((bundle / "pid").read_text()))
                ended += 1
        monitor.wait_for_end(bundle, _CONMON_END_S)
        _remove(bundle)
    return ended


def _remove(bundle: Path) -> None:
    with contextlib.suppress(FileNotFoundError), \
            owned_fd(os.open(bundle.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as parent:
        remove_tree(parent, bundle.name)


def _set_oom_score(pid: int, process: Mapping[str, object]) -> None:
    """crun sets the score of a container's first process only; an exec gets its own as soon as its id is known."""
    score = process.get("oomScoreAdj")
    if score is not None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            Path(f"/proc/{pid}/oom_score_adj").write_text(f"{score}\n")
