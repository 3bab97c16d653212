"""Every file of `transcripts/`, played with the stock docker client."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.dockerd import DockerEngine
from tests.support.engine import PATH, Engine
from tests.support.registry import registry_for
from tests.support.transcript import Player

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.transcript"))

# What our engine cannot do yet: the transcript is Docker's word on how it shall be.
PENDING: dict[str, str] = {}

pytestmark = [pytest.mark.kernel, pytest.mark.transcript]


@pytest.mark.parametrize("path", [path for path in TRANSCRIPTS if path.stem != "registry"], ids=lambda path: path.stem)
@pytest.mark.usefixtures("client_version")
def test_transcript(path: Path, clean_engine: Engine, folder: Path, request: pytest.FixtureRequest) -> None:
    if path.stem in PENDING and not isinstance(clean_engine, DockerEngine):
        request.applymarker(pytest.mark.xfail(reason=PENDING[path.stem]))
    failures = Player(clean_engine, folder).play(path)
    assert not failures, "\n\n".join(["", *failures])


@pytest.mark.parametrize("noun", ["container", "image", "volume", "network", "system"])
@pytest.mark.usefixtures("client_version")
def test_every_command_is_played(noun: str) -> None:
    """Each command that the stock client has for what we claim stands in a transcript under its full name."""
    played = "\n".join(path.read_text() for path in TRANSCRIPTS)
    asked = ["docker", noun, "--help"]
    shown = subprocess.run(asked, env={"PATH": PATH}, capture_output=True, text=True, check=True, timeout=30).stdout
    commands = re.findall(r"^  (\w+) ", shown.partition("\nCommands:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert len(commands) >= 4
    assert [command for command in commands if f"docker {noun} {command}" not in played] == []


@pytest.mark.usefixtures("client_version")
def test_registry(clean_engine: Engine, folder: Path, tmp_path: Path) -> None:
    path = next(path for path in TRANSCRIPTS if path.stem == "registry")
    with registry_for(clean_engine, tmp_path / "registry") as registry:
        registry.push_busybox()
        failures = Player(clean_engine, folder).play(path)
    assert not failures, "\n\n".join(["", *failures])
