"""The volume service over a real catalogue and a real file system."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import faults
from holdfast.errors import Conflict, EngineError, InvalidParameter, NotFound, System
from holdfast.events import Event, EventBus
from holdfast.store import Store
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.model import ANONYMOUS_LABEL, TrashPolicy
from holdfast.volumes.mounts import MountPoint, parse_bind
from holdfast.volumes.service import Volumes

pytestmark = pytest.mark.kernel

CONTAINER = "c" * 64
OTHER = "d" * 64


class Bench:
    """A volume service on a folder, which can be left as a dead engine leaves it and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.policy = TrashPolicy()
        self.events: list[Event] = []
        self.start([])

    def start(self, containers: list[str]) -> None:
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.store = Store(self.root / "holdfast.db")
        self.volumes = Volumes(self.store, bus, LocalDriver(self.root), self.policy)
        self.volumes.restore(containers)

    def restart(self, containers: list[str] | None = None) -> None:
        self.stop()
        self.start(containers or [])

    def stop(self) -> None:
        self.volumes.close()
        self.store.close()

    def names(self) -> list[str]:
        return [volume.name for volume in self.volumes.list()]

    def entries(self) -> list[str]:
        """What is in the volumes directory, half-made things included."""
        return sorted(os.listdir(self.root / "volumes"))

    def told(self) -> list[tuple[str, str]]:
        return [(event.action, event.actor_id) for event in self.events]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    faults.arm("")
    bench.stop()


def test_create_is_idempotent_and_keeps_the_first_labels(bench: Bench) -> None:
    first = bench.volumes.create("data", labels={"a": "1"})
    again = bench.volumes.create("data", labels={"b": "2"}, options={"bogus": ""})
    assert again == first
    assert bench.told() == [("create", "data")]
    data = bench.root / "volumes/data/_data"
    assert str(data) == first.mountpoint
    assert data.stat().st_mode & 0o7777 == 0o755
    assert data.parent.stat().st_mode & 0o7777 == 0o701


def test_anonymous_volumes_are_labelled(bench: Bench) -> None:
    volume = bench.volumes.create(labels={"k": "v"})
    assert len(volume.name) == 64
    assert volume.record.labels == {"k": "v", ANONYMOUS_LABEL: ""}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "a",
            InvalidParameter,
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        (
            "foo/bar",
            InvalidParameter,
            'create foo/bar: "foo/bar" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
        ),
        ("..", InvalidParameter, None),
        ("nul\0", InvalidParameter, None),
        ("line\n", InvalidParameter, None),
        ("ümlaut", InvalidParameter, None),
        ("x" * 300, InvalidParameter, None),
    ],
)
def test_names_that_are_refused(bench: Bench, name: str, error: type[EngineError], message: str | None) -> None:
    with pytest.raises(error) as refused:
        bench.volumes.create(name)
    assert message is None or str(refused.value) == message
    assert bench.entries() == [] and bench.names() == []


def test_unknown_drivers_and_options(bench: Bench) -> None:
    with pytest.raises(NotFound) as unknown:
        bench.volumes.create("v1", driver="nope")
    assert str(unknown.value) == 'create v1: error looking up volume plugin nope: plugin "nope" not found'
    with pytest.raises(InvalidParameter) as option:
        bench.volumes.create("v1", options={"bogus": "1"})
    assert str(option.value) == 'create v1: invalid option: "bogus"'


def test_remove(bench: Bench) -> None:
    bench.volumes.create("data")
    (bench.root / "volumes/data/_data/file").write_text("x")
    bench.volumes.remove("data")
    assert bench.entries() == [] and bench.names() == []
    with pytest.raises(NotFound, match=r"^get data: no such volume$"):
        bench.volumes.remove("data")
    bench.volumes.remove("data", force=True)
    assert bench.told() == [("create", "data"), ("destroy", "data")]
    assert bench.volumes.create("data").record.labels is None


def test_space_of_removed_volumes_comes_back(bench: Bench) -> None:
    bench.policy = TrashPolicy(keep_s=0)
    bench.restart()
    bench.volumes.create("data")
    (bench.root / "volumes/data/_data/file").write_text("x")
    bench.volumes.remove("data")
    deadline = time.monotonic() + 10
    while os.listdir(bench.root / "trash") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert os.listdir(bench.root / "trash") == []


def test_references_protect(bench: Bench) -> None:
    bench.volumes.attach(CONTAINER, [parse_bind("data:/d")])
    with pytest.raises(Conflict) as refused:
        bench.volumes.remove("data", force=True)
    assert str(refused.value) == f"remove data: volume is in use - [{CONTAINER}]"
    assert bench.volumes.prune({"all": ["true"]}, (1, 51)).names == ()
    bench.restart([CONTAINER])
    with pytest.raises(Conflict):
        bench.volumes.remove("data")
    bench.volumes.release(CONTAINER, remove_anonymous=True)
    bench.volumes.remove("data")


def test_mounted_volumes_are_not_removed(bench: Bench) -> None:
    (point,) = bench.volumes.attach(CONTAINER, [parse_bind("data:/d")])
    os.close(bench.volumes.mount(CONTAINER, point).fd)
    bench.volumes.release(CONTAINER, remove_anonymous=False)
    with pytest.raises(System, match=r"^remove data: volume has active mounts$"):
        bench.volumes.remove("data")
    bench.volumes.unmount(CONTAINER, point)
    bench.volumes.remove("data")
    assert bench.told() == [("create", "data"), ("mount", "data"), ("unmount", "data"), ("destroy", "data")]


