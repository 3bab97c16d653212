"""Which subnet the bridge gets, and which addresses come out of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from holdfast.errors import Conflict, InvalidParameter, Unavailable

_HEX = frozenset("0123456789abcdef")


def candidates() -> Iterator[IPv4Network]:
    """Yield the subnets to try, best first.

    Docker hands out the same ranges from the low end; so this starts near the high end, and never gives 172.17, which
    docker0 takes even if Docker is started later. 172.31 comes late because cloud providers' default networks are
    there, often without a route that shows it.
    """
    for second in (*range(30, 17, -1), 31):
        yield IPv4Network(f"172.{second}.0.0/16")
    for third in range(240, -1, -16):
        yield IPv4Network(f"192.168.{third}.0/20")


def choose_subnet(taken: Iterable[IPv4Network], in_use: Iterable[IPv4Address] = ()) -> IPv4Network:
    """Give the first candidate that overlaps no network in `taken` and holds no address in `in_use`.

    The default route does not count. Raises Unavailable where every candidate is taken.
    """
    networks = [network for network in taken if network.prefixlen > 0]
    addresses = list(in_use)
    for candidate in candidates():
        if any(candidate.overlaps(network) for network in networks):
            continue
        if any(address in candidate for address in addresses):
            continue
        return candidate
    raise Unavailable(
        "every subnet for the default bridge is in use on this host",
        hint="set bridge_subnet to one that is free",
    )


def choose_own_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Give the first free subnet for a network of somebody's own; small ones follow when the large ones are gone.

    Raises Unavailable in Docker's words where every candidate is taken.
    """
    networks = [network for network in taken if network.prefixlen > 0]
    for candidate in (*candidates(), *_small_candidates()):
        if not any(candidate.overlaps(network) for network in networks):
            return candidate
    raise Unavailable(
        "all predefined address pools have been fully subnetted",
        hint="remove networks that nobody uses: docker network prune",
    )


def choose_subnet6(seed: str, taken: Iterable[IPv6Network]) -> IPv6Network:
    """Give the first free /64 of the site prefix that belongs to `seed`, an id that an engine keeps for ever.

    Source: RFC 4193, unique local addresses.
    """
    prefix = b"\xfd" + hashlib.sha256(seed.encode()).digest()[:5]
    networks = list(taken)
    for number in range(1 << 16):
        candidate = IPv6Network((int.from_bytes(prefix + number.to_bytes(2, "big") + bytes(8), "big"), 64))
        if not any(candidate.overlaps(network) for network in networks):
            return candidate
    raise Unavailable("all predefined address pools have been fully subnetted")


def _small_candidates() -> Iterator[IPv4Network]:
    """Yield what Docker does not hand out, and what is seldom used elsewhere."""
    for second in range(201, 255):
        for third in range(0, 256, 16):
            yield IPv4Network(f"10.{second}.{third}.0/20")


def parse_subnet(text: str, taken: Iterable[IPv4Network] = ()) -> IPv4Network:
    """Read a configured subnet such as `10.88.0.0/16`.

    Raises InvalidParameter for something else or for one with no room for two hosts, Conflict where it overlaps.
    """
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise InvalidParameter(f"bridge_subnet {text!r}: {error}") from error
    if subnet.prefixlen > 29:
        raise InvalidParameter(f"bridge_subnet {text!r}: too small, /29 is the smallest")
    for network in taken:
        if network.prefixlen > 0 and subnet.overlaps(network):
            raise Conflict(f"bridge_subnet {text} overlaps {network}, to which this host has a route")
    return subnet


def gateway_of(subnet: IPv4Network) -> IPv4Address:
    """Give the bridge's own address: the first of the subnet."""
    return subnet.network_address + 1


def pool_of(subnet: IPv4Network) -> range:
    """Give the addresses for containers, as numbers: all but the network's, the bridge's and the broadcast one."""
    return range(int(subnet.network_address) + 2, int(subnet.broadcast_address))


def mac_of(address: IPv4Address | IPv6Address) -> str:
    """Give the hardware address that belongs to an IP address, `02:42:` and its last four bytes.

    One address always has the same card behind it, so that no neighbour's cache is wrong after a container came and
    went. Source: Docker, `netutils.GenerateMACFromIP`.
    """
    return "02:42:" + address.packed[-4:].hex(":")


def parse_mac(text: str) -> str:
    """Read a hardware address, `02:42:ac:11:00:02` or with dashes; give it with colons.

    Raises InvalidParameter for something else and for one that is not a single card's.
    """
    parts = text.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= _HEX for part in parts) or int(parts[0], 16) & 1:
        raise InvalidParameter(f"{text} is not a valid mac address")
    return ":".join(parts)
