"""What containers see of mounts made later, and how deep read-only goes: real mounts, the stock client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

MAY_MOUNT = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")


@pytest.fixture
def shared(engine: Engine, tmp_path: Path) -> Iterator[Path]:
    """A shared mount in the engine's namespace, with a mount `below` and a file `below/file` in it."""
    script = f"mount -t tmpfs tmpfs {tmp_path} && mount --make-shared {tmp_path} && cd {tmp_path} && mkdir below later"
    engine.inside("sh", "-c", f"{script} && mount -t tmpfs tmpfs below && touch below/file")
    yield tmp_path
    engine.inside("sh", "-c", f"docker rm -f box; umount -R {tmp_path}", check=False)


def mount_later(engine: Engine, at: Path | str) -> None:
    engine.inside("sh", "-c", f"mkdir -p {at} && mount -t tmpfs tmpfs {at} && touch {at}/seen")


def sees(engine: Engine, path: str) -> bool:
    return engine.docker("exec", "box", "ls", path, check=False).stdout == "seen\n"


def run(engine: Engine, *words: str) -> None:
    engine.docker("run", "-d", "--name", "box", "--network", "none", *words, "busybox", "sleep", "1000")


def test_volumes_are_private(engine: Engine) -> None:
    run(engine, "-v", "private:/v", *MAY_MOUNT)
    data = engine.call("GET", "/volumes/private")["Mountpoint"]
    mount_later(engine, f"{data}/later")
    assert not sees(engine, "/v/later")
    engine.docker("exec", "box", "sh", "-c", "mkdir /v/inner && mount -t tmpfs tmpfs /v/inner && touch /v/inner/seen")
    assert engine.inside("ls", f"{data}/inner").stdout == ""
    engine.inside("umount", f"{data}/later")
    engine.docker("rm", "-f", "box")
    engine.docker("volume", "rm", "private")


@pytest.mark.parametrize(
    ("propagation", "inwards", "outwards"),
    [
        ("", False, False),
        ("private", False, False),
        ("rprivate", False, False),
        ("slave", True, False),
        ("rslave", True, False),
        ("shared", True, True),
        ("rshared", True, True),
    ],
)
@pytest.mark.parametrize("how", ["binds", "mounts"])
def test_binds(
    engine: Engine, shared: Path, how: str, propagation: str, inwards: bool, outwards: bool
) -> None:
    if how == "binds":
        words = ("-v", f"{shared}:/b:{propagation or 'rw'}")
    else:
        mode = f",bind-propagation={propagation}" if propagation else ""
        words = ("--mount", f"type=bind,src={shared},dst=/b{mode}")
    run(engine, *words, *MAY_MOUNT)
    (point,) = engine.call("GET", "/containers/box/json")["Mounts"]
    assert point["Propagation"] == (propagation or "rprivate")
    mount_later(engine, shared / "later")
    assert sees(engine, "/b/later") == inwards
    engine.docker("exec", "box", "sh", "-c", "mkdir /b/inner && mount -t tmpfs tmpfs /b/inner && touch /b/inner/seen")
    assert (engine.inside("ls", f"{shared}/inner").stdout == "seen\n") == outwards
    engine.docker("rm", "-f", "box")
    assert engine.inside("ls", f"{shared}/later").stdout == "seen\n", "the end of a container unmounts nothing outside"
    assert engine.inside("ls", f"{shared}/below").stdout == "file\n"


@pytest.mark.parametrize(
    ("propagation", "kind"),
    [("rshared", "shared mount"), ("shared", "shared mount"), ("rslave", "shared or slave mount")],
)
def test_propagation_needs_a_shared_source(engine: Engine, shared: Path, propagation: str, kind: str) -> None:
    engine.inside("mount", "--make-private", str(shared))
    words = ("--network", "none", "--name", "box", "-v", f"{shared}:/b:{propagation}", "busybox", "true")
    refused = engine.docker("run", *words, check=False)
    assert f"path {shared} is mounted on {shared} but it is not a {kind}" in refused.stderr
    engine.docker("rm", "-f", "box")


def write_below(engine: Engine) -> str:
    return engine.docker("exec", "box", "touch", "/b/below/file", check=False).stderr


