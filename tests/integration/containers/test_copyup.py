"""Filling volumes through the stock client: the rows of Docker's behaviour, one by one."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine, engine_below
from tests.support.images import (
    busybox_entries,
    device_entry,
    dir_entry,
    docker_archive,
    file_entry,
    hardlink_entry,
    image,
    layer,
    symlink_entry,
)
from tests.support.state import assert_consistent

pytestmark = pytest.mark.kernel

IMAGE = "fill:1"


def fifo_entry(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info, data = file_entry(name)
    info.type = tarfile.FIFOTYPE
    return info, data


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with an image that has something of everything, in two layers, and one with VOLUMEs."""
    data = dir_entry("data", mode=0o750, uid=33, gid=34)
    base = layer(
        [
            *busybox_entries(),
            data,
            file_entry("data/a", b"a", uid=1000, gid=1001),
            file_entry("data/gone", b"gone"),
            file_entry("data/su", b"x", mode=0o4755),
            dir_entry("data/sub", mode=0o2775, gid=9),
            file_entry("data/sub/b", b"below"),
            hardlink_entry("data/sub/hard", "data/a", mode=0o644, uid=1000, gid=1001),
            symlink_entry("data/abs", "/etc/passwd"),
            fifo_entry("data/fifo"),
            device_entry("data/null", 1, 3),
            dir_entry("own", mode=0o1777, uid=1000, gid=1001),
            symlink_entry("dlink", "/data"),
            symlink_entry("dangling", "/nowhere"),
            file_entry("file", b"x"),
            dir_entry("nest"), dir_entry("nest/a"), dir_entry("nest/a/b"), file_entry("nest/a/b/x", b"x"),
        ]
    )  # fmt: skip
    top = layer([data, file_entry("data/.wh.gone"), file_entry("data/.dot", b".")])
    config = {"Volumes": {"/data": {}, "/nest/a/b": {}}, "WorkingDir": "/wd/in"}
    images = [
        image([base, top], tags=[IMAGE]),
        image([base, top], tags=["volumes:1"], config=config),
        image([layer([*busybox_entries(), dir_entry("data"), file_entry("data/other", b"other")])], tags=["other:1"]),
    ]
    with engine_below(tmp_path_factory.mktemp("engine")) as running:
        loaded = running.request("POST", "/images/load?quiet=1", raw=docker_archive(images))
        assert loaded.status == 200 and b"error" not in loaded.body
        yield running


def data_of(engine: Engine, volume: str) -> Path:
    return Path(engine.call("GET", f"/volumes/{volume}")["Mountpoint"])


def created(engine: Engine, *words: str, name: str = IMAGE) -> str:
    """`docker create`; gives the container's id. It is removed, its volumes stay."""
    key = engine.docker("create", "--network", "none", *words, name, "true").stdout.strip()
    engine.docker("rm", key)
    return key


def listing(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


WHOLE = [".dot", "a", "abs", "fifo", "null", "su", "sub", "sub/b", "sub/hard"]


def test_create_alone_fills(engine: Engine) -> None:
    created(engine, "-v", "plain:/data")
    data = data_of(engine, "plain")
    assert listing(data) == WHOLE
    root = data.stat()
    assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid) == (0o750, 33, 34)
    assert (data / "su").stat().st_mode & 0o7777 == 0o4755
    assert ((data / "a").stat().st_uid, (data / "a").stat().st_gid, (data / "a").stat().st_nlink) == (1000, 1001, 2)
    assert (data / "a").stat().st_ino == (data / "sub/hard").stat().st_ino
    assert (data / "a").stat().st_mtime == 1704067200
    assert stat.S_IMODE((data / "sub").stat().st_mode) == 0o2775 and (data / "sub").stat().st_gid == 9
    assert os.readlink(data / "abs") == "/etc/passwd"
    assert stat.S_ISFIFO((data / "fifo").lstat().st_mode)
    assert stat.S_ISCHR((data / "null").lstat().st_mode) and (data / "null").lstat().st_rdev == os.makedev(1, 3)


def test_events_say_nothing_of_it(engine: Engine) -> None:
    began = engine.call("GET", "/info")["SystemTime"]
    created(engine, "-v", "silent:/data")
    now = engine.call("GET", "/info")["SystemTime"]
    span = ("--since", began, "--until", now)
    said = engine.docker("events", *span, "--filter", "type=volume", "--format", "{{.Action}}")
    assert said.stdout.split() == ["create"]


