"""Opening, making, renaming, measuring and removing by descriptor, on ordinary directories."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.kernel import path


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    with path.owned_fd(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        yield fd


def deep_tree(top: Path, depth: int) -> None:
    """`depth` directories in one another, a file in each; longer than PATH_MAX allows in one path."""
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_PATH | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("way_out", ["/etc/passwd", "../x", "link", "sub/../../x", "absolute", "up"])
def test_beneath_refuses_every_escape(tmp_path: Path, top: int, way_out: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("../..")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("sub/../../../etc/passwd")
    with pytest.raises(OSError, match="openat2") as refused:
        path.open_beneath(top, way_out, os.O_PATH)
    assert refused.value.errno == errno.EXDEV


def test_beneath_follows_links_that_stay(tmp_path: Path, top: int) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("sub")
    with path.owned_fd(path.open_beneath(top, "link", os.O_PATH | os.O_DIRECTORY)) as fd:
        assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "sub")
        assert not os.get_inheritable(fd)


def test_in_root_re_roots_absolute_links(tmp_path: Path, top: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "run").symlink_to("/run")
    (tmp_path / "out").symlink_to("../../../../run")
    for name in ("var/run", "/var/run", "out", "/../../run"):
        with path.owned_fd(path.open_in_root(top, name, os.O_PATH)) as fd:
            assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "run")


def test_magic_links_lead_nowhere(top: int) -> None:
    with path.owned_fd(os.open("/proc/self/fd", os.O_PATH)) as fds, pytest.raises(OSError, match="openat2") as refused:
        path.open_in_root(fds, str(top), os.O_PATH)
    assert refused.value.errno == errno.ELOOP


def test_make_dirs(tmp_path: Path, top: int) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("/real")
    with path.owned_fd(path.make_dirs_beneath(top, "a//b/./c", 0o700)) as fd:
        assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "a/b/c")
    with path.owned_fd(path.make_dirs_beneath(top, "/link/x/y", in_root=True)) as fd:
        assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "real/x/y")


@pytest.mark.parametrize(("name", "number"), [
    ("a/../b", errno.EINVAL), ("link/x", errno.EXDEV), ("file/x", errno.ENOTDIR), ("dangling", errno.ENOENT),
])
def test_make_dirs_refuses(tmp_path: Path, top: int, name: str, number: int) -> None:
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    before = open_fds()
    with pytest.raises(OSError, match=name.split("/", maxsplit=1)[0]) as refused:
        path.make_dirs_beneath(top, name)
    assert refused.value.errno == number
    assert open_fds() == before


def test_rename_noreplace(tmp_path: Path, top: int) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with pytest.raises(FileExistsError, match="renameat2"):
        path.rename_noreplace(top, "a", top, "b")
    path.rename_noreplace(top, "a", top, "c")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b", "c"]


def test_sync(tmp_path: Path, top: int) -> None:
    (tmp_path / "a").touch()
    path.fsync_path(tmp_path)
    path.fsync_path(tmp_path / "a")
    with path.owned_fd(os.open(tmp_path, os.O_RDONLY)) as fd:
        path.fsync_fd(fd)
        path.syncfs(fd)
    with pytest.raises(OSError, match="syncfs"):
        path.syncfs(top)                        # O_PATH


def test_size_counts_links_once_and_leaves_directories_out(tmp_path: Path, top: int) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "sub" / "b").hardlink_to(tmp_path / "a")
    with (tmp_path / "sub" / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    (tmp_path / "link").symlink_to("sub")
    assert path.tree_size_bytes(top) == 1000 + (1 << 20) + len("sub")


def test_remove_never_follows_links(tmp_path: Path, top: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "link").symlink_to(outside)
    (tmp_path / "tree" / "dangling").symlink_to("nowhere")
    path.remove_tree(top, "tree")
    assert not (tmp_path / "tree").exists()
    (tmp_path / "top-link").symlink_to(outside)
    path.remove_tree(top, "top-link")
    assert (outside / "precious").exists()


def test_remove_names_that_are_not_utf8(tmp_path: Path, top: int) -> None:
    (tmp_path / "tree" / os.fsdecode(b"\xff\xfe")).mkdir(parents=True)
    (tmp_path / "tree" / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"\x80 \n")).touch()
    path.remove_tree(top, "tree")
    assert list(tmp_path.iterdir()) == []


def test_remove_file_and_missing(tmp_path: Path, top: int) -> None:
    (tmp_path / "file").touch()
    path.remove_tree(top, "file")
    with pytest.raises(FileNotFoundError):
        path.remove_tree(top, "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/"])
def test_remove_takes_one_component(top: int, name: str) -> None:
    with pytest.raises(OSError, match="not the name of one entry"):
        path.remove_tree(top, name)


def test_a_tree_of_5000_levels(tmp_path: Path, top: int) -> None:
    (tmp_path / "tree").mkdir()
    deep_tree(tmp_path / "tree", 5000)
    before = open_fds()
    assert path.tree_size_bytes(top) == 0
    path.remove_tree(top, "tree")
    assert open_fds() == before
    assert list(tmp_path.iterdir()) == []


def test_many_directories_beside_each_other(tmp_path: Path, top: int) -> None:
    for number in range(300):
        (tmp_path / "tree" / f"d{number}" / "e").mkdir(parents=True)
        (tmp_path / "tree" / f"d{number}" / "e" / "f").write_text("12")
    assert path.tree_size_bytes(top) == 600
    path.remove_tree(top, "tree")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_moved_while_it_is_walked_is_noticed(tmp_path: Path, top: int) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    walk = path._Walk(top)
    walk.enter("tree")
    walk.enter("sub")
    (tmp_path / "tree" / "sub").rename(tmp_path / "elsewhere" / "sub")
    with pytest.raises(OSError, match="moved while"):
        walk.leave()
    walk.close()
