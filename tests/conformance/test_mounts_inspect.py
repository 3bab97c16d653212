"""`Mounts` of an inspected container, field by field; which mount wins where several want one place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine
from tests.support.images import busybox_image, dir_entry, docker_archive, layer, symlink_entry
from tests.support.images import image as make_image

pytestmark = pytest.mark.kernel

ANONYMOUS = "<64 hex>"
DATA = "<folder of the volume>"
FIELDS = ["Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"]


def create(engine: Engine, name: str = "", /, *, image: str = "busybox", **more: Any) -> str:
    """Create a container; what is not a member of the configuration goes into HostConfig."""
    body: dict[str, Any] = {"Image": image}
    body |= {key: more.pop(key) for key in ("Volumes", "Cmd") if key in more}
    body["HostConfig"] = more
    return str(engine.call("POST", f"/containers/create{f'?name={name}' if name else ''}", body)["Id"])


def mounts(engine: Engine, container: str) -> dict[str, dict[str, Any]]:
    """The mounts by destination, with names and folders that differ from run to run replaced."""
    found = {}
    for mount in engine.call("GET", f"/containers/{container}/json")["Mounts"]:
        present = [field for field in FIELDS if field in mount]
        assert list(mount) == present, "fields are out of order, or unknown"
        if mount["Type"] == "volume":
            known = engine.call("GET", f"/volumes/{mount['Name']}")
            assert mount["Source"] == known["Mountpoint"]
            mount["Source"] = DATA
        if re.fullmatch("[0-9a-f]{64}", mount.get("Name", "")):
            mount["Name"] = ANONYMOUS
        assert mount["Destination"] not in found
        found[mount["Destination"]] = mount
    return found


def volume(name: str, *, mode: str = "z", rw: bool = True) -> dict[str, Any]:
    """What a volume of the local driver looks like, but for its destination."""
    return {
        "Type": "volume", "Name": name, "Source": DATA, "Driver": "local", "Mode": mode, "RW": rw, "Propagation": "",
    }  # fmt: skip


def bind(source: str, *, mode: str = "", rw: bool = True, propagation: str = "rprivate") -> dict[str, Any]:
    """What a folder of the host looks like."""
    return {"Type": "bind", "Source": source, "Mode": mode, "RW": rw, "Propagation": propagation}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # -v
        ({"Binds": ["n1:/d"]}, volume("n1")),
        ({"Binds": ["n1:/d:"]}, volume("n1")),
        ({"Binds": ["n1:/d/"]}, volume("n1")),
        ({"Binds": ["n1:/x/../d"]}, volume("n1")),
        ({"Binds": ["n1:/d:ro"]}, volume("n1", mode="ro", rw=False)),
        ({"Binds": ["n1:/d:rw"]}, volume("n1", mode="rw")),
        ({"Binds": ["n1:/d:z"]}, volume("n1", mode="z")),
        ({"Binds": ["n1:/d:ro,Z"]}, volume("n1", mode="ro,Z", rw=False)),
        ({"Binds": ["n1:/d:nocopy"]}, volume("n1", mode="nocopy")),
        ({"Binds": ["n1:/d:ro,nocopy"]}, volume("n1", mode="ro,nocopy", rw=False)),
        ({"Volumes": {"/d": {}}}, volume(ANONYMOUS, mode="")),
        ({"Volumes": {"/d/": {}}}, volume(ANONYMOUS, mode="")),
        # --mount
        ({"Mounts": [{"Type": "volume", "Source": "n1", "Target": "/d"}]}, volume("n1")),
        ({"Mounts": [{"Type": "volume", "Source": "n1", "Target": "/d/"}]}, volume("n1")),
        ({"Mounts": [{"Type": "volume", "Source": "n1", "Target": "/d", "ReadOnly": True}]}, volume("n1", rw=False)),
        ({"Mounts": [{"Type": "volume", "Target": "/d"}]}, volume(ANONYMOUS)),
        ({"Mounts": [{"Type": "volume", "Source": "n1", "Target": "/d", "VolumeOptions": {"NoCopy": True}}]},
         volume("n1")),
        ({"Mounts": [{"Type": "volume", "Source": "n1", "Target": "/d", "VolumeOptions": {"Subpath": "a/b"}}]},
         volume("n1")),
        ({"Mounts": [{"Type": "volume", "Target": "/d", "VolumeOptions": {
            "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}}}]},
         volume(ANONYMOUS)),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/d"}]},
         {"Type": "tmpfs", "Source": "", "Mode": "", "RW": True, "Propagation": ""}),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/d", "ReadOnly": True, "TmpfsOptions": {"SizeBytes": 65536}}]},
         {"Type": "tmpfs", "Source": "", "Mode": "", "RW": False, "Propagation": ""}),
        # folders of the host
        ({"Binds": ["/etc:/d"]}, bind("/etc")),
        ({"Binds": ["/etc/../usr/:/d:ro"]}, bind("/usr", mode="ro", rw=False)),
        ({"Binds": ["/etc:/d:rslave,Z"]}, bind("/etc", mode="rslave,Z", propagation="rslave")),
        ({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/d"}]}, bind("/etc")),
        ({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/d", "ReadOnly": True}]}, bind("/etc", rw=False)),
        ({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/d", "BindOptions": {"Propagation": "rshared"}}]},
         bind("/etc", propagation="rshared")),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) and "Type" not in value else "",
)  # fmt: skip
def test_one_mount(clean_engine: Engine, asked: dict[str, Any], expected: dict[str, Any]) -> None:
    container = create(clean_engine, **asked)
    assert mounts(clean_engine, container) == {"/d": {**expected, "Destination": "/d"}}


def test_a_place_alone_among_binds(clean_engine: Engine) -> None:
    """The client never sends one. Docker Engine makes a mount that has no name."""
    if isinstance(clean_engine, DockerEngine):
        pytest.skip("only on Holdfast: Docker Engine mounts a volume without a name")
    expected = {**volume(ANONYMOUS, mode=""), "Destination": "/d"}
    assert mounts(clean_engine, create(clean_engine, Binds=["/d"])) == {"/d": expected}


def test_tmpfs_by_map_is_not_listed(clean_engine: Engine) -> None:
    container = create(clean_engine, Tmpfs={"/d": "size=64k"}, Volumes={"/d": {}})
    assert mounts(clean_engine, container) == {}
    assert clean_engine.call("GET", "/volumes")["Volumes"] == []


def test_an_image_as_a_mount(clean_engine: Engine) -> None:
    container = create(clean_engine, Mounts=[{"Type": "image", "Source": "busybox:latest", "Target": "/d"}])
    (mount,) = clean_engine.call("GET", f"/containers/{container}/json")["Mounts"]
    source = mount.pop("Source")
    assert mount == {
        "Type": "image", "Name": "busybox:latest", "Destination": "/d", "Mode": "", "RW": False,
        "Propagation": "rprivate",
    }  # fmt: skip
    assert source


def test_inherited_mounts(clean_engine: Engine) -> None:
    create(
        clean_engine, "origin", Volumes={"/anonymous": {}}, Binds=["named:/named", "named2:/ro:ro", "/etc:/e:rslave"],
        Mounts=[{"Type": "volume", "Source": "named3", "Target": "/m", "ReadOnly": True}],
    )  # fmt: skip
    assert mounts(clean_engine, create(clean_engine, VolumesFrom=["origin"])) == {
        "/anonymous": {**volume(ANONYMOUS, mode=""), "Destination": "/anonymous"},
        "/named": {**volume("named", mode=""), "Destination": "/named"},
        "/ro": {**volume("named2", mode="", rw=False), "Destination": "/ro"},
        "/m": {**volume("named3", mode="", rw=False), "Destination": "/m"},
        "/e": {**bind("/etc", propagation="rslave"), "Destination": "/e"},
    }
    narrowed = mounts(clean_engine, create(clean_engine, VolumesFrom=["origin:ro"]))
    assert {name: mount["RW"] for name, mount in narrowed.items()} == dict.fromkeys(narrowed, False)
    widened = mounts(clean_engine, create(clean_engine, VolumesFrom=["origin:rw"]))
    assert {name for name, mount in widened.items() if not mount["RW"]} == {"/m", "/ro"}


def test_the_listing_shows_the_same_mounts(clean_engine: Engine) -> None:
    container = create(clean_engine, Binds=["n1:/d:ro", "/etc:/e"], Volumes={"/anonymous": {}})
    (listed,) = clean_engine.call("GET", "/containers/json?all=1")
    inspected = clean_engine.call("GET", f"/containers/{container}/json")

    def ordered(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """By destination; Docker Engine forgets the source of anonymous volumes in its listing, so without any."""
        without = [{name: value for name, value in mount.items() if name != "Source"} for mount in found]
        return sorted(without, key=lambda mount: str(mount["Destination"]))

    assert ordered(listed["Mounts"]) == ordered(inspected["Mounts"])


ECHOED: dict[str, Any] = {
    "Binds": ["n1:/d:ro", "/etc:/e"],
    "VolumeDriver": "local",
    "Tmpfs": {"/t": "size=64k"},
    "Mounts": [
        {"Type": "volume", "Source": "n2", "Target": "/m/", "ReadOnly": True,
         "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}, "Subpath": "s",
                           "DriverConfig": {"Name": "local", "Options": {"device": "tmpfs", "type": "tmpfs"}}}},
        {"Type": "bind", "Source": "/usr", "Target": "/u",
         "BindOptions": {"Propagation": "rslave", "NonRecursive": True, "CreateMountpoint": True}},
        {"Type": "tmpfs", "Target": "/t2", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 448}},
        {"Type": "volume", "Source": "n3", "Target": "/n", "VolumeOptions": {"DriverConfig": {}}},
    ],
}  # fmt: skip


def test_what_was_asked_is_shown_again(clean_engine: Engine) -> None:
    shown = clean_engine.call("GET", f"/containers/{create(clean_engine, **ECHOED)}/json")["HostConfig"]
    assert {name: shown[name] for name in ECHOED} == ECHOED
    assert json.dumps(shown["Mounts"]) == json.dumps(ECHOED["Mounts"])
    bare = clean_engine.call("GET", f"/containers/{create(clean_engine)}/json")["HostConfig"]
    assert (bare["Binds"], bare["VolumesFrom"], bare["VolumeDriver"]) == (None, None, "")
    assert not {"Mounts", "Tmpfs"} & set(bare)


# --- who wins ---------------------------------------------------------------------------------------------------------


def names(engine: Engine, container: str) -> dict[str, str]:
    """What is mounted where: a volume's name, a folder, or the type."""
    shown = mounts(engine, container)
    return {place: mount.get("Name") or mount["Source"] or mount["Type"] for place, mount in shown.items()}


