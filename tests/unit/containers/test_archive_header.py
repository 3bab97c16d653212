"""Headers of archives: Docker's bytes where they were recorded, and what other readers make of the rest."""

from __future__ import annotations

import io
import stat
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.containers.archive_header import DIRECTORY, END, FILE, SYMBOLIC_LINK, Header, encode, kind_of, padding


def read_back(header: Header, data: bytes = b"") -> tarfile.TarInfo:
    archive = encode(header) + data + bytes(padding(len(data))) + END
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as opened:
        member = opened.next()
    assert member is not None
    return member


def test_as_recorded() -> None:
    """`docker cp cc:/etc/passwd -`, Docker Engine 28.5.2."""
    block = encode(Header(b"passwd", FILE, stat.S_IFREG | 0o644, size_bytes=386, mtime=0o15301045400))
    assert len(block) == 512
    assert block[:100] == b"passwd".ljust(100, b"\0")
    fields = (b"0000644", b"0000000", b"0000000", b"00000000602", b"15301045400", b"010456", b" 0")
    assert block[100:157] == b"\0".join(fields)
    assert block[257:345] == b"ustar\00000".ljust(72, b"\0") + 2 * b"0000000\0"
    assert not block[345:].strip(b"\0")


@pytest.mark.parametrize(
    "name",
    [
        b"f",
        b"d" * 100,
        b"d" * 101,
        b"d" * 90 + b"/" + b"f" * 90,
        b"d" * 155 + b"/" + b"f" * 100,
        b"d" * 156 + b"/" + b"f" * 100,
        b"d/" * 2000 + b"f",
        "grün/ÿ".encode(),
        b"not \xff\xfe utf-8",
        b"a=b\nc",
    ],
)
def test_names(name: bytes) -> None:
    member = read_back(Header(name, FILE, 0o600, link=b""))
    assert member.name.encode("utf-8", "surrogateescape") == name


def test_fields_that_do_not_fit() -> None:
    member = read_back(Header(b"f", FILE, 0o4755, 4_000_000_000, 8**7, 1 << 40, -5))
    assert (member.uid, member.gid, member.mode) == (4_000_000_000, 8**7, 0o4755)
    assert (member.size, member.mtime) == (1 << 40, -5)


def test_long_links_and_xattrs() -> None:
    value = bytes(range(20))
    member = read_back(Header(b"l", SYMBOLIC_LINK, link=b"t" * 300, xattrs={"security.capability": value}))
    assert member.linkname == "t" * 300
    kept = member.pax_headers["SCHILY.xattr.security.capability"]
    assert kept.encode("utf-8", "surrogateescape") == value


@given(st.binary(min_size=1, max_size=600).filter(lambda name: b"\0" not in name and not name.endswith(b"/")))
def test_any_name(name: bytes) -> None:
    assert read_back(Header(name, FILE)).name.encode("utf-8", "surrogateescape") == name


def test_kinds() -> None:
    assert kind_of(stat.S_IFDIR | 0o755) == DIRECTORY
    assert kind_of(stat.S_IFSOCK | 0o755) is None
