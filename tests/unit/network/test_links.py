"""What pyroute2 makes of netlink messages, and what we read in it; without root."""

from __future__ import annotations

import errno
import gc
import os
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network

import pytest
from pyroute2.conntrack import ConntrackEntry
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from holdfast.network import links
from holdfast.network.conntrack import in_the_way

SUBNET = IPv4Network("172.30.0.0/16")


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def decoded(kind: type, body: bytes) -> links.Message:
    message: links.Message = kind(struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 0) + body)
    message.decode()  # type: ignore[attr-defined]
    return message


def test_address_of_a_point_to_point_card() -> None:
    body = struct.pack("=BBBBI", 2, 32, 0, 0, 3)
    body += attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes([10, 9, 9, 9]))
    found = links.address_of(decoded(ifaddrmsg, body))
    assert found == links.Address(3, IPv4Address("10.9.9.9"), IPv4Network("10.0.0.2/32"))


def test_route() -> None:
    body = struct.pack("=BBBBBBBBI", 2, 16, 0, 0, 254, 3, 0, 1, 0)
    body += attribute(1, bytes([172, 16, 0, 0])) + attribute(4, struct.pack("=I", 5))
    assert links.route_of(decoded(rtmsg, body)) == links.Route(IPv4Network("172.16.0.0/16"), 5)
    default = links.route_of(decoded(rtmsg, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)))
    assert default == links.Route(IPv4Network("0.0.0.0/0"), 0)


def test_table_that_changed_meanwhile_is_read_again() -> None:
    def message(flags: int) -> links.Message:
        return {"header": {"flags": flags}}

    def answers() -> Iterator[list[links.Message]]:
        yield [message(2), message(2 | links.NLM_F_DUMP_INTR)]
        while True:
            yield [message(2)]

    listing = answers()
    assert links.consistent(lambda: next(listing)) == [message(2)]
    assert len(links.consistent(lambda: [message(links.NLM_F_DUMP_INTR)])) == 1


def test_failure_is_one_of_the_operating_system() -> None:
    with pytest.raises(OSError, match="find it: No such device") as caught, links.rtnetlink("find it") as kernel:
        kernel.link("get", ifname="hfnothing")
    assert caught.value.errno == errno.ENODEV
    assert links.index_of("hfnothing") == 0
    assert links.index_of("lo") == 1


def test_threads_leave_no_descriptor_and_no_thread() -> None:
    def look(number: int) -> int:
        with links.rtnetlink("look") as kernel:
            assert links.addresses(kernel) is not None
            (card,) = kernel.link("get", ifname="lo")
        if number % 4 == 0:
            with pytest.raises(OSError, match="find"), links.rtnetlink("find") as kernel:
                kernel.link("get", ifname="hfnothing")
        return int(card["index"])

    links.warm_up()
    gc.collect()
    before = (len(os.listdir("/proc/self/fd")), threading.active_count())
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(64))) == {1}
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_connections_in_the_way() -> None:
    def tuple_(source: str, destination: str, port: int) -> bytes:
        addresses = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton(destination))
        protocol = attribute(1, b"\x11") + attribute(2, b"\x12\x34") + attribute(3, struct.pack("!H", port))
        return attribute(1 | 0x8000, addresses) + attribute(2 | 0x8000, protocol)

    def entry(destination: str, answered_by: str) -> ConntrackEntry:
        body = struct.pack("=BBH", socket.AF_INET, 0, 0)
        body += attribute(1 | 0x8000, tuple_("192.0.2.1", destination, 5353))
        body += attribute(2 | 0x8000, tuple_(answered_by, "192.0.2.1", 9))
        found = decoded(nfct_msg, body)
        parts = [found.get_attr(f"CTA_TUPLE_{way}") for way in ("ORIG", "REPLY")]  # type: ignore[attr-defined]
        return ConntrackEntry(socket.AF_INET, *parts, *[None] * 7)

    own = {IPv4Address("192.0.2.2")}
    assert entry("192.0.2.2", "172.30.0.2").tuple_orig.dport == 5353
    assert in_the_way(entry("192.0.2.2", "172.30.0.2"), own, SUBNET), "translated to a container"
    assert in_the_way(entry("192.0.2.2", "192.0.2.2"), own, SUBNET), "this host's own"
    assert not in_the_way(entry("192.0.2.9", "192.0.2.9"), own, SUBNET), "passes through"
    assert not in_the_way(entry("192.0.2.2", "10.0.0.7"), own, SUBNET), "translated to somebody else's machine"
