"""Containers as processes, through conmon and an OCI runtime.

Creating leaves a container whose first process waits in front of its program; starting lets it go on. The engine can
die at any point: conmon keeps the streams, the log and the exit code, and everything here works from files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast import faults, log
from holdfast.config import Config
from holdfast.errors import Conflict, DeadlineExceeded, EngineError, NotFound, System
from holdfast.kernel import cgroup, family, identity, namespaces, pidfd
from holdfast.kernel.path import owned_fd, remove_tree
from holdfast.kernel.usage import Usage
from holdfast.kernel.usage import usage as read_usage
from holdfast.process import ProgramFailed, run
from holdfast.runtime import attach, conmon, facts, messages, monitor, probe
from holdfast.runtime.devices import host_devices
from holdfast.runtime.execs import ExecTask, end_disposable, start_exec
from holdfast.runtime.filters import FilterCache, read_filter
from holdfast.runtime.host import HostFacts
from holdfast.runtime.layout import RunLayout
from holdfast.runtime.limits import Resources, changed_resources, lifted
from holdfast.runtime.probe import RuntimeFacts
from holdfast.runtime.task import Task

__all__ = ["Runtime", "Task", "TaskRequest"]

logger = log.get(__name__)

CREATE_TIMEOUT_S: Final = 120.0
_CALL_TIMEOUT_S: Final = 60.0
_CONMON_END_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What `create` needs; `spec` comes from `build_spec`. `log_path`'s directory exists; None keeps no log."""

    id: str
    name: str
    spec: Mapping[str, object]
    log_path: Path | None
    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    timeout_s: float = CREATE_TIMEOUT_S
    """How long the runtime may take, which binds what the container mounts."""
    log_size_bytes: int | None = None
    """The size at which conmon begins a new log by itself."""


