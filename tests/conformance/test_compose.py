"""Docker Compose, version 2 and 1.29: the guide's two files, and what applications are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compose import GENERATIONS, Projects, installed
from tests.support.engine import Engine
from tests.support.images import busybox_entries, docker_archive, image, layer

pytestmark = pytest.mark.kernel

MANAGED = """\
services:
  frontend:
    image: node:lts
    volumes:
      - myapp:/home/node/app
volumes:
  myapp:
"""
EXTERNAL = MANAGED + "    external: true\n"


@pytest.fixture(scope="module", autouse=True)
def node(engine: Engine) -> None:
    """`node:lts`, which as the real one ends at once where nobody types: a busybox."""
    made = image([layer(busybox_entries())], tags=["node:lts"], config={"Cmd": ["/bin/sh"]})
    engine.call("POST", "/images/load?quiet=1", raw=docker_archive([made]))


def volume_labels(engine: Engine, name: str) -> dict[str, str]:
    """The labels of a volume."""
    labels: dict[str, str] = engine.call("GET", f"/volumes/{name}")["Labels"]
    return labels


@pytest.mark.parametrize("generation", GENERATIONS)
def test_guide_volume_is_made_and_used_again(engine: Engine, projects: Projects, generation: str) -> None:
    project = projects("guide", generation)
    project.write(MANAGED)
    project.run("up", "-d")
    labels = volume_labels(engine, "guide_myapp")
    assert labels["com.docker.compose.project"] == "guide" and labels["com.docker.compose.volume"] == "myapp"
    created = engine.call("GET", "/volumes/guide_myapp")["CreatedAt"]
    project.run("run", "--rm", "-T", "frontend", "sh", "-c", "echo kept >/home/node/app/file")
    project.run("down")
    project.run("up")
    assert project.run("run", "--rm", "-T", "frontend", "cat", "/home/node/app/file").stdout == "kept\n"
    assert engine.call("GET", "/volumes/guide_myapp")["CreatedAt"] == created
    project.run("down", "-v")
    assert engine.request("GET", "/volumes/guide_myapp").status == 404
    engine.holdfast("undo")
    assert engine.call("GET", "/volumes/guide_myapp")["Labels"] == labels


@pytest.mark.parametrize("generation", GENERATIONS)
def test_guide_external_volume_must_be_there(engine: Engine, projects: Projects, generation: str) -> None:
    project = projects("outside", generation)
    project.write(EXTERNAL)
    refused = project.run("up", "-d", check=False)
    told = refused.stdout + refused.stderr
    assert refused.returncode != 0, told
    assert "myapp" in told and "found" in told, told
    engine.call("POST", "/volumes/create", {"Name": "myapp"})
    project.run("run", "--rm", "-T", "frontend", "sh", "-c", "echo kept >/home/node/app/file")
    project.run("down", "-v")
    kept = engine.docker("run", "--rm", "-v", "myapp:/data", "node:lts", "cat", "/data/file").stdout
    assert kept == "kept\n"
    engine.call("DELETE", "/volumes/myapp")


def test_through_our_own_command(engine: Engine, projects: Projects) -> None:
    installed(Path(engine.client_environment()["DOCKER_CONFIG"]))
    project = projects("own")
    project.write(MANAGED)
    file = str(project.folder / "compose.yaml")
    engine.holdfast("compose", "-f", file, "up", "-d")
    assert "own-frontend-1" in engine.holdfast("compose", "-f", file, "ps", "-a").stdout
    engine.holdfast("compose", "-f", file, "down", "-v")
    assert engine.request("GET", "/volumes/own_myapp").status == 404
