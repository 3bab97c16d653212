"""kill -9 at every named fault point: nothing acknowledged is lost, nothing half-made is left.

A story walks through creating, filling, starting, using and removing; the engine dies at the armed point, is started
again, and what it then shows and has on disk is compared with what it had acknowledged.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.engine import PROJECT, Engine
from tests.support.images import busybox_archive
from tests.support.state import assert_consistent, assert_empty
from tests.support.volume_plugin import VolumePlugin

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

POINTS = sorted(
    {
        name
        for path in (PROJECT / "src").rglob("*.py")
        for name in re.findall(r'faults\.point\("([a-z0-9-]+)"\)', path.read_text(encoding="utf-8"))
    }
)


def _tiny_root() -> bytes:
    """A root file system of one file, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    return buffer.getvalue()


def _tiny_context() -> bytes:
    """A build of one step, as a tar archive."""
    text = b"FROM busybox\nRUN true\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return buffer.getvalue()


class Died(Exception):
    """The engine was killed in the middle of a call."""


@dataclass
class Ledger:
    """What the engine said it had done."""

    volumes: set[str] = field(default_factory=set)
    gone_volumes: set[str] = field(default_factory=set)
    containers: set[str] = field(default_factory=set)
    gone_containers: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    gone_networks: set[str] = field(default_factory=set)


class Story:
    """A walk through everything that has a fault point, one acknowledged call after the other."""

    def __init__(self, engine: Engine, ledger: Ledger, *, builds: bool, plugin: VolumePlugin | None = None) -> None:
        self.engine = engine
        self.ledger = ledger
        self.builds = builds
        self.plugin = plugin

    def call(self, method: str, path: str, body: object = None, raw: bytes | None = None) -> bytes:
        try:
            answer = self.engine.request(method, path, body, raw=raw, timeout_s=30)
        except (OSError, http.client.HTTPException) as error:
            raise Died from error
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {answer.body!r}\n{self.engine.log_tail()}")
        return answer.body

    def walk(self) -> None:
        ledger = self.ledger
        self.call("POST", "/images/load?quiet=1", raw=busybox_archive().read_bytes())
        self.call("POST", "/images/create?fromSrc=-&repo=tiny", raw=_tiny_root())
        self.call("DELETE", "/images/tiny")
        if self.builds:
            self.call("POST", "/build?t=built&networkmode=none", raw=_tiny_context())
        for name in ("first", "second"):
            self.call("POST", "/volumes/create", {"Name": name})
            ledger.volumes.add(name)
        binds = ["filled:/bin", "first:/first"]
        if self.plugin:
            self.call("POST", "/volumes/create", {"Name": "plugged", "Driver": self.plugin.name})
            ledger.volumes.add("plugged")
            binds.append("plugged:/plugged")
        self.create("box", {"Binds": binds, "NetworkMode": "bridge"})
        ledger.volumes.add("filled")
        self.call("POST", "/containers/box/start")
        ledger.started.add("box")
        self.exec("box", ["/bin/busybox", "true"])
        self.call("POST", "/commit?container=box&repo=made")
        self.call("DELETE", "/images/made")
        self.call("POST", "/networks/create", {"Name": "net"})
        ledger.networks.add("net")
        self.call("POST", "/networks/net/connect", {"Container": "box"})
        self.call("POST", "/networks/net/disconnect", {"Container": "box"})
        ledger.networks.discard("net")
        self.call("DELETE", "/networks/net")
        ledger.gone_networks.add("net")
        self.call("POST", "/containers/box/update", {"PidsLimit": 99})
        ledger.started.discard("box")
        self.call("POST", "/containers/box/stop?t=0")
        ledger.containers.discard("box")
        self.call("DELETE", "/containers/box?v=1")
        ledger.gone_containers.add("box")
        if self.plugin:
            ledger.volumes.discard("plugged")
            self.call("DELETE", "/volumes/plugged")
            ledger.gone_volumes.add("plugged")
        ledger.volumes.discard("second")
        self.call("DELETE", "/volumes/second")
        self.call("POST", "/holdfast/trash/second/restore", {})
        ledger.volumes.add("second")
        ledger.volumes.discard("second")
        self.call("DELETE", "/volumes/second")
        ledger.gone_volumes.add("second")
        self.call("DELETE", "/holdfast/trash")

    def create(self, name: str, host: dict[str, object]) -> None:
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Volumes": {"/anonymous": {}}, "HostConfig": host}
        self.call("POST", f"/containers/create?name={name}", body)
        self.ledger.containers.add(name)

    def exec(self, container: str, command: list[str]) -> None:
        created = json.loads(self.call("POST", f"/containers/{container}/exec", {"Cmd": command, "AttachStdout": True}))
        self.call("POST", f"/exec/{created['Id']}/start", {"Detach": True})


def test_there_are_points() -> None:
    assert len(POINTS) >= 20


@pytest.mark.parametrize("point", POINTS)
def test_kill(point: str, tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    ledger = Ledger()
    builds = point.startswith("build-")
    plugin = VolumePlugin(engine, tmp_path / "plugin") if point.startswith("plugin-") else None
    try:
        if plugin:
            plugin.start()
        engine.start(faults=point)
        with contextlib.suppress(Died):
            Story(engine, ledger, builds=builds, plugin=plugin).walk()
        assert engine.wait_dead(10) == -9  # some points come after the answer
        engine.start()
        check_ledger(engine, ledger)
        assert_consistent(engine)
        engine.load_busybox()
        again = Ledger()
        for container in engine.call("GET", "/containers/json?all=1"):
            engine.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for volume in engine.call("GET", "/volumes")["Volumes"]:
            engine.call("DELETE", f"/volumes/{volume['Name']}")
        engine.call("POST", "/networks/prune")
        assert_empty(engine)
        Story(engine, again, builds=builds, plugin=plugin).walk()
        check_ledger(engine, again)
        assert_consistent(engine)
    finally:
        if plugin:
            plugin.stop()
        engine.close()


def check_ledger(engine: Engine, ledger: Ledger) -> None:
    """Everything acknowledged is there, everything removed is not."""
    volumes = {volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"]}
    containers = {entry["Names"][0][1:]: entry for entry in engine.call("GET", "/containers/json?all=1")}
    assert ledger.volumes <= volumes
    assert not ledger.gone_volumes & volumes
    assert ledger.containers <= set(containers)
    assert not ledger.gone_containers & set(containers)
    networks = {network["Name"] for network in engine.call("GET", "/networks")}
    assert ledger.networks <= networks
    assert not ledger.gone_networks & networks
    for name in ledger.started:
        assert containers[name]["State"] == "running", engine.log_tail()
        assert_limits_are_those_on_record(engine, name)
    if "filled" in volumes:
        filled = set((engine.state_root / "volumes/filled/_data").iterdir())
        assert not filled or len(filled) == image_entries(engine), "a volume is filled whole or not at all"


def assert_limits_are_those_on_record(engine: Engine, name: str) -> None:
    """An update that nobody was told of must not be in force."""
    shown = engine.call("GET", f"/containers/{name}/json")
    found = {path.read_text().strip() for path in Path("/sys/fs/cgroup").glob(
        f"**/{engine.cgroup_parent.strip('/')}/{shown['Id']}/pids.max")}  # fmt: skip
    assert found == {str(shown["HostConfig"]["PidsLimit"] or "max")}


def image_entries(engine: Engine) -> int:
    """How many entries the image has in /bin."""
    (layer,) = (engine.state_root / "images/layers").glob("*/diff/bin")
    return sum(1 for _ in layer.iterdir())
