"""An application that comes and goes many times leaves nothing behind, in the engine or in the kernel."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.compose import Project
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

CYCLES, SOAK_CYCLES = 20, 200

APPLICATION = """\
services:
  front:
    image: busybox
    command: ["sleep", "600"]
    stop_grace_period: 0s
    networks: [outer, inner]
    ports: ["127.0.0.1:18085:80", "[::1]:18085:80", "80"]
    depends_on: [back]
  back:
    image: busybox
    command: ["sleep", "600"]
    stop_grace_period: 0s
    networks: [inner]
    volumes: ["data:/data", "/anonymous"]
networks:
  outer: {enable_ipv6: true}
  inner: {internal: true}
volumes:
  data:
"""


def kernel_state(engine: Engine) -> dict[str, list[str]]:
    """What the engine's machine has of each kind of thing, to be the same before and after."""

    def lines(*words: str) -> list[str]:
        return sorted(line.strip() for line in engine.inside(*words).stdout.splitlines())

    def below(path: Path) -> list[str]:
        return sorted(os.listdir(path)) if path.is_dir() else []

    group = Path("/sys/fs/cgroup" + engine.cgroup_parent)
    return {
        "links": lines("ip", "-br", "link"),
        "addresses": lines("ip", "-br", "addr"),
        "routes": lines("ip", "route", "show", "table", "all"),
        "rules": lines("nft", "-s", "list", "ruleset"),
        "mounts": [line.split()[1] for line in lines("cat", "/proc/mounts")],
        "sockets": lines("ss", "-Hlntu"),
        "namespaces": below(engine.run_root / "netns"),
        "containers": below(engine.run_root / "containers") + below(engine.state_root / "containers"),
        "exits": below(engine.run_root / "exits"),
        "names": [name for name in below(engine.run_root / "attendant") if name != "control"],
        "groups": below(group),
        "programs": programs(engine),
    }


def programs(engine: Engine) -> list[str]:
    """The monitors and containers' programs of this engine."""
    own, found = str(engine.folder).encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words, group = (entry / "cmdline").read_bytes(), (entry / "cgroup").read_text()
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if engine.cgroup_parent + "/" in group or (own in words and name.startswith("conmon")):
                found.append(name)
    return sorted(found)


def descriptors(engine: Engine) -> int:
    """How many files the engine has open."""
    return len(os.listdir(f"/proc/{daemon(engine)}/fd"))


def daemon(engine: Engine) -> int:
    """The process id of the engine itself; nsenter has become it."""
    assert engine.process is not None
    return engine.process.pid


def cycle(project: Project, times: int) -> None:
    """Up and down, so often."""
    for _ in range(times):
        project.run("up", "-d")
        project.run("down", "-v")


def settled(engine: Engine, wanted: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    """What there is once it is as wanted, or once no program runs; cards, for one, are removed in the background."""
    deadline = time.monotonic() + 10
    while True:
        found = kernel_state(engine)
        if (not found["programs"] if wanted is None else found == wanted) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@pytest.mark.soak
def test_up_and_down(fresh_engine: Engine, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """What is there after many cycles is what was there after the first, which makes what stays."""
    engine, project = fresh_engine, Project(fresh_engine, tmp_path / "cycles")
    project.write(APPLICATION)
    try:
        cycle(project, 1)
        engine.holdfast("volume", "trash", "empty", "-f")
        before, opened = settled(engine), descriptors(engine)
        cycle(project, SOAK_CYCLES if pytestconfig.getoption("--soak") else CYCLES)
        engine.holdfast("volume", "trash", "empty", "-f")
        assert settled(engine, before) == before
        assert descriptors(engine) <= opened + 8
    finally:
        project.down()
    assert engine.call("GET", "/containers/json?all=1") == []
    assert {network["Name"] for network in engine.call("GET", "/networks")} == {"bridge", "host", "none"}
    assert engine.call("GET", "/volumes")["Volumes"] == []