def declared(engine: Engine, *places: str) -> None:
    """An image `declared` with a VOLUME at each place."""
    image = busybox_image(tags=("declared:latest",), config={"Volumes": {place: {} for place in places}})
    engine.request("POST", "/images/load?quiet=1", raw=docker_archive([image]))


def test_later_kinds_win(clean_engine: Engine) -> None:
    declared(clean_engine, "/a", "/b", "/c", "/d", "/e")
    create(clean_engine, "first", Binds=["first:/a", "first:/b", "first:/c"])
    create(clean_engine, "second", Binds=["second:/b", "second:/c"])
    container = create(
        clean_engine, image="declared", VolumesFrom=["first", "second"], Binds=["bound:/c"], Tmpfs={"/d": ""},
        Volumes={"/f": {}, "/a/": {}},
    )  # fmt: skip
    assert names(clean_engine, container) == {
        "/a": "first", "/b": "second", "/c": "bound", "/e": ANONYMOUS, "/f": ANONYMOUS,
    }  # fmt: skip
    config = clean_engine.call("GET", f"/containers/{container}/json")["Config"]["Volumes"]
    assert {place.rstrip("/") for place in config} == {"/a", "/b", "/c", "/d", "/e", "/f"}


def test_mounts_win_over_what_is_inherited_and_declared(clean_engine: Engine) -> None:
    declared(clean_engine, "/m")
    create(clean_engine, "first", Binds=["first:/m"])
    mounted = [{"Type": "volume", "Source": "own", "Target": "/m"}]
    assert names(clean_engine, create(clean_engine, image="declared", VolumesFrom=["first"], Mounts=mounted)) == {
        "/m": "own"
    }


