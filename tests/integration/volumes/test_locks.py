"""Locks that containers take on one volume exclude each other: flock(2) and fcntl(2), however it is mounted.

All run in the Debian image, which has util-linux's flock and a Python; Debian's busybox has no flock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.debian_images import load_guide_images
from tests.support.engine import Engine

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(700)]  # debootstrap may have to run first

READER = "type=volume,src=shared,dst=/w,ro"
PART = "type=volume,src=shared,dst=/p,volume-subpath=part"

FLOCK = 'exec 9>>{path}; flock {options} 9 || exit 11; {then}'
FCNTL = """
import fcntl, os, sys, time
file = open("{path}", "r" if {shared} else "a")
try:
    fcntl.lockf(file, (fcntl.LOCK_SH if {shared} else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, {start})
except BlockingIOError:
    sys.exit(11)
{then}
"""


def fcntl_program(path: str, then: str = "", *, shared: bool = False, start: int = 0) -> list[str]:
    """A Python program that locks the byte at `start`; it exits with 11 where somebody else holds it."""
    return ["python3", "-c", FCNTL.format(path=path, then=then, shared=shared, start=start)]


def flock_program(path: str, then: str = "true", *, try_only: bool = True, shared: bool = False) -> list[str]:
    """A shell that locks a file; it exits with 11 where somebody else holds it."""
    options = ("-n " if try_only else "") + ("-s" if shared else "-x")
    return ["sh", "-c", FLOCK.format(path=path, options=options, then=then)]


class Containers:
    """Containers with the volume `shared` at /v."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, program: list[str], *mounts: str) -> int:
        """Run to the end; the exit code."""
        mounted = [word for mount in mounts for word in ("--mount", mount)]
        done = self.engine.docker(
            "run", "--rm", "--network", "none", "-v", "shared:/v", *mounted, "ubuntu", *program, check=False
        )
        assert done.returncode in (0, 11), done.stderr
        return done.returncode

    def hold(self, program: list[str]) -> str:
        """Start one that keeps its lock; returns its id as soon as it has it."""
        words = ("run", "-d", "--network", "none", "-v", "shared:/v", "ubuntu", *program)
        container = self.engine.docker(*words).stdout.strip()
        deadline = time.monotonic() + 20
        while "locked" not in self.engine.docker("logs", container).stdout:
            assert time.monotonic() < deadline, "never got its lock"
            time.sleep(0.05)
        return container

    def end(self, container: str) -> None:
        """Kill and remove."""
        self.engine.docker("rm", "-f", container)


@pytest.fixture(scope="module")
def locking_engine(engine: Engine) -> Engine:
    load_guide_images(engine)
    return engine


@pytest.fixture
def containers(locking_engine: Engine) -> Iterator[Containers]:
    prepare = "mkdir /v/part; touch /v/lock /v/part/lock; echo 0 >/v/count"
    locking_engine.docker("run", "--rm", "--network", "none", "-v", "shared:/v", "busybox", "sh", "-c", prepare)
    yield Containers(locking_engine)
    for container in locking_engine.call("GET", "/containers/json?all=1"):
        locking_engine.call("DELETE", f"/containers/{container['Id']}?force=1")
    locking_engine.call("DELETE", "/volumes/shared")


def test_flock(containers: Containers) -> None:
    holder = containers.hold(flock_program("/v/lock", "echo locked; exec sleep 1000"))
    assert containers.run(flock_program("/v/lock")) == 11
    assert containers.run(flock_program("/v/lock", shared=True)) == 11
    assert containers.run(flock_program("/v/part/lock")) == 0
    containers.end(holder)
    assert containers.run(flock_program("/v/lock")) == 0


def test_shared_flocks_live_together(containers: Containers) -> None:
    holder = containers.hold(flock_program("/v/lock", "echo locked; exec sleep 1000", shared=True))
    assert containers.run(flock_program("/v/lock", shared=True)) == 0
    assert containers.run(flock_program("/v/lock")) == 11
    containers.end(holder)


def test_fcntl(containers: Containers) -> None:
    program = fcntl_program("/v/lock", 'print("locked", flush=True); time.sleep(1000)', start=10)
    holder = containers.hold(program)
    assert containers.run(fcntl_program("/v/lock", start=10)) == 11
    assert containers.run(fcntl_program("/v/lock", start=10, shared=True)) == 11
    assert containers.run(fcntl_program("/v/lock", start=11)) == 0, "another byte is free"
    containers.end(holder)
    assert containers.run(fcntl_program("/v/lock", start=10)) == 0


@pytest.mark.parametrize(("path", "mount"), [("/w/part/lock", READER), ("/p/lock", PART)])
def test_through_other_mounts_of_the_volume(containers: Containers, path: str, mount: str) -> None:
    """A lock belongs to the file: a mount that is read-only or only a part of the volume does not get round it."""
    keep = 'print("locked", flush=True); time.sleep(1000)'
    holder = containers.hold(fcntl_program("/v/part/lock", keep))
    assert containers.run(fcntl_program(path, shared=True), mount) == 11
    containers.end(holder)
    assert containers.run(fcntl_program(path, shared=True), mount) == 0


def test_a_lock_ends_with_its_container_and_wakes_the_next(containers: Containers) -> None:
    holder = containers.hold(flock_program("/v/lock", "echo locked; exec sleep 1000"))
    words = ("run", "-d", "--network", "none", "-v", "shared:/v", "ubuntu")
    waiting = containers.engine.docker(*words, *flock_program("/v/lock", try_only=False)).stdout.strip()
    time.sleep(0.3)
    assert state(containers.engine, waiting)["Status"] == "running"
    containers.engine.docker("kill", holder)
    assert containers.engine.docker("wait", waiting).stdout.strip() == "0"


def test_locks_outlive_the_engine(containers: Containers) -> None:
    """Containers go on without the engine, and so do their locks."""
    holder = containers.hold(flock_program("/v/lock", "echo locked; exec sleep 1000"))
    containers.engine.kill()
    containers.engine.start()
    assert containers.run(flock_program("/v/lock")) == 11
    containers.end(holder)


@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_nobody_counts_twice(containers: Containers, kind: str) -> None:
    """Four containers, each adding one to a number in a file a hundred times under a lock."""
    if kind == "flock":
        step = "exec 9>>/v/lock; flock -x 9; read n </v/count; echo $((n + 1)) >/v/count; exec 9>&-"
        program = ["sh", "-c", f"i=0; while [ $i -lt 100 ]; do {step}; i=$((i + 1)); done"]
    else:
        step = (
            "n = int(open('/v/count').read()); open('/v/count', 'w').write(str(n + 1)); "
            "fcntl.lockf(file, fcntl.LOCK_UN)"
        )
        program = ["python3", "-c", "import fcntl\nfile = open('/v/lock', 'a')\nfor _ in range(100): "
                   f"fcntl.lockf(file, fcntl.LOCK_EX); {step}"]  # fmt: skip
    engine = containers.engine
    words = ("run", "-d", "--network", "none", "-v", "shared:/v", "ubuntu")
    running = [engine.docker(*words, *program).stdout.strip() for _ in range(4)]
    assert engine.docker("wait", *running).stdout.split() == ["0"] * 4
    counted = engine.docker("run", "--rm", "--network", "none", "-v", "shared:/v", "busybox", "cat", "/v/count").stdout
    assert counted.strip() == "400"


def state(engine: Engine, container: str) -> dict[str, Any]:
    """`State` of an inspected container."""
    found: dict[str, Any] = engine.call("GET", f"/containers/{container}/json")["State"]
    return found
