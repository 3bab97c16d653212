"""Filling volumes from images: when, what of it stays after errors, deaths and power cuts, and what is said then."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import faults
from holdfast.errors import EngineError, InvalidParameter, NotFound, System
from holdfast.events import EventBus
from holdfast.kernel import mount
from holdfast.store import Store
from holdfast.store.intents import Intent
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes import fills
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.fills import INTENT
from holdfast.volumes.mounts import MountPoint, MountSpec, parse_bind, parse_mount
from holdfast.volumes.service import Volumes
from tests.support.namespace import in_mount_namespace

pytestmark = pytest.mark.kernel

CONTAINER = "c" * 64
POINTS = ("fill-noted", "fill-copying", "fill-copied", "fill-moving", "fill-moved-one", "fill-moved")


class Rig:
    """A volume service and an image of two layers, of which a container has been made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.own, self.top, self.base = (root / "layers" / name for name in ("own", "top", "base"))
        self.rootfs = root / "rootfs"
        for path in (self.own, self.top, self.base, self.rootfs):
            path.mkdir(parents=True)
        for name in ("one", "two", "sub/three"):
            self.write(self.base / "data" / name, name)
        self.write(self.top / "data/sub/four", "four")
        (self.base / "data").chmod(0o1777)
        (self.top / "data").chmod(0o1777)
        os.chown(self.top / "data", 1000, 1001)
        (self.base / "own").mkdir()
        os.chown(self.base / "own", 1000, 1001)
        (self.base / "own").chmod(0o2750)
        self.start()

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def layers(self) -> tuple[Path, ...]:
        return self.own, self.top, self.base

    def start(self) -> None:
        self.store = Store(self.root / "holdfast.db")
        self.volumes = Volumes(self.store, EventBus(), LocalDriver(self.root / "state"))
        self.volumes.restore([CONTAINER])

    def stop(self) -> None:
        self.volumes.close()
        self.store.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def attach(self, spec: str | MountSpec) -> MountPoint:
        point = parse_bind(spec) if isinstance(spec, str) else parse_mount(spec)
        (attached,) = self.volumes.attach(CONTAINER, [point])
        return attached

    def fill(self, point: MountPoint) -> Path:
        mount.overlay(self.rootfs, self.layers, None, None)
        try:
            self.volumes.fill(point, self.rootfs, self.layers)
        finally:
            mount.umount2(self.rootfs)
        return Path(point.source)

    def use(self, point: MountPoint) -> None:
        os.close(self.volumes.mount(CONTAINER, point).fd)

    def intents(self) -> list[Intent]:
        return [intent for intent in self.store.intents.open() if intent.kind == INTENT]

    def leftovers(self) -> list[Path]:
        return [path for pattern in (".fill-*", ".move-*") for path in (self.root / "state").rglob(pattern)]

    def status(self, name: str) -> str:
        return str((self.volumes.get(name).status or {}).get("Fill", ""))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    faults.arm("")
    made.stop()


def tree(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}


WHOLE = {"one": "one", "two": "two", "sub/three": "sub/three", "sub/four": "four"}


def test_layers_are_merged_and_the_root_gets_the_image_s_attributes(rig: Rig) -> None:
    data = rig.fill(rig.attach("vol:/data"))
    assert tree(data) == WHOLE
    status = data.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1777, 1000, 1001)
    assert time.time() - status.st_mtime < 60, "entries were made in it just now"
    assert rig.leftovers() == []


def test_an_empty_directory_gives_its_owner_mode_and_times(rig: Rig) -> None:
    os.utime(rig.base / "own", ns=(1, 1_500_000_000_123_456_789))
    data = rig.fill(rig.attach("vol:/own"))
    status = data.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o2750, 1000, 1001)
    assert status.st_mtime_ns == 1_500_000_000_123_456_789


def test_what_is_not_filled(rig: Rig) -> None:
    (rig.base / "dangling").symlink_to("nowhere")
    (rig.base / "file").write_text("x")
    for destination in ("/missing/deep", "/dangling", "/file"):
        data = rig.fill(rig.attach(f"vol:{destination}"))
        assert (os.listdir(data), data.stat().st_mode & 0o7777) == ([], 0o755)
    data = rig.fill(rig.attach("vol:/data:nocopy"))
    assert os.listdir(data) == [] and data.stat().st_uid == 0
    (data / "lost+found").mkdir()
    rig.fill(rig.attach("vol:/data"))
    assert os.listdir(data) == ["lost+found"]


