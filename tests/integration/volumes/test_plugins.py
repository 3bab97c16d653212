"""Volume plugins behind a running engine: what is asked of them, what users see, and what they cannot do to us."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import Project
from tests.support.engine import Answer, Engine, engine_below
from tests.support.fuse_server import fuse_server
from tests.support.volume_plugin import CREATED_AT, VolumePlugin, volume_plugin

pytestmark = pytest.mark.kernel

TIMEOUT_S = 2


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    environment = {
        "HOLDFAST_MOUNT_TIMEOUT_S": str(TIMEOUT_S),
        "HOLDFAST_PLUGIN_TIMEOUT_S": str(TIMEOUT_S),
        "HOLDFAST_PLUGIN_MOUNT_TIMEOUT_S": str(TIMEOUT_S),
    }
    with engine_below(tmp_path_factory.mktemp("plugins"), environment=environment) as running:
        yield running


@pytest.fixture
def plugin(engine: Engine, tmp_path: Path) -> Iterator[VolumePlugin]:
    """A plugin of a name that no other test has: what an engine remembers of one is not another's business."""
    with volume_plugin(engine, tmp_path / "plugin", name=tmp_path.name.replace("_", "-")) as running:
        yield running
        running.misbehave()
        for container in engine.call("GET", "/containers/json?all=1"):
            engine.request("DELETE", f"/containers/{container['Id']}?force=1")
        for volume in engine.call("GET", "/volumes")["Volumes"]:
            engine.request("DELETE", f"/volumes/{volume['Name']}?force=1")
        engine.inside("rm", "-f", f"/run/docker/plugins/{running.name}.sock")


def create(engine: Engine, plugin: VolumePlugin, name: str, **more: Any) -> Answer:
    """Create a volume."""
    return engine.request("POST", "/volumes/create", {"Name": name, "Driver": plugin.name, **more})


