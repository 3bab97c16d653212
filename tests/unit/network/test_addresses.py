"""Choice of a subnet, and the addresses in it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import Conflict, InvalidParameter, Unavailable
from holdfast.network.addresses import candidates, choose_subnet, gateway_of, mac_of, parse_mac, parse_subnet, pool_of


def networks(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


@pytest.mark.parametrize(
    ("taken", "in_use", "chosen"),
    [
        ((), (), "172.30.0.0/16"),
        (("0.0.0.0/0",), (), "172.30.0.0/16"),
        (("172.30.4.0/24",), (), "172.29.0.0/16"),
        (("172.16.0.0/12",), (), "192.168.240.0/20"),
        (("172.16.0.0/12", "192.168.128.0/17"), (), "192.168.112.0/20"),
        ((), ("172.30.0.2",), "172.29.0.0/16"),
        (("172.30.9.9/32",), ("172.29.0.53",), "172.28.0.0/16"),
    ],
)
def test_choose_subnet(taken: tuple[str, ...], in_use: tuple[str, ...], chosen: str) -> None:
    assert choose_subnet(networks(*taken), [IPv4Address(text) for text in in_use]) == IPv4Network(chosen)


def test_docker0_is_left_its_default() -> None:
    assert not any(subnet.overlaps(IPv4Network("172.17.0.0/16")) for subnet in candidates())


def test_no_subnet_left() -> None:
    with pytest.raises(Unavailable):
        choose_subnet(networks("172.16.0.0/12", "192.168.0.0/16"))


@pytest.mark.parametrize("text", ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/30", "fd00::/64", "x"])
def test_subnet_that_makes_no_sense(text: str) -> None:
    with pytest.raises(InvalidParameter, match="bridge_subnet"):
        parse_subnet(text)


def test_subnet_that_overlaps() -> None:
    assert parse_subnet("10.1.0.0/16", networks("10.2.0.0/16", "0.0.0.0/0")) == IPv4Network("10.1.0.0/16")
    with pytest.raises(Conflict, match=r"10\.0\.0\.0/8"):
        parse_subnet("10.1.0.0/16", networks("10.0.0.0/8"))


@given(st.integers(0, 2**32 - 1), st.integers(8, 29))
def test_pool_holds_all_but_three_addresses(number: int, prefix_length: int) -> None:
    subnet = IPv4Network((number, prefix_length), strict=False)
    pool = pool_of(subnet)
    assert len(pool) == subnet.num_addresses - 3
    assert int(gateway_of(subnet)) == pool.start - 1
    assert IPv4Address(pool[-1]) in subnet


def test_mac_of_address() -> None:
    assert mac_of(IPv4Address("172.17.0.10")) == "02:42:ac:11:00:0a"


@pytest.mark.parametrize(
    ("text", "read"),
    [("02:42:ac:11:00:02", "02:42:ac:11:00:02"), ("92-D0-C6-0A-29-33", "92:d0:c6:0a:29:33")],
)
def test_parse_mac(text: str, read: str) -> None:
    assert parse_mac(text) == read


@pytest.mark.parametrize(
    "text", ["", "92:d0:c6:0a:29", "92:d0:c6:0a:29:3x", "01:00:00:00:00:01", "92d0c60a2933", "+2:42:ac:11:00:02"]
)
def test_parse_mac_refuses(text: str) -> None:
    with pytest.raises(InvalidParameter, match="is not a valid mac address"):
        parse_mac(text)
