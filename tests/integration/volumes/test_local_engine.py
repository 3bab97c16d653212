"""Volumes with `type`, `o` and `device` through the whole engine: the guide's lines, restarts, storage that hangs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast.kernel import loop
from tests.support.engine import Engine, engine_below
from tests.support.fuse_server import FuseServer, fuse_server

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

TIMEOUT_S = 3
QUICK_S = float(os.environ.get("HOLDFAST_QUICK_S", "0.5"))
"""What fifty calls at once may take, each. On a quiet machine 0.2 holds."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all; a test that restarts it leaves it running."""
    environment = {"HOLDFAST_MOUNT_TIMEOUT_S": str(TIMEOUT_S)}
    with engine_below(tmp_path_factory.mktemp("engine"), environment=environment) as engine:
        yield engine


@pytest.fixture
def hung(engine: Engine, tmp_path: Path) -> Iterator[FuseServer]:
    """A file system at `tmp_path`/fuse in the engine's namespaces."""
    (tmp_path / "fuse").mkdir()
    with fuse_server(tmp_path / "fuse", engine.enter()) as server:
        yield server


def volume(engine: Engine, name: str, **options: str) -> str:
    """Create a volume; returns its mountpoint."""
    created = engine.call("POST", "/volumes/create", {"Name": name, "DriverOpts": options})
    assert created["Options"] == options
    return str(created["Mountpoint"])


def create(engine: Engine, name: str, *binds: str, **host: Any) -> str:
    """Create a container that sleeps; returns its id."""
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": "none", "Binds": list(binds), **host},
    }
    return str(engine.call("POST", f"/containers/create?name={name}", body)["Id"])


def mounts_at(engine: Engine, place: str) -> list[str]:
    """Types of what is mounted on a place, as the engine sees it."""
    assert engine.process is not None
    lines = Path(f"/proc/{engine.process.pid}/mountinfo").read_text().splitlines()
    return [line.partition(" - ")[2].split()[0] for line in lines if line.split()[4] == place]


def wait_until(what: Callable[[], bool], within_s: float = 20) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def state_of(engine: Engine, name: str) -> dict[str, Any]:
    """The container's State."""
    state: dict[str, Any] = engine.call("GET", f"/containers/{name}/json")["State"]
    return state