class Runtime:
    """All containers of one engine, by id. Calls block; those about different containers may run at once.

    The caller holds the container's lock. Nothing is remembered between calls but what the probe found.
    """

    def __init__(self, config: Config) -> None:
        """Only takes notes; the machine is first looked at by `probe`."""
        self._config = config
        self._places = RunLayout(config.run_root)
        self._guard = threading.Lock()
        self._facts: RuntimeFacts | None = None
        self._host: HostFacts | None = None
        self._layout: cgroup.CgroupLayout | None = None
        self._tracking: cgroup.CgroupLayout | None = None
        self._filters: FilterCache | None = None

    # --- the machine --------------------------------------------------------------------------------------

    def probe(self) -> RuntimeFacts:
        """Choose the runtime (once) and clear away what an earlier boot left in the run root.

        State root and run root are shared mounts by now. Takes some 50 ms the first time in a boot.
        Raises Unavailable if no runtime works, System if the machine has no control groups.
        """
        with self._guard:
            if self._facts is None:
                try:
                    self._prepare()
                except OSError as error:
                    raise System(f"runtime: {error}") from error
            assert self._facts is not None, "set above"
            return self._facts

    @property
    def facts(self) -> RuntimeFacts:
        """The runtime that was chosen; probes if nobody has."""
        return self.probe()

    def host_facts(self, *, privileged: bool = False) -> HostFacts:
        """What `build_spec` has to know; with the host's devices for a privileged container."""
        self.probe()
        assert self._host is not None, "the probe sets it"
        if privileged:
            return dataclasses.replace(self._host, devices=host_devices())
        return self._host

    def cgroup_path(self, container_id: str) -> str:
        """The control group of a container, for its spec."""
        return f"{self._config.cgroup_parent}/{container_id}"

    def leave(self) -> None:
        """Let go of what `probe` pinned in the kernel; only where no container runs. Raises OSError."""
        namespaces.unpin_mount_namespace(self._places.namespace)

    def _prepare(self) -> None:
        layout = cgroup.layout()
        controllers = cgroup.prepare(layout, self._config.cgroup_parent)
        self._layout = layout
        self._tracking = dataclasses.replace(
            layout, hierarchies=tuple(entry for entry in layout.hierarchies if not entry.controllers)
        )
        self._host = facts.gather(layout, controllers, self._config.cgroup_parent)
        self._places.run_root.mkdir(parents=True, exist_ok=True)
        self._forget_earlier_boot()
        for directory in (self._places.containers, self._places.exits):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._facts = probe.probe(self._config, layout, self._host)
        self._places.runtime_root(self._facts.name).mkdir(mode=0o700, exist_ok=True)
        if self._facts.compiled_seccomp:
            self._filters = self._facts.filter_cache(self._places)

    def _forget_earlier_boot(self) -> None:
        """A run root that outlives a reboot holds bundles of processes that are gone; exit codes stay true."""
        boot_file = self._places.run_root / "boot_id"
        boot_id = identity.boot_id()
        try:
            if boot_file.read_text() == boot_id:
                return
        except FileNotFoundError:
            pass
        with owned_fd(os.open(self._places.run_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            for name in ("containers", "seccomp", *probe.CANDIDATES):
                with contextlib.suppress(FileNotFoundError):
                    remove_tree(root, name)
        boot_file.write_text(boot_id)

    # --- life of a container ------------------------------------------------------------------------------

    def create(self, request: TaskRequest) -> Task:
        """Create a container up to the point where its program is about to run.

        Raises StartFailed, in Docker's words and with the exit code to record, if the runtime refuses; then
        nothing of it is left. Raises DeadlineExceeded after `timeout_s`, System for anything else.
        """
        chosen = self.probe()
        try:
            return self._create(chosen, request)
        except OSError as error:
            raise System(f"create container {request.id}: {error}") from error

    def _create(self, chosen: RuntimeFacts, request: TaskRequest) -> Task:
        bundle = self._places.bundle(request.id)
        with contextlib.ExitStack() as undo:
            undo.callback(self._discard, request.id)
            spec, filter_key = (request.spec, "") if self._filters is None else self._filters.apply(request.spec)
            self._make_bundle(bundle, request.id, spec)
            faults.point("runtime-bundle-written")
            command = conmon.command(
                chosen.conmon, container_id=request.id, unique_id=request.id, name=request.name, bundle=bundle,
                exit_dir=self._places.exits, runtime=chosen.path,
                runtime_root=self._places.runtime_root(chosen.name), log_path=request.log_path,
                log_size_bytes=request.log_size_bytes,
                # A terminal outlives whoever detaches from it.
                streams=conmon.Streams(request.terminal, request.open_stdin,
                                       request.open_stdin and (request.terminal or not request.stdin_once)),
            )
            launch = chosen.inside(lambda: conmon.Launch(command))
            undo.callback(launch.abandon)
            self._move_monitor(request.id, launch.pid)
            launch.release()
            launch.end_release()
            try:
                report = launch.report(request.timeout_s)
            except DeadlineExceeded as error:
                raise error.within(f"create container {request.id}") from None
            launch.reap()
            if report is None:
                raise System(f"conmon ended without a report: {launch.stderr_text() or 'no message'}")
            pid, message = report
            if pid <= 0:
                raise messages.create_failed(chosen.name, message or launch.stderr_text(), _first_word(request.spec))
            faults.point("runtime-created")
            task = self._task(bundle, pid)
            if self._filters is not None and filter_key:
                self._filters.learn(filter_key, read_filter(self._places.runtime_root(chosen.name) / request.id))
            launch.close()
            undo.pop_all()
        return task

    def start(self, container_id: str) -> None:
        """Let a created container's program run. Raises Conflict if it was started before or is gone already."""
        chosen = self.probe()
        state = self._places.runtime_root(chosen.name) / container_id
        try:
            if chosen.release == "fifo":
                probe.release_by_fifo(state)
            else:
                self._call("start", container_id)
        except (OSError, ProgramFailed) as error:
            raise Conflict(f"container {container_id} cannot be started: it is not waiting to run") from error
        faults.point("runtime-started")

    def signal(self, task: Task, container_id: str, number: int) -> None:
        """Send a signal to the container's first process, and to no other that has its id by now.

        Raises Conflict if it has ended.
        """
        try:
            with owned_fd(pidfd.pidfd_open(task.pid)) as process:
                if pidfd.is_same_process(task.pid, task.pid_start_time):
                    pidfd.pidfd_send_signal(process, number)
                    return
        except ProcessLookupError:
            pass
        raise Conflict(f"container {container_id} is not running")

    def pause(self, container_id: str) -> None:
        """Freeze all processes. Raises System with the runtime's reason."""
        self._call("pause", container_id)

    def resume(self, container_id: str) -> None:
        """Let frozen processes go on. Raises System with the runtime's reason."""
        self._call("resume", container_id)

    def update(self, container_id: str, before: Resources, after: Resources) -> None:
        """Change the limits of a running container, where the two differ. Raises NotFound, System with the reason.

        A failure may leave some of them changed.
        """
        changed = changed_resources(before, after, self.host_facts())
        assert self._layout is not None, "the probe sets it"
        try:
            for name, text in lifted(changed, self.host_facts()):
                cgroup.write(self._layout, self._cgroup_of(container_id), name, text)
            if changed:
                file = self._places.bundle(container_id) / "resources.json"
                file.write_text(json.dumps(changed))
                self._call("update", "--resources", str(file), container_id)
        except FileNotFoundError:
            raise NotFound(f"container {container_id} is not running") from None
        except OSError as error:
            raise System(f"update container {container_id}: {error}") from error

    def delete(self, container_id: str) -> None:
        """Remove every trace of a container but its log: processes, control groups, state, bundle, exit code.

        What still runs is killed first. Harmless to repeat. Waits for conmon, which would otherwise
        write into a bundle that is gone. Raises System if the control groups cannot be emptied.
        """
        chosen = self.probe()
        assert self._layout is not None, "the probe sets them"
        assert self._tracking is not None, "the probe sets them"
        bundle = self._places.bundle(container_id)
        group = self._cgroup_of(container_id)
        if cgroup.pids(self._layout, group):
            self._thaw(container_id, cgroup.paths(self._layout, group))
            cgroup.kill(self._layout, group)
        if not monitor.wait_for_end(bundle, _CONMON_END_S):
            logger.warning("conmon did not end", extra={"container": container_id})
        try:
            cgroup.remove(self._layout, group, kill_leftovers=True)
            cgroup.remove(self._tracking, self._monitor_cgroup(container_id), kill_leftovers=True)
        except OSError as error:
            logger.warning("control group not removed", extra={"container": container_id, "error": error})
            self._run(["delete", "-f", container_id], check=False)
        faults.point("runtime-cgroups-removed")
        try:
            _remove(self._places.runtime_root(chosen.name), container_id)
            _remove(self._places.containers, container_id)
            self._places.exit_file(container_id).unlink(missing_ok=True)
        except OSError as error:
            raise System(f"container {container_id}: {error}") from error

    def processes(self, container_id: str) -> list[int]:
        """Ids of all processes of the container, as the host sees them; empty if it does not run."""
        self.probe()
        assert self._layout is not None, "the probe sets it"
        return list(cgroup.pids(self._layout, self._cgroup_of(container_id)))

    def usage(self, group: str) -> Usage:
        """What the processes in a control group have used. Raises NotFound if it is gone, System."""
        self.probe()
        assert self._layout is not None, "the probe sets it"
        try:
            return read_usage(self._layout, group)
        except FileNotFoundError:
            raise NotFound(f"control group {group} is gone") from None
        except OSError as error:
            if error.errno == errno.ENODEV:  # it went while it was read
                raise NotFound(f"control group {group} is gone") from None
            raise System(f"control group {group}: {error}") from error

    # --- streams ------------------------------------------------------------------------------------------

    def open_attach(self, container_id: str) -> socket.socket:
        """Connect to a container's streams: see `attach`. Raises Conflict if they are closed."""
        return attach.connect(self._places.bundle(container_id))

    def let_attach(self, task: Task) -> None:
        """Wait until several connections of `open_attach` get all that follows; a single one does at once."""
        monitor.wait_until_idle(task.conmon_pid)

    def resize(self, container_id: str, rows: int, columns: int) -> None:
        """Set the size of the container's terminal. Raises Conflict if it does not run."""
        monitor.resize(self._places.bundle(container_id), f"container {container_id}", rows, columns)

    def reopen_log(self, container_id: str) -> None:
        """Have conmon open its log file anew, after a rename. Raises Conflict if the container does not run."""
        monitor.reopen_log(self._places.bundle(container_id), f"container {container_id}")

    # --- exec ---------------------------------------------------------------------------------------------

    def exec_start(
        self, container_id: str, exec_id: str, process: Mapping[str, object], *, terminal: bool = False,
        stdin: bool = False, attach: bool = True, disposable: bool = False,
    ) -> ExecTask:
        """Run a further process, an OCI `process` object, in a running container.

        With `attach` the result has the socket of its streams, connected before the program ran, so no output is
        missed. One that is `disposable` is of no use without the engine that started it: see `end_disposable_execs`.
        Raises StartFailed with 126 or 127, DeadlineExceeded, System, or Conflict if the container is gone.
        """
        chosen = self.probe()
        return start_exec(
            chosen, self._places, container_id, exec_id, process,
            streams=conmon.Streams(terminal, stdin), with_attach=attach, disposable=disposable,
            move_monitor=lambda pid: self._join_monitor(container_id, pid),
        )

    def kill_exec(self, container_id: str, pid: int) -> bool:
        """Kill an exec's process and all that came from it; False if some would not go within a few seconds."""
        self.probe()
        layout = self._layout
        assert layout is not None, "the probe sets it"
        group = self._cgroup_of(container_id)
        return family.kill(pid, lambda: cgroup.pids(layout, group))

    # --- after the engine was away ------------------------------------------------------------------------

    def is_alive(self, task: Task) -> bool:
        """Whether the container's first process is still that process and has not ended."""
        return pidfd.is_same_process(task.pid, task.pid_start_time)

    def end_disposable_execs(self, container_id: str) -> int:
        """End those of a container's execs that only served an engine that is gone. Returns how many still ran."""
        return end_disposable(self._places, container_id, lambda pid: self.kill_exec(container_id, pid))

    def known(self) -> list[str]:
        """Ids of all bundles in the run root, of which the catalogue may know nothing."""
        self.probe()
        return sorted(entry.name for entry in os.scandir(self._places.containers) if entry.is_dir())

    # --- inside -------------------------------------------------------------------------------------------

    def _discard(self, container_id: str) -> None:
        """Remove what a failed create left; its own failure must not hide the reason of the first."""
        try:
            self.delete(container_id)
        except EngineError as error:
            logger.warning("leftovers of a failed create", extra={"container": container_id, "error": error})

    def _make_bundle(self, bundle: Path, container_id: str, spec: Mapping[str, object]) -> None:
        if bundle.exists() or self._places.exit_file(container_id).exists():
            self.delete(container_id)
        bundle.mkdir(mode=0o700)
        (bundle / "config.json").write_text(json.dumps(spec))

    def _task(self, bundle: Path, pid: int) -> Task:
        conmon_pid = int((bundle / "conmon.pid").read_text())
        started = pidfd.process_start_time(pid)
        monitor_started = pidfd.process_start_time(conmon_pid)
        if started is None or monitor_started is None:
            raise System(f"container {bundle.name}: it was killed while it was being created")
        return Task(pid, started, conmon_pid, monitor_started)

    def _monitor_cgroup(self, container_id: str) -> str:
        return f"{self._config.cgroup_parent}/conmon-{container_id}"

    def _move_monitor(self, container_id: str, pid: int) -> None:
        """Give conmon a control group of its own, so that stopping the engine's systemd unit leaves it alone."""
        assert self._tracking is not None, "the probe sets it"
        if not self._tracking.hierarchies and self._tracking.unified is None:
            return
        try:
            cgroup.join(self._tracking, self._monitor_cgroup(container_id), pid)
        except OSError as error:
            raise System(f"container {container_id}: {error}") from error

    def _join_monitor(self, container_id: str, pid: int) -> None:
        """Put an exec's conmon beside its container's; where that control group is gone, the container is.

        Making it anew would leave it behind, for nobody removes it a second time. Raises Conflict, System.
        """
        assert self._tracking is not None, "the probe sets it"
        if not self._tracking.hierarchies and self._tracking.unified is None:
            return
        try:
            cgroup.join(self._tracking, self._monitor_cgroup(container_id), pid, make=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                raise Conflict(f"container {container_id} is not running") from None
            raise System(f"container {container_id}: {error}") from error

    def _cgroup_of(self, container_id: str) -> str:
        """The control group that the bundle names, else the usual one."""
        try:
            spec = json.loads((self._places.bundle(container_id) / "config.json").read_bytes())
            return str(spec["linux"]["cgroupsPath"])
        except (FileNotFoundError, ValueError, KeyError):
            return self.cgroup_path(container_id)

    def _thaw(self, container_id: str, places: Sequence[Path]) -> None:
        """A frozen process does not die on cgroup v1 until it is let go; v2 kills it all the same."""
        for place in places:
            try:
                if (place / "freezer.state").read_text().strip() != "THAWED":
                    self._call("resume", container_id)
            except FileNotFoundError:
                continue
            except (EngineError, OSError) as error:
                logger.warning("not thawed", extra={"container": container_id, "error": error})

    def _run(self, words: Sequence[str], *, check: bool = True) -> None:
        chosen = self.probe()
        argv = [str(chosen.path), "--root", str(self._places.runtime_root(chosen.name)), *words]
        chosen.inside(lambda: run(argv, timeout_s=_CALL_TIMEOUT_S, check=check))

    def _call(self, *words: str) -> None:
        try:
            self._run(words)
        except ProgramFailed as error:
            raise System(f"{words[0]} container {words[-1]}: {messages.plain_text(error.stderr)}") from error


def _first_word(spec: Mapping[str, object]) -> str:
    process = spec.get("process")
    args = process.get("args") if isinstance(process, dict) else None
    return str(args[0]) if args else ""


def _remove(directory: Path, name: str) -> None:
    """Remove a tree of ours; conmon may still be taking its socket away."""
    try:
        with owned_fd(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as parent:
            remove_tree(parent, name)
    except FileNotFoundError:
        return
