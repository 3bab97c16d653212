"""What is refused about volumes and mounts: every code and every text, over the API.

Texts are Docker Engine's. Where it answers 500 for what its user got wrong, we answer 400.
"""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

ROOT = "<root>"
VOLUME = 'invalid mount config for type "volume": '
BIND = 'invalid mount config for type "bind": '
TMPFS = 'invalid mount config for type "tmpfs": '
LETTERS = (
    'includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
    "If you intended to pass a host directory, use absolute path"
)
SHORT = "volume name is too short, names should be at least two alphanumeric characters"


def refused(engine: Engine, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Status and message, with the engine's own folder replaced."""
    answer = engine.request(method, path, body)
    message = str(answer.json()["message"]) if answer.status >= 400 else ""
    return answer.status, message.replace(str(engine.state_root), ROOT)


def nothing_is_left(engine: Engine) -> None:
    """No container, and no volume but those that were named."""
    assert engine.call("GET", "/containers/json?all=1") == []
    assert [volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"] if len(volume["Name"]) == 64] == []


# --- creating a volume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Name": "a"}, 400, f"create a: {SHORT}"),
        ({"Name": "foo/bar"}, 400, f'create foo/bar: "foo/bar" {LETTERS}'),
        ({"Name": "./x"}, 400, f'create ./x: "./x" {LETTERS}'),
        ({"Name": 'a"b'}, 400, f'create a"b: "a\\"b" {LETTERS}'),
        ({"Name": "v1", "Driver": "nope"}, 404,
         'create v1: error looking up volume plugin nope: plugin "nope" not found'),
        ({"Name": "v1", "DriverOpts": {"foo": "1"}}, 400, 'create v1: invalid option: "foo"'),
        ({"Name": "v1", "DriverOpts": {"type": "nfs"}}, 400, 'create v1: missing required option: "device"'),
        ({"Name": "v1", "DriverOpts": {"device": ":/x"}}, 400, 'create v1: missing required option: "type"'),
        ({"Name": "v1", "DriverOpts": {"o": "rw"}}, 400, None),
        ({"Name": "v1", "DriverOpts": {"size": "x"}}, 400, "create v1: invalid size: 'x'"),
        ({"Name": "v1", "DriverOpts": {"type": "cifs", "device": "//host:445/share"}}, 400,
         "create v1: port not allowed in CIFS device URL, include 'port' in 'o='"),
        ({"Name": "v1", "ClusterVolumeSpec": {}}, 503,
         'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
         "swarm and try again."),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
@pytest.mark.timeout(60)
def test_volumes_that_cannot_be(clean_engine: Engine, body: dict[str, Any], status: int, message: str | None) -> None:
    got, said = refused(clean_engine, "POST", "/volumes/create", body)
    assert got == status
    if message is None:
        assert said in ('create v1: missing required option: "device"', 'create v1: missing required option: "type"')
    else:
        assert said == message
    assert clean_engine.call("GET", "/volumes")["Volumes"] == []


def test_cluster_volumes_are_ordinary_to_old_clients(clean_engine: Engine) -> None:
    made = clean_engine.request("POST", "/v1.41/volumes/create", {"Name": "v1", "ClusterVolumeSpec": {}})
    assert (made.status, made.json()["Driver"]) == (201, "local")


def test_a_volume_that_is_there_is_not_made_again(clean_engine: Engine) -> None:
    """Whatever else is asked for: not even checked, save the driver."""
    first = clean_engine.call("POST", "/volumes/create", {"Name": "v1", "Labels": {"a": "1"}})
    again = clean_engine.request("POST", "/volumes/create", {"Name": "v1", "Labels": {}, "DriverOpts": {"bad": "1"}})
    assert (again.status, again.json()) == (201, first)
    assert refused(clean_engine, "POST", "/volumes/create", {"Name": "v1", "Driver": "nope"}) == (
        404, 'create v1: error looking up volume plugin nope: plugin "nope" not found',
    )  # fmt: skip


# --- looking and removing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/volumes/nope", 404, "get nope: no such volume"),
        ("GET", "/volumes/", 404, "get: no such volume"),
        ("DELETE", "/volumes/nope", 404, "get nope: no such volume"),
        ("DELETE", "/volumes/nope?force=0", 404, "get nope: no such volume"),
        ("DELETE", "/volumes/nope?force=bogus", 204, ""),
        ("DELETE", "/volumes/nope?force=1", 204, ""),
        ("GET", "/system/df?type=foo", 400, "unknown object type: foo"),
    ],
)  # fmt: skip
def test_calls_that_lead_nowhere(clean_engine: Engine, method: str, path: str, status: int, message: str) -> None:
    assert refused(clean_engine, method, path) == (status, message)