@pytest.mark.parametrize(
    ("case", "words", "expected"),
    [
        ("nocopy", ["-v", "VOL:/data:nocopy"], []),
        ("guide-nocopy", ["-v", "VOL:/data:volume-nocopy"], []),
        ("mount-nocopy", ["--mount", "source=VOL,target=/data,volume-nocopy"], []),
        ("mount", ["--mount", "source=VOL,target=/data"], WHOLE),
        ("read-only", ["-v", "VOL:/data:ro"], WHOLE),
        ("mount-read-only", ["--mount", "source=VOL,target=/data,readonly"], WHOLE),
        ("link", ["-v", "VOL:/dlink"], WHOLE),
        ("dangling", ["-v", "VOL:/dangling"], []),
        ("file", ["-v", "VOL:/file"], []),
        ("missing", ["-v", "VOL:/missing/deep"], []),
        ("own", ["-v", "VOL:/own"], []),
    ],
)
def test_rows(engine: Engine, case: str, words: list[str], expected: list[str]) -> None:
    volume = f"row-{case}"
    created(engine, *[word.replace("VOL", volume) for word in words])
    data = data_of(engine, volume)
    assert listing(data) == expected
    status = data.stat()
    kept = {"own": (0o1777, 1000, 1001)}.get(case, (0o750, 33, 34) if expected else (0o755, 0, 0))
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == kept


def test_a_link_as_destination_stays_one_in_inspect(engine: Engine) -> None:
    key = engine.docker("create", "--network", "none", "-v", "linked:/dlink", IMAGE, "ls", "/data").stdout.strip()
    (point,) = engine.call("GET", f"/containers/{key}/json")["Mounts"]
    assert point["Destination"] == "/dlink"
    assert engine.docker("start", "-a", key).stdout.split() == ["a", "abs", "fifo", "null", "su", "sub"]
    engine.docker("rm", key)


def test_an_anonymous_volume_over_a_file(engine: Engine) -> None:
    refused = engine.docker("create", "-v", "/file", IMAGE, "true", check=False)
    assert "cannot mount volume over existing file, file exists /file" in refused.stderr
    assert str(engine.state_root) not in refused.stderr
    assert refused.returncode == 1


def test_what_is_there_is_left_alone(engine: Engine) -> None:
    engine.docker("volume", "create", "taken")
    (data_of(engine, "taken") / ".mine").touch()
    created(engine, "-v", "taken:/data")
    assert listing(data_of(engine, "taken")) == [".mine"]
    created(engine, "-v", "second:/data")
    created(engine, "-v", "second:/data", name="other:1")
    assert listing(data_of(engine, "second")) == WHOLE


