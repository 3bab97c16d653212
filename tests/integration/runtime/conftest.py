"""A runtime with a run root of its own, and a root file system of one busybox."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import Config
from holdfast.kernel import cgroup, mount, mountinfo, namespaces
from holdfast.runtime.exits import ExitInfo, ExitWatcher
from holdfast.runtime.logs import read_entries
from holdfast.runtime.runtime import Runtime, Task, TaskRequest
from holdfast.runtime.spec import SpecInput, build_spec

APPLETS = (
    "sh", "cat", "dd", "echo", "head", "ls", "mkdir", "mount", "printf", "sleep", "stty", "touch", "tr", "true", "tty",
    "yes",
)


@dataclass
class Box:
    """What the tests work with."""

    config: Config
    runtime: Runtime
    watcher: ExitWatcher
    rootfs: Path
    folder: Path
    exits: dict[str, queue.Queue[ExitInfo]] = field(default_factory=dict)

    def log_path(self, container_id: str) -> Path:
        """Where a container's log is."""
        return self.folder / f"{container_id}.log"

    def request(self, container_id: str, *args: str, terminal: bool = False, open_stdin: bool = False,
                stdin_once: bool = False, **more: Any) -> TaskRequest:
        """A request for busybox with these arguments; `more` goes to SpecInput."""
        given = SpecInput(id=container_id, rootfs=self.rootfs, args=args, hostname=container_id, terminal=terminal,
                          cgroups_path=self.runtime.cgroup_path(container_id), **more)
        spec, _ = build_spec(given, self.runtime.host_facts(privileged=given.privileged))
        return TaskRequest(container_id, f"name-{container_id}", spec, self.log_path(container_id), terminal,
                           open_stdin, stdin_once)

    def create(self, container_id: str, *args: str, **more: Any) -> Task:
        """Create a container and watch it."""
        task = self.runtime.create(self.request(container_id, *args, **more))
        self.exits[container_id] = queue.Queue()
        self.watcher.watch(container_id, task)
        return task

    def start(self, container_id: str, *args: str, **more: Any) -> Task:
        """Create and start."""
        task = self.create(container_id, *args, **more)
        self.runtime.start(container_id)
        return task

    def ended(self, container_id: str, timeout_s: float = 20) -> ExitInfo:
        """Wait for the watcher's word."""
        return self.exits[container_id].get(timeout=timeout_s)

    def run(self, container_id: str, *args: str, **more: Any) -> tuple[int, str]:
        """Run to the end, remove, and give exit code and all output."""
        self.start(container_id, *args, **more)
        info = self.ended(container_id)
        output = self.output(container_id)
        self.remove(container_id)
        return info.exit_code, output

    def output(self, container_id: str) -> str:
        """What the log holds."""
        return b"".join(entry.data for entry in read_entries(self.log_path(container_id))).decode()

    def wait_for(self, container_id: str, text: str, timeout_s: float = 20) -> None:
        """Wait until the log holds `text`."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output(container_id):
            assert time.monotonic() < deadline, self.output(container_id)
            time.sleep(0.01)

    def remove(self, container_id: str) -> None:
        """Forget and delete, log included."""
        self.watcher.forget(container_id)
        self.runtime.delete(container_id)
        self.log_path(container_id).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with the runtime that the probe chooses."""
    with open_box(tmp_path_factory.mktemp("box"), "auto") as made:
        yield made


@pytest.fixture
def runc_box(tmp_path: Path, tool: Callable[[str], Path]) -> Iterator[Box]:
    """A box with runc."""
    tool("runc")
    with open_box(tmp_path, "runc") as made:
        yield made


@contextlib.contextmanager
def open_box(folder: Path, runtime_name: str) -> Iterator[Box]:
    """Make a box; afterwards nothing of it may be left: no mount, no control group, no process."""
    run_root, rootfs = folder / "run", folder / "rootfs"
    for directory in (run_root, rootfs, rootfs / "bin", rootfs / "tmp", rootfs / "etc"):
        directory.mkdir()
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for applet in APPLETS:
        (rootfs / "bin" / applet).symlink_to("busybox")
    mount.mount_tmpfs(run_root)
    mount.make_shared(run_root)
    config = Config(run_root=run_root, state_root=folder / "state", runtime=runtime_name,
                    cgroup_parent=f"/holdfast-test-{os.getpid()}")
    runtime = Runtime(config)
    made: Box

    def on_exit(container_id: str, info: ExitInfo) -> None:
        made.exits[container_id].put(info)

    try:
        runtime.probe()
        watcher = ExitWatcher(run_root, on_exit)
        made = Box(config, runtime, watcher, rootfs, folder)
        yield made
        watcher.stop()
        assert runtime.known() == []
        layout = cgroup.layout()
        left = [child.name for place in cgroup.paths(layout, config.cgroup_parent) for child in place.iterdir()
                if child.is_dir()]
        assert left == []
        assert processes_mentioning(str(run_root)) == []
        namespaces.unpin(run_root / "runtime-mounts/mnt")
        assert [entry.mount_point for entry in mountinfo.mounts_below(run_root)
                if Path(entry.mount_point) not in (run_root, run_root / "runtime-mounts")] == []
    finally:
        for container_id in runtime.known():
            runtime.delete(container_id)
        cgroup.remove(cgroup.layout(), config.cgroup_parent, kill_leftovers=True)
        for entry in reversed(mountinfo.mounts_below(run_root)):
            mount.umount2(entry.mount_point)


def processes_mentioning(text: str) -> list[str]:
    """Command lines of processes in which `text` occurs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes()
        except OSError:
            continue
        if text.encode() in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found