def test_what_was_overridden_is_not_held(clean_engine: Engine) -> None:
    create(clean_engine, "first", Binds=["loser:/m"])
    create(clean_engine, "second", VolumesFrom=["first"], Binds=["winner:/m"])
    clean_engine.call("DELETE", "/containers/first")
    assert clean_engine.request("DELETE", "/volumes/loser").status == 204
    assert clean_engine.request("DELETE", "/volumes/winner").status == 409


def test_places_that_are_the_same(clean_engine: Engine) -> None:
    assert len(mounts(clean_engine, create(clean_engine, Volumes={"/x": {}, "/x/": {}, "/y/../x": {}}))) == 1
    assert len(clean_engine.call("GET", "/volumes")["Volumes"]) == 1


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"Binds": ["a1:/x", "b1:/x"]}, "/x"),
        ({"Binds": ["a1:/x", "b1:/x/"]}, "/x"),
        ({"Binds": ["a1:/x", "/etc:/y/../x"]}, "/x"),
        ({"Binds": ["a1:/x"], "Mounts": [{"Type": "volume", "Source": "b1", "Target": "/x"}]}, "/x"),
        ({"Binds": ["a1:/x"], "Mounts": [{"Type": "volume", "Source": "b1", "Target": "/x/"}]}, "/x/"),
        ({"Binds": ["a1:/x"], "Mounts": [{"Type": "tmpfs", "Target": "/x"}]}, "/x"),
        ({"Mounts": [{"Type": "volume", "Target": "/x"}, {"Type": "volume", "Target": "/x"}]}, "/x"),
        ({"Binds": ["a1:/x"], "Tmpfs": {"/x": ""}}, "/x"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)  # fmt: skip
