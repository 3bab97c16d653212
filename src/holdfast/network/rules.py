"""Address translation: one nftables table of our own. Publishing a port, or adding a network, is adding elements.

    prerouting   (raw)     packets for 127/8 from outside are dropped: route_localnet makes the bridges accept them
    prerouting   (dstnat)  a published port of this host, from outside or from a container, goes to its container
    output                 the same for programs of this host
    forward                within a network everything, unless its containers may not talk; nothing into an internal
                           network or out of it; into a bridge only what answers, or what a published port let in
    postrouting  (srcnat)  containers borrow the host's address outside; this host's loopback and a container that
                           calls a published port borrow the bridge's

The loopback address of IPv6 cannot be translated: the kernel sends nothing from ::1 out of another card.
Source: nft(8); the order of hooks is that of netfilter(7) packet flow.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from holdfast.kernel.nft import Nft, NftError
from holdfast.network.model import ANY_ADDRESS, ANY_ADDRESS6, PublishedPort
from holdfast.network.segment import Segment

Published = tuple[str, PublishedPort]
"""A container's address and one of its ports."""


class Rules:
    """The table of one engine. Safe from any thread, as Nft is. Every method raises NftError."""

    def __init__(self, nft: Nft, table: str) -> None:
        self._nft = nft
        self._table = table

    def load(self, segments: Iterable[Segment], published: Iterable[Published]) -> None:
        """Make or replace the whole table in one transaction; connections that exist go on."""
        commands = table_commands(self._table)
        for segment in segments:
            commands += "".join(segment_commands(self._table, "add", segment))
        for command in element_commands(self._table, "add", published):
            commands += command
        self._nft.run(commands)

    def add_segment(self, segment: Segment) -> None:
        """Take a network in; harmless to repeat."""
        self._nft.run("".join(segment_commands(self._table, "add", segment)))

    def remove_segment(self, segment: Segment) -> None:
        """Take a network out."""
        self._nft.run("".join(segment_commands(self._table, "delete", segment)))

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


def table_commands(table: str) -> str:
    """Give the commands that make the table anew, empty, whatever was there before."""
    lookups = """\
        fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at
        fib daddr type local dnat ip to meta l4proto . th dport map @published
        ip6 daddr != ::1 fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at
        ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @published6
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
    map published6 {{
        type inet_proto . inet_service : ipv6_addr . inet_service
    }}
    map published6_at {{
        type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
    }}
    set bridges {{
        type ifname
    }}
    set internal {{
        type ifname
    }}
    set within {{
        type ifname . ifname
    }}
    set subnets {{
        type ipv4_addr; flags interval
    }}
    set subnets6 {{
        type ipv6_addr; flags interval
    }}
    set borrowing {{
        type ipv4_addr; flags interval
    }}
    set borrowing6 {{
        type ipv6_addr; flags interval
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
        iifname . oifname @within accept
        iifname @internal drop
        oifname @internal drop
        oifname @bridges ct state established,related accept
        oifname @bridges ct status dnat accept
        oifname @bridges drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @borrowing oifname != @bridges masquerade
        ip6 saddr @borrowing6 oifname != @bridges masquerade
        ip saddr @subnets oifname @bridges ct status dnat masquerade
        ip6 saddr @subnets6 oifname @bridges ct status dnat masquerade
        ip saddr 127.0.0.0/8 oifname @bridges masquerade
    }}
}}
"""


def segment_commands(table: str, verb: str, segment: Segment) -> list[str]:
    """Give the commands that `add` or `delete` a network's elements."""
    name = f'"{segment.bridge}"'
    elements = [("bridges", name)]
    if segment.internal:
        elements.append(("internal", name))
    if segment.talks:
        elements.append(("within", f"{name} . {name}"))
    for own, suffix in ((segment.ipv4, ""), (segment.ipv6, "6")):
        if own is None:
            continue
        elements.append((f"subnets{suffix}", str(own.subnet)))
        if segment.masquerades and not segment.internal:
            elements.append((f"borrowing{suffix}", str(own.subnet)))
    return [f"{verb} element inet {table} {where} {{ {element} }}\n" for where, element in elements]


def element_commands(table: str, verb: str, published: Iterable[Published]) -> list[str]:
    """Give one command a port: `add` or `delete` its element. A port on an address that cannot lead there has none."""
    commands = []
    for address, port in published:
        version = ip_address(address).version
        if ip_address(port.host_ip).version != version or port.host_ip == "::1":
            continue
        suffix = "" if version == 4 else "6"
        key = f"{port.protocol} . {port.host_port}"
        target = f"{address} . {port.container_port}"
        if port.host_ip in (ANY_ADDRESS, ANY_ADDRESS6):
            commands.append(f"{verb} element inet {table} published{suffix} {{ {key} : {target} }}\n")
        else:
            commands.append(
                f"{verb} element inet {table} published{suffix}_at {{ {port.host_ip} . {key} : {target} }}\n"
            )
    return commands
