"""Health checks and logs of containers that outlive their engine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

CHECK = ("--health-interval", "300ms", "--health-retries", "1", "--health-timeout", "60s")


def wait_for(what: Callable[[], bool], timeout_s: float = 15) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def health(engine: Engine, name: str) -> Any:
    """`State.Health` of a container."""
    return engine.call("GET", f"/containers/{name}/json")["State"]["Health"]


def commands(engine: Engine, name: str) -> str:
    """What runs in a container."""
    return engine.docker("top", name, "-o", "pid,args").stdout


def test_health_outlives_the_engine_and_a_probe_does_not(fresh_engine: Engine) -> None:
    engine = fresh_engine
    engine.docker("run", "-d", "--name", "well", "--health-cmd", "echo fine", *CHECK, "busybox", "sleep", "1000")
    hang = "test ! -e /hang || { rm /hang; sleep 4321 & setsid sleep 4322 & sleep 4323; }"
    engine.docker("run", "-d", "--name", "hangs", "--health-cmd", hang, *CHECK, "busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "held", "--health-cmd", "true", *CHECK, "busybox", "sleep", "1000")
    for name in ("well", "hangs", "held"):
        wait_for(lambda name=name: health(engine, name)["Status"] == "healthy")  # type: ignore[misc]
    engine.docker("pause", "held")
    engine.docker("exec", "hangs", "touch", "/hang")
    wait_for(lambda: all(f"sleep {number}" in commands(engine, "hangs") for number in (4321, 4322, 4323)))
    before = health(engine, "well")

    engine.kill()
    time.sleep(0.5)
    engine.start()

    found = health(engine, "well")
    assert found["Status"] == "healthy"
    assert found["Log"][0] in before["Log"], "what was known is known"
    assert health(engine, "held")["Status"] == "unhealthy"
    assert "432" not in commands(engine, "hangs"), "nothing is left of a probe that nobody waits for"
    last = found["Log"][-1]["Start"]
    wait_for(lambda: health(engine, "well")["Log"][-1]["Start"] > last)
    engine.docker("unpause", "held")
    wait_for(lambda: health(engine, "held")["Status"] == "healthy")
    wait_for(lambda: engine.call("GET", "/containers/hangs/json")["ExecIDs"] is None)

    engine.stop()
    engine.start()
    assert health(engine, "well")["Status"] == "healthy"
    engine.docker("stop", "-t", "0", "well")
    engine.restart()
    assert health(engine, "well")["Status"] == "unhealthy"
    assert health(engine, "well")["Log"][-1]["Output"] == "fine\n"


def test_a_probe_is_killed_with_all_it_began(fresh_engine: Engine) -> None:
    engine = fresh_engine
    script = "(sleep 4321 | sleep 4322) & setsid sh -c 'sleep 4323 & sleep 4324' & wait"
    engine.docker(
        "run", "-d", "--name", "hangs", "--health-cmd", script, "--health-interval", "200ms", "--health-timeout", "1s",
        "--health-retries", "1", "busybox", "sleep", "1000",
    )
    wait_for(lambda: all(f"sleep {number}" in commands(engine, "hangs") for number in range(4321, 4325)))
    wait_for(lambda: health(engine, "hangs")["Status"] == "unhealthy")
    engine.docker("pause", "hangs")
    engine.docker("unpause", "hangs")
    wait_for(lambda: "432" not in commands(engine, "hangs"), 3)


def test_hanging_probes_hold_up_nobody(fresh_engine: Engine) -> None:
    """More containers with probes that hang than there are threads for probes."""
    engine = fresh_engine
    for number in range(20):
        engine.docker(
            "run", "-d", "--name", f"hangs-{number}", "--network", "none", "--health-cmd", "sleep 1000",
            "--health-interval", "100ms", "busybox", "sleep", "1000",
        )
    engine.docker("run", "-d", "--name", "well", "--health-cmd", "true", *CHECK, "busybox", "sleep", "1000")
    wait_for(lambda: health(engine, "well")["Status"] == "healthy", 10)
    threads = list(Path(f"/proc/{engine.process.pid}/task").iterdir()) if engine.process else []
    assert len(threads) < 120


def test_a_log_stays_bounded_while_no_engine_runs(fresh_engine: Engine) -> None:
    """Two megabytes are written where one file of 100 kB is kept, half of them while no engine looks."""
    engine = fresh_engine
    script = 'i=1; while [ $i -le 2000 ]; do printf "%01000d\\n" $i; i=$((i+1)); usleep 1000; done; sleep 1000'
    engine.docker(
        "run", "-d", "--name", "one", "--log-opt", "max-size=100k", "--network", "none", "busybox", "sh", "-c", script
    )
    engine.docker(
        "run", "-d", "--name", "three", "--log-opt", "max-size=100k", "--log-opt", "max-file=3",
        "--log-opt", "compress=true", "--network", "none", "busybox", "sh", "-c", script,
    )
    follow = subprocess.Popen(
        ["docker", "logs", "-f", "three"], env=engine.client_environment(), stdout=subprocess.PIPE
    )
    time.sleep(1)
    engine.kill()
    out = follow.communicate(timeout=20)[0].decode().split()
    assert [int(line) for line in out] == list(range(1, len(out) + 1)), "a follower misses nothing while logs rotate"
    assert len(out) > 120, "it followed across a rotation"
    time.sleep(3)
    engine.start()
    for name, most in (("one", 101), ("three", 1950)):
        kept = [int(line) for line in engine.docker("logs", name).stdout.split()]
        assert kept == list(range(kept[0], 2001))
        assert len(kept) <= most
        tail = engine.docker("logs", "--tail", "50", name).stdout.split()
        assert [int(line) for line in tail] == kept[-50:]
    files = {path.name for path in (engine.state_root / "containers").glob("*/container.log*")}
    assert "container.log.2.gz" in files
    engine.docker("stop", "-t", "0", "three")
    wait_for(lambda: not list((engine.state_root / "containers").glob("*/container.log.spare")))
