"""Real mounts: binds, attaching by descriptor, overlays, propagation, and removing beside mounts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from holdfast.kernel import mount, mountinfo, path
from tests.support.namespace import in_mount_namespace

pytestmark = pytest.mark.kernel


def make_dirs(top: Path, *names: str) -> list[Path]:
    for name in names:
        (top / name).mkdir(parents=True)
    return [top / name for name in names]


def same(one: Path, other: Path) -> bool:
    return os.path.samefile(one, other)


@in_mount_namespace
def test_readonly_bind_reaches_submounts(tmp_path: Path) -> None:
    source, sub, destination = make_dirs(tmp_path, "source", "source/sub", "destination")
    mount.mount_tmpfs(sub, size_bytes=65536)
    mount.bind(source, destination, readonly=True)
    for place in (destination, destination / "sub"):
        with pytest.raises(OSError, match="Read-only") as refused:
            (place / "file").touch()
        assert refused.value.errno == errno.EROFS
    (source / "file").touch()
    (sub / "file").touch()


@in_mount_namespace
def test_readonly_can_spare_submounts(tmp_path: Path) -> None:
    source, sub, destination = make_dirs(tmp_path, "source", "source/sub", "destination")
    mount.mount_tmpfs(sub, size_bytes=65536)
    with path.owned_fd(os.open(source, os.O_PATH)) as fd:
        mount.attach(fd, destination, readonly=True, recursive=True, readonly_submounts=False)
    (destination / "sub" / "file").touch()
    with pytest.raises(OSError, match="Read-only"):
        (destination / "file").touch()


@in_mount_namespace
def test_bind_without_submounts(tmp_path: Path) -> None:
    source, sub, destination = make_dirs(tmp_path, "source", "source/sub", "destination")
    mount.mount_tmpfs(sub, size_bytes=65536)
    (sub / "inner").touch()
    mount.bind(source, destination, readonly=False, recursive=False)
    assert list((destination / "sub").iterdir()) == []


@in_mount_namespace
def test_a_file_by_descriptor_survives_the_exchange_of_its_name(tmp_path: Path) -> None:
    good, evil, destination, moved = (tmp_path / name for name in ("good", "evil", "destination", "moved"))
    for file in (good, evil, destination):
        file.write_text(file.name)
    with path.owned_fd(os.open(good, os.O_PATH)) as source, path.owned_fd(os.open(destination, os.O_PATH)) as target:
        good.rename(tmp_path / "kept")
        good.symlink_to(evil)
        destination.rename(moved)
        destination.symlink_to(evil)
        mount.attach(source, target, readonly=True, recursive=False)
    assert moved.read_text() == "good"
    assert evil.read_text() == "evil"
    with pytest.raises(OSError, match="Read-only"):
        moved.write_text("x")


@in_mount_namespace
def test_attach_does_not_follow_a_link_at_the_destination(tmp_path: Path) -> None:
    source, victim = make_dirs(tmp_path, "source", "victim")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match="move_mount"):
        mount.bind(source, tmp_path / "link", readonly=False)
    assert not path.is_mount_point(victim)


@in_mount_namespace
def test_attributes(tmp_path: Path) -> None:
    source, destination = make_dirs(tmp_path, "source", "destination")
    with path.owned_fd(os.open(source, os.O_PATH)) as fd:
        mount.attach(fd, destination, readonly=False, recursive=True,
                     attributes=mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV)
    found = mountinfo.mount_at(destination)
    assert found is not None
    assert {"rw", "nosuid", "nodev"} <= set(found.options)


@pytest.mark.parametrize(("word", "shared", "slave"), [
    ("private", False, False), ("rprivate", False, False), ("shared", True, False), ("rshared", True, False),
    ("slave", False, True), ("rslave", False, True),
])
@in_mount_namespace
def test_propagation_below_a_shared_mount(tmp_path: Path, word: str, shared: bool, slave: bool) -> None:
    top, source, destination = make_dirs(tmp_path, "top", "top/source", "top/destination")
    mount.mount_tmpfs(top)
    make_dirs(top, "source", "destination")
    mount.make_shared(top)
    with path.owned_fd(os.open(source, os.O_PATH)) as fd:
        mount.attach(fd, destination, readonly=False, recursive=True, propagation=word)
    found = mountinfo.mount_at(destination)
    assert found is not None
    assert (found.shared is not None, found.master is not None) == (shared, slave)


@in_mount_namespace
def test_make_shared_and_private_are_repeatable_and_keep_submounts(tmp_path: Path) -> None:
    top, sub = make_dirs(tmp_path, "top", "top/sub")
    mount.mount_tmpfs(sub)
    (sub / "file").touch()
    for _ in range(2):
        mount.make_shared(top)
    assert (sub / "file").exists()
    assert [entry.shared is not None for entry in mountinfo.mounts_below(top)].count(True) == 2
    private = make_dirs(top, "private")[0]
    for _ in range(2):
        mount.make_private(private)
    found = [entry for entry in mountinfo.mounts_below(private) if entry.mount_point == str(private)]
    assert [(entry.shared, entry.master) for entry in found] == [(None, None)]


@in_mount_namespace
def test_mount_refuses_options_the_kernel_would_cut(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mount: options") as refused:
        mount.mount("tmpfs", tmp_path, "tmpfs", data="mode=700," * 600)
    assert refused.value.errno == errno.E2BIG


@in_mount_namespace
def test_umount_says_what_it_was_about(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="umount2: Invalid argument") as refused:
        mount.umount2(tmp_path)
    assert refused.value.filename == str(tmp_path)


# --- overlay ----------------------------------------------------------------------------------------------

def layers(top: Path, count: int, name: str = "layer") -> list[Path]:
    """`count` directories with long names, topmost first; each has a file of its own and one they all have."""
    made = make_dirs(top, *(f"{name}-{'x' * 80}-{number}" for number in range(count)))
    for number, directory in enumerate(made):
        (directory / f"only-{number}").touch()
        (directory / "all").write_text(str(number))
    return made


def check_overlay(top: Path, lowers: list[Path]) -> None:
    merged, upper, work = make_dirs(top, "merged", "upper", "work")
    mount.overlay(merged, lowers, upper, work)
    assert {entry.name for entry in merged.iterdir()} == {"all", *(f"only-{number}" for number in range(len(lowers)))}
    assert (merged / "all").read_text() == "0"
    (merged / "new").touch()
    assert (upper / "new").exists()
    (merged / "only-1").unlink()
    assert not (merged / "only-1").exists()
    found = mountinfo.mount_at(merged)
    assert found is not None
    assert (found.fstype, found.source) == ("overlay", "overlay")


@in_mount_namespace
def test_overlay_of_60_layers_has_them_all(tmp_path: Path) -> None:
    mount.mount_tmpfs(tmp_path)
    check_overlay(tmp_path, layers(tmp_path, 60))


@in_mount_namespace
def test_overlay_of_60_layers_without_lowerdir_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount._LowerdirAppend, "known", False)
    mount.mount_tmpfs(tmp_path)
    check_overlay(tmp_path, layers(tmp_path, 60))


@pytest.mark.parametrize("known", [None, False])
@in_mount_namespace
def test_overlay_paths_with_special_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               known: bool | None) -> None:
    monkeypatch.setattr(mount._LowerdirAppend, "known", known)
    mount.mount_tmpfs(tmp_path)
    top = make_dirs(tmp_path, "a:b,c\\d e", "a:b,c\\d e/" + "long/" * 60)[0]
    check_overlay(top, layers(top / ("long/" * 60), 2, name="a:b,c\\d"))


@in_mount_namespace
def test_overlay_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount._LowerdirAppend, "known", False)
    mount.mount_tmpfs(tmp_path)
    merged, upper, work = make_dirs(tmp_path, "merged", "upper", "work")
    with pytest.raises(OSError, match="do not fit") as refused:
        mount.overlay(merged, layers(tmp_path, 400), upper, work)
    assert refused.value.errno == errno.E2BIG
    assert not path.is_mount_point(merged)


@in_mount_namespace
def test_overlay_without_upper_is_read_only(tmp_path: Path) -> None:
    mount.mount_tmpfs(tmp_path)
    merged = make_dirs(tmp_path, "merged")[0]
    mount.overlay(merged, layers(tmp_path, 2), None, None)
    with pytest.raises(OSError, match="Read-only"):
        (merged / "new").touch()


@in_mount_namespace
def test_overlay_onto_a_descriptor_and_with_options(tmp_path: Path) -> None:
    mount.mount_tmpfs(tmp_path)
    merged, upper, work = make_dirs(tmp_path, "merged", "upper", "work")
    with path.owned_fd(os.open(merged, os.O_PATH)) as fd:
        mount.overlay(fd, layers(tmp_path, 1), upper, work, options=["volatile", "index=on"])
    found = mountinfo.mount_at(merged)
    assert found is not None
    assert "index=on" in found.super_options
    assert {"volatile", "fsync=volatile"} & set(found.super_options)           # kernels word it differently


@pytest.mark.parametrize("known", [None, True, False])
@in_mount_namespace
def test_overlay_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool | None) -> None:
    monkeypatch.setattr(mount._LowerdirAppend, "known", known)
    merged, upper, work = make_dirs(tmp_path, "merged", "upper", "work")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"missing|overlay|fsconfig|mount"):
        mount.overlay(merged, [tmp_path / "missing"], upper, work)
    with pytest.raises(OSError, match=r"fsconfig|mount"):
        mount.overlay(merged, [tmp_path], upper, work, options=["no-such-option"])
    assert os.listdir("/proc/self/fd") == before
    assert not path.is_mount_point(merged)
    assert mount._LowerdirAppend.known is known


# --- trees beside mounts ----------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["tmpfs", "bind", "file"])
@in_mount_namespace
def test_remove_tree_never_crosses_a_mount(tmp_path: Path, kind: str) -> None:
    precious, point = make_dirs(tmp_path, "precious", "tree/a/b")
    (precious / "file").write_text("kept")
    if kind == "file":
        point = point / "file"
        point.touch()
        mount.bind(precious / "file", point, readonly=False)
    elif kind == "bind":                        # same device number: only the mount itself tells
        mount.bind(precious, point, readonly=False)
    else:
        mount.mount_tmpfs(point)
        (point / "file").write_text("kept")
    with path.owned_fd(os.open(tmp_path, os.O_PATH)) as top, pytest.raises(OSError, match="mount point") as refused:
        path.remove_tree(top, "tree")
    assert refused.value.errno == errno.EBUSY
    assert refused.value.filename == str(point.relative_to(tmp_path))
    assert (point if kind == "file" else point / "file").read_text() == "kept"
    assert (precious / "file").read_text() == "kept"


@in_mount_namespace
def test_remove_tree_refuses_a_mount_as_its_top(tmp_path: Path) -> None:
    tree = make_dirs(tmp_path, "tree")[0]
    mount.mount_tmpfs(tree)
    (tree / "file").touch()
    with path.owned_fd(os.open(tmp_path, os.O_PATH)) as top, pytest.raises(OSError, match="mount point"):
        path.remove_tree(top, "tree")
    assert (tree / "file").exists()


@in_mount_namespace
def test_size_leaves_mounts_out(tmp_path: Path) -> None:
    tree, sub = make_dirs(tmp_path, "tree", "tree/sub")
    (tree / "file").write_bytes(b"123")
    mount.mount_tmpfs(sub)
    (sub / "file").write_bytes(b"12345")
    with path.owned_fd(os.open(tree, os.O_PATH)) as fd:
        assert path.tree_size_bytes(fd) == 3
    with path.owned_fd(os.open(sub, os.O_PATH)) as fd:          # a mount as the top is measured
        assert path.tree_size_bytes(fd) == 5


@in_mount_namespace
def test_mount_ids_are_those_of_the_table(tmp_path: Path) -> None:
    mount.mount_tmpfs(tmp_path)
    found = mountinfo.mount_at(tmp_path)
    assert found is not None
    with path.owned_fd(os.open(tmp_path, os.O_PATH)) as fd:
        assert path.mount_id(fd) == found.mount_id
    assert path.is_mount_point(tmp_path)
    assert not path.is_mount_point(tmp_path.parent)