def test_duplicates(clean_engine: Engine, asked: Mapping[str, Any], place: str) -> None:
    answer = clean_engine.request("POST", "/containers/create", {"Image": "busybox", "HostConfig": asked})
    assert (answer.status, answer.json()["message"]) == (400, f"Duplicate mount point: {place}")
    assert clean_engine.call("GET", "/containers/json?all=1") == []


def test_tmpfs_wins_over_a_mount_at_its_place(clean_engine: Engine) -> None:
    container = create(
        clean_engine, Tmpfs={"/x": ""}, Mounts=[{"Type": "volume", "Source": "under", "Target": "/x"}],
        Cmd=["grep", "-c", " /x tmpfs ", "/proc/mounts"],
    )  # fmt: skip
    assert names(clean_engine, container) == {"/x": "under"}
    clean_engine.call("POST", f"/containers/{container}/start")
    assert clean_engine.call("POST", f"/containers/{container}/wait")["StatusCode"] == 0


def test_deep_mounts_lie_in_shallow_ones(clean_engine: Engine, folder: Path) -> None:
    """However they are asked for, `/x` comes before `/x/y`, and both are seen."""
    container = create(
        clean_engine, Binds=["deepest:/x/y/z", "deep:/x/y"],
        Mounts=[{"Type": "volume", "Source": "top", "Target": "/x"}],
        Cmd=["sh", "-c", "touch /x/1 /x/y/2 /x/y/z/3; awk '$2 ~ \"^/x\" {print $2}' /proc/mounts"],
    )  # fmt: skip
    assert clean_engine.docker("start", "-a", container).stdout.split() == ["/x", "/x/y", "/x/y/z"]
    look = ["find", "/t", "/d", "/e", "-type", "f"]
    viewer = create(clean_engine, Binds=["top:/t", "deep:/d", "deepest:/e"], Cmd=look)
    assert sorted(clean_engine.docker("start", "-a", viewer).stdout.split()) == ["/d/2", "/e/3", "/t/1"]


def test_links_at_the_destination(clean_engine: Engine) -> None:
    """A link is followed inside the root; inspect shows what was asked for."""
    links = layer([symlink_entry("link", "/target"), dir_entry("target"), symlink_entry("lost", "../../nowhere")])
    image = make_image([*busybox_image().layers, links], tags=["linked:latest"])
    clean_engine.request("POST", "/images/load?quiet=1", raw=docker_archive([image]))
    container = create(
        clean_engine, image="linked", Binds=["v1:/link", "v2:/lost"],
        Cmd=["sh", "-c", "touch /target/1 /nowhere/2; awk '/target|nowhere/ {print $2}' /proc/mounts"],
    )  # fmt: skip
    assert set(mounts(clean_engine, container)) == {"/link", "/lost"}
    assert sorted(clean_engine.docker("start", "-a", container).stdout.split()) == ["/nowhere", "/target"]
