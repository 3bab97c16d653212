"""Containers from create to delete, on a real runtime under a real conmon."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from holdfast.errors import Conflict
from holdfast.kernel import cgroup, mount, mountinfo
from holdfast.runtime.exits import ExitInfo, ExitWatcher
from holdfast.runtime.messages import StartFailed
from holdfast.runtime.runtime import Runtime, Task
from holdfast.runtime.spec import OciMount, Resources, Ulimit
from tests.integration.runtime.conftest import Box

pytestmark = pytest.mark.kernel


def test_probe_is_remembered(box: Box) -> None:
    facts = box.runtime.probe()
    started = time.monotonic()
    assert Runtime(box.config).probe() == facts
    assert time.monotonic() - started < 1
    assert facts.version[0].isdigit()


def test_exit_code_and_output(box: Box) -> None:
    assert box.run("c0", "true") == (0, "")
    assert box.run("c7", "sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\nerr\n")


@pytest.mark.parametrize(
    ("command", "exit_code", "words"),
    [
        ("nosuchcmd", 127, 'exec: "nosuchcmd": executable file not found in $PATH'),
        ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/etc", 126, 'exec: "/etc": permission denied'),
        ("/etc/plain", 126, 'exec: "/etc/plain": permission denied'),
    ],
)
def test_a_command_that_cannot_run(box: Box, command: str, exit_code: int, words: str) -> None:
    (box.rootfs / "etc/plain").write_text("no program")
    (box.rootfs / "etc/plain").chmod(0o644)
    with pytest.raises(StartFailed) as failed:
        box.create("bad", command)
    assert failed.value.exit_code == exit_code
    assert str(failed.value).startswith(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    )
    assert words in str(failed.value)
    assert "bad" not in box.runtime.known()
    with pytest.raises(StartFailed, match=r"permission denied|not found|no such file"):
        box.create("bad", command, terminal=True)


def test_nothing_runs_before_start(box: Box) -> None:
    box.create("early", "touch", "/tmp/ran")
    time.sleep(0.1)
    assert not (box.rootfs / "tmp/ran").exists()
    box.runtime.start("early")
    assert box.ended("early").exit_code == 0
    assert (box.rootfs / "tmp/ran").exists()
    with pytest.raises(Conflict):
        box.runtime.start("early")
    box.remove("early")


def test_created_but_never_started(box: Box) -> None:
    task = box.create("idle", "true")
    box.watcher.forget("idle")
    box.runtime.delete("idle")
    assert not box.runtime.is_alive(task)
    box.runtime.delete("idle")
    box.remove("idle")


def test_signals(box: Box) -> None:
    task = box.start("sig", "sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done")
    box.wait_for("sig", "ready")
    box.runtime.signal(task, "sig", signal.SIGTERM)
    assert box.ended("sig").exit_code == 42
    with pytest.raises(Conflict, match="container sig is not running"):
        box.runtime.signal(task, "sig", signal.SIGTERM)
    box.remove("sig")
    task = box.start("sig", "sleep", "60")
    with pytest.raises(Conflict):
        box.runtime.signal(Task(task.pid, task.pid_start_time - 1, 1, 1), "sig", signal.SIGKILL)
    box.runtime.signal(task, "sig", signal.SIGKILL)
    info = box.ended("sig")
    assert (info.exit_code, info.oom_killed) == (137, False)
    box.remove("sig")


def test_delete_kills_what_runs(box: Box) -> None:
    task = box.start("live", "sh", "-c", "sleep 60 & sleep 60")
    assert task.pid in box.runtime.processes("live")
    box.remove("live")
    assert box.runtime.processes("live") == []
    assert not box.runtime.is_alive(task)


def test_pause_resume_and_delete_while_paused(box: Box) -> None:
    task = box.start("frozen", "sh", "-c", "while :; do echo x; sleep 0.01; done")
    box.wait_for("frozen", "x")
    box.runtime.pause("frozen")
    time.sleep(0.1)
    before = len(box.output("frozen"))
    time.sleep(0.2)
    assert len(box.output("frozen")) == before
    box.runtime.resume("frozen")
    deadline = time.monotonic() + 10
    while len(box.output("frozen")) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    box.runtime.pause("frozen")
    box.remove("frozen")
    assert not box.runtime.is_alive(task)


def test_seccomp_capabilities_and_limits(box: Box) -> None:
    code, output = box.run("caps", "cat", "/proc/self/status", cap_drop=("MKNOD",))
    status = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert code == 0
    assert status["Seccomp"].strip() == "2"
    assert status["CapInh"].strip("0") == status["CapAmb"].strip("0") == ""
    held = int(status["CapEff"], 16)
    assert held == int(status["CapBnd"], 16)
    assert not held >> 27 & 1                                  # CAP_MKNOD
    assert held & 1                                            # CAP_CHOWN
    again = box.run("caps", "cat", "/proc/self/status")[1]
    assert "Seccomp:\t2\n" in again
    assert "Seccomp:\t0\n" in box.run("caps", "cat", "/proc/self/status", seccomp="unconfined")[1]
    limited = box.run("caps", "sh", "-c", "ulimit -n; ulimit -Hn", ulimits=(Ulimit("nofile", 100, 200),))
    assert limited == (0, "100\n200\n")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EOPNOTSUPP}
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    for _ in range(2):                                         # the second time by the compiled filter
        code, output = box.run("caps", "mkdir", "/tmp/x", seccomp=profile)
        assert (code, "not supported" in output) == (1, True)


def test_privileged_gets_what_the_engine_has(box: Box) -> None:
    code, output = box.run("priv", "cat", "/proc/self/status", privileged=True)
    assert code == 0
    assert "Seccomp:\t0\n" in output
    code, output = box.run("priv", "ls", "/dev", privileged=True)
    assert "loop-control" in output.split() or not Path("/dev/loop-control").exists()


def test_memory_limit_and_oom(box: Box) -> None:
    if "memory" not in box.runtime.host_facts().controllers:
        pytest.skip("this machine does not limit memory")
    limits = Resources(memory_bytes=16 << 20, memory_swap_bytes=16 << 20, pids_limit=20)
    box.start("oom", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=4; exit 9", resources=limits)
    box.ended("oom")
    box.remove("oom")
    box.start("oom", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=4", resources=limits)
    info = box.ended("oom")
    assert (info.exit_code, info.oom_killed) == (137, True)
    box.remove("oom")


UPDATED = Resources(memory_bytes=64 << 20, memory_swap_bytes=96 << 20, memory_reservation_bytes=32 << 20,
                    nano_cpus=500_000_000, cpu_shares=512, cpuset_cpus="0", pids_limit=17)  # fmt: skip
# What the control files of either kind say then, and when nothing is limited.
FILES = {
    "memory.limit_in_bytes": (str(64 << 20), "9223372036854771712"),
    "memory.memsw.limit_in_bytes": (str(96 << 20), "9223372036854771712"),
    "memory.soft_limit_in_bytes": (str(32 << 20), "9223372036854771712"),
    "memory.max": (str(64 << 20), "max"),
    "memory.swap.max": (str(32 << 20), "max"),
    "memory.low": (str(32 << 20), "0"),
    "cpu.cfs_quota_us": ("50000", "-1"),
    "cpu.max": ("50000 100000", "max 100000"),
    "cpu.shares": ("512", "1024"),
    "pids.max": ("17", "max"),
}


def test_update_limits_and_back(box: Box) -> None:
    box.start("upd", "sleep", "60")
    places = cgroup.paths(cgroup.layout(), box.runtime.cgroup_path("upd"))
    files = {name: place / name for place in places for name in FILES if (place / name).exists()}
    assert files, "no limit can be set on this machine"
    box.runtime.update("upd", Resources(), UPDATED)
    assert {name: path.read_text().strip() for name, path in files.items()} == {name: FILES[name][0] for name in files}
    smaller = dataclasses.replace(UPDATED, memory_bytes=16 << 20, memory_swap_bytes=16 << 20)
    box.runtime.update("upd", UPDATED, smaller)
    box.runtime.update("upd", smaller, UPDATED)
    box.runtime.update("upd", UPDATED, Resources())
    assert {name: path.read_text().strip() for name, path in files.items()} == {name: FILES[name][1] for name in files}
    box.remove("upd")


def test_conmon_killed_container_lives(box: Box) -> None:
    task = box.start("orphan", "sh", "-c", "trap 'exit 5' TERM; touch /tmp/up; while :; do sleep 0.01; done")
    while not (box.rootfs / "tmp/up").exists():
        time.sleep(0.01)
    os.kill(task.conmon_pid, signal.SIGKILL)
    time.sleep(0.2)
    assert box.exits["orphan"].empty()
    assert box.runtime.is_alive(task)
    box.runtime.signal(task, "orphan", signal.SIGTERM)
    assert box.ended("orphan").exit_code in (5, 137)           # 137 before Linux 6.15
    box.remove("orphan")
    (box.rootfs / "tmp/up").unlink()


def test_second_engine_takes_over(box: Box) -> None:
    running = box.start("takeover", "sh", "-c", "read line; echo got $line; exit 11", open_stdin=True)
    gone = box.start("gone", "sh", "-c", "exit 3")
    box.ended("gone")
    box.watcher.forget("takeover")

    second = Runtime(box.config)
    seen: dict[str, ExitInfo] = {}
    news = threading.Event()

    def on_exit(container_id: str, info: ExitInfo) -> None:
        seen[container_id] = info
        news.set()

    second.probe()
    watcher = ExitWatcher(box.config.run_root, on_exit)
    try:
        assert {"takeover", "gone"} <= set(second.known())
        assert watcher.recover("takeover", running) == "running"
        recovered = watcher.recover("gone", gone)
        assert isinstance(recovered, ExitInfo)
        assert recovered.exit_code == 3
        stranger = Task(os.getpid(), 1, os.getpid(), 1)
        assert watcher.recover("unknown", stranger) is None
        watcher.watch("takeover", running)
        with second.open_attach("takeover") as connection:
            connection.send(b"hello\n")
            assert news.wait(10)
        assert seen["takeover"].exit_code == 11
        assert box.output("takeover") == "got hello\n"
        news.clear()
        watcher.watch("gone", gone)                            # ended before it was watched
        assert news.wait(10)
        assert seen["gone"].exit_code == 3
    finally:
        watcher.stop()
    for container_id in ("takeover", "gone"):
        second.delete(container_id)
        box.remove(container_id)


def test_after_a_reboot_bundles_are_stale(box: Box) -> None:
    task = box.start("old", "sleep", "60")
    boot_file = box.config.run_root / "boot_id"
    real = boot_file.read_text()
    boot_file.write_text("another boot")
    try:
        assert box.watcher.recover("old", task) is None
    finally:
        boot_file.write_text(real)
    assert box.watcher.recover("old", task) == "running"
    box.remove("old")


def test_ten_at_once(box: Box) -> None:
    results: dict[str, tuple[int, str]] = {}

    def one(container_id: str) -> None:
        results[container_id] = box.run(container_id, "sh", "-c", f"echo {container_id}")

    threads = [threading.Thread(target=one, args=(f"par{number}",)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {f"par{number}": (0, f"par{number}\n") for number in range(10)}


def test_create_again_over_leftovers(box: Box) -> None:
    box.create("again", "true")
    first = box.runtime.processes("again")
    assert box.run("again", "sh", "-c", "exit 4")[0] == 4      # as after a crash between create and its record
    assert first
    assert box.runtime.known() == []


def test_missing_working_directory_is_made(box: Box) -> None:
    assert box.run("wd", "sh", "-c", "pwd", cwd="/made/here") == (0, "/made/here\n")


def test_no_descriptor_or_mount_of_ours_is_inside(box: Box) -> None:
    code, output = box.run("fds", "ls", "-l", "/proc/self/fd")
    assert code == 0
    assert [line for line in output.splitlines() if "->" in line and " 3 -> " not in line] == [
        line for line in output.splitlines() if any(f" {number} -> " in line for number in (0, 1, 2))
    ]
    assert mountinfo.mounts_below(box.rootfs) == ()


@pytest.mark.parametrize("propagation", ["rshared", "rslave", "rprivate"])
def test_mounts_travel_as_asked(box: Box, propagation: str) -> None:
    """Between host and container, also where the runtime works in a mount namespace of its own."""
    source = box.config.run_root / f"source-{propagation}"
    staged = box.config.run_root / f"staged-{propagation}"
    for directory in (source, staged, box.rootfs / "data"):
        directory.mkdir(exist_ok=True)
    mount.mount_tmpfs(source)
    mount.make_shared(source)
    (source / "inner").mkdir()
    (source / "outer").mkdir()
    mount.mount(source, staged, None, mount.MS_BIND)
    show = "while read source target rest; do echo $target; done < /proc/self/mounts"
    script = f"mount -t tmpfs inside /data/inner && echo mounted; read x; {show}"
    box.create(
        "prop", "sh", "-c", script, open_stdin=True, privileged=True,
        mounts=(OciMount("/data", str(staged), "bind", ("rbind", propagation)),),
        rootfs_propagation={"rshared": "shared", "rslave": "rslave"}.get(propagation, ""),
    )
    with box.runtime.open_attach("prop") as connection:
        mount.umount2(staged)                                  # as the engine does once the container exists
        box.runtime.start("prop")
        box.wait_for("prop", "mounted")
        assert (mountinfo.mount_at(source / "inner") is not None) == (propagation == "rshared")
        mount.mount_tmpfs(source / "outer")
        connection.send(b"go\n")
        assert box.ended("prop").exit_code == 0
    assert ("/data/outer\n" in box.output("prop")) == (propagation != "rprivate")
    box.remove("prop")
    for entry in reversed(mountinfo.mounts_below(source)):
        mount.umount2(entry.mount_point)
