"""The copier and the merging of layers, on real trees; overlayfs itself is the judge of the merging."""

from __future__ import annotations

import errno
import os
import random
import resource
import socket
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from holdfast.kernel import loop, mount
from holdfast.kernel.path import owned_fd, remove_tree
from holdfast.volumes import copyup, verify
from holdfast.volumes.copier import copy_tree
from holdfast.volumes.layers import DIRECTORY, close, open_merged
from tests.support.namespace import in_mount_namespace

pytestmark = pytest.mark.kernel

TIME_NS = 1_234_567_890_123_456_789
ACL_ACCESS, ACL_DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
# struct vfs_cap_data, revision 2, effective: CAP_NET_BIND_SERVICE. Source: Linux, include/uapi/linux/capability.h.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def acl(uid: int) -> bytes:
    """u::rwx,u:UID:r-x,g::r-x,m::r-x,o::--- as the kernel stores it. Source: Linux, posix_acl_xattr.h."""
    entries = [(1, 7, 0xFFFFFFFF), (2, 5, uid), (4, 5, 0xFFFFFFFF), (16, 5, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def copy(source: Path | list[Path], destination: Path) -> None:
    layers = source if isinstance(source, list) else [source]
    fds = [os.open(layer, DIRECTORY) for layer in layers]
    try:
        with owned_fd(os.open(destination, DIRECTORY)) as target:
            copy_tree(fds, target)
    finally:
        close(fds)


def describe(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a copy must keep, by path; times of all but directories that were merged are among it."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted([top, *top.rglob("*")]):
        try:
            status = path.lstat()
        except FileNotFoundError:  # overlayfs lists whiteouts that hide nothing, but does not find them
            continue
        name = str(path.relative_to(top))
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
            if not key.startswith("trusted.overlay.")
        }
        link = first.setdefault(status.st_ino, name) if status.st_nlink > 1 and not path.is_dir() else ""
        found[name] = (
            stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns,
            content, xattrs, link,
        )  # fmt: skip
    return found


def make_zoo(top: Path) -> None:
    """One of everything."""
    top.mkdir()
    (top / ".hidden").write_text("dot")
    (top / "plain").write_text("text")
    for name, mode, uid, gid in (("setuid", 0o4755, 7, 8), ("setgid", 0o2711, 0, 9), ("secret", 0o600, 1000, 1000)):
        (top / name).write_text(name)
        os.chown(top / name, uid, gid)
        (top / name).chmod(mode)
    (top / "readonly").write_text("x")
    (top / "readonly").chmod(0o444)
    os.setxattr(top / "plain", "user.colour", b"red")
    os.setxattr(top / "setgid", ACL_ACCESS, acl(1234))
    (top / "able").write_text("x")
    os.setxattr(top / "able", "security.capability", CAPABILITY)
    (top / "deep/er").mkdir(parents=True)
    os.chown(top / "deep/er", 3, 4)
    (top / "deep/er").chmod(0o3775)
    os.setxattr(top / "deep", ACL_DEFAULT, acl(99))
    os.link(top / "plain", top / "deep/er/linked")
    os.link(top / "plain", top / "also")
    (top / "link").symlink_to("/etc/passwd")
    (top / "deep/up").symlink_to("../plain")
    os.chown(top / "link", 5, 6, follow_symlinks=False)
    os.link(top / "link", top / "link-linked", follow_symlinks=False)
    os.mkfifo(top / "fifo", 0o640)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as listener, owned_fd(os.open(top, os.O_PATH)) as folder:
        listener.bind(f"/proc/self/fd/{folder}/socket")
    with (top / "sparse").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
        file.truncate(9 << 20)
    (top / "big").write_bytes(random.Random(1).randbytes(3 << 20))
    (top / "empty").touch()
    (top / "odd name\n\udcff").write_text("x")
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(TIME_NS - 5, TIME_NS), follow_symlinks=False)
    os.chown(top, 11, 12)
    top.chmod(0o1777)
    os.utime(top, ns=(TIME_NS, TIME_NS))


def test_everything_is_kept(tmp_path: Path) -> None:
    make_zoo(tmp_path / "zoo")
    (tmp_path / "copy").mkdir()
    files = [path for path in (tmp_path / "zoo").rglob("*") if path.is_file() and not path.is_symlink()]
    before = [path.stat().st_atime_ns for path in files]
    copy(tmp_path / "zoo", tmp_path / "copy")
    assert [path.stat().st_atime_ns for path in files] == before, "reading the source leaves no trace"
    assert (tmp_path / "copy/plain").stat().st_atime_ns == TIME_NS - 5
    assert describe(tmp_path / "copy") == describe(tmp_path / "zoo")
    assert (tmp_path / "copy/sparse").stat().st_blocks * 512 < 1 << 20
    assert (tmp_path / "copy/plain").stat().st_nlink == 3


def test_a_destination_with_a_default_acl_and_a_group_changes_nothing(tmp_path: Path) -> None:
    make_zoo(tmp_path / "zoo")
    target = tmp_path / "copy"
    target.mkdir()
    os.setxattr(target, ACL_DEFAULT, acl(77))
    os.chown(target, 0, 55)
    target.chmod(0o2777)
    with owned_fd(os.open(tmp_path / "zoo", DIRECTORY)) as source, owned_fd(os.open(target, DIRECTORY)) as fd:
        copyup.fill([source], fd, fd, "0123")
    os.removexattr(target, ACL_DEFAULT)
    expected, found = describe(tmp_path / "zoo"), describe(target)
    assert found.pop(".")[:3] == expected.pop(".")[:3]
    assert found == expected


def test_a_tree_deeper_than_a_path_can_say(tmp_path: Path) -> None:
    depth = 3000
    top = tmp_path / "source"
    top.mkdir()
    here = os.open(top, DIRECTORY)
    for number in range(depth):
        os.mkdir("directory", dir_fd=here)
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("directory", DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (tmp_path / "copy").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
    try:
        copy(top, tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    here, count = os.open(tmp_path / "copy", DIRECTORY), 0
    while "directory" in os.listdir(here):
        assert f"f{count}" in os.listdir(here)
        below = os.open("directory", DIRECTORY, dir_fd=here)
        os.close(here)
        here, count = below, count + 1
    os.close(here)
    assert count == depth
    with owned_fd(os.open(tmp_path, DIRECTORY)) as folder:
        remove_tree(folder, "source")
        remove_tree(folder, "copy")


def test_many_hard_links_cost_no_descriptors(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "others").mkdir(parents=True)
    for number in range(400):
        (source / str(number)).write_text(str(number))
        os.link(source / str(number), source / "others" / str(number))
    (tmp_path / "copy").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (96, limits[1]))
    try:
        copy(source, tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for number in range(400):
        one, other = (tmp_path / "copy" / part / str(number) for part in ("", "others"))
        assert one.stat().st_ino == other.stat().st_ino and one.read_text() == str(number)


@in_mount_namespace
def test_mounts_below_the_source_are_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "copy"
    (source / "under").mkdir(parents=True)
    target.mkdir()
    mount.mount("tmpfs", source / "under", "tmpfs")
    (source / "under/secret").touch()
    (source / "file").touch()
    copy(source, target)
    assert sorted(os.listdir(target)) == ["file", "under"] and os.listdir(target / "under") == []


@in_mount_namespace
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/big").write_bytes(os.urandom(2 << 20))
    (tmp_path / "copy").mkdir()
    mount.mount("tmpfs", tmp_path / "copy", "tmpfs", data="size=1m")
    with pytest.raises(OSError, match="No space left") as full:
        copy(tmp_path / "source", tmp_path / "copy")
    assert full.value.errno == errno.ENOSPC


@pytest.mark.parametrize("seed", range(12))
@in_mount_namespace
def test_merged_layers_are_what_overlayfs_shows(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    layers = [tmp_path / f"layer{number}" for number in range(chance.randint(2, 5))]
    for layer in layers:
        layer.mkdir()
        fill_at_random(layer, chance, depth=3)
    for name in ("merged", "copy", "part"):
        (tmp_path / name).mkdir()
    mount.overlay(tmp_path / "merged", layers, None, None)
    copy(layers, tmp_path / "copy")
    assert settled(describe(tmp_path / "copy")) == settled(describe(tmp_path / "merged"))
    with owned_fd(os.open(tmp_path / "copy", DIRECTORY)) as copied:
        fds = [os.open(layer, DIRECTORY) for layer in layers]
        assert not verify.compare(fds, copied, used=False)
        close(fds)
    found = sorted(path for path in (tmp_path / "merged").rglob("*") if path.is_dir() and not path.is_symlink())
    for directory in found[:8]:
        parts = open_merged(layers, directory.relative_to(tmp_path / "merged").parts)
        target = tmp_path / "part" / str(len(os.listdir(tmp_path / "part")))
        target.mkdir()
        with owned_fd(os.open(target, DIRECTORY)) as fd:
            copy_tree([part for _, part in parts], fd)
        close(fd for _, fd in parts)
        assert settled(describe(target)) == settled(describe(directory))


def settled(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Without the links of files whose other names are hidden: overlayfs counts those as well."""
    return {name: entry[:-1] for name, entry in found.items()}


def fill_at_random(top: Path, chance: random.Random, depth: int) -> None:
    """Files, directories, links, whiteouts and opaque directories under few names, so that layers meet."""
    for name in "abcde":
        path, kind = top / name, chance.choice(["file", "directory", "directory", "link", "whiteout", "none"])
        if kind == "file":
            path.write_text(f"{top.name}{chance.random()}")
        elif kind == "link":
            path.symlink_to(chance.choice("abcde"))
        elif kind == "whiteout":
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        elif kind == "directory" and depth:
            path.mkdir(mode=chance.choice([0o755, 0o700, 0o1777]))
            fill_at_random(path, chance, depth - 1)
            if chance.random() < 0.3:
                os.setxattr(path, "trusted.overlay.opaque", b"y")


@pytest.mark.parametrize(("program", "shared"), [("mkfs.xfs -q -m reflink=1", True), ("mkfs.ext4 -q", False)])
@in_mount_namespace
def test_extents_are_shared_where_the_file_system_can(tmp_path: Path, program: str, shared: bool) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    disk, top = tmp_path / "disk", tmp_path / "top"
    top.mkdir()
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run([*program.split(), disk], check=True)
    with loop.attach(disk) as device:
        mount.mount(device.path, top, program.split(maxsplit=1)[0].removeprefix("mkfs."))
    layers, size = [top / "one", top / "two"], 64 << 20
    for layer in layers:
        layer.mkdir()
    (layers[1] / "big").write_bytes(os.urandom(1 << 20) * (size >> 20))
    (top / "copy").mkdir()
    os.sync()
    before = os.statvfs(top).f_bfree * os.statvfs(top).f_bsize
    copy(layers, top / "copy")
    os.sync()
    used = before - os.statvfs(top).f_bfree * os.statvfs(top).f_bsize
    assert (top / "copy/big").read_bytes() == (layers[1] / "big").read_bytes()
    assert used < 4 << 20 if shared else used >= size
