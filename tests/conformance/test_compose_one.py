"""Compose 1.29, as far as it reaches: the commands that its users know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.compose import Projects
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

APPLICATION = """\
version: "3.8"
services:
  web:
    image: busybox
    command: ["sh", "-c", "echo started; exec sleep 600"]
    stop_grace_period: 0s
    volumes: ["data:/data", "/anonymous"]
    environment: {A: b}
  built:
    build: app
    command: ["ping", "-c", "1", "-w", "5", "page"]
    links: ["web:page"]
volumes:
  data:
"""


def test_commands(engine: Engine, projects: Projects, tool: Callable[[str], Path]) -> None:
    tool("buildah")
    project = projects("one", "1")
    project.write(APPLICATION)
    (project.folder / "app").mkdir()
    project.write("FROM busybox\nRUN echo made >/made\n", "app/Dockerfile")
    project.run("build")
    project.run("up", "-d", "--scale", "web=2")
    shown = project.run("ps").stdout
    assert "one_web_1" in shown and "one_web_2" in shown
    script = "echo $A; echo kept >/anonymous/file"
    assert project.run("exec", "-T", "--index", "2", "web", "sh", "-c", script).stdout == "b\n"
    assert "started" in project.run("logs", "--no-color", "web").stdout
    assert project.run("run", "--rm", "--no-deps", "-T", "built", "cat", "/made").stdout == "made\n"
    assert engine.call("POST", "/containers/one_built_1/wait")["StatusCode"] == 0
    project.run("up", "-d", "--force-recreate", "--scale", "web=2", "web")
    assert project.run("exec", "-T", "--index", "2", "web", "cat", "/anonymous/file").stdout == "kept\n"
    project.run("down", "-v")
    assert engine.call("GET", "/containers/json?all=1") == []
    assert engine.request("GET", "/volumes/one_data").status == 404
    assert {network["Name"] for network in engine.call("GET", "/networks")} == {"bridge", "host", "none"}