def test_an_anonymous_volume_does_not_hide_a_file(rig: Rig) -> None:
    (rig.base / "file").write_text("x")
    with pytest.raises(InvalidParameter) as refused:
        rig.fill(rig.attach("/file"))
    assert str(refused.value) == "cannot mount volume over existing file, file exists /file"


def test_links_in_the_image_stay_in_the_image(rig: Rig) -> None:
    (rig.base / "absolute").symlink_to("/data")
    (rig.base / "above").symlink_to("../../../../data/sub")
    assert tree(rig.fill(rig.attach("aa:/absolute"))) == WHOLE
    assert tree(rig.fill(rig.attach("bb:/above"))) == {"three": "sub/three", "four": "four"}


def test_read_only_mounts_and_volumes_emptied_later_are_filled(rig: Rig) -> None:
    point = rig.attach("vol:/data:ro")
    data = rig.fill(point)
    assert tree(data) == WHOLE
    (data / "one").write_text("mine")
    rig.fill(point)
    assert (data / "one").read_text() == "mine"
    for name in ("one", "two", "sub/three", "sub/four"):
        (data / name).unlink()
    (data / "sub").rmdir()
    assert tree(rig.fill(point)) == WHOLE


def test_subpaths(rig: Rig) -> None:
    def at(subpath: str) -> MountPoint:
        return rig.attach(MountSpec("volume", source="vol", target="/data", subpath=subpath))

    with pytest.raises(NotFound):
        rig.fill(at("part"))
    root = Path(at("part").source)
    (root / "part/deeper").mkdir(parents=True)
    (root / "file").write_text("x")
    (root / "out").symlink_to("/etc")
    rig.fill(at("part/deeper"))
    assert tree(root / "part/deeper") == WHOLE
    assert (root / "part/deeper").stat().st_uid == 1000 and (root / "part").stat().st_uid == 0
    rig.fill(at("part"))
    assert os.listdir(root / "part") == ["deeper"], "what is not empty is left alone"
    rig.fill(at("file"))
    with pytest.raises(InvalidParameter) as escaped:
        rig.fill(at("out"))
    assert str(escaped.value) == (
        f"failed to populate volume: path concatenation escapes the base directory, base: {root}, subpath: out"
    )
    assert not list(Path("/etc").glob("one"))


@pytest.mark.parametrize("fault", POINTS[:-1])
def test_a_failure_leaves_the_volume_empty(rig: Rig, fault: str) -> None:
    point = rig.attach("vol:/data")
    faults.arm(f"{fault}=ENOSPC")
    with pytest.raises(System, match=r"^failed to populate volume: no space left on device$"):
        rig.fill(point)
    assert os.listdir(point.source) == [] and rig.leftovers() == [] and rig.intents() == []
    assert tree(rig.fill(point)) == WHOLE


@in_mount_namespace
def test_a_full_disk_leaves_the_volume_empty(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    mount.mount("tmpfs", tmp_path / "state", "tmpfs", data="size=2m")
    rig = Rig(tmp_path)
    rig.write(rig.base / "data/big", "x" * (3 << 20))
    point = rig.attach("vol:/data")
    with pytest.raises(System, match=r"^failed to populate volume: no space left on device$"):
        rig.fill(point)
    assert os.listdir(point.source) == [] and rig.leftovers() == [] and rig.intents() == []
    assert Path(point.source).stat().st_uid == 0
    rig.stop()


def test_two_at_once_copy_once(rig: Rig) -> None:
    for number in range(300):
        rig.write(rig.base / "data/many" / str(number), "x")
    points = [rig.attach("vol:/data")] * 4
    failures: list[BaseException] = []

    def work(point: MountPoint) -> None:
        try:
            rig.volumes.fill(point, rig.base)
        except EngineError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[point]) for point in points]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and rig.leftovers() == []
    assert len(os.listdir(Path(points[0].source) / "many")) == 300
    assert len(rig.intents()) <= 1


