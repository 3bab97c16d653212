"""Every file of `transcripts/`, played with the stock docker client."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine
from tests.support.registry import registry_for
from tests.support.transcript import Player

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.transcript"))

# What our engine cannot do yet: the transcript is Docker's word on how it shall be.
PENDING = {
    "networks": "no networks of one's own",
}

pytestmark = [pytest.mark.kernel, pytest.mark.transcript]


@pytest.mark.parametrize("path", [path for path in TRANSCRIPTS if path.stem != "registry"], ids=lambda path: path.stem)
@pytest.mark.usefixtures("client_version")
def test_transcript(path: Path, clean_engine: Engine, folder: Path, request: pytest.FixtureRequest) -> None:
    if path.stem in PENDING and not isinstance(clean_engine, DockerEngine):
        request.applymarker(pytest.mark.xfail(reason=PENDING[path.stem]))
    failures = Player(clean_engine, folder).play(path)
    assert not failures, "\n\n".join(["", *failures])


@pytest.mark.usefixtures("client_version")
def test_registry(clean_engine: Engine, folder: Path, tmp_path: Path) -> None:
    path = next(path for path in TRANSCRIPTS if path.stem == "registry")
    with registry_for(clean_engine, tmp_path / "registry") as registry:
        registry.push_busybox()
        failures = Player(clean_engine, folder).play(path)
    assert not failures, "\n\n".join(["", *failures])
