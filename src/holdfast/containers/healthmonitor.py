"""Making health checks: one schedule for all containers, probes in a few threads, nothing that waits for a probe.

    start, unpause, takeover → begin ─▶ wait ─▶ exec (lane) ─▶ its end, or its deadline and a kill ─▶ result ─▶ wait …
    pause, exit              → end: what is under way is killed, its result is not counted

A probe is an exec, with an exec's events. While it runs nobody waits for it: its end comes from the watcher of all
execs, its deadline from the schedule. What is known of a container's health is in `Container.health`, and in a file of
its bundle, from which the next engine takes it over. Both live no longer than the processes do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from holdfast import log
from holdfast.containers import health
from holdfast.containers.alarm import Alarm
from holdfast.containers.container import Container
from holdfast.containers.exec import Exec, ExecConfig, Execs
from holdfast.containers.health import Check
from holdfast.containers.model import Health, ProbeResult, now
from holdfast.containers.probeoutput import OutputReader, ProbeOutput
from holdfast.containers.rooms import Rooms
from holdfast.errors import EngineError

logger = log.get(__name__)

_THREADS: Final = 16
_FILE: Final = "health.json"
_DEATH_S: Final = 5.0
"""How long a killed probe may take to vanish before its result is given without it."""
_TAKEOVER_S: Final = 2.0
"""Within this time a container that was taken over is looked at again."""


@dataclasses.dataclass(slots=True)
class _Probe:
    """One probe that runs."""

    exec: Exec
    output: ProbeOutput
    started_at: datetime
    deadline: int = -1
    expired: bool = False
    settled: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class _Watch:
    """A container that is looked at, from one start or unpause to the next end or pause."""

    container: Container
    check: Check
    probe: _Probe | None = None
    planned: int = -1


class HealthMonitor:
    """Keeps `Container.health` up to date. All calls return soon, unless they say otherwise."""

    def __init__(self, rooms: Rooms, execs: Execs) -> None:
        self._rooms = rooms
        self._execs = execs
        self._lane = ThreadPoolExecutor(_THREADS, thread_name_prefix="health")
        self._alarm = Alarm()
        self._reader = OutputReader()
        self._guard = threading.Lock()
        self._watches: dict[str, _Watch] = {}

    def begin(self, container: Container) -> None:
        """Look at a container from now on, if it is to be looked at; its health is what it was."""
        check = health.settle(container.record.config)
        if check is not None:
            watch = self._open(container, check)
            self._plan(watch)

    def recall(self, container: Container) -> None:
        """Know again what was known of a container that ran, or ended, while no engine did."""
        if container.health is not None:
            container.health = self._read(container) or container.health

    def take_over(self, container: Container) -> None:
        """Go on with a container that ran while no engine did. Waits for the death of a probe that was under way."""
        self.recall(container)
        check = health.settle(container.record.config)
        if check is not None and container.state.status == "running":
            self._rooms.runtime.end_disposable_execs(container.id)
            watch = self._open(container, check)
            watch.planned = self._after(random.uniform(0, min(_TAKEOVER_S, check.interval_s)), self._probe, watch)

    def end(self, container: Container, *, kill: bool) -> None:
        """Look at a container no more; it counts as unhealthy, as in Docker. With `kill` waits for a probe's death."""
        with self._guard:
            watch = self._watches.pop(container.id, None)
            container.health = health.at_end(container.health)
        if watch is not None:
            self._alarm.give_up(watch.planned)
            if kill:
                self._write(container)
                if watch.probe is not None:
                    self._kill(watch.probe)

    def close(self) -> None:
        """Make no more checks; probes that run are killed, containers go on."""
        self._alarm.close()
        with self._guard:
            watches = list(self._watches.values())
            self._watches.clear()
        self._lane.shutdown(wait=True, cancel_futures=True)
        for watch in watches:
            if watch.probe is not None:
                self._kill(watch.probe)
        self._reader.close()

    # --- the round ------------------------------------------------------------------------------------------------

    def _open(self, container: Container, check: Check) -> _Watch:
        watch = _Watch(container, check)
        with self._guard:
            self._watches[container.id] = watch
        return watch

    def _is_current(self, watch: _Watch) -> bool:
        return self._watches.get(watch.container.id) is watch

    def _plan(self, watch: _Watch) -> None:
        state = watch.container.state
        ran_s = (now() - state.started_at).total_seconds() if state.started_at else 0.0
        delay_s = health.next_delay_s(watch.check, watch.container.health or Health(), ran_s)
        watch.planned = self._after(delay_s, self._probe, watch)

    def _after(self, delay_s: float, work: Callable[..., None], *arguments: object) -> int:
        return self._alarm.after(delay_s, lambda: self._submit(work, *arguments))

    def _submit(self, work: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the engine ends
            self._lane.submit(work, *arguments)

    def _probe(self, watch: _Watch) -> None:
        if not self._is_current(watch):
            return
        started_at, container = now(), watch.container
        if watch.probe is not None and watch.probe.exec.exit_code is None:
            self._settle(watch, started_at, health.NO_EXIT_CODE, "the probe before has not ended")
            return
        config = ExecConfig(cmd=watch.check.argv, attach_stdout=True, attach_stderr=True)
        made: Exec | None = None
        try:
            made = self._execs.create(container.id, config)
            self._execs.check_startable(made.id)
            connection = self._execs.start(made, attach=True, disposable=True)
        except EngineError as error:
            if made is not None:
                self._execs.drop(made)
            self._settle(watch, started_at, health.NO_EXIT_CODE, str(error))
            return
        assert connection is not None, "it was asked for"
        probe = _Probe(made, self._reader.add(connection), started_at)
        with self._guard:
            watch.probe = probe
            wanted = self._is_current(watch)
        if wanted:
            probe.deadline = self._after(watch.check.timeout_s, self._expire, watch, probe)
        else:
            self._kill(probe)
        probe.exec.when_ended(lambda: self._submit(self._ended, watch, probe))

    def _ended(self, watch: _Watch, probe: _Probe) -> None:
        if not probe.expired:
            self._alarm.give_up(probe.deadline)
        text = self._reader.finish(probe.output)
        self._execs.let_go(probe.exec)
        self._execs.drop(probe.exec)
        self._report(watch, probe, text)

    def _expire(self, watch: _Watch, probe: _Probe) -> None:
        if probe.exec.exit_code is not None or probe.settled:
            return
        probe.expired = True
        self._kill(probe)
        self._after(_DEATH_S, self._give_up, watch, probe)

    def _give_up(self, watch: _Watch, probe: _Probe) -> None:
        if probe.exec.exit_code is None:
            self._report(watch, probe, probe.output.text())

    def _report(self, watch: _Watch, probe: _Probe, text: str) -> None:
        with self._guard:
            if probe.settled:
                return
            probe.settled = True
        if probe.expired:
            self._settle(watch, probe.started_at, health.NO_EXIT_CODE, health.expired(watch.check, text))
        else:
            code = probe.exec.exit_code
            self._settle(watch, probe.started_at, health.NO_EXIT_CODE if code is None else code, text)

    def _settle(self, watch: _Watch, started_at: datetime, exit_code: int, output: str) -> None:
        container = watch.container
        result = ProbeResult(start=started_at, end=now(), exit_code=exit_code, output=output)
        with self._guard:
            if not self._is_current(watch):
                return
            before = container.health or Health()
            container.health = health.after(watch.check, before, result, container.state.started_at)
            changed = container.health.status != before.status
        self._write(container)
        if changed:
            self._rooms.tell(container, f"health_status: {container.health.status}")
        self._plan(watch)

    def _kill(self, probe: _Probe) -> None:
        if probe.exec.exit_code is not None:
            return
        try:
            if not self._rooms.runtime.kill_exec(probe.exec.container.id, probe.exec.pid):
                logger.warning("a probe does not die", extra={"container": probe.exec.container.id})
        except (EngineError, OSError) as error:
            logger.warning("probe not killed", extra={"container": probe.exec.container.id, "error": error})

    # --- what the next engine finds -------------------------------------------------------------------------------

    def _place(self, container: Container) -> Path:
        return self._rooms.config.run_root / "containers" / container.id / _FILE

    def _write(self, container: Container) -> None:
        """Write a container's health into its bundle; one that has just ended has none any more."""
        place = self._place(container)
        fresh = place.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(container.health))
            os.rename(fresh, place)
        except OSError as error:
            logger.debug("health not written", extra={"container": container.id, "error": error})

    def _read(self, container: Container) -> Health | None:
        try:
            return msgspec.json.decode(self._place(container).read_bytes(), type=Health)
        except (OSError, msgspec.MsgspecError):
            return None