def create(engine: Engine, version: str, host: dict[str, Any]) -> tuple[int, str]:
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none", **host}}
    answer = engine.request("POST", f"/{version}/containers/create?name=box", body)
    if answer.status == 201:
        engine.call("POST", "/containers/box/start")
    return answer.status, answer.json().get("message", "")


@pytest.mark.parametrize(
    ("version", "options", "writable"),
    [
        ("v1.51", None, False),
        ("v1.51", {}, False),
        ("v1.44", {"ReadOnlyForceRecursive": True}, False),
        ("v1.44", {"ReadOnlyNonRecursive": True}, True),
        ("v1.43", {}, True),
        ("v1.43", {"ReadOnlyNonRecursive": True}, True),
        ("v1.51", "binds", False),
        ("v1.43", "binds", True),
    ],
)
def test_read_only_depth(
    engine: Engine, shared: Path, version: str, options: Any, writable: bool
) -> None:
    mount = {"Type": "bind", "Source": str(shared), "Target": "/b", "ReadOnly": True}
    if options == "binds":
        host: dict[str, Any] = {"Binds": [f"{shared}:/b:ro"]}
    else:
        host = {"Mounts": [mount if options is None else {**mount, "BindOptions": options}]}
    assert create(engine, version, host)[0] == 201
    refused = engine.docker("exec", "box", "touch", "/b/file", check=False)
    assert "Read-only file system" in refused.stderr
    assert (write_below(engine) == "") == writable
    engine.docker("rm", "-f", "box")


def test_volumes_are_read_only_all_the_way(engine: Engine) -> None:
    engine.docker("volume", "create", "deep")
    data = engine.call("GET", "/volumes/deep")["Mountpoint"]
    mount_later(engine, f"{data}/below")
    run(engine, "-v", "deep:/b:ro")
    assert engine.docker("exec", "box", "ls", "/b/below").stdout == "seen\n"
    assert "Read-only file system" in write_below(engine)
    engine.docker("rm", "-f", "box")
    engine.inside("umount", f"{data}/below")
    engine.docker("volume", "rm", "deep")


def test_a_bind_that_is_not_recursive_leaves_out_what_is_mounted_below(engine: Engine, shared: Path) -> None:
    run(engine, "--mount", f"type=bind,src={shared},dst=/b,bind-recursive=disabled")
    assert engine.docker("exec", "box", "ls", "/b/below").stdout == ""
    engine.docker("rm", "-f", "box")


@pytest.mark.parametrize(
    ("version", "options", "read_only", "message"),
    [
        (
            "v1.51",
            {"ReadOnlyNonRecursive": True},
            False,
            "mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive",
        ),
        (
            "v1.51",
            {"ReadOnlyForceRecursive": True},
            False,
            "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive",
        ),
        (
            "v1.51",
            {"ReadOnlyForceRecursive": True, "ReadOnlyNonRecursive": True},
            True,
            "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive",
        ),
        (
            "v1.43",
            {"ReadOnlyForceRecursive": True},
            True,
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
    ],
)
def test_contradictions(
    engine: Engine, tmp_path: Path, version: str, options: dict[str, bool], read_only: bool, message: str
) -> None:
    mount = {"Type": "bind", "Source": str(tmp_path), "Target": "/b", "ReadOnly": read_only, "BindOptions": options}
    assert create(engine, version, {"Mounts": [mount]}) == (400, message)


def test_binds_of_the_engine_s_own_root(engine: Engine) -> None:
    root = str(engine.state_root)
    for source in (root, f"{root}/volumes", str(engine.folder)):
        run(engine, "-v", f"{source}:/b:ro")
        (point,) = engine.call("GET", "/containers/box/json")["Mounts"]
        assert point["Propagation"] == "rslave"
        engine.docker("rm", "-f", "box")
        status, message = create(engine, "v1.51", {"Binds": [f"{source}:/b:rprivate"]})
        assert (status, message) == (
            400,
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, daemon root: "{root}", bind mount source: "{source}", propagation: "rprivate"',
        )
    run(engine, "-v", f"{root}:/b:rslave")
    assert "volumes" in engine.docker("exec", "box", "ls", "/b").stdout
    engine.docker("rm", "-f", "box")
