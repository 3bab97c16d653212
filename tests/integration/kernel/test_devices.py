"""Loop devices, nftables and control groups of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.kernel import cgroup, loop, mount, nft
from tests.support.namespace import in_mount_and_network_namespace, in_mount_namespace

pytestmark = pytest.mark.kernel


def image(top: Path, size_bytes: int) -> Path:
    made = top / "image"
    with made.open("wb") as file:
        file.truncate(size_bytes)
    return made


def within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
    return done()


@pytest.mark.parametrize("direct_io", [True, False])
@in_mount_namespace
def test_loop_device_lives_as_long_as_its_mount(tmp_path: Path, direct_io: bool) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    disk = image(tmp_path, 16 << 20)
    (tmp_path / "point").mkdir()
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    with loop.attach(disk, direct_io=direct_io) as device:
        assert loop.devices_of(disk) == (device.path,)
        mount.mount(device.path, tmp_path / "point", "ext4")
    (tmp_path / "point" / "file").write_text("kept")
    assert loop.devices_of(disk) == (device.path,)
    mount.umount2(tmp_path / "point", 0)
    assert within(5, lambda: loop.devices_of(disk) == ())
    assert disk.stat().st_size == 16 << 20


def test_loop_device_grows_and_detaches(tmp_path: Path) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    disk = image(tmp_path, 1 << 20)
    with loop.attach(disk) as device:
        with disk.open("r+b") as file:
            file.truncate(2 << 20)
        loop.update_size(device.path)
        size = Path(f"/sys/block/{device.path.name}/size")
        assert int(size.read_text()) * 512 == 2 << 20
        loop.detach(device.path)
    assert within(5, lambda: loop.devices_of(disk) == ())
    loop.detach(device.path)


def test_loop_attach_names_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        loop.attach(tmp_path / "missing")


@in_mount_and_network_namespace
def test_nft_table_is_added_and_deleted() -> None:
    try:
        rules = nft.Nft()
    except OSError as error:
        pytest.skip(f"this machine has no nftables: {error}")
    with rules:
        rules.run("add table inet holdfast_test\nadd map inet holdfast_test m { type inet_service : inet_service ; }")
        rules.run("add element inet holdfast_test m { 80 : 8080 }")
        assert "80 : 8080" in rules.run("list table inet holdfast_test")
        assert '"nftables"' in rules.run("list tables", json=True)
        with pytest.raises(nft.NftError, match="File exists") as refused:
            rules.run("add element inet holdfast_test m { 81 : 8081 }\ncreate table inet holdfast_test")
        assert isinstance(refused.value, FileExistsError | nft.NftError)
        assert "8081" not in rules.run("list table inet holdfast_test")         # all or nothing
        with pytest.raises(nft.NftError, match="syntax error"):
            rules.run("add nonsense")
        rules.run("delete table inet holdfast_test")
        assert "holdfast_test" not in rules.run("list ruleset")
    rules.close()


@pytest.fixture(params=["as it is", "v2 alone"])
def layout(request: pytest.FixtureRequest) -> cgroup.CgroupLayout:
    """The machine's layout, and the cgroup2 half of a hybrid one taken for the whole."""
    found = cgroup.layout()
    if request.param == "as it is":
        return found
    if found.kind != "hybrid" or found.unified is None:
        pytest.skip("this machine is not hybrid")
    return cgroup.layout(found.unified)


@pytest.fixture
def group(layout: cgroup.CgroupLayout) -> Iterator[str]:
    name = f"/holdfast-test-{uuid.uuid4().hex[:12]}"
    yield name
    cgroup.remove(layout, name, kill_leftovers=True)


def test_cgroup_from_making_to_removing(layout: cgroup.CgroupLayout, group: str) -> None:
    assert cgroup.prepare(layout, group) >= layout.controllers & {"memory", "pids"}
    assert cgroup.exists(layout, group)
    ready = "echo; sleep 100 & wait"
    with subprocess.Popen(["sh", "-c", f"read go; {ready}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        cgroup.join(layout, f"{group}/container", child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        assert within(5, lambda: len(cgroup.pids(layout, group)) == 2)
        assert child.pid in cgroup.pids(layout, f"{group}/container")
        with pytest.raises(OSError, match="busy"):
            cgroup.remove(layout, group, timeout_s=0)
        assert cgroup.oom_count(layout, f"{group}/container") == 0
        cgroup.kill(layout, group)
        assert child.wait(5) == -signal.SIGKILL
    cgroup.remove(layout, group)
    assert not cgroup.exists(layout, group)
    cgroup.remove(layout, group)
    assert cgroup.pids(layout, group) == ()


def test_crun_hiding_agrees_with_the_machine() -> None:
    hidden = cgroup.crun_needs_hiding(cgroup.layout())
    if hidden is not None:
        assert hidden.read_text().strip()
        assert not os.path.samefile(hidden.parent, cgroup.ROOT)
