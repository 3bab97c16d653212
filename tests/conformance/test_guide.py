"""The command lines of Docker's guide to volumes, section by section, played with the stock client.

docs/guide.md says which statement of the guide is shown where.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.debian_images import load_guide_images
from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine
from tests.support.transcript import Player

SECTIONS = sorted((Path(__file__).parent / "transcripts" / "guide").glob("*.transcript"))

# debootstrap may have to run first.
pytestmark = [pytest.mark.kernel, pytest.mark.transcript, pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def guide_engine(engine: Engine) -> Engine:
    """The module's engine with the images that the guide names."""
    load_guide_images(engine)
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


@pytest.mark.parametrize(
    "mount",
    [
        "source=myvol2,target=/app",
        "type=volume,source=nfsvolume,target=/app,volume-driver=local,volume-opt=type=nfs,"
        "volume-opt=device=:/var/docker-nfs,volume-opt=o=addr=10.0.0.10",
        "type=volume,source=vol,target=/x,volume-driver=local,volume-opt=type=nfs,volume-opt=device=:/srv,"
        '"volume-opt=o=addr=1.2.3.4,vers=4,soft,timeo=180,bg,tcp,rw"',
        'type=volume,src=vol,dst=/x,"volume-label=a=say ""hi"", friend",volume-label=b',
        "dst=/external-drive,volume-driver=local,volume-opt=device=/dev/loop5,volume-opt=type=ext4",
        "src=logs,dst=/var/log/app1,volume-subpath=app1,readonly",
        "src=vol,dst=/x,volume-nocopy=true,ro=false",
        "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
    ],
)
@pytest.mark.usefixtures("client_version")
def test_our_client_reads_mounts_as_docker_does(tidy_engine: Engine, mount: str) -> None:
    """Quotes, commas and all: the same request comes of it."""
    if isinstance(tidy_engine, DockerEngine):
        pytest.skip("only on Holdfast: it is our own client that is asked")
    asked = []
    for client in (tidy_engine.docker, tidy_engine.holdfast):
        container = client("create", "--mount", mount, "alpine", "true").stdout.strip()
        asked.append(tidy_engine.call("GET", f"/containers/{container}/json")["HostConfig"]["Mounts"])
    assert asked[0] == asked[1]
