"""Undo: what was removed comes back byte for byte, with labels and options; what is protected does not go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import Conflict, InvalidParameter, NotFound
from holdfast.volumes.model import TrashPolicy
from holdfast.volumes.mounts import parse_bind
from tests.integration.volumes.test_service import CONTAINER, Bench

pytestmark = pytest.mark.kernel


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.stop()


def write(bench: Bench, name: str, text: str) -> None:
    Path(bench.volumes.get(name).mountpoint, "file").write_text(text)


def read(bench: Bench, name: str) -> str:
    return Path(bench.volumes.get(name).mountpoint, "file").read_text()


def test_a_removed_volume_comes_back_whole(bench: Bench) -> None:
    before = bench.volumes.create("data", labels={"k": "v"})
    write(bench, "data", "precious")
    data = Path(before.mountpoint)
    os.chown(data / "file", 1000, 1001)
    (data / "file").chmod(0o4751)
    os.setxattr(data / "file", "user.x", b"y")
    status = (data / "file").stat()
    bench.volumes.remove("data")
    bench.restart()
    (entry,) = bench.volumes.trash.list()
    assert entry.volume == before.record
    bench.volumes.trash.undo()
    assert bench.volumes.get("data") == before
    after = (data / "file").stat()
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns, after.st_ino) == (
        status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino,
    )  # fmt: skip
    assert os.getxattr(data / "file", "user.x") == b"y"
    assert bench.volumes.trash.list() == []
    bench.restart()
    assert read(bench, "data") == "precious"


def test_the_name_is_free_at_once(bench: Bench) -> None:
    bench.volumes.create("data")
    write(bench, "data", "old")
    bench.volumes.remove("data")
    bench.volumes.create("data")
    write(bench, "data", "new")
    with pytest.raises(Conflict, match="there is a volume data already"):
        bench.volumes.trash.undo()
    with pytest.raises(Conflict):
        bench.volumes.trash.restore("data")
    with pytest.raises(InvalidParameter):
        bench.volumes.trash.restore("data", "../x")
    bench.volumes.trash.restore("data", "data-old")
    bench.restart()
    assert (read(bench, "data"), read(bench, "data-old")) == ("new", "old")


def test_undo_takes_back_a_whole_prune(bench: Bench) -> None:
    for name in ("a1", "b1", "c1"):
        bench.volumes.create(name)
        write(bench, name, name)
    bench.volumes.prune({"all": ["true"]}, (1, 51))
    assert bench.names() == []
    assert [record.name for record in bench.volumes.trash.undo()] == ["a1", "b1", "c1"]
    assert [read(bench, name) for name in bench.names()] == ["a1", "b1", "c1"]
    with pytest.raises(NotFound, match="the trash is empty"):
        bench.volumes.trash.undo()


def test_anonymous_volumes_of_rm_containers_are_kept_only_if_asked(bench: Bench) -> None:
    for keep in (False, True):
        bench.policy = TrashPolicy(keep_anonymous=keep)
        bench.restart()
        bench.volumes.attach(CONTAINER, [parse_bind("/a")])
        bench.volumes.release(CONTAINER, remove_anonymous=True, auto_remove=True)
        assert len(bench.volumes.trash.list()) == int(keep)
    bench.volumes.trash.empty()
    bench.volumes.attach(CONTAINER, [parse_bind("/a")])
    bench.volumes.release(CONTAINER, remove_anonymous=True)
    assert len(bench.volumes.trash.list()) == 1


def test_emptied_means_gone(bench: Bench) -> None:
    for name in ("a1", "b1"):
        bench.volumes.create(name)
        bench.volumes.remove(name)
    bench.volumes.trash.empty(["a1"])
    assert [entry.volume.name for entry in bench.volumes.trash.list()] == ["b1"]
    with pytest.raises(NotFound):
        bench.volumes.trash.restore("a1")
    bench.volumes.trash.empty()
    deadline = time.monotonic() + 10
    while os.listdir(bench.root / "trash") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert os.listdir(bench.root / "trash") == []


def test_an_interrupted_restore_is_back_in_the_trash(bench: Bench) -> None:
    volume = bench.volumes.create("data")
    write(bench, "data", "precious")
    bench.volumes.remove("data")
    bench.stop()
    (bench.root / "trash" / volume.record.id).rename(bench.root / "volumes/data")
    bench.start([])
    assert bench.names() == []
    bench.volumes.trash.restore("data")
    assert read(bench, "data") == "precious"


def test_protected_volumes_stay(bench: Bench) -> None:
    bench.volumes.create("data")
    anonymous = bench.volumes.attach(CONTAINER, [parse_bind("/a")])[0].name
    for name in ("data", anonymous):
        bench.volumes.protect(name, "ada")
    bench.volumes.protect("data", "somebody else")
    bench.restart([CONTAINER])
    with pytest.raises(Conflict, match=r"^remove data: volume is protected by ada since 20..-..-..T..:..:..Z$"):
        bench.volumes.remove("data", force=True)
    bench.volumes.release(CONTAINER, remove_anonymous=True, auto_remove=True)
    assert bench.volumes.prune({"all": ["true"]}, (1, 51)).names == ()
    assert bench.names() == sorted(["data", anonymous])
    bench.volumes.unprotect("data")
    bench.volumes.remove("data")


def test_labels_can_change(bench: Bench) -> None:
    bench.volumes.create("data", labels={"a": "1"})
    bench.volumes.relabel("data", {"b": "2"})
    bench.stop()
    for file in bench.root.glob("holdfast.db*"):
        file.unlink()
    bench.start([])
    assert bench.volumes.get("data").record.labels == {"b": "2"}