@pytest.mark.parametrize(
    ("path", "filters", "message"),
    [
        ("GET /volumes", {"dangling": ["maybe"]}, "invalid filter 'dangling=[maybe]'"),
        ("GET /volumes", {"dangling": ["true", "false"]}, None),
        ("GET /volumes", {"foo": ["x"]}, "invalid filter 'foo'"),
        ("POST /volumes/prune", {"foo": ["x"]}, "invalid filter 'foo'"),
        ("POST /volumes/prune", {"dangling": ["1"]}, "invalid filter 'dangling'"),
        ("POST /volumes/prune", {"all": ["true", "false"]}, None),
        ("POST /volumes/prune", {"all": ["bar"]},
         "invalid filter 'all': strconv.ParseBool: parsing \"bar\": invalid syntax"),
    ],
)  # fmt: skip
def test_filters(clean_engine: Engine, path: str, filters: dict[str, list[str]], message: str | None) -> None:
    method, _, where = path.partition(" ")
    status, said = refused(clean_engine, method, f"{where}?filters={urllib.parse.quote(json.dumps(filters))}")
    assert status == 400
    if message is not None:
        assert said == message
    else:  # in any order
        assert said.startswith(("invalid filter 'dangling=[", "invalid filter 'all=["))


def test_driver_filters_and_names_that_match_nothing(clean_engine: Engine) -> None:
    clean_engine.call("POST", "/volumes/create", {"Name": "v1"})
    for filters in ({"driver": ["nope"]}, {"name": ["["]}, {"label": ["x"]}):
        path = "/volumes?filters=" + urllib.parse.quote(json.dumps(filters))
        assert clean_engine.call("GET", path) == {"Volumes": [], "Warnings": None}


def test_volumes_in_use(clean_engine: Engine) -> None:
    made = [
        clean_engine.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["v1:/d"]}})["Id"]
        for _ in range(2)
    ]
    for query in ("", "?force=1"):
        status, said = refused(clean_engine, "DELETE", f"/volumes/v1{query}")
        assert status == 409
        assert said in {f"remove v1: volume is in use - [{a}, {b}]" for a, b in (made, made[::-1])}


# --- containers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("/foo:ro", "invalid volume specification: '/foo:ro'"),
        (":/foo", "invalid volume specification: ':/foo'"),
        ("", "invalid volume specification: ''"),
        ("foo:", "invalid volume specification: 'foo:'"),
        ("a:/b:ro:x", "invalid volume specification: 'a:/b:ro:x'"),
        ("foo:/a:bad", "invalid mode: bad"),
        ("foo:/a:ro,ro", "invalid mode: ro,ro"),
        ("foo:/a:copy", "invalid mode: copy"),
        ("foo:/a:z,Z", "invalid mode: z,Z"),
        ("relsrc:reldst", f"invalid volume specification: 'relsrc:reldst': {VOLUME}"
                          "invalid mount path: 'reldst' mount path must be absolute"),
        ("foo:/", f"invalid volume specification: 'foo:/': {VOLUME}invalid specification: destination can't be '/'"),
        ("foo:/a:rshared",
         f"invalid volume specification: 'foo:/a:rshared': {VOLUME}field BindOptions must not be specified"),
        ("/tmp:/a:nocopy",
         f"invalid volume specification: '/tmp:/a:nocopy': {BIND}field VolumeOptions must not be specified"),
    ],
)  # fmt: skip
def test_binds(clean_engine: Engine, spec: str, message: str) -> None:
    got = refused(clean_engine, "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": [spec]}})
    assert got == (500 if isinstance(clean_engine, DockerEngine) else 400, message)
    nothing_is_left(clean_engine)


