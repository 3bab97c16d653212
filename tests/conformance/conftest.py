"""Conformance tests run against our engine, or against Docker Engine to check the tests themselves:

HOLDFAST_TEST_ENGINE=docker .venv/bin/python -m pytest tests/conformance      (after scripts/setup.sh bench)
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import Project, Projects
from tests.support.dockerd import DockerEngine
from tests.support.engine import PATH, Engine, engine_below

AGAINST_DOCKER = os.environ.get("HOLDFAST_TEST_ENGINE") == "docker"
CLIENT_MAJOR = 28


@pytest.fixture(scope="session")
def client_version() -> str:
    """The stock client's version; a client of another generation prints other things, so it is a reason to skip."""
    done = subprocess.run(
        ["docker", "--version"], env={"PATH": PATH}, capture_output=True, text=True, check=False, timeout=30
    )
    found = re.search(r"version (\d+)\.\S+", done.stdout)
    if found is None:
        pytest.skip("needs the docker client: scripts/setup.sh test")
    if int(found[1]) != CLIENT_MAJOR:
        pytest.skip(f"recorded with docker client {CLIENT_MAJOR}, and this is {found[0]}")
    return found[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine with busybox:latest for a module."""
    folder = tmp_path_factory.mktemp("engine")
    if not AGAINST_DOCKER:
        with engine_below(folder) as running:
            yield running
        return
    engine = DockerEngine(folder)
    try:
        engine.start()
        engine.load_busybox()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def clean_engine(engine: Engine) -> Iterator[Engine]:
    """The module's engine; what a test leaves in it is removed."""
    yield engine
    for container in engine.call("GET", "/containers/json?all=1"):
        engine.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    for volume in engine.call("GET", "/volumes")["Volumes"]:
        engine.request("DELETE", f"/volumes/{volume['Name']}?force=1")
    for image in engine.call("GET", "/images/json?all=1"):
        for tag in image["RepoTags"] or [image["Id"]]:
            if tag != "busybox:latest":
                engine.request("DELETE", f"/images/{tag}?force=1")
    engine.request("POST", "/networks/prune")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for bind mounts."""
    path = tmp_path / "files"
    path.mkdir()
    return path


@pytest.fixture
def projects(engine: Engine, tmp_path: Path) -> Iterator[Projects]:
    """Makes Compose projects, `(name, generation)`; takes them down at the end."""
    made: list[Project] = []

    def make(name: str, generation: str = "2") -> Project:
        made.append(Project(engine, tmp_path / name, generation))
        return made[-1]

    yield make
    for project in reversed(made):
        project.down()
