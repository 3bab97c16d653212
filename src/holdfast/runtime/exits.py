"""Notice that containers end: one thread, one epoll, whatever their number.

conmon reports the end of a container by renaming a file into the exits directory, which an inotify watch sees. If
conmon itself is killed that file never comes, so its pidfd is watched as well; then the container's own pidfd takes
over, from which a recent kernel tells the exit code once somebody has reaped the process. A file of conmon's in the
container's bundle says that the kernel has killed something for want of memory, which need not be the end.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from holdfast import log
from holdfast.kernel import identity, pidfd
from holdfast.kernel.inotify import IN_CREATE, IN_MOVED_TO, IN_ONLYDIR, IN_Q_OVERFLOW, Inotify
from holdfast.runtime.layout import RunLayout
from holdfast.runtime.task import Task

logger = log.get(__name__)

KILLED: Final = 137
"""128 + SIGKILL, for an end of which nothing else is known."""

_OOM: Final = "oom"
_REAP_RETRY_S: Final = 0.02
_REAP_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """How a container ended. `exit_code` is 128 + N after signal N; `finished_at` is aware UTC."""

    exit_code: int
    oom_killed: bool
    finished_at: dt.datetime


@dataclass(slots=True)
class _Watched:
    """A container that is waited for, with descriptors of its two processes (-1: gone before we looked)."""

    id: str
    task: Task
    conmon_fd: int = -1
    process_fd: int = -1
    bundle_watch: int = -1              # inotify's number for the bundle
    give_up_at: float = 0.0             # time.monotonic(); set once the process is dead but not yet reaped

    def close(self) -> None:
        for fd in (self.conmon_fd, self.process_fd):
            if fd >= 0:
                os.close(fd)
        self.conmon_fd = self.process_fd = -1


class ExitWatcher:
    """Calls `on_exit(container_id, info)` once for each watched container that ends, `on_oom` once if memory ran out.

    The calls come in the watcher's own thread, one at a time: it must hand long work to somebody else. An exit file
    stays where it is until `Runtime.delete`, so an end that the engine slept through is found by `watch` or `recover`.
    """

    def __init__(
        self, run_root: Path, on_exit: Callable[[str, ExitInfo], None],
        on_oom: Callable[[str], None] = lambda _id: None,
    ) -> None:
        """Start the thread. Raises OSError, EMFILE when the user has too many inotify instances."""
        self._places = RunLayout(run_root)
        self._on_exit = on_exit
        self._on_oom = on_oom
        self._guard = threading.Lock()
        self._watched: dict[str, _Watched] = {}
        self._by_fd: dict[int, str] = {}
        self._by_bundle: dict[int, str] = {}
        self._reaping: set[str] = set()
        self._to_check: list[str] = []
        self._stopping = False
        self._places.exits.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._inotify = Inotify()
        self._inotify.add_watch(self._places.exits, IN_MOVED_TO)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        for fd in (self._inotify.fd, self._wake):
            self._epoll.register(fd, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="holdfast-exits", daemon=True)
        self._thread.start()

    def watch(self, container_id: str, task: Task) -> None:
        """Wait for this container's end, which may be past already. Watching anew replaces the earlier task."""
        entry = _Watched(container_id, task, _open(task.conmon_pid, task.conmon_start_time),
                         _open(task.pid, task.pid_start_time))
        with self._guard:
            self._drop(container_id)
            self._watched[container_id] = entry
            if entry.conmon_fd >= 0:
                self._register(entry.conmon_fd, container_id)
            with contextlib.suppress(OSError):  # gone again already, or too many watches: the end tells it too
                entry.bundle_watch = self._inotify.add_watch(
                    self._places.bundle(container_id), IN_CREATE | IN_ONLYDIR
                )
                self._by_bundle[entry.bundle_watch] = container_id
            self._to_check.append(container_id)
        os.eventfd_write(self._wake, 1)

    def forget(self, container_id: str) -> None:
        """No longer wait; after this returns no new call comes for the container. Harmless to repeat."""
        with self._guard:
            self._drop(container_id)

    def recover(self, container_id: str, task: Task) -> Literal["running"] | ExitInfo | None:
        """What became of a container while no engine ran.

        `running` (then `watch` it), how it ended, or None if it is gone without a trace: after a reboot, say. Process
        ids that belong to others by now are told by their start times.
        """
        found = read_exit(self._places, container_id)
        if found is not None:
            return found
        if not _same_boot(self._places):
            return None
        alive = (pidfd.is_same_process(task.conmon_pid, task.conmon_start_time)
                 or pidfd.is_same_process(task.pid, task.pid_start_time))
        # conmon may have written its file and ended between the two looks
        return "running" if alive else read_exit(self._places, container_id)

    def stop(self) -> None:
        """End the thread and close everything; containers go on. Not from within `on_exit`."""
        with self._guard:
            self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        with self._guard:
            for container_id in list(self._watched):
                self._drop(container_id)
        self._epoll.close()
        self._inotify.close()
        os.close(self._wake)

    # --- the watcher's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            ready = self._epoll.poll(_REAP_RETRY_S if self._reaping else None)
            with self._guard:
                if self._stopping:
                    return
                asked, self._to_check = self._to_check, []
                ended = [self._by_fd[fd] for fd, _ in ready if fd in self._by_fd]
            names = list(asked)
            for fd, _ in ready:
                if fd == self._inotify.fd:
                    names += self._news()
                elif fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
            for container_id in dict.fromkeys([*names, *ended, *self._reaping]):
                self._look(container_id)

    def _news(self) -> list[str]:
        """Names of exit files that have come; every watched container if the kernel dropped some."""
        events = self._inotify.read_events()
        with self._guard:
            starved = [self._by_bundle[event.wd] for event in events
                       if event.name == _OOM and event.wd in self._by_bundle]  # fmt: skip
            lost = any(event.mask & IN_Q_OVERFLOW for event in events)
            names = list(self._watched) if lost else [event.name for event in events if event.mask & IN_MOVED_TO]
        for container_id in starved:
            self._on_oom(container_id)
        return names

    def _look(self, container_id: str) -> None:
        """Has this container ended? If so, say so, once."""
        with self._guard:
            entry = self._watched.get(container_id)
            if entry is None:
                self._reaping.discard(container_id)
                return
            info = read_exit(self._places, container_id) or self._without_conmon(entry)
            if info is None:
                return
            self._drop(container_id)
        self._on_exit(container_id, info)

    def _without_conmon(self, entry: _Watched) -> ExitInfo | None:
        """The end of a container whose conmon is gone and has left no exit file; None while there is none."""
        if entry.conmon_fd >= 0:
            if not _has_ended(entry.conmon_fd):
                return None
            self._unregister(entry.conmon_fd)
            os.close(entry.conmon_fd)
            entry.conmon_fd = -1
            late = read_exit(self._places, entry.id)
            if late is not None:
                return late
            if entry.process_fd >= 0 and not _has_ended(entry.process_fd):
                logger.warning("conmon was killed, its container runs on", extra={"container": entry.id})
        if entry.process_fd < 0:
            return ExitInfo(KILLED, _oom(self._places, entry.id), _now())
        if not _has_ended(entry.process_fd):
            self._register(entry.process_fd, entry.id)
            return None
        code = pidfd.exit_code_of(entry.process_fd)
        if code is None:
            if not entry.give_up_at:
                self._unregister(entry.process_fd)
                self._reaping.add(entry.id)
                entry.give_up_at = time.monotonic() + _REAP_LIMIT_S
            if time.monotonic() < entry.give_up_at:
                return None
        return ExitInfo(KILLED if code is None else code, _oom(self._places, entry.id), _now())

    # --- with the guard held ------------------------------------------------------------------------------

    def _register(self, fd: int, container_id: str) -> None:
        if fd not in self._by_fd:
            self._by_fd[fd] = container_id
            self._epoll.register(fd, select.EPOLLIN)

    def _unregister(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _drop(self, container_id: str) -> None:
        self._reaping.discard(container_id)
        entry = self._watched.pop(container_id, None)
        if entry is not None:
            for fd in (entry.conmon_fd, entry.process_fd):
                self._unregister(fd)
            if entry.bundle_watch >= 0:
                self._by_bundle.pop(entry.bundle_watch, None)
                self._inotify.rm_watch(entry.bundle_watch)
            entry.close()


def read_exit(places: RunLayout, container_id: str) -> ExitInfo | None:
    """What conmon has written about the end of a container, or None if it has not."""
    file = places.exit_file(container_id)
    try:
        text, written = file.read_text(), file.stat().st_mtime
    except FileNotFoundError:
        return None
    code = int(text) if text.strip().isdigit() else KILLED
    return ExitInfo(code, _oom(places, container_id), dt.datetime.fromtimestamp(written, dt.UTC))


def _oom(places: RunLayout, container_id: str) -> bool:
    return (places.bundle(container_id) / _OOM).exists()


def _same_boot(places: RunLayout) -> bool:
    try:
        return (places.run_root / "boot_id").read_text() == identity.boot_id()
    except FileNotFoundError:
        return False


def _open(pid: int, start_time: int) -> int:
    """A pidfd of exactly this process, or -1 if it is gone."""
    try:
        fd = pidfd.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if pidfd.process_start_time(pid) == start_time:
        return fd
    os.close(fd)
    return -1


def _has_ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
