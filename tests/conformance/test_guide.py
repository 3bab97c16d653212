"""The command lines of Docker's guide to volumes, section by section, played with the stock client.

docs/guide.md says which statement of the guide is shown where.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.debian_images import CannotBuild, guide_archives
from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine
from tests.support.transcript import Player

SECTIONS = sorted((Path(__file__).parent / "transcripts" / "guide").glob("*.transcript"))

# debootstrap may have to run first.
pytestmark = [pytest.mark.kernel, pytest.mark.transcript, pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def guide_engine(engine: Engine) -> Engine:
    """The module's engine with the images that the guide names."""
    try:
        archives = guide_archives()
    except CannotBuild as error:
        pytest.skip(str(error))
    for archive in archives:
        loaded = engine.request("POST", "/images/load?quiet=1", raw=archive.read_bytes())
        assert loaded.status == 200 and b"error" not in loaded.body, loaded.body
    return engine


@pytest.fixture
def tidy_engine(guide_engine: Engine, folder: Path) -> Iterator[Engine]:
    """It, left without containers, volumes and loop devices."""
    yield guide_engine
    for container in guide_engine.call("GET", "/containers/json?all=1"):
        guide_engine.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    for volume in guide_engine.call("GET", "/volumes")["Volumes"]:
        guide_engine.request("DELETE", f"/volumes/{volume['Name']}?force=1")
    disk = folder / "disk.raw"
    if disk.exists():
        listed = subprocess.run(["losetup", "--json", "-j", disk], capture_output=True, check=False, timeout=20).stdout
        for device in json.loads(listed or b'{"loopdevices": []}')["loopdevices"]:
            subprocess.run(["losetup", "-d", device["name"]], check=False, timeout=20)


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("client_version")
def test_section(path: Path, tidy_engine: Engine, folder: Path) -> None:
    if path.stem == "beyond-docker" and isinstance(tidy_engine, DockerEngine):
        pytest.skip("only on Holdfast: Docker Engine refuses these")
    failures = Player(tidy_engine, folder).play(path)
    assert not failures, "\n\n".join(["", *failures])


def test_volumes_are_private(tidy_engine: Engine) -> None:
    """What is mounted below a volume's folder later does not appear in containers: `rprivate`."""
    if isinstance(tidy_engine, DockerEngine):
        pytest.skip("only on Holdfast: Docker Engine leaves it to the parent mount")
    made = {"Image": "ubuntu", "Cmd": ["sleep", "1000"], "HostConfig": {"Binds": ["vol:/data"]}}
    container = tidy_engine.call("POST", "/containers/create", made)["Id"]
    tidy_engine.call("POST", f"/containers/{container}/start")
    below = Path(tidy_engine.call("GET", "/volumes/vol")["Mountpoint"]) / "below"
    tidy_engine.inside("mkdir", str(below))
    tidy_engine.inside("mount", "-t", "tmpfs", "tmpfs", str(below))
    try:
        seen = tidy_engine.docker("exec", container, "findmnt", "-n", "-o", "PROPAGATION", "/data").stdout
        assert seen.strip() == "private"
        assert tidy_engine.docker("exec", container, "grep", "-c", " /data", "/proc/mounts").stdout.strip() == "1"
    finally:
        tidy_engine.inside("umount", str(below))
