"""Further processes in a running container. They are remembered only while the engine and their container live."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path

from holdfast import log
from holdfast.containers.checks import check_environment
from holdfast.containers.container import Container
from holdfast.containers.execwatch import ExecWatch
from holdfast.containers.model import Texts
from holdfast.containers.rooms import Rooms
from holdfast.containers.security import parse_security_options
from holdfast.errors import Conflict, EngineError, InvalidParameter, NotFound
from holdfast.runtime import capabilities
from holdfast.runtime.execs import LOST, ExecTask
from holdfast.runtime.messages import StartFailed
from holdfast.runtime.spec import Ulimit, capability_sets, check_cwd, process_limits
from holdfast.runtime.user import User, resolve_user

logger = log.get(__name__)

KEPT = 64
"""How many ended execs of a container can still be inspected."""
_PROFILE_OTHER = 126
_BEGIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecConfig:
    """What POST /containers/{id}/exec asks for."""

    cmd: Texts = ()
    env: Texts = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    privileged: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] | None = None


@dataclass(slots=True)
class Exec:
    """One exec. `exit_code` is None until it has ended."""

    id: str
    container: Container
    config: ExecConfig
    pid: int = 0
    running: bool = False
    started: bool = False
    attached: bool = False
    exit_code: int | None = None
    task: ExecTask | None = None
    began: threading.Event = field(default_factory=threading.Event)
    closing: threading.Lock = field(default_factory=threading.Lock)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _on_end: list[Callable[[], None]] = field(default_factory=list)

    def when_ended(self, on_end: Callable[[], None]) -> None:
        """Call `on_end` once the exit code is final, at once if it is; it must not block."""
        with self._guard:
            waits = self.exit_code is None
            if waits:
                self._on_end.append(on_end)
        if not waits:
            on_end()

    def finish(self, exit_code: int) -> list[Callable[[], None]]:
        """Note the exit code; gives the calls that wake those who wait."""
        with self._guard:
            self.running = False
            self.exit_code = exit_code
            waiting, self._on_end = self._on_end, []
        self.began.set()
        return waiting


class Execs:
    """Makes and runs execs. `lane` clears away those that nobody is attached to."""

    def __init__(self, rooms: Rooms, lane: Executor) -> None:
        self._rooms = rooms
        self._lane = lane
        self._watch = ExecWatch()
        self._by_id: dict[str, Exec] = {}

    def create(self, reference: str, config: ExecConfig) -> Exec:
        """Make an exec that waits to be started. Raises NotFound, Conflict, InvalidParameter in Docker's words."""
        container = self._rooms.registry.get(reference)
        if not config.cmd:
            raise InvalidParameter("No exec command specified")
        check_environment(config.env)
        check_cwd(config.working_dir)
        _check_running(container, reference)
        made = Exec(secrets.token_hex(32), container, config)
        ended = [key for key, other in container.execs.items() if other.exit_code is not None]
        for key in ended[:-KEPT]:
            del container.execs[key]
            self._by_id.pop(key, None)
        container.execs[made.id] = made
        self._by_id[made.id] = made
        self._rooms.tell(container, _action("exec_create", config), {"execID": made.id})
        return made

    def check_user(self, reference: str, user: str) -> None:
        """Look the user of an exec up in the container's files, so that `create` is not asked in vain. May wait.

        Raises NotFound, Conflict, InvalidParameter in Docker's words.
        """
        container = self._rooms.registry.get(reference)
        _check_running(container, reference)
        self._user(container, user)

    def get(self, exec_id: str) -> Exec:
        """Find an exec. Raises NotFound."""
        found = self._by_id.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def check_startable(self, exec_id: str, console_size: tuple[int, int] | None = None) -> Exec:
        """Find an exec that can be started and claim it; a size of its terminal counts more than the one it was made
        with. Raises NotFound, Conflict in Docker's words.
        """
        found = self.get(exec_id)
        if found.started:
            what = "is already running" if found.running else "has already run"
            raise Conflict(f"exec command {found.id} {what}")
        _check_running(found.container, found.container.name)
        found.started = True
        if console_size:
            found.config = replace(found.config, console_size=console_size)
        return found

    def start(self, found: Exec, *, attach: bool, disposable: bool = False) -> socket.socket | None:
        """Run a claimed exec; with `attach` gives the socket of its streams, which ends when the process does.

        One that is `disposable` does not outlive the engine for long: the next one ends it.

        Raises StartFailed with 126 or 127, Conflict, System.
        """
        container, config = found.container, found.config
        try:
            process = self._process(container, config)
            self._rooms.tell(container, _action("exec_start", config), {"execID": found.id})
            task = self._rooms.runtime.exec_start(
                container.id,
                found.id,
                process,
                terminal=config.tty,
                stdin=config.attach_stdin and attach,
                attach=attach,
                disposable=disposable,
            )
        except EngineError as error:
            code = error.exit_code if isinstance(error, StartFailed) else _PROFILE_OTHER
            self._end(found, code)
            raise
        found.task, found.pid, found.running, found.attached = task, task.pid, True, attach
        found.began.set()
        self._watch.watch(task, lambda: self._on_end(found, task))
        return task.socket

    def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of an exec's terminal; one that is about to begin is waited for: its client is answered first.

        Raises NotFound, Conflict if it does not run. Source: moby, daemon/resize.go, ContainerExecResize.
        """
        found = self.get(exec_id)
        if found.started:
            found.began.wait(_BEGIN_S)
        if found.task is None or not found.running:
            raise Conflict(f"exec {exec_id} is not running")
        found.task.resize(rows, columns)

    def forget(self, container: Container) -> None:
        """Forget the execs of a container that has ended."""
        for key in list(container.execs):
            self._by_id.pop(key, None)

    def drop(self, found: Exec) -> None:
        """Forget an exec that has ended; nobody can ask for it any more."""
        found.container.execs.pop(found.id, None)
        self._by_id.pop(found.id, None)

    def _on_end(self, found: Exec, task: ExecTask) -> None:
        try:
            code = task.wait()
        except (EngineError, OSError, ValueError) as error:
            logger.warning("exec lost", extra={"exec": found.id, "error": error})
            code = LOST
        self._end(found, code)
        if not found.attached:  # else whoever pumps the streams lets go when the last byte is through
            self.let_go(found)

    def shut_down(self) -> None:
        """Watch execs no more; those that run go on."""
        self._watch.close()

    def let_go(self, found: Exec) -> None:
        """Let go of an exec's streams, and of its folder once it has ended; harmless to repeat, returns at once."""
        self._lane.submit(self._let_go, found)

    def _let_go(self, found: Exec) -> None:
        with found.closing:
            if found.task is None:
                return
            found.attached = False
            if found.exit_code is not None:
                task, found.task = found.task, None
                task.close()

    def _end(self, found: Exec, exit_code: int) -> None:
        waiting = found.finish(exit_code)
        self._rooms.tell(found.container, "exec_die", {"execID": found.id, "exitCode": str(exit_code)})
        for on_end in waiting:
            on_end()

    def _process(self, container: Container, config: ExecConfig) -> dict[str, object]:
        """Give the OCI `process` object: the container's own surroundings, changed where the exec says so."""
        record = container.record
        host = record.host_config
        privileged = host.privileged or config.privileged
        user = self._user(container, config.user)
        facts = self._rooms.runtime.host_facts()
        caps = capabilities.effective(host.cap_add or (), host.cap_drop or (), privileged=privileged)
        security = parse_security_options(host.security_opt or ())
        process: dict[str, object] = {
            "terminal": config.tty,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
            "args": list(config.cmd),
            "env": exec_environment(
                record.config.env or (), config.env, record.config.hostname, user.home, tty=config.tty
            ),
            "cwd": check_cwd(config.working_dir or record.config.working_dir),
            "capabilities": capability_sets(user.uid, tuple(name for name in caps if name in facts.capabilities)),
            "noNewPrivileges": security.no_new_privileges,
        }
        limits = [Ulimit(limit.name, limit.soft, limit.hard) for limit in host.ulimits or ()]
        process |= process_limits(limits, host.oom_score_adj, facts, [])
        if config.tty and config.console_size and all(config.console_size):
            process["consoleSize"] = {"height": config.console_size[0], "width": config.console_size[1]}
        if facts.apparmor and (security.apparmor or privileged):
            process["apparmorProfile"] = "unconfined" if privileged else security.apparmor
        return process

    def _user(self, container: Container, user: str) -> User:
        record = container.record
        root = Path(f"/proc/{container.state.pid}/root")
        return resolve_user(root, user or record.config.user, record.host_config.group_add or ())


def _action(what: str, config: ExecConfig) -> str:
    """Name an event as Docker does: the program, a space, the arguments, if any."""
    return f"{what}: {config.cmd[0]} {' '.join(config.cmd[1:])}"


def exec_environment(container: Texts, own: Texts, hostname: str, home: str, *, tty: bool) -> list[str]:
    """The container's variables, the exec's over them; HOME is the user's unless one of the two says otherwise."""
    values = {"HOSTNAME": hostname} if hostname else {}
    if tty:
        values["TERM"] = "xterm"
    for entry in (*container, *own):
        key, equals, value = entry.partition("=")
        if equals:
            values[key] = value
        else:
            values.pop(key, None)
    values.setdefault("HOME", home)
    return [f"{key}={value}" for key, value in values.items()]


def _check_running(container: Container, reference: str) -> None:
    if container.state.status == "paused":
        raise Conflict(f"Container {reference} is paused, unpause the container before exec")
    if container.state.status != "running":
        if container.state.status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        raise Conflict(f"container {container.id} is not running")


