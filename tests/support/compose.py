"""Docker Compose against an engine of the tests: version 2, and Debian 12's own 1.29."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.engine import PROJECT, Engine

PEERS = PROJECT / "build" / "peers"
_PLUGIN = "docker/cli-plugins/docker-compose"
_PLUGINS = [Path(f"{root}/{_PLUGIN}") for root in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")]
_ONE = PEERS / "compose1" / "usr"
GENERATIONS = ("2", "1")


def program(generation: str) -> list[str]:
    """The command line of a Compose of that generation; skips the test where there is none."""
    if generation == "2":
        found = next((path for path in (PEERS / "root/usr/libexec" / _PLUGIN, *_PLUGINS) if path.exists()), None)
        if found is None:
            pytest.skip("needs Docker Compose 2: scripts/peers.sh compose")
        return [str(found)]
    if (_ONE / "bin" / "docker-compose").exists():
        return ["/usr/bin/python3", str(_ONE / "bin" / "docker-compose")]
    pytest.skip("only on Debian 12 and before is there Compose 1.29")


_FETCH = """
import sys, time, urllib.request
deadline = time.monotonic() + float(sys.argv[2])
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
            sys.exit(sys.stdout.write(answer.read().decode()) and 0)
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
"""


def fetch(engine: Engine, port: int, path: str = "/", *, patience_s: float = 0) -> str:
    """What a published port serves to the engine's machine; fails the test if it cannot be had within `patience_s`."""
    url = f"http://127.0.0.1:{port}{path}"
    return engine.inside(sys.executable, "-I", "-c", _FETCH, url, str(patience_s)).stdout


class Project:
    """A folder with a compose file, and the program that reads it."""

    def __init__(self, engine: Engine, folder: Path, generation: str = "2", name: str = "") -> None:
        self.engine, self.folder = engine, folder
        self.name = name or folder.name
        self._program = program(generation)
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, text: str, name: str = "compose.yaml") -> None:
        """Put a file into the folder."""
        (self.folder / name).write_text(text)

    def environment(self) -> dict[str, str]:
        """The engine's client environment, and that of Compose."""
        return {
            **self.engine.client_environment(),
            "COMPOSE_PROJECT_NAME": self.name,
            "PYTHONPATH": str(_ONE / "lib" / "python3" / "dist-packages"),
            "PYTHONWARNINGS": "ignore",
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "COMPOSE_API_VERSION": "1.44",
        }

    def run(
        self, *words: str, check: bool = True, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """`docker compose WORDS` in the folder."""
        done = subprocess.run(
            [*self._program, *words], cwd=self.folder, env={**self.environment(), **(env or {})}, input=stdin,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if check:
            told = f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.engine.log_tail(20)}"
            assert done.returncode == 0, told
        return done

    @contextlib.contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`docker compose WORDS` for the time of a `with`; its stdout is a pipe."""
        with subprocess.Popen(
            [*self._program, *words], cwd=self.folder, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as running:  # fmt: skip
            try:
                yield running
            finally:
                running.kill()

    def down(self) -> None:
        """Take everything away, whatever state it is in; Compose 2 does it for both."""
        self._program = program("2")
        self.run("--profile", "*", "down", "-v", "-t", "0", "--remove-orphans", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


Projects = Callable[..., Project]


def installed(folder: Path) -> Path:
    """A DOCKER_CONFIG in which the docker client finds Compose 2 as its plugin."""
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    link = plugins / "docker-compose"
    if not link.exists():
        os.symlink(program("2")[0], link)
    return folder
