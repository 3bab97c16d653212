"""What is told to nftables, and what is read of other programs' tables."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network

from holdfast.network.forwarding import (
    Chain,
    Closed,
    all_chains,
    chains_that_need_a_way,
    closed_chains,
    denying_end,
    rule_handles,
)
from holdfast.network.model import PublishedPort
from holdfast.network.rules import element_commands, segment_commands, table_commands
from holdfast.network.segment import ENABLE_ICC, default_segment, segment_of
from holdfast.network.watch import concerns_tables
from holdfast.store.networks import NetworkRecord, NetworkSettings, PoolRecord

LISTING = """\
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain DOCKER-USER {
	}
}
table inet firewall {
	chain forward {
		type filter hook forward priority filter + 10; policy drop;
	}
}
table inet holdfast {
	chain forward {
		type filter hook forward priority filter; policy accept;
	}
}
table ip6 filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
table bridge filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
"""


def test_one_element_a_port() -> None:
    published = [
        ("172.30.0.2", PublishedPort(80, "tcp", "0.0.0.0", 8080)),
        ("172.30.0.2", PublishedPort(53, "udp", "127.0.0.1", 5353)),
        ("172.30.0.2", PublishedPort(80, "tcp", "::", 8080)),
        ("fd00::2", PublishedPort(80, "tcp", "::", 8080)),
        ("fd00::2", PublishedPort(80, "tcp", "0.0.0.0", 8080)),
        ("fd00::2", PublishedPort(80, "tcp", "2001:db8::1", 8080)),
        ("fd00::2", PublishedPort(80, "tcp", "::1", 8080)),
    ]
    assert element_commands("t", "add", published) == [
        "add element inet t published { tcp . 8080 : 172.30.0.2 . 80 }\n",
        "add element inet t published_at { 127.0.0.1 . udp . 5353 : 172.30.0.2 . 53 }\n",
        "add element inet t published6 { tcp . 8080 : fd00::2 . 80 }\n",
        "add element inet t published6_at { 2001:db8::1 . tcp . 8080 : fd00::2 . 80 }\n",
    ]


def test_table_names_nothing_but_what_it_is_given() -> None:
    text = table_commands("other")
    assert "holdfast" not in text
    assert text.startswith("add table inet other\ndelete table inet other\ntable inet other {")


def test_a_network_is_elements() -> None:
    default = default_segment(NetworkRecord("a" * 64, "bridge", "bridge", "", 0.0), "br7", IPv4Network("10.1.0.0/16"))
    assert segment_commands("t", "add", default) == [
        'add element inet t bridges { "br7" }\n',
        'add element inet t within { "br7" . "br7" }\n',
        "add element inet t subnets { 10.1.0.0/16 }\n",
        "add element inet t borrowing { 10.1.0.0/16 }\n",
    ]
    settings = NetworkSettings(
        pools=(PoolRecord(subnet="fd00::/64"),),
        bridge="br8",
        enable_ipv4=False,
        enable_ipv6=True,
        internal=True,
        options={ENABLE_ICC: "false"},
    )
    assert segment_commands("t", "delete", segment_of(NetworkRecord("b" * 64, "n", "bridge", "", 0.0, settings))) == [
        'delete element inet t bridges { "br8" }\n',
        'delete element inet t internal { "br8" }\n',
        "delete element inet t subnets6 { fd00::/64 }\n",
    ]


def test_chains_that_drop() -> None:
    closed = closed_chains(LISTING, "holdfast", str)
    assert chains_that_need_a_way(LISTING, closed) == [
        Chain("ip", "filter", "DOCKER-USER"),
        Chain("inet", "firewall", "forward"),
    ]
    assert Chain("ip6", "filter", "FORWARD") in chains_that_need_a_way(LISTING, closed, {"ip6"})
    assert [each.chain.family for each in closed_chains(LISTING, "firewall", str)] == ["ip", "ip6", "bridge"]
    assert closed_chains("", "holdfast", str) == []
    assert len(all_chains(LISTING)) == 7


def test_chain_that_accepts_by_policy_may_deny_by_its_last_rule() -> None:
    def ending(*rules: str) -> str:
        lines = ["type filter hook forward priority filter + 10; policy accept;", *rules]
        return "table inet t {\n\tchain c { # handle 1\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n}\n"

    rejecting = ending("jump zones", "reject with icmpx admin-prohibited")
    assert denying_end(ending("drop # handle 7")) == "drop"
    assert denying_end(ending("counter packets 5 bytes 9 reject")) != ""
    assert denying_end(ending("reject", "accept")) == ""
    assert denying_end(ending('iifname "eth0" drop')) == ""
    assert denying_end(ending()) == denying_end("") == ""
    chain = Chain("inet", "t", "c")
    assert closed_chains(rejecting, "holdfast", lambda _: rejecting) == [
        Closed(chain, "reject with icmpx admin-prohibited")
    ]
    assert closed_chains(rejecting, "holdfast", lambda _: ending()) == []
    assert closed_chains(rejecting, "t", lambda _: rejecting) == []


def test_own_rules_are_known_by_their_comment() -> None:
    listing = """\
table ip filter {
	chain DOCKER-USER { # handle 2
		oifname "holdfast0" accept comment "holdfast" # handle 6
		iifname "holdfast0" accept comment "holdfast" # handle 5
		iifname "holdfast0" accept comment "holdfast2" # handle 4
		counter packets 0 bytes 0 return # handle 3
	}
}
"""
    assert rule_handles(listing, "holdfast") == ["6", "5"]
    assert rule_handles(listing, "holdfast", "holdfast0") == ["6", "5"]
    assert rule_handles(listing, "holdfast", "br-0") == []


def test_news_of_elements_do_not_matter() -> None:
    def message(kind: int) -> bytes:
        return struct.pack("=IHHII", 20, 10 << 8 | kind, 0, 1, 0) + bytes(4)

    assert not concerns_tables(message(12) + message(15))
    assert concerns_tables(message(12) + message(2))
    assert not concerns_tables(b"")
    assert not concerns_tables(bytes(40))
