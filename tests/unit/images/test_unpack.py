"""What needs no kernel of unpacking layers."""

from __future__ import annotations

import pytest

from holdfast.images.progress import amount, human_size
from holdfast.images.unpack import compression_of
from holdfast.images.whiteouts import HardLink, Listing


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([b"a\n", b"b/c\n"], []),
        ([b"./a/.wh.b\n"], [b"a/.wh.b"]),
        ([b"/a/.wh.b\n", b"a/.wh.b\n"], [b"a/.wh.b"]),
        ([b"a/.wh.b\\nc\\303\\244\\\\\n"], [b"a/.wh.b\nc\xc3\xa4\\"]),
        ([b".wh..wh.plnk/1.2\n", b".wh..wh.plnk/\n"], [b".wh..wh.plnk"]),
        ([b"a/x.wh.b\n"], []),
        ([b"a\\ b/.wh.c\\ d\n"], [b"a b/.wh.c d"]),
        ([b"d/../.wh.x\n"], [b".wh.x"]),
    ],
)
def test_whiteouts(lines: list[bytes], names: list[bytes]) -> None:
    plain, odd = b"-rw-r--r--  0/0               0 2024-01-01 00:00 ", b"crw-------* 10/700000  0,0 99999999999999999 "
    for before in (plain, odd):
        assert Listing.parse([before + line for line in lines]) == Listing(names, [])


def test_hard_links() -> None:
    lines = [
        b"-rwsr-xr-x 1/2              10 2024-01-01 00:00 a\n",
        b"hrwsr-x--T* 1/2               0 2024-01-01 00:00 ./b\\ link\\ to\\ c link to a\n",
        b"h---------  0/4294967294      0 2024-01-01 00:00 d link to a\n",
        b"not a line link to .wh.x\n",
    ]
    links = [HardLink(b"b link to c", 0o5750, 1, 2), HardLink(b"d", 0, 0, 4294967294)]
    assert Listing.parse(lines) == Listing([], links)


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"", "")],
)
def test_compression(head: bytes, kind: str) -> None:
    assert compression_of(head) == kind


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (2_147_483, "2.147MB"), (10**15, "1PB")]
)
def test_human_size(size: int, shown: str) -> None:
    assert human_size(size) == shown


def test_progress_bar() -> None:
    message = amount("Downloading", "abc", 50, 100)
    assert message["progress"] == "[" + "=" * 25 + ">" + " " * 24 + "]      50B/100B"
    assert message["progressDetail"] == {"current": 50, "total": 100}
    assert "total" not in amount("Downloading", "abc", 50, 0)["progressDetail"]  # type: ignore[operator]
