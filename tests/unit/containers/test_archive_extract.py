"""Archives in and out of a directory, hostile ones too. What needs root is in the integration tests."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.containers.archive_extract import Rules, clean_name, extract
from holdfast.containers.archive_plain import plain
from holdfast.containers.archive_reader import Members
from holdfast.containers.archive_walk import write_tree
from holdfast.errors import System

Entry = tuple[str, bytes, dict[str, Any]]
F, D, S, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def tar(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        for name, kind, fields in entries:
            data = fields.pop("data", b"")
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode = kind, len(data), 0o755 if kind == D else 0o644
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpack(into: Path, archive: bytes, *, keep_kinds: bool = False, rename: Callable[[str], str] | None = None) -> None:
    fd = os.open(into, os.O_PATH | os.O_DIRECTORY)
    try:
        rules = Rules("/where", chown=False, keep_kinds=keep_kinds)
        extract(fd, Members(io.BytesIO(archive), rename), rules)
    finally:
        os.close(fd)


def pack(path: Path, name: str) -> bytes:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    pieces: list[bytes] = []
    try:
        write_tree(fd, name, pieces.append)
    finally:
        os.close(fd)
    return b"".join(pieces)


def tree(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A directory with something beside it that must stay as it is."""
    (tmp_path / "secret").write_text("untouched")
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a", "a"), ("/a", "a"), ("./a/./b", "a/b"), ("a//b/", "a/b"), ("a/../b", "b"), ("/../a", "a"), (".", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_clean_name(name: str, wanted: str) -> None:
    assert clean_name(name) == wanted


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "./.."])
def test_names_that_lead_outside(inside: Path, name: str) -> None:
    with pytest.raises(System, match="invalid entry name"):
        unpack(inside, tar((name, F, {"data": b"x"})))
    assert tree(inside) == {}


@pytest.mark.parametrize(
    "entries",
    [
        [("/secret", F, {"data": b"x"})],
        [("l", S, {"linkname": ".."}), ("l/secret", F, {"data": b"x"})],
        [("l", S, {"linkname": "../secret"}), ("l", F, {"data": b"x"})],
        [("l", S, {"linkname": "/"}), ("l/secret", F, {"data": b"x"})],
        [("a", S, {"linkname": "."}), ("b", S, {"linkname": "a/.."}), ("b/secret", F, {"data": b"x"})],
        [("d", D, {}), ("d/l", S, {"linkname": "../.."}), ("d/l/secret", F, {"data": b"x"})],
        [("d", D, {}), ("d", S, {"linkname": "../.."}), ("d/secret", F, {"data": b"x"})],
    ],
)
def test_links_that_lead_outside(inside: Path, entries: list[Entry]) -> None:
    """They lead to the directory itself, as `/..` does."""
    unpack(inside, tar(*entries))
    assert (inside.parent / "secret").read_text() == "untouched"


@pytest.mark.parametrize("target", ["../secret", "a/../../secret"])
def test_hard_links_outside(inside: Path, target: str) -> None:
    with pytest.raises(System, match="invalid hardlink target"):
        unpack(inside, tar(("h", H, {"linkname": target})))