def test_emptied_between_create_and_start(engine: Engine) -> None:
    words = ("--network", "none", "-v", "emptied:/data", IMAGE, "ls", "-A", "/data")
    key = engine.docker("create", *words).stdout.strip()
    data = data_of(engine, "emptied")
    for entry in sorted(data.rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    assert engine.docker("start", "-a", key).stdout == ""
    engine.docker("rm", key)
    created(engine, "-v", "emptied:/data")
    assert listing(data) == WHOLE, "the next create fills it again"


def test_nested_volumes_come_from_the_image_alone(engine: Engine) -> None:
    key = engine.docker(
        "create", "--network", "none", "-v", "outer:/nest", "-v", "inner:/nest/a/b", IMAGE, "find", "/nest"
    ).stdout.strip()
    assert listing(data_of(engine, "outer")) == ["a", "a/b", "a/b/x"]
    assert listing(data_of(engine, "inner")) == ["x"]
    assert sorted(engine.docker("start", "-a", key).stdout.split()) == ["/nest", "/nest/a", "/nest/a/b", "/nest/a/b/x"]
    engine.docker("rm", key)


def test_volumes_of_the_image_and_its_working_directory(engine: Engine) -> None:
    words = ("--network", "none", "-v", "/nest", "-v", "wd:/wd", "volumes:1", "sh", "-c", "pwd; ls -A /data /nest/a/b")
    key = engine.docker("create", *words).stdout.strip()
    assert listing(data_of(engine, "wd")) == ["in"], "the working directory is made before volumes are filled"
    mounts = engine.call("GET", f"/containers/{key}/json")["Mounts"]
    assert {point["Destination"] for point in mounts} == {"/data", "/nest", "/nest/a/b", "/wd"}
    said = engine.docker("start", "-a", key).stdout
    assert said.startswith("/wd/in\n") and ".dot" in said and "x" in said.split()
    engine.docker("rm", "-v", key)


def test_volumes_from_never_fills(engine: Engine) -> None:
    engine.docker("create", "--name", "giver", "--network", "none", "-v", "given:/data:nocopy", IMAGE, "true")
    engine.docker("create", "--name", "taker", "--network", "none", "--volumes-from", "giver", IMAGE, "true")
    assert listing(data_of(engine, "given")) == []
    engine.docker("rm", "giver", "taker")


def test_subpaths(engine: Engine) -> None:
    engine.docker("volume", "create", "parts")
    data = data_of(engine, "parts")
    (data / "empty").mkdir()
    (data / "full").mkdir()
    (data / "full/mine").touch()
    (data / "afile").write_text("x")
    (data / "out").symlink_to("/etc")
    created(engine, "--mount", "source=parts,target=/data,volume-subpath=empty")
    assert listing(data / "empty") == WHOLE
    assert ((data / "empty").stat().st_uid, (data / "empty").stat().st_mode & 0o7777) == (33, 0o750)
    created(engine, "--mount", "source=parts,target=/data,volume-subpath=/full")
    assert listing(data / "full") == ["mine"]
    created(engine, "--mount", "source=parts,target=/file,volume-subpath=afile")
    key = engine.docker(
        "create", "--network", "none", "--mount", "source=parts,target=/data,volume-subpath=nope", IMAGE, "true"
    ).stdout.strip()
    refused = engine.request("POST", f"/containers/{key}/start")
    assert (refused.status, refused.json()["message"]) == (
        404, f"cannot access path {data}/nope: lstat {data}/nope: no such file or directory"
    )  # fmt: skip
    engine.docker("rm", key)
    mount = {"Type": "volume", "Source": "parts", "Target": "/data", "VolumeOptions": {"Subpath": "out"}}
    body = {"Image": IMAGE, "HostConfig": {"Mounts": [mount]}}
    escaped = engine.request("POST", "/containers/create?name=escapes", body)
    assert (escaped.status, escaped.json()["message"]) == (
        400,
        f"failed to populate volume: path concatenation escapes the base directory, base: {data}, subpath: out",
    )
    assert engine.request("GET", "/containers/escapes/json").status == 404
    assert engine.docker("volume", "ls", "-q").stdout.split().count("parts") == 1


def test_subpaths_are_made_for_volumes_that_want_it(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "subpath-create=1000:1000:0700", "grows")
    data = data_of(engine, "grows")
    created(engine, "--mount", "source=grows,target=/missing,volume-subpath=new/one")
    said = engine.docker(
        "run", "--rm", "--network", "none", "--mount", "source=grows,target=/x,volume-subpath=new/two", IMAGE,
        "stat", "-c", "%u:%g:%a", "/x",
    ).stdout  # fmt: skip
    assert said == "1000:1000:700\n"
    assert (data / "new").stat().st_uid == 1000
    created(engine, "--mount", "source=grows,target=/data,volume-subpath=filled")
    assert listing(data / "filled") == WHOLE


def test_volumes_on_tmpfs_lose_the_copy_and_binds_keep_it(engine: Engine, tmp_path: Path) -> None:
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "fleeting")
    words = ("--network", "none", "-v", "fleeting:/data", IMAGE, "ls", "-A", "/data")
    assert engine.docker("run", "--rm", *words).stdout == ""
    (tmp_path / "kept").mkdir()
    options = ("-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}/kept")
    engine.docker("volume", "create", *options, "bound")
    created(engine, "-v", "bound:/data")
    assert listing(tmp_path / "kept") == WHOLE
    assert (tmp_path / "kept").stat().st_uid == 33


