"""Layers made into directories; hostile ones stay in theirs."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast.errors import InvalidParameter
from holdfast.images.files import remove_entry
from holdfast.images.unpack import Unpacked, unpack
from holdfast.kernel.mountinfo import read_mountinfo
from tests.support import images as make

pytestmark = pytest.mark.kernel

CAPABILITY = b"\x01\x00\x00\x02\x00\x20" + bytes(14)  # cap_net_raw=ep, as setcap(8) writes it


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory to unpack into; nothing beside it may change."""
    path = tmp_path / "layer" / "diff"
    path.mkdir(parents=True)
    return path


def put(entries: Sequence[make.Entry], root: Path) -> Unpacked:
    blob = root.parent / "blob"
    blob.write_bytes(make.layer(entries))
    return unpack(blob, root)


def test_everything_a_layer_may_hold(root: Path) -> None:
    attributes = {"SCHILY.xattr.user.note": "ä", "SCHILY.xattr.trusted.overlay.opaque": "y"}
    entries = [
        make.dir_entry("./", mode=0o750, uid=5, gid=6),
        make.file_entry("bin/su", b"su", mode=0o4755),
        make.file_entry("owned", b"x", uid=1000, gid=70000),
        make.hardlink_entry("again", "bin/su", mode=0o4755),
        make.hardlink_entry("a link to owned", "owned", mode=0o2710, uid=7, gid=8),  # the last header counts
        make.symlink_entry("link", "/bin/su"),
        make.device_entry("dev/null", 1, 3),
        make.dir_entry("closed", mode=0o000),
        make.file_entry("closed/file", b"", mode=0o000),
        make.file_entry("xattr", b"", pax_headers=attributes),
        make.file_entry("capable", b"", pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode()}),
    ]
    done = put(entries, root)
    assert done == Unpacked(make.digest(make.layer(entries)), 2 + 1 + len("/bin/su"))
    assert (root.stat().st_uid, root.stat().st_gid, stat.S_IMODE(root.stat().st_mode)) == (5, 6, 0o750)
    assert stat.S_IMODE((root / "bin/su").stat().st_mode) == 0o4755
    owned = (root / "owned").stat()
    assert (owned.st_uid, owned.st_gid, stat.S_IMODE(owned.st_mode), owned.st_nlink) == (7, 8, 0o2710, 2)
    assert (root / "again").stat().st_ino == (root / "bin/su").stat().st_ino
    assert os.readlink(root / "link") == "/bin/su"
    assert (root / "dev/null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0
    assert os.listxattr(root / "xattr") == ["user.note"]
    assert os.getxattr(root / "capable", "security.capability") == CAPABILITY
    assert (root / "owned").stat().st_mtime == 1704067200


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
def test_compressed(root: Path, program: str) -> None:
    plain = make.layer([make.file_entry("a", b"x" * 100_000)])
    blob = root.parent / "blob"
    blob.write_bytes(subprocess.run([program, "-c"], input=plain, capture_output=True, check=True).stdout)
    assert unpack(blob, root) == Unpacked(make.digest(plain), 100_000)


def test_padding_counts_for_the_digest(root: Path) -> None:
    plain = make.layer([make.file_entry("a", b"x")]) + bytes(3 << 20)
    blob = root.parent / "blob"
    blob.write_bytes(gzip.compress(plain))
    assert unpack(blob, root) == Unpacked(make.digest(plain), 1)


def test_links_inside_are_followed_as_in_a_root(root: Path) -> None:
    put(
        [
            make.dir_entry("run"),
            make.symlink_entry("var/run", "/run"),
            make.file_entry("var/run/absolute", b""),
            make.symlink_entry("var/lock", "../run"),
            make.file_entry("var/lock/relative", b""),
            make.file_entry("/top", b""),
            make.file_entry("a/../dots", b""),
        ],
        root,
    )
    assert sorted(os.listdir(root / "run")) == ["absolute", "relative"]
    assert (root / "top").exists()
    assert (root / "dots").exists()


ESCAPES = {
    "dots": [make.file_entry("../evil", b"x")],
    "more dots": [make.file_entry("a/../../../../evil", b"x")],
    "link up": [make.symlink_entry("a", ".."), make.file_entry("a/evil", b"x")],
    "link to root": [make.symlink_entry("a", "/"), make.file_entry("a/evil", b"x")],
    "link to programs": [make.symlink_entry("a", "/usr/bin"), make.file_entry("a/evil", b"x")],
    "link of links": [make.symlink_entry("a", ".."), make.symlink_entry("b", "a/.."), make.file_entry("b/evil", b"x")],
    "hard link to a program": [make.hardlink_entry("a", "/usr/bin/tar")],
    "hard link up": [make.hardlink_entry("a", "../../../../etc/passwd")],
    "hard link through a link": [make.symlink_entry("a", "/usr"), make.hardlink_entry("b", "a/bin/tar")],
    "write through a hard link": [
        make.symlink_entry("a", "/usr/bin/tar"),
        make.hardlink_entry("b", "a"),
        make.symlink_entry("d", "/usr/bin"),
        make.file_entry("d/tar", b"evil"),
    ],
    "mode of the parent": [make.dir_entry("..", mode=0o777)],
    "mode of a program": [make.symlink_entry("a", "/usr"), make.dir_entry("a/bin", mode=0o777)],
    "whiteout up": [make.file_entry("d/.wh...", b"")],
    "whiteout of itself": [make.file_entry("d/.wh..", b"")],
    "whiteout of nothing": [make.file_entry("d/.wh.", b"")],
    "device in a program's place": [make.symlink_entry("a", "/usr/bin"), make.device_entry("a/evil", 1, 3)],
}


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_gets_out(name: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").write_text("precious")
    before = {path: path.lstat().st_mode for path in tmp_path.rglob("*") if root not in path.parents}
    programs = Path("/usr/bin").stat()
    with pytest.raises(InvalidParameter, match="invalid layer"):
        put(ESCAPES[name], root)
    after = {path: path.lstat().st_mode for path in tmp_path.rglob("*") if root not in path.parents}
    after.pop(root.parent / "blob")
    assert after == before
    assert (tmp_path / "beside").read_text() == "precious"
    assert (Path("/usr/bin").stat().st_mtime_ns, Path("/usr/bin").stat().st_mode) == (
        programs.st_mtime_ns,
        programs.st_mode,
    )
    assert not Path("/usr/bin/evil").exists()
    assert Path("/usr/bin/tar").read_bytes()[:4] == b"\x7fELF"


def test_links_may_point_anywhere_as_long_as_nothing_goes_through(root: Path) -> None:
    put([make.symlink_entry("a", "../../../../etc"), make.symlink_entry("b", "/usr/bin")], root)
    assert os.readlink(root / "a") == "../../../../etc"


@pytest.mark.parametrize(
    "data",
    [b"x" * 10_000, b"", gzip.compress(b"x" * 10_000), gzip.compress(make.layer([make.file_entry("a")]))[:-20]],
    ids=["junk", "nothing", "compressed junk", "cut"],
)
def test_damaged(root: Path, data: bytes) -> None:
    blob = root.parent / "blob"
    blob.write_bytes(data)
    with pytest.raises(InvalidParameter, match="invalid layer"):
        unpack(blob, root)


def test_decompressor_in_the_layer_is_not_run(root: Path) -> None:
    """CVE-2014-9357, CVE-2026-41567: what unpacks comes from the host only."""
    script = b"#!/bin/sh\ntouch /evil\n"
    entries = [make.file_entry(f"{place}/{name}", script, mode=0o755)
               for place in ("bin", "usr/bin", "usr/local/bin") for name in ("gzip", "xz", "tar", "setpriv")]
    blob = root.parent / "blob"
    blob.write_bytes(make.layer(entries, compress=True))
    unpack(blob, root)
    assert not (root / "evil").exists()
    assert not Path("/evil").exists()


def test_whiteouts(root: Path) -> None:
    put(
        [
            make.dir_entry("d"),
            make.file_entry("d/.wh.gone\näö", b""),
            make.file_entry("opaque/.wh..wh..opq", b""),
            make.file_entry("opaque/new", b""),
            make.file_entry(".wh.made-again", b""),
            make.dir_entry("made-again"),
            make.file_entry(".wh.kept", b""),
            make.file_entry("kept", b"k"),
            make.file_entry(".wh..wh.plnk/1.2", b""),
            make.file_entry(".wh..wh.aufs", b""),
        ],
        root,
    )
    hidden = (root / "d/gone\näö").lstat()
    assert (stat.S_ISCHR(hidden.st_mode), hidden.st_rdev) == (True, 0)
    assert os.getxattr(root / "opaque", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(root / "made-again", "trusted.overlay.opaque") == b"y"
    assert (root / "kept").read_bytes() == b"k"
    assert not [name for _, folders, files in os.walk(root) for name in (*folders, *files) if name.startswith(".wh.")]
    assert (root / "d").stat().st_mtime == 1704067200


def test_nothing_is_left_mounted(root: Path) -> None:
    before = [entry.mount_point for entry in read_mountinfo()]
    put([make.file_entry("a", b"x")], root)
    assert [entry.mount_point for entry in read_mountinfo()] == before


def test_deep_trees(root: Path) -> None:
    try:
        assert put([make.file_entry("d/" * 1900 + "f", b"x")], root).size_bytes == 1
    finally:
        remove_entry(root.parent, root.name)  # pytest's own cleaning would be too deep for it


def test_hungry_headers_are_refused(root: Path) -> None:
    """A header that claims to be huge costs the reader's own bounded memory, not the engine's."""
    blob = root.parent / "blob"
    info = make.file_entry("x", b"")[0]
    info.type, info.size = b"x", 3 << 30
    with blob.open("wb") as out:
        out.write(info.tobuf())
        out.truncate(4 << 30)
    with pytest.raises(InvalidParameter, match="invalid layer"):
        unpack(blob, root)
