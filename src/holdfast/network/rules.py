"""Address translation: one nftables table of our own, in which publishing a port is adding one element to a map.

    prerouting   (raw)     packets for 127/8 from outside are dropped: route_localnet makes the bridge accept them
    prerouting   (dstnat)  a published port of this host, from outside or from a container, goes to its container
    output                 the same for programs of this host
    forward                into the bridge only what answers, or what a published port let in; out of it everything
    postrouting  (srcnat)  containers borrow the host's address outside; this host's loopback and a container that
                           calls a published port of its own network borrow the bridge's

Source: nft(8); the order of hooks is that of netfilter(7) packet flow.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from holdfast.kernel.nft import Nft, NftError
from holdfast.network.model import ANY_ADDRESS, PublishedPort

Published = tuple[str, PublishedPort]
"""A container's address and one of its ports."""


class Rules:
    """The table of one engine. Safe from any thread, as Nft is. Every method raises NftError."""

    def __init__(self, nft: Nft, table: str, bridge: str) -> None:
        self._nft = nft
        self._table = table
        self._bridge = bridge

    def load(self, subnet: IPv4Network, published: Iterable[Published]) -> None:
        """Make or replace the whole table in one transaction; connections that exist go on."""
        commands = table_commands(self._table, self._bridge, subnet)
        for command in element_commands(self._table, "add", published):
            commands += command
        self._nft.run(commands)

    def publish(self, published: Iterable[Published]) -> None:
        """Lead host ports to containers, all or none."""
        self._nft.run("".join(element_commands(self._table, "add", published)))

    def withdraw(self, published: Iterable[Published]) -> None:
        """Take elements out again, all or none."""
        self._nft.run("".join(element_commands(self._table, "delete", published)))

    def is_loaded(self) -> bool:
        """Whether the table is there; False also where the kernel has no nftables."""
        try:
            self._nft.run(f"list chain inet {self._table} forward")
        except NftError:
            return False
        return True

    def remove(self) -> None:
        """Take the table away; one that is not there is no error."""
        self._nft.run(f"add table inet {self._table}\ndelete table inet {self._table}\n")


def table_commands(table: str, bridge: str, subnet: IPv4Network) -> str:
    """Give the commands that make the table anew, whatever was there before."""
    to_container = "dnat ip to"
    lookups = f"""\
        fib daddr type local {to_container} ip daddr . meta l4proto . th dport map @published_at
        fib daddr type local {to_container} meta l4proto . th dport map @published
"""
    return f"""\
add table inet {table}
delete table inet {table}
table inet {table} {{
    map published {{
        type inet_proto . inet_service : ipv4_addr . inet_service
    }}
    map published_at {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    }}
    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname != "lo" ip daddr 127.0.0.0/8 drop
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
{lookups}    }}
    chain output {{
        type nat hook output priority -100; policy accept;
{lookups}    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" accept
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" ct status dnat accept
        oifname "{bridge}" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{bridge}" masquerade
        ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
        ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    }}
}}
"""


def element_commands(table: str, verb: str, published: Iterable[Published]) -> list[str]:
    """Give one command a port: `add` or `delete` its element."""
    commands = []
    for address, port in published:
        key = f"{port.protocol} . {port.host_port}"
        target = f"{address} . {port.container_port}"
        if port.host_ip == ANY_ADDRESS:
            commands.append(f"{verb} element inet {table} published {{ {key} : {target} }}\n")
        else:
            commands.append(f"{verb} element inet {table} published_at {{ {port.host_ip} . {key} : {target} }}\n")
    return commands
