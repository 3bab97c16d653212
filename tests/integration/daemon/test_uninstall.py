"""`make uninstall` of an engine that runs: it is stopped first, and no trace of it stays in the kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.daemon.test_leaving import traces
from tests.support.engine import PROJECT, Engine

pytestmark = pytest.mark.kernel

_WRITTEN_TO = ("/etc/systemd/system", "/usr/lib/sysusers.d", "/usr/lib/tmpfiles.d", "/usr/local/bin")


@pytest.fixture
def prefix(fresh_engine: Engine) -> Path:
    """A folder as install makes it, with units in folders that only the engine's namespace sees."""
    folder = fresh_engine.folder / "prefix"
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    for name in ("python", "holdfast"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {Path(sys.prefix) / "bin" / name} "$@"\n')
        program.chmod(0o755)
    for place in _WRITTEN_TO:
        fresh_engine.inside("mount", "-t", "tmpfs", "tmpfs", place)
    fresh_engine.inside("touch", "/etc/systemd/system/holdfast.service")
    fresh_engine.inside("ln", "-s", f"{folder}/bin/holdfast", "/usr/local/bin/holdfast")
    return folder


def uninstall(engine: Engine, prefix: Path, *, force: bool = False) -> subprocess.CompletedProcess[str]:
    settings = {
        "STATE_ROOT": engine.state_root,
        "RUN_ROOT": engine.run_root,
        "CGROUP_PARENT": engine.cgroup_parent,
        "LOG_LEVEL": "warning",
    }
    words = [f"HOLDFAST_{name}={value}" for name, value in settings.items()]
    script = [str(PROJECT / "scripts" / "install.sh"), "uninstall", str(prefix)]
    return engine.inside("env", *words, f"FORCE={int(force)}", *script, check=False)


def assert_gone(engine: Engine, prefix: Path) -> None:
    assert traces(engine) == []
    assert not prefix.exists()
    assert engine.inside("ls", "/etc/systemd/system", "/usr/local/bin").stdout.split() == [
        "/etc/systemd/system:", "/usr/local/bin:",
    ]  # fmt: skip
    assert not list(Path("/sys/fs/cgroup").glob(f"*{engine.cgroup_parent}"))
    assert (engine.state_root / "volumes" / "data" / "_data" / "file").read_text() == "kept\n"


def run(engine: Engine, *options: str) -> None:
    engine.docker("run", *options, "-v", "data:/data", "busybox", "sh", "-c", "echo kept >/data/file; sleep 0.1; $WAIT")


def test_it_refuses_while_a_container_runs_and_stops_it_when_told_to(fresh_engine: Engine, prefix: Path) -> None:
    run(fresh_engine, "-d", "-e", "WAIT=sleep 1000", "--restart", "always", "--stop-timeout", "1")
    refused = uninstall(fresh_engine, prefix)
    assert refused.returncode == 1
    assert "1 container(s) run" in refused.stderr and "FORCE=1" in refused.stderr
    assert fresh_engine.answers() and prefix.exists()
    fresh_engine.kill()
    assert uninstall(fresh_engine, prefix).returncode == 1
    done = uninstall(fresh_engine, prefix, force=True)
    assert done.returncode == 0, done.stderr
    assert_gone(fresh_engine, prefix)


def test_it_stops_the_engine(fresh_engine: Engine, prefix: Path) -> None:
    run(fresh_engine, "--rm")
    done = uninstall(fresh_engine, prefix)
    assert done.returncode == 0, done.stderr
    assert fresh_engine.process is not None and fresh_engine.process.wait(1) == 0
    assert_gone(fresh_engine, prefix)


def test_it_clears_up_after_an_engine_that_was_killed(fresh_engine: Engine, prefix: Path) -> None:
    run(fresh_engine, "--rm")
    fresh_engine.kill()
    done = uninstall(fresh_engine, prefix)
    assert done.returncode == 0, done.stderr
    assert_gone(fresh_engine, prefix)
