"""Sizes, durations, ports and orders as people read them."""

from __future__ import annotations

import pytest

from holdfast.cli import human
from holdfast.client import Document


@pytest.mark.parametrize(
    ("size_bytes", "digits", "text"),
    [
        (0, 4, "0B"),
        (999, 4, "999B"),
        (1000, 4, "1kB"),
        (1986312, 3, "1.99MB"),
        (1986312, 4, "1.986MB"),
        (116667347, 3, "117MB"),
        (682696, 4, "682.7kB"),
        (5 * 10**12, 4, "5TB"),
        (999_999, 3, "1e+03kB"),  # as docker has it
    ],
)
def test_size(size_bytes: int, digits: int, text: str) -> None:
    assert human.size(size_bytes, digits) == text


def test_binary_size() -> None:
    assert human.binary_size(25276510208) == "23.54GiB"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("100", 100), ("1k", 1024), ("512m", 512 << 20), ("1.5g", 3 << 29), ("64KiB", 65536), ("2 GB", 2 << 30)],
)
def test_parse_size(text: str, size_bytes: int) -> None:
    assert human.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "foo", "-1", "1x", "1.2.3"])
def test_parse_size_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=f"invalid size: '{text}'"):
        human.parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (46 * 60, "46 minutes"),
        (60 * 60, "About an hour"),
        (90 * 60, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("5s", 5 * 10**9), ("1h30m", 5400 * 10**9), ("500ms", 5 * 10**8), ("1.5s", 15 * 10**8), ("5", None), ("", None)],
)
def test_parse_duration(text: str, nanoseconds: int | None) -> None:
    assert human.parse_duration(text) == nanoseconds


def test_natural_order() -> None:
    names = ["v10", "v2", "aa", "v-b", "v1b", "v01", "v1"]
    assert sorted(names, key=human.natural_key) == ["aa", "v1", "v1b", "v01", "v2", "v10", "v-b"]


def test_natural_order_of_very_long_numbers() -> None:
    assert human.natural_key("9" * 5000) < human.natural_key("1" + "0" * 5000)


def _port(private: int, public: int = 0, address: str = "", protocol: str = "tcp") -> Document:
    return Document({"PrivatePort": private, "PublicPort": public, "IP": address, "Type": protocol})


@pytest.mark.parametrize(
    ("published", "text"),
    [
        ([], ""),
        ([_port(80)], "80/tcp"),
        ([_port(80, 8080, "0.0.0.0"), _port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([_port(81), _port(80), _port(83)], "80-81/tcp, 83/tcp"),
        ([_port(90, 90, "0.0.0.0"), _port(91, 91, "0.0.0.0")], "0.0.0.0:90-91->90-91/tcp"),
        ([_port(53, 53, "127.0.0.1", "udp"), _port(53)], "53/tcp, 127.0.0.1:53->53/udp"),
    ],
)
def test_ports(published: list[Document], text: str) -> None:
    assert human.ports(published) == text


def test_ids_and_ellipsis() -> None:
    assert human.short_id("sha256:059de3460018" + "0" * 52) == "059de3460018"
    assert human.short_id("059de3460018" + "0" * 52) == "059de3460018"
    assert human.ellipsis("abc", 3) == "abc"
    assert human.ellipsis("abcd", 3) == "ab…"