def test_anonymous_volumes_go_with_their_last_container(bench: Bench) -> None:
    own, named = bench.volumes.attach(CONTAINER, [parse_bind("/a"), parse_bind("named:/n")])
    bench.volumes.attach(OTHER, [own])
    bench.volumes.release(CONTAINER, remove_anonymous=True)
    assert bench.names() == sorted([own.name, named.name])
    bench.volumes.release(OTHER, remove_anonymous=True)
    assert bench.names() == ["named"]


def test_a_failed_attach_leaves_only_named_volumes(bench: Bench) -> None:
    with pytest.raises(InvalidParameter):
        bench.volumes.attach(CONTAINER, [parse_bind("/a"), parse_bind("named:/n"), parse_bind("x:/bad")])
    assert bench.names() == ["named"]
    bench.volumes.remove("named")


def test_a_failing_disk_leaves_nothing_half_made(bench: Bench) -> None:
    for point in ("volume-staged", "volume-created-not-recorded"):
        faults.arm(f"{point}=ENOSPC")
        with pytest.raises((EngineError, OSError)):
            bench.volumes.create("data")
        assert bench.names() == [] and bench.entries() == []
        bench.volumes.create("data")
        bench.volumes.remove("data")
    bench.restart()
    assert bench.names() == [] and bench.entries() == []


def test_prune_takes_only_anonymous_volumes(bench: Bench) -> None:
    bench.volumes.create("named")
    anonymous = bench.volumes.create()
    Path(anonymous.mountpoint, "file").write_bytes(b"x" * 100)
    pruned = bench.volumes.prune({}, (1, 51))
    assert (pruned.names, pruned.reclaimed_bytes) == ((anonymous.name,), 100)
    assert bench.events[-1].attributes == {"reclaimed": "100"}
    assert bench.volumes.prune({}, (1, 41)).names == ("named",)


def test_catalogue_is_rebuilt_from_disk(bench: Bench) -> None:
    made = bench.volumes.create("data", labels={"k": "v"})
    (bench.root / "volumes/by-hand/_data").mkdir(parents=True)
    (bench.root / "volumes/no-volume").mkdir()
    bench.stop()
    for file in bench.root.glob("holdfast.db*"):
        file.unlink()
    bench.start([])
    assert bench.names() == ["by-hand", "data"]
    assert bench.volumes.get("data").record == made.record


def test_power_cut_after_create_makes_the_directory_again(bench: Bench) -> None:
    bench.volumes.create("data")
    bench.stop()
    bench.store = Store(bench.root / "holdfast.db")
    bench.store.database.write(lambda connection: connection.execute("UPDATE volumes SET settled = 0"))
    bench.store.close()
    (bench.root / "volumes/data/_data").rmdir()
    (bench.root / "volumes/data/volume.json").unlink()
    (bench.root / "volumes/data").rmdir()
    bench.start([])
    assert bench.names() == ["data"]
    assert Path(bench.volumes.get("data").mountpoint).is_dir()


def test_power_cut_after_remove_removes_again(bench: Bench) -> None:
    volume = bench.volumes.create("data")
    bench.volumes.remove("data")
    bench.stop()
    trash = bench.root / "trash" / volume.record.id
    if trash.exists():
        trash.rename(bench.root / "volumes/data")
    bench.start([])
    assert bench.names() == []


def test_unrecorded_removal_is_taken_back(bench: Bench) -> None:
    volume = bench.volumes.create("data")
    Path(volume.mountpoint, "file").write_text("precious")
    bench.stop()
    (bench.root / "volumes/data").rename(bench.root / "trash" / volume.record.id)
    bench.start([])
    assert Path(bench.volumes.get("data").mountpoint, "file").read_text() == "precious"


def test_deleted_directories_are_dropped(bench: Bench) -> None:
    bench.volumes.create("data")
    bench.restart()
    (bench.root / "volumes/data").rename(bench.root / "elsewhere")
    bench.restart()
    assert bench.names() == []


def test_a_symlink_in_place_of_data_deletes_nothing(bench: Bench) -> None:
    outside = bench.root / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    volume = bench.volumes.create("data")
    Path(volume.mountpoint).rmdir()
    Path(volume.mountpoint).symlink_to(outside)
    bench.volumes.remove("data")
    bench.restart()
    assert (outside / "file").read_text() == "precious"


def test_two_clients_creating_and_removing_one_name(bench: Bench) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        for _ in range(50):
            try:
                bench.volumes.create("data")
                with contextlib.suppress(NotFound):
                    bench.volumes.remove("data")
            except (EngineError, OSError) as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert bench.entries() == bench.names()


def test_creating_while_other_names_are_locked_does_not_wait(bench: Bench) -> None:
    point = MountPoint("volume", "/d", name="slow", driver="local")
    with bench.volumes._locks.hold("slow"):
        thread = threading.Thread(target=bench.volumes.attach, args=(CONTAINER, [point]))
        thread.start()
        assert bench.volumes.create("fast").name == "fast"
    thread.join(5)
    assert not thread.is_alive()