@pytest.mark.parametrize("spec", ["./x:/a", "../x:/a", "~:/a", "a b:/a", "a:/a"])
def test_names_in_binds(clean_engine: Engine, spec: str) -> None:
    name = spec.partition(":")[0]
    got = refused(clean_engine, "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": [spec]}})
    assert got == (400, f"create {name}: {SHORT}" if len(name) == 1 else f'create {name}: "{name}" {LETTERS}')
    nothing_is_left(clean_engine)


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"Type": "volume", "Source": "v1"}, f"{VOLUME}field Target must not be empty"),
        ({"Type": "volume", "Source": "v1", "Target": "/x/.."},
         f"{VOLUME}invalid specification: destination can't be '/'"),
        ({"Type": "volume", "Source": "v1", "Target": "a"},
         f"{VOLUME}invalid mount path: 'a' mount path must be absolute"),
        ({"Type": "volume", "Target": "/a", "VolumeOptions": {"Subpath": "s"}},
         f"{VOLUME}must not set Subpath when using anonymous volumes"),
        ({"Type": "volume", "Source": "v1", "Target": "/a", "VolumeOptions": {"Subpath": "../s"}},
         f"{VOLUME}subpath must be a relative path within the volume"),
        ({"Type": "volume", "Source": "v1", "Target": "/a", "VolumeOptions": {"Subpath": "s/../.."}},
         f"{VOLUME}subpath must be a relative path within the volume"),
        ({"Type": "volume", "Source": "v1", "Target": "/a", "BindOptions": {}},
         'BindOptions must not be specified on mount type "volume"'),
        ({"Type": "volume", "Source": "v1", "Target": "/a", "TmpfsOptions": {}},
         'TmpfsOptions must not be specified on mount type "volume"'),
        ({"Type": "bind", "Source": "/etc", "Target": "/a", "VolumeOptions": {}},
         'VolumeOptions must not be specified on mount type "bind"'),
        ({"Type": "volume", "Source": "v1", "Target": "/a", "ImageOptions": {}},
         f"{VOLUME}field ImageOptions must not be specified"),
        ({"Type": "bind", "Target": "/a"}, f"{BIND}field Source must not be empty"),
        ({"Type": "bind", "Source": "/etc", "Target": "/a", "BindOptions": {"Propagation": "foo"}},
         f"{BIND}invalid propagation mode: foo"),
        ({"Type": "bind", "Source": "rel", "Target": "/a"},
         f"{BIND}invalid mount path: 'rel' mount path must be absolute"),
        ({"Type": "bind", "Source": "/nonexist", "Target": "/a"}, f"{BIND}bind source path does not exist: /nonexist"),
        ({"Type": "tmpfs", "Source": "/etc", "Target": "/a"}, f"{TMPFS}field Source must not be specified"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Options": [["foo"]]}}, f"{TMPFS}invalid option: foo"),
        ({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Options": [["exec", "a", "b"]]}},
         f"{TMPFS}invalid option array length"),
        ({"Type": "image", "Target": "/a"}, 'invalid mount config for type "image": field Source must not be empty'),
        ({"Type": "foo", "Target": "/a"}, 'invalid mount config for type "foo": mount type unknown'),
        ({"Type": "npipe", "Source": "x", "Target": "/a"}, 'invalid mount config for type "npipe": mount type unknown'),
        ({"Target": "/a"}, 'invalid mount config for type "": mount type unknown'),
        ({"Type": "volume", "Source": "/bar", "Target": "/a"},
         f'create /bar: "/bar" {LETTERS}'),
        ({"Type": "volume", "Source": "b", "Target": "/a"}, f"create b: {SHORT}"),
        ({"Type": "volume", "Source": "yy", "Target": "/a",
          "VolumeOptions": {"DriverConfig": {"Options": {"foo": "1"}}}}, 'create yy: invalid option: "foo"'),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_mounts(clean_engine: Engine, mount: dict[str, Any], message: str) -> None:
    got = refused(clean_engine, "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})
    assert got == (400, message)
    nothing_is_left(clean_engine)


@pytest.mark.parametrize(
    ("version", "mount", "message"),
    [
        ("1.44", {"Type": "volume", "Source": "v1", "Target": "/a", "VolumeOptions": {"Subpath": "s"}},
         "VolumeOptions.Subpath needs API v1.45 or newer"),
        ("1.47", {"Type": "image", "Source": "busybox", "Target": "/a"}, 'Mount type "Image" needs API v1.48 or newer'),
        ("1.43", {"Type": "bind", "Source": "/etc", "Target": "/a", "ReadOnly": True,
                  "BindOptions": {"ReadOnlyForceRecursive": True}},
         "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"),
    ],
)  # fmt: skip
def test_mounts_of_newer_versions(clean_engine: Engine, version: str, mount: dict[str, Any], message: str) -> None:
    body = {"Image": "busybox", "HostConfig": {"Mounts": [mount]}}
    assert refused(clean_engine, "POST", f"/v{version}/containers/create", body) == (400, message)


@pytest.mark.parametrize(
    ("host", "status", "message"),
    [
        ({"VolumesFrom": [""]}, 400, "volumes-from specification cannot be an empty string"),
        ({"VolumesFrom": ["nope"]}, 400, "No such container: nope"),
        ({"VolumesFrom": ["origin:x"]}, 400, "invalid mode: x"),
        ({"VolumesFrom": ["origin:rshared"]}, 400, "invalid mode: rshared"),
        ({"VolumesFrom": ["origin:nocopy"]}, 400, "invalid mode: nocopy"),
        ({"Tmpfs": {"rel": ""}}, 400, "invalid mount path: 'rel' mount path must be absolute"),
        ({"Tmpfs": {"/": ""}}, 400, "invalid specification: destination can't be '/'"),
        ({"Mounts": [{"Type": "image", "Source": "nope", "Target": "/a"}]}, 404, "No such image: nope:latest"),
        ({"Binds": ["v1:/d"], "VolumeDriver": "nope"}, 404,
         'create v1: error looking up volume plugin nope: plugin "nope" not found'),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
@pytest.mark.timeout(60)
def test_other_mounts(clean_engine: Engine, host: dict[str, Any], status: int, message: str) -> None:
    origin = clean_engine.call("POST", "/containers/create?name=origin", {"Image": "busybox"})["Id"]
    assert refused(clean_engine, "POST", "/containers/create", {"Image": "busybox", "HostConfig": host}) == (
        status, message,
    )  # fmt: skip
    clean_engine.call("DELETE", f"/containers/{origin}")
    nothing_is_left(clean_engine)


def test_a_driver_for_all_that_mounts_do_not_hear(clean_engine: Engine) -> None:
    host = {"VolumeDriver": "nope", "Mounts": [{"Type": "volume", "Source": "v1", "Target": "/a"}]}
    made = clean_engine.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
    assert made["Warnings"] == [
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
        "Use '--mount type=volume,volume-driver=...' instead"
    ]
    assert clean_engine.call("GET", "/volumes/v1")["Driver"] == "local"


def test_options_of_a_volume_that_is_there_are_not_read(clean_engine: Engine) -> None:
    clean_engine.call("POST", "/volumes/create", {"Name": "v1"})
    mount = {"Type": "volume", "Source": "v1", "Target": "/a", "VolumeOptions": {
        "Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"foo": "1"}}}}  # fmt: skip
    answer = clean_engine.request("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})
    assert answer.status == 201
    kept = clean_engine.call("GET", "/volumes/v1")
    assert (kept["Labels"], kept["Options"]) == (None, None)


def test_a_file_under_an_anonymous_volume(clean_engine: Engine) -> None:
    body = {"Image": "busybox", "Volumes": {"/etc/passwd": {}}}
    status, said = refused(clean_engine, "POST", "/containers/create", body)
    assert status == (500 if isinstance(clean_engine, DockerEngine) else 400)
    assert said.startswith("cannot mount volume over existing file, file exists ")
    nothing_is_left(clean_engine)


# --- at the start -----------------------------------------------------------------------------------------------------


def started(engine: Engine, **host: Any) -> tuple[int, str]:
    """Create a container, start it and give the answer; its state must say the same."""
    made = engine.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host})
    status, said = refused(engine, "POST", f"/containers/{made['Id']}/start")
    shown = engine.call("GET", f"/containers/{made['Id']}/json")["State"]
    assert (shown["Status"], shown["ExitCode"]) == ("created", 128)
    assert shown["Error"].replace(str(engine.state_root), ROOT) == said
    return status, said


def test_subpaths(clean_engine: Engine) -> None:
    data = f"{ROOT}/volumes/v1/_data"
    prepare = "ln -s /etc /v/out; touch /v/file; mkdir /v/d"
    clean_engine.docker("run", "--rm", "-v", "v1:/v", "busybox", "sh", "-c", prepare)

    def start(subpath: str) -> tuple[int, str]:
        options = {"Subpath": subpath}
        mount = {"Type": "volume", "Source": "v1", "Target": "/no/such/place", "VolumeOptions": options}
        return started(clean_engine, Mounts=[mount])

    for missing in ("nope", "d/nope"):
        text = f"cannot access path {data}/{missing}: lstat {data}/{missing}: no such file or directory"
        assert start(missing) == (404, text)
    assert start("out") == (400, f"path concatenation escapes the base directory, base: {data}, subpath: out")
    status, said = start("file/below")
    assert (status >= 400, "file/below" in said) == (True, True)


MOUNTING = f"error while mounting volume '{ROOT}/volumes/vv/_data': failed to mount local volume: mount "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "none", "o": "bind", "device": "/nonexistent"},
         f"{MOUNTING}/nonexistent:{ROOT}/volumes/vv/_data, flags: 0x1000: no such file or directory"),
        ({"type": "ext4", "device": "/dev/nosuch"},
         f"{MOUNTING}/dev/nosuch:{ROOT}/volumes/vv/_data: no such file or directory"),
        ({"type": "nosuchfs", "device": "x"}, f"{MOUNTING}x:{ROOT}/volumes/vv/_data: no such device"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "noexec,size=1m,uid=1000,foo=bar"},
         f"{MOUNTING}tmpfs:{ROOT}/volumes/vv/_data, flags: 0x8, data: size=1m,uid=1000,foo=bar: invalid argument"),
        ({"type": "", "device": "x"}, None),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_mounts_of_the_local_driver(clean_engine: Engine, options: dict[str, str], message: str | None) -> None:
    clean_engine.call("POST", "/volumes/create", {"Name": "vv", "DriverOpts": options})
    status, said = started(clean_engine, Binds=["vv:/no/such/place"])
    assert status == 500
    assert said == message or (message is None and said.startswith("error while mounting volume "))
    # With something to fill it with, the volume is mounted when the container is created.
    status, said = refused(clean_engine, "POST", "/containers/create", {"Image": "busybox", "HostConfig": {
        "Binds": ["vv:/etc"]}})  # fmt: skip
    assert status == 500
    assert said == f"failed to populate volume: {message}" or message is None
    assert len(clean_engine.call("GET", "/containers/json?all=1")) == 1
    assert clean_engine.call("GET", "/volumes/vv")["Options"] == options


def test_a_bind_source_that_goes_away(clean_engine: Engine, folder: Any) -> None:
    (folder / "src").mkdir()
    mount = {"Type": "bind", "Source": str(folder / "src"), "Target": "/a"}
    made = clean_engine.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})
    (folder / "src").rmdir()
    status, said = refused(clean_engine, "POST", f"/containers/{made['Id']}/start")
    assert (status, said) == (400, f"{BIND}bind source path does not exist: {folder}/src")
