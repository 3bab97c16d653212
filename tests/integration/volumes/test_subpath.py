"""Subpaths: Docker's texts, directories made on the way, and somebody who exchanges directories for links meanwhile."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import EngineError, InvalidParameter, NotFound
from holdfast.events import EventBus
from holdfast.kernel.path import RENAME_EXCHANGE, renameat2
from holdfast.store import Store
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.mounts import MountPoint, MountSpec, parse_mount
from holdfast.volumes.service import Volumes
from holdfast.volumes.subpath import SubpathCreate, open_data

pytestmark = pytest.mark.kernel

CONTAINER = "c" * 64


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    store = Store(tmp_path / "holdfast.db")
    service = Volumes(store, EventBus(), LocalDriver(tmp_path / "state"))
    service.restore([])
    yield service
    service.close()
    store.close()


def point_at(volumes: Volumes, subpath: str) -> MountPoint:
    spec = parse_mount(MountSpec("volume", source="vol", target="/d", subpath=subpath))
    (point,) = volumes.attach(CONTAINER, [spec])
    return point


def opened(volumes: Volumes, subpath: str) -> Path:
    """Mount a subpath and give where it is."""
    point = point_at(volumes, subpath)
    fd = volumes.mount(CONTAINER, point).fd
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
        volumes.unmount(CONTAINER, point)


def test_directories_files_and_links_that_stay_inside(volumes: Volumes) -> None:
    data = Path(volumes.create("vol").mountpoint)
    (data / "a/b").mkdir(parents=True)
    (data / "a/file").write_text("x")
    (data / "link").symlink_to("a/b")
    (data / "a/up").symlink_to("../a/file")
    assert opened(volumes, "") == opened(volumes, "/") == opened(volumes, ".") == data
    assert opened(volumes, "a/b") == opened(volumes, "/a/b") == opened(volumes, "link") == data / "a/b"
    assert opened(volumes, "a/x/../b") == data / "a/b", "the path is cleaned first, as Docker does"
    assert opened(volumes, "a/file") == opened(volumes, "a/up") == data / "a/file"


def test_texts(volumes: Volumes) -> None:
    data = Path(volumes.create("vol").mountpoint)
    (data / "a").mkdir()
    (data / "file").write_text("x")
    (data / "loop").symlink_to("loop")
    (data / "dangling").symlink_to("nothing")
    (data / "out").symlink_to("../../..")
    (data / "root").symlink_to("/")
    for subpath, kind, text in (
        ("nope", NotFound, f"cannot access path {data}/nope: lstat {data}/nope: no such file or directory"),
        ("a/b/c", NotFound, f"cannot access path {data}/a/b/c: lstat {data}/a/b: no such file or directory"),
        ("file/x", NotFound, f"cannot access path {data}/file/x: lstat {data}/file/x: not a directory"),
        ("dangling", NotFound, f"cannot access path {data}/dangling: lstat {data}/dangling: no such file or directory"),
        ("loop", NotFound, f"cannot access path {data}/loop: EvalSymlinks: too many links"),
        ("out", InvalidParameter, f"path concatenation escapes the base directory, base: {data}, subpath: out"),
        ("root", InvalidParameter, f"path concatenation escapes the base directory, base: {data}, subpath: root"),
        ("out/etc", InvalidParameter, f"path concatenation escapes the base directory, base: {data}, subpath: out/etc"),
    ):
        with pytest.raises(kind) as refused:
            opened(volumes, subpath)
        assert str(refused.value) == text
    for subpath in ("..", "../x", "a/../..", "/../x"):
        with pytest.raises(InvalidParameter) as lexical:
            point_at(volumes, subpath)
        assert str(lexical.value) == (
            'invalid mount config for type "volume": subpath must be a relative path within the volume'
        )
    volumes.release(CONTAINER, remove_anonymous=False)
    volumes.remove("vol")  # nothing is counted as mounted after a failure


def test_missing_subpaths_are_made_where_the_volume_says_so(volumes: Volumes) -> None:
    data = Path(volumes.create("vol", options={"subpath-create": "1000:1001:2750"}).mountpoint)
    (data / "old").mkdir(mode=0o700)
    (data / "link").symlink_to("old")
    assert opened(volumes, "a/b") == data / "a/b"
    assert opened(volumes, "old/new") == opened(volumes, "link/new") == data / "old/new"
    for path in (data / "a", data / "a/b", data / "old/new"):
        status = path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, 0o2750)
    assert (data / "old").stat().st_mode & 0o7777 == 0o700 and (data / "old").stat().st_uid == 0
    (data / "out").symlink_to("/tmp")
    (data / "dangling").symlink_to("nothing")
    (data / "file").write_text("x")
    for subpath, kind in (("out/x", InvalidParameter), ("dangling/x", EngineError), ("file/x", NotFound)):
        with pytest.raises(kind):
            opened(volumes, subpath)
    assert not (data / "nothing").exists() and not Path("/tmp/x").exists()


def test_without_the_option_nothing_is_made(volumes: Volumes) -> None:
    data = Path(volumes.create("vol", options={"subpath-create": "false"}).mountpoint)
    with pytest.raises(NotFound):
        opened(volumes, "a")
    assert os.listdir(data) == []
    with pytest.raises(InvalidParameter):
        volumes.create("other", options={"subpath-create": "perhaps"})


class Swapper(threading.Thread):
    """Exchanges a directory of a volume and a link that leads out of it, as fast as it can."""

    def __init__(self, data: Path, one: str, other: str) -> None:
        super().__init__(daemon=True)
        self.fd = os.open(data, os.O_PATH | os.O_DIRECTORY)
        self.names = one, other
        self.stop = threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self.stop.is_set():
            renameat2(self.fd, self.names[0], self.fd, self.names[1], RENAME_EXCHANGE)
            self.count += 1

    def end(self) -> None:
        self.stop.set()
        self.join()
        os.close(self.fd)


@pytest.mark.parametrize("target", ["../..", "/"])
def test_a_path_that_is_exchanged_meanwhile_never_leads_out(tmp_path: Path, target: str) -> None:
    data = tmp_path / "volume/_data"
    (data / "real/in").mkdir(parents=True)
    (tmp_path / "in").mkdir()
    (data / "evil").symlink_to(target)
    swapper = Swapper(data, "real", "evil")
    swapper.start()
    inside = refused = 0
    while swapper.is_alive() and inside + refused < 20_000:
        try:
            fd = open_data(data, "real/in")
        except (InvalidParameter, NotFound):
            refused += 1
            continue
        assert os.readlink(f"/proc/self/fd/{fd}").startswith(str(data) + "/")
        os.close(fd)
        inside += 1
    swapper.end()
    assert inside and refused, (inside, refused, swapper.count)


def test_directories_are_never_made_outside(tmp_path: Path) -> None:
    data, outside = tmp_path / "volume/_data", tmp_path / "outside"
    (data / "real").mkdir(parents=True)
    outside.mkdir()
    (data / "evil").symlink_to("../../outside")
    swapper = Swapper(data, "real", "evil")
    swapper.start()
    made = 0
    for number in range(2_000):
        try:
            os.close(open_data(data, f"real/{number}/deep", SubpathCreate(1000, 1000, 0o700)))
            made += 1
        except EngineError:
            continue
    swapper.end()
    assert made and os.listdir(outside) == []
    for path in (data / "real", data / "evil"):
        if not path.is_symlink():
            assert all(entry.stat().st_uid == 1000 for entry in path.iterdir())


def test_a_symlink_in_place_of_the_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_data").symlink_to("/etc")
    with pytest.raises(EngineError) as refused:
        open_data(tmp_path / "_data", "")
    assert os.strerror(errno.ENOTDIR).lower() in str(refused.value) or "symbolic" in str(refused.value)