def test_at_once(engine: Engine) -> None:
    """Many creates of one volume: one fills, all see it whole."""
    import threading

    answers = []

    def create(number: int) -> None:
        body = {"Image": IMAGE, "HostConfig": {"Binds": ["crowd:/data"], "NetworkMode": "none"}}
        answers.append(engine.request("POST", f"/containers/create?name=crowd{number}", body).status)

    threads = [threading.Thread(target=create, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 8
    assert listing(data_of(engine, "crowd")) == WHOLE
    engine.docker("rm", *[f"crowd{number}" for number in range(8)])


def test_nothing_is_left_over(engine: Engine) -> None:
    assert_consistent(engine, within_s=15)


def test_a_container_that_removes_itself_can_be_restarted(engine: Engine) -> None:
    """Its root is mounted so that it is never flushed, and such a mount must not refuse the next one."""
    engine.docker("run", "-d", "--rm", "--name", "again", "--network", "none", IMAGE, "sleep", "1000")
    engine.docker("exec", "again", "touch", "/written")
    engine.docker("restart", "-t", "0", "again")
    assert engine.docker("exec", "again", "ls", "/written").stdout == "/written\n"
    engine.docker("rm", "-f", "again")


# --- mounts of type image ------------------------------------------------------------------------------------------


def test_an_image_as_a_mount(engine: Engine) -> None:
    engine.docker("tag", "other:1", "shown:1")
    mount = ("--network", "none", "--mount")
    said = engine.docker("run", "--rm", *mount, "type=image,source=shown:1,target=/x", IMAGE, "cat", "/x/data/other")
    assert said.stdout == "other"
    part = "type=image,source=shown:1,target=/x,image-subpath=data"
    assert engine.docker("run", "--rm", *mount, part, IMAGE, "ls", "/x").stdout == "other\n"
    written = engine.docker("run", "--rm", *mount, part, IMAGE, "touch", "/x/y", check=False)
    assert "Read-only file system" in written.stderr
    two = "type=image,source=fill:1,target=/x"
    assert "gone" not in engine.docker("run", "--rm", *mount, two, IMAGE, "ls", "/x/data").stdout


def test_an_image_mount_is_shown_and_keeps_the_image(engine: Engine) -> None:
    engine.docker("tag", "other:1", "used:1")
    engine.docker("rmi", "other:1", "shown:1", check=False)
    engine.docker(
        "run", "-d", "--name", "uses", "--network", "none", "--mount", "type=image,source=used:1,target=/x", IMAGE,
        "sleep", "1000",
    )  # fmt: skip
    (point,) = json.loads(engine.docker("inspect", "uses", "--format", "{{json .Mounts}}").stdout)
    assert {**point, "Source": ""} == {
        "Type": "image", "Name": "used:1", "Source": "", "Destination": "/x", "Mode": "", "RW": False,
        "Propagation": "rprivate",
    }  # fmt: skip
    assert point["Source"].startswith("/")
    for force in ((), ("-f",)):
        refused = engine.docker("rmi", *force, "used:1", check=False)
        assert refused.returncode == 1 or "Untagged" in refused.stdout
        assert engine.docker("exec", "uses", "cat", "/x/data/other").stdout == "other"
    engine.restart()
    engine.docker("restart", "-t", "0", "uses")
    assert engine.docker("exec", "uses", "cat", "/x/data/other").stdout == "other"
    engine.docker("stop", "-t", "0", "uses")
    mounts = engine.inside("cat", "/proc/self/mountinfo").stdout
    assert "image-" not in mounts and "/mounts/" not in mounts
    engine.docker("rm", "uses")


@pytest.mark.parametrize(
    ("mount", "status", "message"),
    [
        ({"Source": "nope"}, 404, "No such image: nope:latest"),
        ({"Source": ""}, 400, 'invalid mount config for type "image": field Source must not be empty'),
        (
            {"Source": IMAGE, "ImageOptions": {"Subpath": "../x"}},
            400,
            'invalid mount config for type "image": subpath must be a relative path within the volume',
        ),
    ],
)
def test_image_mounts_that_are_refused(
    engine: Engine, mount: dict[str, object], status: int, message: str
) -> None:
    body = {"Image": IMAGE, "HostConfig": {"Mounts": [{"Type": "image", "Target": "/x", **mount}]}}
    answer = engine.request("POST", "/v1.48/containers/create", body)
    assert (answer.status, answer.json()["message"]) == (status, message)
    old = engine.request("POST", "/v1.47/containers/create", body)
    assert (old.status, old.json()["message"]) == (400, 'Mount type "Image" needs API v1.48 or newer')