def run(engine: Engine, name: str, *binds: str, command: str = "sleep 600", **host: Any) -> Answer:
    """Create and start a container."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", command],
            "HostConfig": {"NetworkMode": "none", "Binds": list(binds), **host}}  # fmt: skip
    made = engine.request("POST", f"/containers/create?name={name}", body)
    return engine.request("POST", f"/containers/{name}/start") if made.status == 201 else made


def message(answer: Answer) -> tuple[int, str]:
    """Status and text of an error."""
    return answer.status, answer.json()["message"]


def timed(engine: Engine, method: str, path: str, body: object = None) -> tuple[Answer, float]:
    """An answer and how long it took."""
    began = time.monotonic()
    answer = engine.request(method, path, body)
    return answer, time.monotonic() - began


def test_the_life_of_a_volume(engine: Engine, plugin: VolumePlugin) -> None:
    assert create(engine, plugin, "we/ird", DriverOpts={"a": "b"}, Labels={"l": "1"}).status == 201
    assert create(engine, plugin, "we/ird").status == 201, "the same again"
    assert plugin.calls("Create") == [{"method": "Create", "Name": "we/ird", "Opts": {"a": "b"}}]
    shown = engine.call("GET", "/volumes/we/ird")
    assert shown == {
        "CreatedAt": CREATED_AT, "Driver": plugin.name, "Labels": {"l": "1"}, "Name": "we/ird",
        "Mountpoint": str(plugin.data("we/ird")), "Options": {"a": "b"}, "Scope": "global",
        "Status": {"hello": "world", "deep": [1, {"two": None}]},
    }  # fmt: skip
    assert plugin.name in engine.call("GET", "/info")["Plugins"]["Volume"]
    listed = engine.call("GET", f"/volumes?filters={json.dumps({'driver': [plugin.name]})}".replace(" ", ""))
    assert [volume["Name"] for volume in listed["Volumes"]] == ["we/ird"] and listed["Warnings"] is None
    assert run(engine, "one", "we/ird:/data", command="echo written > /data/file; sleep 600").status == 204
    assert run(engine, "two", "we/ird:/data", command="cat /data/file; sleep 600").status == 204
    mounts = plugin.calls("Mount")[-2:]
    ids = {call["ID"] for call in mounts}
    assert len(ids) == 2 and all(len(mount_id) == 64 for mount_id in ids)
    refused = message(engine.request("DELETE", "/volumes/we/ird"))
    assert refused[0] == 409 and refused[1].startswith("remove we/ird: volume is in use - [")
    for name in ("one", "two"):
        engine.call("DELETE", f"/containers/{name}?force=1")
    mounted = {call["ID"] for call in plugin.calls("Mount")}
    assert mounted == {call["ID"] for call in plugin.calls("Unmount")} == ids
    assert plugin.data("we/ird").joinpath("file").read_text() == "written\n"
    assert engine.request("DELETE", "/volumes/we/ird").status == 204
    assert len(plugin.calls("Remove")) == 1 and not plugin.data("we/ird").exists()
    undone = engine.request("POST", "/holdfast/undo")
    assert undone.status == 409 and "cannot be taken back" in undone.json()["message"]


def test_an_image_fills_it_and_docker_cp_reaches_it(engine: Engine, plugin: VolumePlugin) -> None:
    driver = {"VolumeOptions": {"DriverConfig": {"Name": plugin.name, "Options": {"k": "v"}}}}
    mount = {"Type": "volume", "Source": "filled", "Target": "/etc", **driver}
    assert run(engine, "filled", Mounts=[mount]).status == 204
    assert plugin.calls("Create")[0]["Opts"] == {"k": "v"}
    assert "passwd" in [path.name for path in plugin.data("filled").iterdir()]
    (point,) = engine.call("GET", "/containers/filled/json")["Mounts"]
    assert (point["Name"], point["Driver"]) == ("filled", plugin.name)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("in")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"hi"))
    assert engine.request("PUT", "/containers/filled/archive?path=/etc", raw=archive.getvalue()).status == 200
    assert plugin.data("filled").joinpath("in").read_text() == "hi"
    assert run(engine, "heir", VolumesFrom=["filled"], command="cat /etc/in; sleep 600").status == 204
    nocopy = {**mount, "Source": "bare", "VolumeOptions": {**driver["VolumeOptions"], "NoCopy": True}}
    assert run(engine, "bare", Mounts=[nocopy]).status == 204
    assert not plugin.data("bare").joinpath("passwd").exists()


def test_what_a_plugin_has_by_itself_can_be_used(engine: Engine, plugin: VolumePlugin) -> None:
    plugin.stop()
    plugin.data("own").mkdir()
    plugin.data("own").joinpath("file").write_text("there before")
    plugin.start()
    shown = [volume for volume in engine.call("GET", "/volumes")["Volumes"] if volume["Name"] == "own"]
    assert [volume["Driver"] for volume in shown] == [plugin.name]
    assert engine.call("GET", "/volumes/own")["Mountpoint"] == str(plugin.data("own"))
    assert run(engine, "user", "own:/data").status == 204
    assert engine.docker("exec", "user", "cat", "/data/file").stdout == "there before"
    assert plugin.calls("Create") == []


def test_unknown_drivers_and_other_plugins(engine: Engine, plugin: VolumePlugin) -> None:
    for name in ("nope", "..", "a/b"):
        answer, took = timed(engine, "POST", "/volumes/create", {"Name": "v1", "Driver": name})
        assert message(answer) == (404, f'create v1: error looking up volume plugin {name}: plugin "{name}" not found')
        assert took < 2
    create(engine, plugin, "taken")
    other = engine.request("POST", "/volumes/create", {"Name": "taken", "Driver": "local"})
    text = f"create taken: driver '{plugin.name}' already has volume 'taken': volume name must be unique"
    assert message(other) == (409, text)
    assert engine.call("GET", "/plugins") == []
    assert message(engine.request("GET", "/plugins/nope/json")) == (404, 'plugin "nope" not found')


def test_errors_are_the_plugins_own(engine: Engine, plugin: VolumePlugin) -> None:
    plugin.misbehave(Activate={"answer": {"Implements": ["authz"]}})
    text = (
        f"create v: error looking up volume plugin {plugin.name}: legacy plugin: Plugin does not implement the "
        f'requested driver: plugin="{plugin.name}", requested implementation="VolumeDriver"'
    )
    assert message(create(engine, plugin, "v")) == (500, text)
    assert engine.call("GET", "/volumes")["Warnings"] is None, "it is no volume plugin"
    plugin.misbehave(Create={"answer": {"Err": "boom"}})
    assert message(create(engine, plugin, "v")) == (500, "create v: boom")
    plugin.misbehave(Create={"status": 500, "body": '{"Err": "boom"}'})
    assert message(create(engine, plugin, "v")) == (500, "create v: VolumeDriver.Create: boom")
    plugin.misbehave(Create={"status": 404, "body": "page not found\n"})
    assert message(create(engine, plugin, "v")) == (500, "create v: VolumeDriver.Create: page not found")
    plugin.misbehave()
    create(engine, plugin, "v")
    plugin.misbehave(Mount={"answer": {"Err": "no"}}, Remove={"answer": {"Err": "cannot"}})
    assert message(run(engine, "cc", "v:/data:nocopy")) == (500, "error while mounting volume '': no")
    assert plugin.calls("Unmount") == [], "a mount that failed is not unmounted"
    engine.call("DELETE", "/containers/cc")
    assert message(engine.request("DELETE", "/volumes/v")) == (500, "remove v: cannot")


@pytest.mark.parametrize(
    "path", ["", "relative", "/somewhere/../etc", "/", "/proc/1", "/nonexistent", "{engine}/volumes", "link-to-engine"]
)
def test_a_lying_mountpoint_gives_nothing_away(engine: Engine, plugin: VolumePlugin, path: str) -> None:
    create(engine, plugin, "v")
    if path == "link-to-engine":
        path = str(plugin.folder / "link")
        Path(path).symlink_to(engine.state_root)
    lie = {"answer": {"Mountpoint": path.format(engine=engine.state_root)}}
    plugin.misbehave(Mount=lie, Path=lie)
    answer = run(engine, "cc", "v:/data:nocopy")
    assert answer.status == 500 and f'plugin "{plugin.name}"' in message(answer)[1], answer
    assert len(plugin.calls("Unmount")) == len(plugin.calls("Mount")) == 1


@pytest.mark.parametrize(
    "lie",
    [
        {"huge": 9 << 20}, {"status": 200, "body": "[" * 100_000}, {"status": 200, "body": "no JSON"},
        {"status": 200, "body": "[]"}, {"answer": {"Volumes": 7}},
        {"answer": {"Volumes": [7, {"Name": 7}, {"Name": "new\nline"}, {"Name": ""}, {}]}},
    ],
)  # fmt: skip
def test_a_list_that_makes_no_sense_spoils_no_other(engine: Engine, plugin: VolumePlugin, lie: Any) -> None:
    create(engine, plugin, "v")
    engine.call("POST", "/volumes/create", {"Name": "plain"})
    plugin.misbehave(List=lie)
    answer = engine.call("GET", "/volumes")
    assert [volume["Name"] for volume in answer["Volumes"]] == ["plain", "v"]
    assert answer["Warnings"] is None or f"list {plugin.name}: " in answer["Warnings"][0]


def test_a_plugin_that_hangs_holds_up_nobody(engine: Engine, plugin: VolumePlugin) -> None:
    create(engine, plugin, "v")
    plugin.misbehave(List={"hang": 3600}, Get={"hang": 3600}, Mount={"hang": 3600})
    took = [timed(engine, "GET", "/volumes") for _ in range(3)]
    assert took[0][1] < 1.5 and took[1][1] < 0.45 and took[2][1] < 0.45
    for answer, _ in took:
        assert "v" in [volume["Name"] for volume in answer.json()["Volumes"]]
        assert answer.json()["Warnings"][0].startswith(f"list {plugin.name}: ")
    answer, seconds = timed(engine, "GET", "/volumes/v")
    assert answer.status == 500 and seconds < TIMEOUT_S + 1
    assert "context deadline exceeded" in message(answer)[1]
    answer, seconds = timed(engine, "GET", "/volumes/v")
    assert answer.status == 500 and seconds < 0.9, "it is not asked again at once"
    answer, seconds = timed(engine, "POST", "/volumes/create", {"Name": "quick"})
    assert answer.status == 201 and seconds < 1
    plugin.misbehave()
    deadline = time.monotonic() + 20
    while engine.request("GET", "/volumes/v").status != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert engine.request("GET", "/volumes/v").status == 200, "it is asked again in time"


def test_storage_of_a_plugin_that_hangs(engine: Engine, plugin: VolumePlugin) -> None:
    create(engine, plugin, "v")
    with fuse_server(plugin.data("v"), engine.enter()) as server:
        server.hang()
        began = time.monotonic()
        answer = run(engine, "cc", "v:/data:nocopy")
        assert answer.status == 500 and time.monotonic() - began < 2 * TIMEOUT_S + 1
        assert "connection timed out" in message(answer)[1]
        assert timed(engine, "GET", "/volumes")[1] < 1
        server.come_back()
        assert engine.request("POST", "/containers/cc/start").status == 204
        assert engine.docker("exec", "cc", "cat", "/data/hello").stdout == "over fuse\n"
        engine.call("DELETE", "/containers/cc?force=1")
    assert {call["ID"] for call in plugin.calls("Mount")} == {call["ID"] for call in plugin.calls("Unmount")}


def test_compose(engine: Engine, plugin: VolumePlugin, tmp_path: Path) -> None:
    project = Project(engine, tmp_path / "shop")
    project.write(
        "services: {db: {image: busybox, command: sleep 600, network_mode: none, volumes: ['data:/data']}}\n"
        f"volumes: {{data: {{driver: {plugin.name}, driver_opts: {{size: '1'}}}}}}\n"
    )
    project.run("up", "-d")
    assert [call["Opts"] for call in plugin.calls("Create")] == [{"size": "1"}]
    shown = engine.call("GET", "/volumes/shop_data")
    assert (shown["Driver"], shown["Options"]) == (plugin.name, {"size": "1"})
    project.run("down", "-v", "-t", "0")
    assert [call["Name"] for call in plugin.calls("Remove")] == ["shop_data"]


def test_an_engine_ends_while_a_plugin_hangs(engine: Engine, plugin: VolumePlugin) -> None:
    create(engine, plugin, "v")
    plugin.misbehave(Get={"hang": 3600}, List={"hang": 3600})
    engine.environment["HOLDFAST_PLUGIN_TIMEOUT_S"] = "60"
    try:
        engine.restart()
        with ThreadPoolExecutor(1) as client:
            client.submit(engine.request, "GET", "/volumes/v")
            time.sleep(0.5)
            began = time.monotonic()
            assert engine.stop() == 0 and time.monotonic() - began < 8
    finally:
        engine.environment["HOLDFAST_PLUGIN_TIMEOUT_S"] = str(TIMEOUT_S)
        plugin.misbehave()
        engine.start()


def test_a_mount_that_was_not_answered_is_undone(engine: Engine, plugin: VolumePlugin) -> None:
    create(engine, plugin, "v")
    plugin.misbehave(Mount={"hang": TIMEOUT_S + 1})
    status, text = message(run(engine, "cc", "v:/data:nocopy"))
    assert status == 500 and "context deadline exceeded" in text
    plugin.misbehave()
    assert engine.request("POST", "/containers/cc/start").status == 204
    (late, _) = plugin.calls("Mount")
    assert [call["ID"] for call in plugin.calls("Unmount")] == [late["ID"]]


def test_a_plugin_that_dies_and_comes_back(engine: Engine, plugin: VolumePlugin) -> None:
    create(engine, plugin, "v")
    plugin.misbehave(Create={"crash": True})
    status, text = message(create(engine, plugin, "half"))
    assert status == 500 and text.startswith('create half: Post "http://plugin.moby.localhost/VolumeDriver.Create": ')
    plugin.wait_ended()
    time.sleep(1.1)
    status, text = message(engine.request("GET", "/volumes/v"))
    assert status == 500 and f"dial unix /run/docker/plugins/{plugin.name}.sock: connect: connection refused" in text
    assert "v" in [volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"]]
    assert engine.request("DELETE", "/volumes/v").status == 500
    plugin.misbehave()
    plugin.start()
    deadline = time.monotonic() + 20
    while engine.request("GET", "/volumes/v").status != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert create(engine, plugin, "half").status == 201
    plugin.stop()
    assert engine.request("DELETE", "/volumes/v?force=1").status == 204, "it is forgotten"
    plugin.start()
    shutil.rmtree(plugin.data("v"))
    engine.request("DELETE", "/volumes/half?force=1")


def test_a_socket_in_a_folder_of_its_own(engine: Engine, tmp_path: Path) -> None:
    with volume_plugin(engine, tmp_path / "sub", name="sub", place="/run/docker/plugins/sub/sub.sock") as plugin:
        assert create(engine, plugin, "insub").status == 201
        assert engine.request("DELETE", "/volumes/insub").status == 204
    engine.inside("rm", "-rf", "/run/docker/plugins/sub")


def test_an_engine_starts_beside_a_dead_plugin(engine: Engine, plugin: VolumePlugin) -> None:
    create(engine, plugin, "v", Labels={"l": "1"})
    assert run(engine, "up", "v:/data", RestartPolicy={"Name": "always"}).status == 204
    plugin.misbehave(List={"hang": 3600}, Get={"hang": 3600}, Activate={"hang": 3600})
    engine.kill()
    began = time.monotonic()
    engine.start()
    assert time.monotonic() - began < 8
    answer = engine.call("GET", "/volumes")
    assert [(volume["Name"], volume["Labels"]) for volume in answer["Volumes"]] == [("v", {"l": "1"})]
    plugin.misbehave()
    assert engine.call("GET", "/containers/up/json")["State"]["Running"]
    engine.call("DELETE", "/containers/up?force=1")
    deadline = time.monotonic() + 20
    while engine.request("DELETE", "/volumes/v").status != 204 and time.monotonic() < deadline:
        time.sleep(0.3)
    assert {call["ID"] for call in plugin.calls("Mount")} == {call["ID"] for call in plugin.calls("Unmount")}


@pytest.mark.parametrize("point", ["plugin-mounted", "container-started-not-recorded"])
def test_a_mount_of_an_engine_that_died_is_undone(engine: Engine, plugin: VolumePlugin, point: str) -> None:
    create(engine, plugin, "v")
    body = {"Image": "busybox", "Cmd": ["sleep", "9"], "HostConfig": {"NetworkMode": "none", "Binds": ["v:/d:nocopy"]}}
    engine.call("POST", "/containers/create?name=cc", body)
    engine.stop()
    engine.start(faults=point)
    with pytest.raises((OSError, http.client.HTTPException)):
        engine.request("POST", "/containers/cc/start")
    assert engine.wait_dead() == -9
    engine.start()
    deadline = time.monotonic() + 10
    while not plugin.calls("Unmount") and time.monotonic() < deadline:
        time.sleep(0.1)
    mounted = {call["ID"] for call in plugin.calls("Mount")}
    assert mounted <= {call["ID"] for call in plugin.calls("Unmount")}
    assert engine.request("DELETE", "/containers/cc?force=1").status == 204
    assert engine.request("DELETE", "/volumes/v").status == 204


def test_an_unmount_of_an_engine_that_died_is_done(engine: Engine, plugin: VolumePlugin) -> None:
    create(engine, plugin, "v")
    engine.stop()
    engine.start(faults="plugin-unmounted")
    assert run(engine, "cc", "v:/data:nocopy").status == 204
    with contextlib.suppress(OSError, http.client.HTTPException):
        engine.request("POST", "/containers/cc/kill")
    assert engine.wait_dead() == -9
    engine.start()
    deadline = time.monotonic() + 10
    while engine.call("GET", "/containers/cc/json")["State"]["Running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run(engine, "dd", "v:/data:nocopy").status == 204
    first, second = [call["ID"] for call in plugin.calls("Mount")]
    assert {call["ID"] for call in plugin.calls("Unmount")} == {first} != {second}


@pytest.mark.parametrize("point", ["volume-created-not-recorded", "volume-removed-not-forgotten"])
def test_a_volume_of_an_engine_that_died(engine: Engine, plugin: VolumePlugin, point: str) -> None:
    engine.stop()
    engine.start(faults=point)
    with contextlib.suppress(OSError, http.client.HTTPException):
        create(engine, plugin, "v", Labels={"l": "1"})
        engine.request("DELETE", "/volumes/v")
    assert engine.wait_dead() == -9
    engine.start()
    time.sleep(0.5)
    shown = engine.call("GET", "/volumes")["Volumes"]
    if point == "volume-created-not-recorded":
        assert [(volume["Name"], volume["Labels"]) for volume in shown] == [("v", {"l": "1"})]
    assert create(engine, plugin, "v").status == 201
    assert engine.request("DELETE", "/volumes/v").status == 204
    assert engine.call("GET", "/volumes")["Volumes"] == []
