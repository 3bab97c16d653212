"""What an engine leaves in the kernel when it ends: nothing, unless a container runs."""

from __future__ import annotations

import time

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.kernel


def traces(engine: Engine) -> list[str]:
    """Mounts below the engine's folder, its bridge, its packet rules and its sockets."""
    script = f"""
        grep -F ' {engine.folder}/' /proc/self/mountinfo | cut -d' ' -f5 | sort -u
        ip -o link | grep -oE '(holdfast0|hf[0-9a-f]{{10}})' | sort -u
        nft list tables 2>/dev/null
        find {engine.run_root} -type s
    """
    return engine.inside("sh", "-c", script, check=False).stdout.split("\n")[:-1]


def run(engine: Engine, *cmd: str, detach: bool = False) -> str:
    options = ["-d", "--name", "box"] if detach else ["--rm"]
    return engine.docker("run", *options, "-v", "data:/data", "busybox", *cmd).stdout


def test_nothing_is_left_and_the_next_engine_finds_everything(fresh_engine: Engine) -> None:
    run(fresh_engine, "sh", "-c", "echo kept >/data/file")
    assert str(fresh_engine.state_root) in traces(fresh_engine)
    assert "holdfast0" in traces(fresh_engine)
    assert fresh_engine.stop() == 0
    assert traces(fresh_engine) == []
    fresh_engine.start()
    assert run(fresh_engine, "cat", "/data/file") == "kept\n"
    fresh_engine.kill()
    assert traces(fresh_engine) != []
    fresh_engine.start()
    assert run(fresh_engine, "cat", "/data/file") == "kept\n"
    assert fresh_engine.stop() == 0
    assert traces(fresh_engine) == []


def test_a_running_container_keeps_what_it_needs(fresh_engine: Engine) -> None:
    key = run(fresh_engine, "sh", "-c", "while sleep 0.1; do echo tick; done", detach=True).strip()
    address = fresh_engine.call("GET", f"/containers/{key}/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert fresh_engine.stop() == 0
    left = traces(fresh_engine)
    assert {str(fresh_engine.state_root), str(fresh_engine.run_root), "holdfast0"} <= set(left)
    assert fresh_engine.inside("busybox", "ping", "-c", "1", "-W", "2", address, check=False).returncode == 0
    log = fresh_engine.state_root / "containers" / key / "container.log"
    size = log.stat().st_size
    time.sleep(0.5)
    assert log.stat().st_size > size
    fresh_engine.start()
    assert fresh_engine.call("GET", f"/containers/{key}/json")["State"]["Running"]
    fresh_engine.docker("exec", "box", "touch", "/data/file")
    fresh_engine.docker("rm", "-f", "box")
    assert fresh_engine.stop() == 0
    assert traces(fresh_engine) == []


def test_a_mount_of_somebody_else_stays_where_it_is(fresh_engine: Engine) -> None:
    disk = fresh_engine.state_root / "disk"
    disk.mkdir()
    fresh_engine.inside("mount", "-t", "tmpfs", "tmpfs", str(disk))
    assert fresh_engine.stop() == 0
    assert traces(fresh_engine) == [str(fresh_engine.state_root), str(disk)]
    fresh_engine.inside("umount", str(disk))
    fresh_engine.start()
    assert fresh_engine.stop() == 0
    assert traces(fresh_engine) == []


def test_a_root_that_was_a_mount_before_stays_one(fresh_engine: Engine) -> None:
    assert fresh_engine.stop() == 0
    fresh_engine.inside("mount", "--bind", str(fresh_engine.state_root), str(fresh_engine.state_root))
    fresh_engine.start()
    run(fresh_engine, "true")
    assert fresh_engine.stop() == 0
    assert traces(fresh_engine) == [str(fresh_engine.state_root)]


def test_a_socket_that_outlived_its_engine_is_replaced(fresh_engine: Engine) -> None:
    fresh_engine.kill()
    assert fresh_engine.socket_path.exists()
    fresh_engine.start()
    assert fresh_engine.stop() == 0
    assert not fresh_engine.socket_path.exists()
