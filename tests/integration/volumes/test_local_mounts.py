"""Options `type`, `o` and `device` of the local driver on real mounts, each test in a mount namespace of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import EngineError, InvalidParameter, NotFound, System
from holdfast.kernel import loop, mount
from holdfast.kernel.mountinfo import read_mountinfo
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes.drivers.base import HERE, MountFailed
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.drivers.workers import Workers
from holdfast.volumes.model import new_id
from tests.support.fuse_server import fuse_server
from tests.support.namespace import in_mount_namespace

pytestmark = pytest.mark.kernel


@contextlib.contextmanager
def pool(root: Path, timeout_s: float = 20) -> Iterator[LocalDriver]:
    """A driver, closed at the end."""
    driver = LocalDriver(root, Workers(timeout_s))
    try:
        yield driver
    finally:
        driver.close()


def make(driver: LocalDriver, name: str, **options: str) -> VolumeRecord:
    """A volume of these options."""
    record = VolumeRecord(new_id(), name, "local", "default", None, options, 0)
    driver.validate(name, options)
    driver.create(record)
    return record


def mounts_at(path: str | Path) -> list[tuple[str, str]]:
    """What is mounted on a place: types and sources."""
    return [(entry.fstype, entry.source) for entry in read_mountinfo() if entry.mount_point == str(path)]


@in_mount_namespace
def test_tmpfs_is_there_from_the_first_use_to_the_last(tmp_path: Path) -> None:
    with pool(tmp_path) as driver:
        record = make(driver, "tv", type="tmpfs", device="tmpfs", o="size=1m,uid=1000,noexec")
        data = driver.mountpoint(record)
        assert mounts_at(data) == []
        assert driver.mount(record, "a") == Path(data)
        assert driver.mount(record, "b") == Path(data)
        assert driver.mount(record, "b") == Path(data)
        assert mounts_at(data) == [("tmpfs", "tmpfs")]
        assert os.stat(data).st_uid == 1000
        assert os.statvfs(data).f_blocks * os.statvfs(data).f_frsize == 1 << 20
        assert os.statvfs(data).f_flag & os.ST_NOEXEC
        assert driver.size_bytes(record) == -1
        assert not driver.can_stage(record)
        driver.unmount(record, "a")
        assert len(mounts_at(data)) == 1
        driver.unmount(record, "b")
        assert mounts_at(data) == []
        driver.unmount(record, "b")
        assert driver.can_stage(record)


@in_mount_namespace
def test_binds(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("here")
    with pool(tmp_path) as driver:
        record = make(driver, "bind", type="none", device=str(source), o="bind")
        path = driver.mount(record, "a")
        assert (path / "file").read_text() == "here"
        (path / "new").touch()
        opened = driver.open(record, "")
        if os.major(os.stat(tmp_path).st_dev):  # not so on btrfs, whose subvolumes have devices of their own
            assert opened.hands is HERE, "it is of the pool's own file system"
        fd = opened.fd
        assert os.listdir(f"/proc/self/fd/{fd}") == os.listdir(source)
        os.close(fd)
        driver.unmount(record, "a")
        driver.remove(record)
        assert sorted(os.listdir(source)) == ["file", "new"]

        readonly = make(driver, "readonly", type="none", device=str(source), o="bind,ro,rslave")
        path = driver.mount(readonly, "a")
        with pytest.raises(OSError, match="Read-only"):
            (path / "other").touch()
        driver.unmount(readonly, "a")


@in_mount_namespace
def test_subpaths_of_what_is_mounted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "out").symlink_to("/etc")
    (source / "in").symlink_to("a/b")
    with pool(tmp_path) as driver:
        record = make(driver, "bind", type="none", device=str(source), o="bind")
        data = driver.mount(record, "a")
        for subpath in ("a", "a/b", "in"):
            fd = driver.open(record, subpath).fd
            assert os.path.samestat(os.fstat(fd), (source / subpath).stat())
            os.close(fd)
        with pytest.raises(NotFound) as missing:
            driver.open(record, "a/c/d")
        where = f"{data}/a/c/d: lstat {data}/a/c"
        assert str(missing.value) == f"cannot access path {where}: no such file or directory"
        for escaping in ("out", "../x", "/etc"):
            with pytest.raises(InvalidParameter) as refused:
                driver.open(record, escaping)
            assert "path concatenation escapes the base directory" in str(refused.value)


@pytest.mark.parametrize(("kind", "size_mb"), [("ext4", 16), ("xfs", 300), ("btrfs", 128)])
@in_mount_namespace
def test_block_devices(tmp_path: Path, kind: str, size_mb: int) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, timeout=60)
    with pool(tmp_path) as driver, loop.attach(image) as device:
        record = make(driver, "block", type=kind, device=str(device.path), o="noatime")
        path = driver.mount(record, "a")
        (path / "file").write_text("kept")
        driver.unmount(record, "a")
        assert mounts_at(path) == []
        assert (driver.mount(record, "b") / "file").read_text() == "kept"
        driver.unmount(record, "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "none", "device": "/nonexistent", "o": "bind"},
         "mount /nonexistent:<mp>, flags: 0x1000: no such file or directory"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,noexec,foo=bar"},
         "mount tmpfs:<mp>, flags: 0x8, data: size=1m,uid=1000,foo=bar: invalid argument"),
        ({"type": "nosuchfs", "device": "x"}, "mount x:<mp>: no such device"),
        ({"type": "ext4", "device": "/nonexistent"}, "mount /nonexistent:<mp>: no such file or directory"),
        ({"type": "ext4", "device": "/etc/hostname"}, "mount /etc/hostname:<mp>: block device required"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "x" * 5000},
         f"mount tmpfs:<mp>, data: {'x' * 5000}: argument list too long"),
    ],
)  # fmt: skip
@in_mount_namespace
def test_texts_of_failures(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pool(tmp_path) as driver:
        record = make(driver, "vt0", **options)
        data = driver.mountpoint(record)
        with pytest.raises(MountFailed) as failed:
            driver.mount(record, "a")
        assert str(failed.value) == f"failed to mount local volume: {message.replace('<mp>', data)}"
        assert not driver.is_mounted(record)
        driver.remove(record)


@in_mount_namespace
def test_nothing_to_mount_and_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pool(tmp_path) as driver:
        plain = make(driver, "plain", type="", device="")
        assert mounts_at(driver.mount(plain, "a")) == []
        without = make(driver, "without", type="tmpfs", device="")
        with pytest.raises(MountFailed) as failed:
            driver.mount(without, "a")
        assert str(failed.value) == "missing device in volume options"
        named = make(driver, "named", type="nfs", device=":/x", o="addr=no.such.host.invalid")
        with pytest.raises(MountFailed) as failed:
            driver.mount(named, "a")
        text = "error resolving passed in network volume address: lookup no.such.host.invalid: "
        assert str(failed.value).startswith(text)


@in_mount_namespace
def test_secrets_are_in_no_error(tmp_path: Path) -> None:
    secret = "s3cret"
    credentials = tmp_path / "credentials"
    credentials.write_text(f"username=u\npassword={secret}\n")
    with pool(tmp_path) as driver:
        for name, o in (("one", f"addr=127.0.0.1,password={secret}"), ("two", f"credentials={credentials}")):
            record = make(driver, name, type="cifs", device="//127.0.0.1/x", o=o)
            with pytest.raises(MountFailed) as failed:
                driver.mount(record, "a")
            assert secret not in str(failed.value)
            assert "password=********: no such device" in str(failed.value)


@in_mount_namespace
def test_a_mount_that_is_there_is_taken_over(tmp_path: Path) -> None:
    with pool(tmp_path) as driver:
        record = make(driver, "tv", type="tmpfs", device="tmpfs")
        path = driver.mount(record, "a")
        (path / "file").touch()
    with pool(tmp_path) as later:
        assert later.mounted_names() == {"tv"}
        later.adopt(record, "a")
        later.unmount_unused(record)
        assert mounts_at(path) == [("tmpfs", "tmpfs")]
        assert (later.mount(record, "b") / "file").exists()
        assert mounts_at(path) == [("tmpfs", "tmpfs")], "never twice"
        later.unmount(record, "a")
        later.unmount(record, "b")
        assert mounts_at(path) == []
        later.mount(record, "c")
    with pool(tmp_path) as last:
        last.unmount_unused(record)
        assert mounts_at(path) == []


@in_mount_namespace
def test_nothing_is_deleted_through_a_mount(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").touch()
    with pool(tmp_path) as driver:
        plain = make(driver, "plain")
        data = Path(driver.mountpoint(plain))
        mount.bind(foreign, data, readonly=False)
        for removal in (driver.remove, driver.unmake):
            with pytest.raises(System) as refused:
                removal(plain)
            text = f"error removing volume path '{data.parent}': unlinkat {data}: device or resource busy"
            assert str(refused.value) == text
        assert driver.size_bytes(plain) == -1
        assert [volume.name for volume in driver.list()] == ["plain"]
        mount.umount2(data)
        driver.remove(plain)
        driver.reclaim(plain)

        bound = make(driver, "bound", type="none", device=str(foreign), o="bind")
        driver.mount(bound, "a")
        with pytest.raises(System, match="volume has active mounts"):
            driver.remove(bound)
        driver.unmount(bound, "a")
        mount.bind(foreign, driver.mountpoint(bound), readonly=False)
        mount.bind(foreign, driver.mountpoint(bound), readonly=False)
        with pytest.raises(System, match="device or resource busy"):
            driver.remove(bound)
        driver.remove(bound)
        driver.reclaim(bound)
        assert os.listdir(foreign) == ["precious"]


@in_mount_namespace
def test_a_volume_replaced_by_a_link_leads_nowhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pool(tmp_path) as driver:
        record = make(driver, "tv", type="tmpfs", device="tmpfs")
        data = Path(driver.mountpoint(record))
        data.rmdir()
        data.symlink_to(elsewhere)
        with pytest.raises(EngineError):
            driver.mount(record, "a")
        assert mounts_at(elsewhere) == []
        driver.remove(record)
        driver.reclaim(record)
        assert elsewhere.is_dir()
        with pytest.raises(NotFound):
            driver.mount(record, "a")


@pytest.mark.parametrize("device", ["", "/sub"])
@in_mount_namespace
def test_storage_that_does_not_answer(tmp_path: Path, device: str) -> None:
    """Both where the kernel asks in mount(2) itself and where it asks only afterwards."""
    place = tmp_path / "fuse"
    place.mkdir()
    with fuse_server(place) as server, pool(tmp_path, timeout_s=1.5) as driver:
        record = make(driver, "hung", type="none", device=f"{place}{device}", o="bind")
        other = make(driver, "other", type="none", device=str(tmp_path), o="bind")
        server.hang()
        began = time.monotonic()
        with pytest.raises(MountFailed) as failed:
            driver.mount(record, "a")
        assert 1.4 < time.monotonic() - began < 2.5
        assert str(failed.value).endswith("connection timed out")
        assert mounts_at(driver.mountpoint(record)) == []
        began = time.monotonic()
        driver.mount(other, "a")
        driver.unmount(other, "a")
        assert driver.size_bytes(record) in (0, -1)
        driver.list()
        assert time.monotonic() - began < 0.5

        server.come_back()
        path = driver.mount(record, "a")
        if not device:
            assert (path / "hello").read_text() == "over fuse\n"
        server.hang()
        began = time.monotonic()
        with pytest.raises(MountFailed):
            driver.open(record, "")
        with pytest.raises(MountFailed):
            driver.mount(record, "b")
        assert time.monotonic() - began < 4
        began = time.monotonic()
        driver.unmount(record, "a")
        assert mounts_at(path) == []
        driver.remove(record)
        assert time.monotonic() - began < 2.5
        server.come_back()


def steps_of(driver: LocalDriver, record: VolumeRecord) -> list[tuple[str, bool]]:
    """The steps of a check, with whether they went well."""
    return [(step.name, step.ok) for step in driver.check(record)]


@in_mount_namespace
def test_checks_say_which_step_fails(tmp_path: Path) -> None:
    secret = "s3cret"
    with pool(tmp_path, timeout_s=2) as driver:
        assert steps_of(driver, make(driver, "plain")) == [("directory", True)]
        good = make(driver, "good", type="none", device=str(tmp_path), o="bind")
        assert steps_of(driver, good) == [("directory", True), ("mount", True), ("answer", True)]
        assert mounts_at(driver.mountpoint(good)) == []
        driver.mount(good, "a")
        assert steps_of(driver, good) == [("directory", True), ("answer", True)]
        assert len(mounts_at(driver.mountpoint(good))) == 1, "still in use"
        driver.unmount(good, "a")
        found = {}
        for name, options in {
            "missing": {"type": "none", "device": "/nonexistent", "o": "bind"},
            "unknown": {"type": "nosuchfs", "device": "x"},
            "words": {"type": "tmpfs", "device": "tmpfs", "o": "bogus=1"},
            "empty": {"type": "tmpfs", "device": ""},
            "nameless": {"type": "nfs", "device": ":/x", "o": "soft"},
            "lost": {"type": "nfs", "device": ":/x", "o": "addr=no.such.host.invalid"},
            "silent": {"type": "cifs", "device": "//127.0.0.1/x", "o": f"port=1,username=u,password={secret}"},
            "keyless": {"type": "cifs", "device": "//127.0.0.1/x", "o": "credentials=/nonexistent"},
        }.items():
            *before, last = driver.check(make(driver, name, **options))
            assert all(step.ok for step in before)
            assert not last.ok
            assert secret not in last.detail
            found[name] = last.name
        assert found == {
            "missing": "device", "unknown": "kernel", "words": "options", "empty": "options", "nameless": "name",
            "lost": "name", "silent": "route", "keyless": "credentials",
        }  # fmt: skip


@in_mount_namespace
def test_a_check_of_what_hangs_ends_in_time(tmp_path: Path) -> None:
    place = tmp_path / "fuse"
    place.mkdir()
    with fuse_server(place) as server, pool(tmp_path, timeout_s=1) as driver:
        record = make(driver, "hung", type="none", device=str(place), o="bind")
        server.hang()
        began = time.monotonic()
        assert steps_of(driver, record) == [("directory", True), ("answer", False)]
        assert time.monotonic() - began < 2.5
        assert mounts_at(driver.mountpoint(record)) == []
        server.come_back()
        assert steps_of(driver, record) == [("directory", True), ("mount", True), ("answer", True)]