@pytest.mark.parametrize("fault", POINTS)
def test_a_killed_engine_leaves_nothing_or_everything(rig: Rig, fault: str) -> None:
    point = rig.attach("vol:/data")
    rig.stop()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            rig.start()
            faults.arm(fault)
            rig.fill(point)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    mount.umount2(rig.rootfs)
    rig.start()
    assert rig.leftovers() == []
    assert tree(Path(point.source)) in ({}, WHOLE)
    assert tree(rig.fill(point)) == WHOLE
    assert rig.status("vol") == ""


# --- on disk, and when the power goes before --------------------------------------------------------------------------


def within(seconds: float, rig: Rig) -> bool:
    deadline = time.monotonic() + seconds
    while rig.intents() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not rig.intents()


def test_a_copy_is_flushed_and_then_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fills, "_FLUSH_AFTER_S", 0.2)
    rig.fill(rig.attach("vol:/data"))
    assert len(rig.intents()) == 1
    assert within(10, rig)


def test_a_copy_that_was_not_flushed_is_flushed_after_a_restart(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fill(rig.attach("vol:/data"))
    monkeypatch.setattr(fills, "_FLUSH_AFTER_S", 0.2)
    assert len(rig.intents()) == 1
    rig.restart()
    assert within(10, rig)


def test_attributes_that_change_nothing_need_no_care(rig: Rig) -> None:
    (rig.base / "plain").mkdir()
    rig.fill(rig.attach("vol:/plain"))
    assert rig.intents() == []


def cut_power(rig: Rig) -> None:
    """What is on disk is as the test left it; the kernel is another one."""
    rig.stop()
    with contextlib.closing(Store(rig.root / "holdfast.db")) as store:
        for intent in store.intents.open():
            if intent.kind == INTENT:
                store.intents.note(intent.id, boot="another")


def truncate(path: Path) -> None:
    """As journals do that know of a file but not of its content."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"")
    os.utime(path, ns=times)


@pytest.mark.parametrize("damage", ["nothing", "truncated", "missing", "all", "zeros", "owner", "root"])
def test_an_unused_copy_is_repaired(rig: Rig, damage: str) -> None:
    data = rig.fill(rig.attach("vol:/data"))
    cut_power(rig)
    if damage == "truncated":
        truncate(data / "sub/three")
    elif damage == "missing":
        (data / "one").unlink()
    elif damage == "all":
        for name in WHOLE:
            (data / name).unlink()
        (data / "sub").rmdir()
    elif damage == "zeros":
        times = (data / "two").stat().st_mtime_ns
        (data / "two").write_bytes(bytes(3))
        os.utime(data / "two", ns=(times, times))
    elif damage == "owner":
        os.chown(data / "sub", 4, 5)
    elif damage == "root":
        os.chown(data, 0, 0)
        data.chmod(0o700)
    (data / "by-hand").write_text("kept")
    rig.start()
    assert tree(data) == {**WHOLE, "by-hand": "kept"}
    assert (data.stat().st_uid, data.stat().st_mode & 0o7777) == (1000, 0o1777)
    assert (data / "sub").stat().st_uid == 0
    assert rig.leftovers() == [] and rig.status("vol") == ""


def test_a_half_written_copy_is_made_whole(rig: Rig) -> None:
    """The power went while a copy was made that was acknowledged: what the disk shows may be older than the answer."""
    data = rig.fill(rig.attach("vol:/data"))
    cut_power(rig)
    with contextlib.closing(Store(rig.root / "holdfast.db")) as store:
        (intent,) = (intent for intent in store.intents.open() if intent.kind == INTENT)
    half = data.parent / f".fill-{intent.details['identity']}"
    half.mkdir()
    (half / "one").write_text("o")
    for name in WHOLE:
        (data / name).unlink()
    (data / "sub").rmdir()
    rig.start()
    assert tree(data) == WHOLE and rig.leftovers() == []


def test_a_used_copy_is_reported_and_left_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    point = rig.attach("vol:/data")
    data = rig.fill(point)
    rig.use(point)
    (data / "two").write_text("changed by a container")
    cut_power(rig)
    truncate(data / "one")
    rig.start()
    assert (data / "one").read_text() == "" and (data / "two").read_text() == "changed by a container"
    assert rig.status("vol") == (
        "power was lost before the copy from the image was on disk; vol differs from the image that it was filled "
        "from: 0 entries missing, 1 damaged"
    )
    assert "volume may be damaged" in caplog.text
    rig.restart()
    assert "1 damaged" in rig.status("vol"), "it is said after every start"
    rig.volumes.release(CONTAINER, remove_anonymous=False)
    rig.volumes.remove("vol")
    rig.volumes.create("vol")
    assert rig.status("vol") == ""


def test_a_used_copy_that_is_whole_is_fine(rig: Rig) -> None:
    point = rig.attach("vol:/data")
    data = rig.fill(point)
    rig.use(point)
    (data / "two").write_text("changed by a container")
    (data / "new").write_text("new")
    cut_power(rig)
    rig.start()
    assert rig.status("vol") == "" and (data / "two").read_text() == "changed by a container"


def test_without_the_image_it_is_said_that_nothing_is_known(rig: Rig) -> None:
    rig.fill(rig.attach("vol:/data"))
    cut_power(rig)
    rig.base.rename(rig.root / "gone")
    rig.start()
    assert "the image that it was filled from is gone" in rig.status("vol")


def test_the_container_s_own_layer_is_not_needed(rig: Rig) -> None:
    (rig.own / "data/workdir").mkdir(parents=True)
    os.chown(rig.own / "data", 1000, 1001)
    (rig.own / "data").chmod(0o1777)
    data = rig.fill(rig.attach("vol:/data"))
    assert (data / "workdir").is_dir()
    cut_power(rig)
    (rig.own / "data/workdir").rmdir()
    (rig.own / "data").rmdir()
    rig.start()
    assert rig.status("vol") == "" and (data / "workdir").is_dir()


def test_a_failing_disk_is_reported(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fills, "_FLUSH_AFTER_S", 0.1)
    faults.arm("fill-flushed=EIO")  # after the flush, which is where its error would come from
    rig.fill(rig.attach("vol:/data"))
    deadline = time.monotonic() + 10
    while not rig.status("vol") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert rig.status("vol") == "the copy from the image could not be written to disk: input/output error"


# --- volumes that are mounts of their own -----------------------------------------------------------------------------


def own_mount(rig: Rig) -> MountPoint:
    """Give a volume whose data directory is a mount, as options of the local driver or a plugin make it."""
    point = rig.attach("vol:/data")
    mount.mount("tmpfs", point.source, "tmpfs")
    never_stage(rig)
    return point


def never_stage(rig: Rig) -> None:
    """As the driver says of a volume that is a mount of its own."""

    def can_stage(record: VolumeRecord) -> bool:
        return False

    rig.volumes._local.can_stage = can_stage  # type: ignore[method-assign]


@in_mount_namespace
def test_a_mounted_volume_is_filled_in_place(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    point = own_mount(rig)
    assert tree(rig.fill(point)) == WHOLE
    assert sorted(os.listdir(point.source)) == ["one", "sub", "two"]
    assert rig.intents() == [], "it is on disk when the answer comes"
    rig.stop()


@pytest.mark.parametrize("fault", POINTS[:-1])
@in_mount_namespace
def test_a_mounted_volume_is_empty_after_a_failure(tmp_path: Path, fault: str) -> None:
    rig = Rig(tmp_path)
    point = own_mount(rig)
    faults.arm(f"{fault}=ENOSPC")
    with pytest.raises(System):
        rig.fill(point)
    assert os.listdir(point.source) == [] and rig.intents() == []
    rig.stop()


@pytest.mark.parametrize("fault", POINTS)
@in_mount_namespace
def test_a_mounted_volume_is_never_used_half_filled(tmp_path: Path, fault: str) -> None:
    rig = Rig(tmp_path)
    point = own_mount(rig)
    rig.stop()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            rig.start()
            never_stage(rig)
            faults.arm(fault)
            rig.fill(point)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    mount.umount2(rig.rootfs)
    rig.start()
    never_stage(rig)
    rig.use(point)
    assert tree(Path(point.source)) in ({}, WHOLE)
    assert rig.intents() == []
    assert tree(rig.fill(point)) == WHOLE
    rig.stop()


def test_points_survive_a_record(rig: Rig) -> None:
    point = replace(rig.attach("vol:/data"), image_id="sha256:0")
    assert MountPoint.decode(point.encode()) == point
