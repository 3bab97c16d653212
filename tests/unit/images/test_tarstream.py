"""The reader of outer archives."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidParameter
from holdfast.images.tarstream import TarStream, normal_name
from tests.support import images


def read(data: bytes) -> dict[str, tuple[str, bytes, str]]:
    found = {}
    stream = TarStream(io.BytesIO(data))
    for member in stream:
        content = io.BytesIO()
        stream.copy(content.write)
        found[member.name] = (member.kind, content.getvalue(), member.target)
    return found


def test_members() -> None:
    long = "d/" * 90 + "f"
    data = images.layer(
        [
            images.dir_entry("a"),
            images.file_entry("./a/b", b"x" * 1000),
            images.file_entry(long, b"long"),
            images.symlink_entry("a/link", "../c/layer.tar"),
            images.hardlink_entry("hard", "a/b"),
            images.file_entry("/abs", b""),
        ]
    )
    assert read(data) == {
        "a": ("other", b"", ""),
        "a/b": ("file", b"x" * 1000, ""),
        long: ("file", b"long", ""),
        "a/link": ("link", b"", "c/layer.tar"),
        "hard": ("link", b"", "a/b"),
        "abs": ("file", b"", ""),
    }


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@given(
    st.lists(
        st.tuples(st.text("abcäö/._ ", min_size=1, max_size=90), st.binary(max_size=1500)),
        max_size=5,
        unique_by=lambda pair: normal_name(pair[0]),
    )
)
def test_agrees_with_the_standard_library(kind: int, files: list[tuple[str, bytes]]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, data in files:
            info = tarfile.TarInfo("x" + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert [(name, content) for name, (_, content, _) in read(out.getvalue()).items()] == [
        (normal_name("x" + name), data) for name, data in files
    ]


def test_skipped_data_is_not_taken_for_headers() -> None:
    inner = images.layer([images.file_entry("inner", b"")])
    data = images.layer([images.file_entry("outer", inner), images.file_entry("next", b"n")])
    assert [member.name for member in TarStream(io.BytesIO(data))] == ["outer", "next"]


@pytest.mark.parametrize("cut", [100, 512, 700, 1100])
def test_a_cut_archive_is_refused(cut: int) -> None:
    data = images.layer([images.file_entry("a", b"x" * 600)])
    if cut == 512:
        assert len(data) > cut
    with pytest.raises(InvalidParameter, match="unexpected EOF"):
        read(data[:cut])


def test_an_empty_stream_is_an_empty_archive() -> None:
    assert read(b"") == {}


def test_huge_header_is_refused_before_it_is_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(InvalidParameter, match="a header of 1099511627776 bytes"):
        read(info.tobuf(tarfile.GNU_FORMAT))


def test_wrong_checksum_is_refused() -> None:
    data = bytearray(images.layer([images.file_entry("a", b"")]))
    data[0] ^= 1
    with pytest.raises(InvalidParameter, match="invalid tar header"):
        read(bytes(data))


@given(st.binary(max_size=2048))
def test_anything_is_read_or_refused(data: bytes) -> None:
    try:
        read(data)
    except InvalidParameter:
        return


@given(st.integers(0, 1023), st.binary(min_size=1, max_size=3))
def test_damage_is_read_or_refused(place: int, damage: bytes) -> None:
    data = bytearray(images.layer([images.file_entry("ä" * 80, b"xyz"), images.file_entry("b")]))
    data[place : place + len(damage)] = damage
    try:
        read(bytes(data))
    except InvalidParameter:
        return
