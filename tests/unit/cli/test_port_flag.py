"""-p and --expose."""

from __future__ import annotations

import pytest

from holdfast.cli.port_flag import parse_exposed, parse_published


def _binding(address: str, port: str) -> list[dict[str, str]]:
    return [{"HostIp": address, "HostPort": port}]


@pytest.mark.parametrize(
    ("spec", "bindings"),
    [
        ("80", {"80/tcp": _binding("", "")}),
        ("8080:80", {"80/tcp": _binding("", "8080")}),
        ("127.0.0.1:53:53/udp", {"53/udp": _binding("127.0.0.1", "53")}),
        ("127.0.0.1::80", {"80/tcp": _binding("127.0.0.1", "")}),
        ("[::1]:81:80", {"80/tcp": _binding("::1", "81")}),
        ("9000-9001:90-91", {"90/tcp": _binding("", "9000"), "91/tcp": _binding("", "9001")}),
        ("7000-7005:70", {"70/tcp": _binding("", "7000-7005")}),
    ],
)
def test_published(spec: str, bindings: object) -> None:
    assert parse_published([spec]) == bindings


def test_one_port_at_two_addresses() -> None:
    both = parse_published(["127.0.0.1:80:80", "[::1]:80:80"])
    assert [binding["HostIp"] for binding in both["80/tcp"]] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("abc", "invalid containerPort: abc"),
        ("x:80", "invalid hostPort: x"),
        ("80:", "no port specified"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("80/foo", "invalid proto: foo"),
        ("80-82:80-81", "invalid ranges specified for container and host Ports"),
        ("82-80", "invalid containerPort: 82-80"),
        ("65536", "invalid containerPort: 65536"),
        ("[::1:80", "invalid IP address"),
    ],
)
def test_refused(spec: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as failed:
        parse_published([spec])
    assert why in str(failed.value)


def test_exposed() -> None:
    assert parse_exposed(["443", "10-11/udp"]) == ["443/tcp", "10/udp", "11/udp"]
    with pytest.raises(ValueError, match="invalid port format for --expose: 80:81"):
        parse_exposed(["80:81"])