def asking(engine: Engine) -> list[str]:
    """Threads of the engine itself that wait for the file system's answer: there must never be one."""
    assert engine.process is not None
    found = []
    for task in Path(f"/proc/{engine.process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "wchan").read_text().startswith(("request_wait", "fuse")):
                found.append((task / "syscall").read_text())
    return found


def test_the_block_device_of_the_guide(engine: Engine, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=60)
    with loop.attach(image) as device:
        flag = "type=volume,dst=/external-drive,volume-driver=local,volume-opt=type=ext4"
        flag += f",volume-opt=device={device.path}"
        shown = engine.docker(
            "run", "--rm", "--network", "none", "--mount", flag, "busybox", "sh", "-c",
            "mount | grep external-drive; ls /external-drive; echo kept > /external-drive/file",
        ).stdout  # fmt: skip
        assert shown == f"{device.path} on /external-drive type ext4 (rw,relatime)\nlost+found\n"
        assert engine.call("GET", "/volumes")["Volumes"] == []
        volume(engine, "disk", type="ext4", device=str(device.path))
        for line in ("cat /e/file", "ls /e/file"):
            assert engine.docker("run", "--rm", "--network", "none", "-v", "disk:/e", "busybox", *line.split()).stdout
        engine.docker("run", "-d", "--network", "none", "--name", "user", "-v", "disk:/e", "busybox", "sleep", "600")
        engine.docker("volume", "rm", "disk", check=False)
        engine.docker("rm", "-f", "user")
        engine.docker("volume", "rm", "disk")
    wait_until(lambda: loop.devices_of(image) == (), 5)


def test_errors_of_starts(engine: Engine) -> None:
    mountpoint = volume(engine, "bad", type="none", device="/nonexistent", o="bind")
    create(engine, "bad", "bad:/x")
    answer = engine.request("POST", "/containers/bad/start")
    message = (
        f"error while mounting volume '{mountpoint}': failed to mount local volume: "
        f"mount /nonexistent:{mountpoint}, flags: 0x1000: no such file or directory"
    )
    assert (answer.status, answer.json()["message"]) == (500, message)
    state = state_of(engine, "bad")
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 128, message)
    filled = engine.request("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["bad:/etc"]}})
    assert (filled.status, filled.json()["message"]) == (500, f"failed to populate volume: {message}")
    engine.call("DELETE", "/containers/bad")
    engine.call("DELETE", "/volumes/bad")


def test_secrets_are_shown_by_inspect_alone(engine: Engine) -> None:
    secret = "s3cret-of-a-test"
    o = f"addr=127.0.0.1,username=u,password={secret},vers=3.0"
    volume(engine, "share", type="cifs", device="//127.0.0.1/x", o=o)
    create(engine, "share", "share:/x")
    message = engine.request("POST", "/containers/share/start").json()["message"]
    assert message.endswith("data: addr=127.0.0.1,username=u,password=********,vers=3.0: no such device")
    checked = engine.holdfast("volume", "check", "share", check=False)
    assert checked.returncode == 1
    assert "FAIL  route" in checked.stdout
    state = state_of(engine, "share")
    events = engine.request("GET", f"/events?since=0&until={int(time.time()) + 1}").body.decode()
    assert secret not in checked.stdout + checked.stderr + str(state) + events + engine.log_tail(100_000)
    assert engine.call("GET", "/volumes/share")["Options"]["o"] == o
    record = engine.state_root / "volumes/share/volume.json"
    assert record.stat().st_mode & 0o777 == 0o600
    engine.call("DELETE", "/containers/share")
    engine.call("DELETE", "/volumes/share")


def test_mounts_outlive_the_engine(engine: Engine) -> None:
    mountpoint = volume(engine, "tv", type="tmpfs", device="tmpfs", o="size=1m")
    create(engine, "first", "tv:/x")
    engine.call("POST", "/containers/first/start")
    engine.docker("exec", "first", "sh", "-c", "echo kept > /x/file")
    engine.kill()
    engine.start()
    assert mounts_at(engine, mountpoint) == ["tmpfs"]
    shown = engine.docker("run", "--rm", "--network", "none", "-v", "tv:/y", "busybox", "cat", "/y/file").stdout
    assert shown == "kept\n"
    assert mounts_at(engine, mountpoint) == ["tmpfs"], "once, and still there"
    assert engine.request("DELETE", "/volumes/tv").status == 409
    engine.call("DELETE", "/containers/first?force=1")
    assert mounts_at(engine, mountpoint) == []
    engine.call("DELETE", "/volumes/tv")


def test_what_nobody_uses_is_unmounted_after_a_start(engine: Engine) -> None:
    mountpoint = volume(engine, "left", type="tmpfs", device="tmpfs")
    engine.kill()
    engine.inside("mount", "-t", "tmpfs", "tmpfs", mountpoint)
    engine.start()
    wait_until(lambda: mounts_at(engine, mountpoint) == [], 5)
    engine.call("DELETE", "/volumes/left")


def test_nothing_is_deleted_through_a_mount_that_stayed(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    mountpoint = volume(engine, "plain")
    engine.inside("mount", "--bind", str(tmp_path), mountpoint)
    answer = engine.request("DELETE", "/volumes/plain")
    assert answer.status == 500
    assert answer.json()["message"].endswith(f"unlinkat {mountpoint}: device or resource busy")
    assert engine.call("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D")["VolumesDeleted"] == []
    engine.inside("umount", mountpoint)
    engine.call("DELETE", "/volumes/plain")
    assert os.listdir(tmp_path) == ["precious"]


def test_an_undo_brings_back_the_options(engine: Engine) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    volume(engine, "tv", **options)
    engine.call("DELETE", "/volumes/tv")
    engine.call("POST", "/holdfast/undo")
    assert engine.call("GET", "/volumes/tv")["Options"] == options
    shown = engine.docker("run", "--rm", "--network", "none", "-v", "tv:/x", "busybox", "df", "-k", "/x").stdout
    assert "1024" in shown
    engine.call("DELETE", "/volumes/tv")


def test_storage_that_hangs_holds_up_nobody_else(engine: Engine, hung: FuseServer, tmp_path: Path) -> None:
    volume(engine, "hung", type="none", device=str(tmp_path / "fuse"), o="bind")
    for number in range(20):
        volume(engine, f"other-{number}")
    for number in range(5):
        create(engine, f"waits-{number}", "hung:/x")
        create(engine, f"plain-{number}", f"other-{number}:/x")
    hung.hang()
    began = time.monotonic()

    def timed(method: str, path: str) -> tuple[int, float]:
        at = time.monotonic()
        status = engine.request(method, path).status
        return status, time.monotonic() - at

    with ThreadPoolExecutor(60) as clients:
        waiting = [clients.submit(timed, "POST", f"/containers/waits-{number}/start") for number in range(5)]
        time.sleep(0.3)
        healthy = [("GET", "/volumes"), ("GET", "/volumes/hung"), ("GET", "/system/df"), ("GET", "/_ping")] * 7
        healthy += [("GET", "/containers/json?all=1")] * 7
        healthy += [("DELETE", f"/volumes/other-{number}") for number in range(5, 20)]
        assert len(healthy) == 50
        answers = [clients.submit(timed, *call) for call in healthy]
        slow = [(call, answer.result()) for call, answer in zip(healthy, answers, strict=True)]
        assert all(status < 300 and took < QUICK_S for _, (status, took) in slow), slow
        started = [timed("POST", f"/containers/plain-{number}/start") for number in range(5)]
        assert all(status == 204 and took < QUICK_S for status, took in started), started
        assert time.monotonic() - began < TIMEOUT_S, "all that while the others wait"
        assert asking(engine) == []
        failed = [call.result() for call in waiting]
    assert all(status == 500 and took < TIMEOUT_S + 2 for status, took in failed), failed
    assert state_of(engine, "waits-0")["Error"].endswith("connection timed out")

    hung.come_back()
    engine.call("POST", "/containers/waits-0/start")
    assert engine.docker("exec", "waits-0", "cat", "/x/hello").stdout == "over fuse\n"
    hung.hang()
    began = time.monotonic()
    engine.call("DELETE", "/containers/waits-0?force=1")
    assert time.monotonic() - began < TIMEOUT_S + 2
    assert asking(engine) == []
    began = time.monotonic()
    for number in range(5):
        engine.call("DELETE", f"/containers/plain-{number}?force=1")
        engine.call("DELETE", f"/volumes/other-{number}")
        if number:
            engine.call("DELETE", f"/containers/waits-{number}")
    engine.call("DELETE", "/volumes/hung")
    assert time.monotonic() - began < 5
    hung.come_back()


def test_containers_come_back_when_their_storage_does(engine: Engine, hung: FuseServer, tmp_path: Path) -> None:
    volume(engine, "away", type="none", device=str(tmp_path / "fuse"), o="bind")
    create(engine, "kept-up", "away:/x", RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 2})
    engine.call("POST", "/containers/kept-up/start")
    hung.hang()
    os.kill(state_of(engine, "kept-up")["Pid"], 9)
    wait_until(lambda: "connection timed out" in state_of(engine, "kept-up")["Error"])
    wait_until(lambda: bool(state_of(engine, "kept-up")["Restarting"]))
    hung.come_back()
    wait_until(lambda: state_of(engine, "kept-up")["Pid"] != 0)
    assert engine.docker("exec", "kept-up", "cat", "/x/hello").stdout == "over fuse\n"

    pid = state_of(engine, "kept-up")["Pid"]
    hung.hang()
    engine.kill()
    os.kill(pid, 9)
    engine.start()
    wait_until(lambda: "connection timed out" in state_of(engine, "kept-up")["Error"])
    assert asking(engine) == []
    hung.come_back()
    wait_until(lambda: state_of(engine, "kept-up")["Pid"] != 0)

    pid = state_of(engine, "kept-up")["Pid"]
    engine.call("POST", "/containers/kept-up/update", {"RestartPolicy": {"Name": "unless-stopped"}})
    hung.hang()
    os.kill(pid, 9)
    wait_until(lambda: "connection timed out" in state_of(engine, "kept-up")["Error"])
    engine.call("POST", "/containers/kept-up/stop")
    hung.come_back()
    time.sleep(1)
    assert state_of(engine, "kept-up")["Status"] == "exited", "whoever stops it ends the tries"
    engine.stop()
    engine.start()
    time.sleep(0.5)
    assert state_of(engine, "kept-up")["Status"] == "exited"
    engine.call("DELETE", "/containers/kept-up")
    engine.call("DELETE", "/volumes/away")


def test_an_engine_that_waits_for_storage_can_be_stopped(engine: Engine, hung: FuseServer, tmp_path: Path) -> None:
    engine.environment["HOLDFAST_MOUNT_TIMEOUT_S"] = "60"
    engine.restart()
    volume(engine, "away", type="none", device=str(tmp_path / "fuse"), o="bind")
    create(engine, "waits", "away:/x")
    hung.hang()
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(engine.request, "POST", "/containers/waits/start")
        time.sleep(1.5)  # whatever the engine does in the background after a creation is under way
        assert asking(engine) == []
        assert engine.stop() == 0
        assert answer.exception(10) is not None or answer.result().status >= 500
    hung.come_back()
    engine.environment["HOLDFAST_MOUNT_TIMEOUT_S"] = str(TIMEOUT_S)
    engine.start()
    engine.call("POST", "/containers/waits/start")
    engine.call("DELETE", "/containers/waits?force=1")
    engine.call("DELETE", "/volumes/away")
