"""What containers use, sampled: once on demand, or every second for as long as somebody watches.

One thread samples every container that is watched, each once however many watch it, and ends with the last watcher. It
hands each sample to callbacks that must not block, so a slow reader misses samples and holds up nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from holdfast import log
from holdfast.containers.container import Container
from holdfast.containers.rooms import Rooms
from holdfast.errors import EngineError, NotFound
from holdfast.kernel import usage
from holdfast.kernel.pidfd import is_same_process
from holdfast.kernel.usage import NOT_RUNNING, Moment

logger = log.get(__name__)

INTERVAL_S = 1.0


OnSample = Callable[[Moment | None], None]
"""Takes a sample; None when the container is gone. It comes from the sampling thread and must not block."""


class Stats:
    """Samples containers. Safe from any thread."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._changed = threading.Condition()
        self._watchers: dict[Container, list[OnSample]] = {}
        self._thread: threading.Thread | None = None

    def sample(self, container: Container) -> Moment:
        """Take one sample now, in about a millisecond. Raises System."""
        task = container.state.task
        if task is None:
            return NOT_RUNNING
        record = container.record
        try:
            used = self._rooms.runtime.usage(self._rooms.cgroup_of(record))
        except NotFound:
            return NOT_RUNNING
        networks = {}
        if record.host_config.network_mode not in ("host", "none"):
            networks = usage.interfaces(task.pid, lambda: is_same_process(task.pid, task.pid_start_time))
        system_ns, processors = usage.system_cpu()
        limit = min(usage.memory_bytes(), used.memory.limit_bytes) if used.memory else 0
        return Moment(time.time_ns(), used, system_ns, processors, limit, networks)

    def watch(self, container: Container, on_sample: OnSample) -> Callable[[], None]:
        """Hand a sample to `on_sample` about every second, from the next one on; gives a function that ends it."""
        with self._changed:
            self._watchers.setdefault(container, []).append(on_sample)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stats", daemon=True)
                self._thread.start()

        def cancel() -> None:
            with self._changed:
                watching = self._watchers.get(container, [])
                if on_sample in watching:
                    watching.remove(on_sample)
                if not watching:
                    self._watchers.pop(container, None)
                self._changed.notify_all()

        return cancel

    def close(self) -> None:
        """Tell every watcher that nothing follows."""
        with self._changed:
            gone = [on_sample for watching in self._watchers.values() for on_sample in watching]
            self._watchers.clear()
            self._changed.notify_all()
        for on_sample in gone:
            on_sample(None)

    def _run(self) -> None:
        due = time.monotonic() + INTERVAL_S
        while True:
            with self._changed:
                while self._watchers and (left_s := due - time.monotonic()) > 0:
                    self._changed.wait(left_s)
                if not self._watchers:
                    self._thread = None
                    return
                watched = {container: tuple(watching) for container, watching in self._watchers.items()}
            for container, watching in watched.items():
                sample = self._sample_if_there(container)
                for on_sample in watching:
                    on_sample(sample)
            due = max(due + INTERVAL_S, time.monotonic())

    def _sample_if_there(self, container: Container) -> Moment | None:
        try:
            if self._rooms.registry.get(container.id) is not container:
                return None
            return self.sample(container)
        except NotFound:
            return None
        except (EngineError, OSError) as error:
            logger.warning("container not sampled", extra={"container": container.id, "error": error})
            return NOT_RUNNING
