"""The header that describes a path, against what Docker Engine 28.5.2 sent."""

from __future__ import annotations

import base64
import stat

import pytest

from holdfast.wire.archive import decode_path_stat, encode_mode, encode_path_stat, encode_time


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (stat.S_IFREG | 0o644, 420), (stat.S_IFREG | 0o4755, 8389101), (stat.S_IFDIR | 0o2750, 2151678440),
        (stat.S_IFDIR | 0o755, 2147484141), (stat.S_IFLNK | 0o777, 134218239), (stat.S_IFIFO | 0o644, 33554852),
        (stat.S_IFDIR | 0o1777, 2148532735), (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
        (stat.S_IFBLK | 0o660, 1 << 26 | 0o660), (stat.S_IFSOCK | 0o700, 1 << 24 | 0o700),
    ],
)  # fmt: skip
def test_modes(mode: int, go: int) -> None:
    assert encode_mode(mode) == go


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (1704067200_000000000, "2024-01-01T00:00:00Z"),
        (1795513406_046796340, "2026-11-24T09:43:26.04679634Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_times(ns: int, text: str) -> None:
    assert encode_time(ns) == text


def test_as_recorded() -> None:
    recorded = (
        "eyJuYW1lIjoicGFzc3dkIiwic2l6ZSI6Mzg2LCJtb2RlIjo0MjAsIm10aW1lIjoiMjAyNi0xMS0yM1QxNDoxNzozNloiLCJsaW5rVGFyZ2V0"
        "IjoiIn0="
    )
    assert encode_path_stat("passwd", 386, stat.S_IFREG | 0o644, 1795443456_000000000, "") == recorded
    assert decode_path_stat(recorded)["name"] == "passwd"


def test_odd_names() -> None:
    value = encode_path_stat("<a&b>\udcff\n", 0, stat.S_IFREG, 0, "")
    assert base64.b64decode(value).startswith(b'{"name":"\\u003ca\\u0026b\\u003e\xef\xbf\xbd\\n","size":0')
