"""Netlink messages, without a kernel."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from holdfast.network import rtnetlink
from holdfast.network.conntrack import parse_entry
from holdfast.network.netlink import HEADER, NLA_F_NESTED, attribute, attributes, split


@given(st.dictionaries(st.integers(1, 100), st.binary(max_size=40)))
def test_attributes_come_back(values: dict[int, bytes]) -> None:
    assert attributes(b"".join(attribute(kind, value) for kind, value in values.items())) == values


@given(st.binary(max_size=200))
def test_garbage_ends(data: bytes) -> None:
    attributes(data)
    assert len(list(split(data))) <= len(data) // HEADER.size


def test_parse_link() -> None:
    body = struct.pack("=BxHiII", 0, 1, 7, 1, 0) + attribute(3, b"eth0\0") + attribute(4, struct.pack("=I", 1500))
    assert rtnetlink.parse_link(body) == rtnetlink.Link(7, "eth0", True, 1500, 0)


def test_parse_address_of_a_point_to_point_card() -> None:
    body = struct.pack("=BBBBI", 2, 32, 0, 0, 3)
    body += attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes([10, 9, 9, 9]))
    assert rtnetlink.parse_address(body) == rtnetlink.Address(3, IPv4Address("10.9.9.9"), IPv4Network("10.0.0.2/32"))


def test_parse_route() -> None:
    def route(kind: int) -> bytes:
        body = struct.pack("=BBBBBBBBI", 2, 16, 0, 0, 254, 3, 0, kind, 0)
        return body + attribute(1, bytes([172, 16, 0, 0])) + attribute(4, struct.pack("=I", 5))

    assert rtnetlink.parse_route(route(1)) == rtnetlink.Route(IPv4Network("172.16.0.0/16"), 5)
    assert rtnetlink.parse_route(route(2)) is None
    default = rtnetlink.parse_route(struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0))
    assert default == rtnetlink.Route(IPv4Network("0.0.0.0/0"), 0)


def test_peer_of_a_pair_is_named_inside() -> None:
    message = rtnetlink.create_veth(
        "hf1", mtu=1400, peer_name="eth0", peer_mac_address="02:42:ac:1e:00:02", peer_namespace_fd=9
    )
    data = attributes(attributes(attributes(message.body[16:])[18])[2])[1]
    peer = attributes(data[16:])
    assert peer[3] == b"eth0\0"
    assert peer[1] == bytes([2, 0x42, 172, 30, 0, 2])
    assert struct.unpack("=I", peer[28])[0] == 9


def test_parse_connection() -> None:
    def tuple_(source: str, destination: str, port: int) -> bytes:
        addresses = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton(destination))
        protocol = attribute(1, b"\x11") + attribute(2, b"\x12\x34") + attribute(3, struct.pack("!H", port))
        return attribute(1 | NLA_F_NESTED, addresses) + attribute(2 | NLA_F_NESTED, protocol)

    original = tuple_("192.0.2.1", "192.0.2.2", 5353)
    body = bytes(4) + attribute(1 | NLA_F_NESTED, original)
    assert parse_entry(body) is None
    entry = parse_entry(body + attribute(2 | NLA_F_NESTED, tuple_("172.30.0.2", "192.0.2.1", 9)))
    assert entry is not None
    assert (entry.protocol, entry.destination_port, entry.original) == (17, 5353, original)
    assert entry.destination == IPv4Address("192.0.2.2")
    assert entry.answered_by == IPv4Address("172.30.0.2")
