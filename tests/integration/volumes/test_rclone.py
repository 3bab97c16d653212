"""A volume plugin of others: rclone of Debian, whose volumes are FUSE mounts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import PATH, PROJECT, Engine

pytestmark = pytest.mark.kernel


@pytest.fixture
def rclone(engine: Engine, tmp_path: Path, tool: Callable[[str], Path]) -> Iterator[subprocess.Popen[bytes]]:
    program = tool("rclone")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this machine has no FUSE")
    base = tmp_path / "base"
    for folder in (base, tmp_path / "cache", tmp_path / "remote"):
        folder.mkdir()
    argv = [str(program), "serve", "docker", "--socket-addr", "/run/docker/plugins/rclone.sock"]
    argv += ["--config", "/dev/null", "--base-dir", str(base), "--cache-dir", str(tmp_path / "cache")]
    environment = {"PATH": f"{PATH}:{PROJECT}/build/peers/root/bin", "HOME": str(tmp_path)}
    engine.inside("mkdir", "-p", "/run/docker/plugins")
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen([*engine.enter(), *argv], env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 10
    while engine.inside("test", "-S", "/run/docker/plugins/rclone.sock", check=False).returncode:
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    yield running
    running.kill()
    running.wait()
    for volume in base.iterdir():
        with contextlib.suppress(AssertionError):
            engine.inside("umount", "--lazy", str(volume), check=False)


def test_a_container_on_rclone(engine: Engine, rclone: subprocess.Popen[bytes], tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    (remote / "greeting").write_text("hello\n")
    engine.docker("volume", "create", "-d", "rclone", "--name", "data", "-o", "type=local", "-o", f"path={remote}")
    seen = engine.docker("run", "--rm", "--network", "none", "-v", "data:/data", "busybox", "sh", "-c",
                         "cat /data/greeting; echo written > /data/file")  # fmt: skip
    assert seen.stdout == "hello\n"
    deadline = time.monotonic() + 10
    while not (remote / "file").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (remote / "file").read_text() == "written\n"
    assert "rclone" in engine.docker("volume", "ls").stdout
    mounts = engine.inside("cat", "/proc/self/mounts").stdout
    assert str(tmp_path / "base") not in mounts, "it is unmounted with the last container"
    rclone.kill()
    rclone.wait()
    refused = engine.docker("volume", "rm", "data", check=False)
    assert refused.returncode == 1 and "connection refused" in refused.stderr
    assert "data" in engine.docker("volume", "ls").stdout
    engine.docker("volume", "rm", "--force", "data")
    assert "data" not in engine.docker("volume", "ls").stdout.split()