def test_hard_links_through_links(inside: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpack(inside, tar(("l", S, {"linkname": ".."}), ("h", H, {"linkname": "l/secret"})))
    with pytest.raises(FileNotFoundError):
        unpack(inside, tar(("h", H, {"linkname": str(inside.parent / "secret")})))


def test_hard_link_to_a_link_is_one(inside: Path) -> None:
    unpack(inside, tar(("l", S, {"linkname": "../secret"}), ("h", H, {"linkname": "l"}), ("h", F, {"data": b"new"})))
    assert tree(inside) == {"l": "-> ../secret", "h": b"new"}
    assert (inside.parent / "secret").read_text() == "untouched"


def test_replacing(inside: Path) -> None:
    (inside / "f").write_text("old")
    (inside / "d/sub").mkdir(parents=True)
    (inside / "d/sub/x").write_text("x")
    os.link(inside / "f", inside / "other")
    unpack(inside, tar(("f", F, {"data": b"new"}), ("d", D, {"mode": 0o700})))
    assert tree(inside) == {"d": None, "d/sub": None, "d/sub/x": b"x", "f": b"new", "other": b"old"}
    assert stat.S_IMODE((inside / "d").stat().st_mode) == 0o700
    unpack(inside, tar(("d", F, {"data": b"file"}), ("f", D, {})))
    assert tree(inside) == {"d": b"file", "f": None, "other": b"old"}


def test_kinds_are_kept_if_asked(inside: Path) -> None:
    (inside / "f").write_text("old")
    (inside / "d").mkdir()
    with pytest.raises(System, match='cannot overwrite directory "d" with non-directory "/where"'):
        unpack(inside, tar(("d", F, {})), keep_kinds=True)
    with pytest.raises(System, match='cannot overwrite non-directory "f" with directory "/where"'):
        unpack(inside, tar(("f", D, {})), keep_kinds=True)
    with pytest.raises(System, match=r'cannot overwrite directory "\." with non-directory'):
        unpack(inside, tar((".", F, {})))
    assert tree(inside) == {"d": None, "f": b"old"}


def test_times_modes_and_names(inside: Path) -> None:
    odd = b"n\xff\xfe".decode("utf-8", "surrogateescape")
    unpack(
        inside,
        tar(
            ("d", D, {"mtime": 1000, "mode": 0o2750}),
            ("d/f", F, {"data": b"1", "mtime": 1.000000123, "mode": 0o4711}),
            ("d/old", F, {"mtime": -5}),
            ("l", S, {"linkname": "nowhere", "mtime": 77}),
            (odd, F, {"data": b"q"}),
            (".", D, {"mode": 0o700}),
            ("implied/by/name", F, {}),
        ),
    )
    assert (inside / "d").stat().st_mtime == 1000
    assert stat.S_IMODE((inside / "d").stat().st_mode) == 0o2750
    assert stat.S_IMODE((inside / "d/f").stat().st_mode) == 0o4711
    assert (inside / "d/f").stat().st_mtime_ns == 1_000_000_123
    assert (inside / "d/old").stat().st_mtime == 0
    assert (inside / "l").lstat().st_mtime == 77
    assert (inside / odd).read_bytes() == b"q"
    assert stat.S_IMODE(inside.stat().st_mode) != 0o700
    assert stat.S_IMODE((inside / "implied/by").stat().st_mode) == 0o755


def test_replaced_directory_is_not_written_to(inside: Path) -> None:
    """The directory worked in last stays open; it must not be used once it has been replaced."""
    unpack(inside, tar(("d", D, {}), ("d/a", F, {}), ("d", F, {}), ("d", D, {}), ("d/b", F, {"data": b"b"})))
    assert tree(inside) == {"d": None, "d/b": b"b"}


def test_unknown_kinds(inside: Path) -> None:
    with pytest.raises(System, match="unhandled tar header type 90"):
        unpack(inside, tar(("x", b"Z", {})))


@pytest.mark.parametrize(
    ("archive", "text"),
    [
        (b"garbage" * 200, "archive/tar: invalid tar header"),
        (b"short", "unexpected EOF"),
        (tar(("x", F, {"data": b"abc"}))[:513], "unexpected EOF"),
        (tar(("x", F, {"data": b"a" * 600}))[:1000], "unexpected EOF"),
        (tar(("x", F, {}))[:512] + b"j" * 512, "archive/tar: invalid tar header"),
        (tar(("x", F, {"pax_headers": {"k": "v" * (2 << 20)}})), "archive/tar: invalid tar header"),
    ],
)
def test_damaged(inside: Path, archive: bytes, text: str) -> None:
    with pytest.raises(System, match=text):
        unpack(inside, archive)


@pytest.mark.parametrize("archive", [b"", bytes(1024), tar(("x", F, {"data": b"abc"}))[:1024]])
def test_endings(inside: Path, archive: bytes) -> None:
    unpack(inside, archive)


@pytest.mark.parametrize("form", ["gnu", "pax", "v7", "ustar"])
def test_what_tar_writes(tmp_path: Path, form: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / ("long" * 20)).mkdir()
    (source / ("long" * 20) / "f").write_bytes(b"0123456789" * 5000)
    (source / "empty").touch()
    (source / "l").symlink_to("empty")
    os.link(source / "empty", source / "linked")
    words = ["tar", f"--format={form}", "-C", str(source), "-cf", "-", "."]
    archive = subprocess.run(words, check=True, capture_output=True).stdout
    unpack(out, archive)
    assert tree(out) == tree(source)
    assert (out / "linked").stat().st_nlink == 2


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_stay_sparse(tmp_path: Path, version: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    with (source / "s").open("wb") as file:
        for place in (0, 5 << 20, 9 << 20):
            file.seek(place)
            file.write(b"data at %d" % place)
        file.truncate(64 << 20)
    form = ["--format=gnu"] if version == "gnu" else ["--format=pax", f"--sparse-version={version}"]
    command = ["tar", "-S", *form, "-C", str(source), "-cf", "-", "s"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(archive) < 1 << 20
    unpack(out, archive)
    assert (out / "s").read_bytes() == (source / "s").read_bytes()
    assert (out / "s").stat().st_blocks * 512 < 1 << 20


def test_round_trip(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "a/b").mkdir(parents=True)
    out.mkdir()
    (source / "a/zero").touch()
    (source / "a/big").write_bytes(os.urandom(3 << 20))
    (source / "a/b/x").write_text("x")
    os.link(source / "a/b/x", source / "a/c")
    (source / "a/l").symlink_to("../outside")
    os.utime(source / "a/b", (5, 5))
    archive = pack(source / "a", "top")
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert opened.getnames() == ["top", "top/b", "top/b/x", "top/big", "top/c", "top/l", "top/zero"]
        assert opened.getmember("top/c").linkname == "top/b/x"
    unpack(out, archive, rename=lambda name: name.replace("top", "other", 1))
    assert tree(out / "other") == tree(source / "a")
    assert (out / "other/b").stat().st_mtime == 5
    assert (out / "other/c").stat().st_ino == (out / "other/b/x").stat().st_ino


def test_tops(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    (tmp_path / "l").symlink_to("d")

    def names(path: Path, name: str) -> list[bytes]:
        archive = pack(path, name)
        return [archive[at : at + 100].rstrip(b"\0") for at in range(0, len(archive) - 1024, 512)]

    assert names(tmp_path / "d", ".") == [b"./", b"./f"]
    assert names(tmp_path / "d", "/") == [b"/", b"/f"]
    assert names(tmp_path / "d", "x") == [b"x/", b"x/f"]
    assert names(tmp_path / "l", "y") == [b"y"]


def test_deep_trees_need_few_descriptors(tmp_path: Path) -> None:
    deep, out = tmp_path / "deep", tmp_path / "out"
    deep.mkdir()
    out.mkdir()
    fd = os.open(deep, os.O_RDONLY)
    for level in range(300):
        for name in (f"d{level}", f"e{level}"):
            os.mkdir(name, dir_fd=fd)
        below = os.open(f"d{level}", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    peak = 0

    def emit(_piece: bytes) -> None:
        nonlocal peak
        peak = max(peak, len(os.listdir("/proc/self/fd")))

    top = os.open(deep, os.O_PATH)
    write_tree(top, "deep", emit)
    os.close(top)
    assert peak < before + 80
    archive = pack(deep, "deep")
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert len(opened.getnames()) == 601
    unpack(out, archive)
    assert (out / "deep" / "/".join(f"d{level}" for level in range(150)) / "e150").is_dir()


def test_a_file_that_shrinks_ends_the_archive(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 << 20))
    fd = os.open(tmp_path / "f", os.O_PATH)

    def emit(_piece: bytes) -> None:
        os.truncate(tmp_path / "f", 1 << 20)

    with pytest.raises(System, match="became shorter"):
        write_tree(fd, "f", emit)
    os.close(fd)


def test_sockets_are_left_out_and_fifos_are_not_opened(tmp_path: Path) -> None:
    import socket

    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d/p")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "d/s"))
    with tarfile.open(fileobj=io.BytesIO(pack(tmp_path / "d", "d"))) as opened:
        assert [(member.name, member.type) for member in opened] == [("d", D), ("d/p", tarfile.FIFOTYPE)]


ARCHIVE = tar(("x", F, {"data": b"abc" * 1000}))


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["none", "gzip", "bzip2", "xz", "zstd"])
def test_compressed(tmp_path: Path, kind: str) -> None:
    pack_by: dict[str, Callable[[bytes], bytes]] = {
        "none": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd,
    }  # fmt: skip
    assert read_all(pack_by[kind](ARCHIVE), tmp_path) == ARCHIVE


@pytest.mark.kernel
@pytest.mark.parametrize("damaged", [gzip.compress(ARCHIVE)[:-12], b"\x1f\x8bnot gzip at all"])
def test_damaged_compression(tmp_path: Path, damaged: bytes) -> None:
    with pytest.raises(System, match="unexpected EOF"):
        read_all(damaged, tmp_path)


@pytest.mark.kernel
def test_a_bomb_is_not_unpacked_into_memory(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    with plain(io.BytesIO(bomb), tmp_path) as source:
        assert source.read(10) == bytes(10)


def read_all(stream: bytes, scratch: Path) -> bytes:
    data = b""
    with plain(io.BytesIO(stream), scratch) as source:
        while piece := source.read(1 << 16):
            data += piece
    return data


def zstd(data: bytes) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("needs zstd: scripts/setup.sh test")
    return subprocess.run([program, "-c"], input=data, capture_output=True, check=True).stdout
