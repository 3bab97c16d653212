"""Links, addresses and routes by pyroute2, which is imported when the first is needed: that takes 60 to 90 ms.

A socket of pyroute2 belongs to the thread that opened it: behind its calls runs an event loop of that thread, and
another thread would get a socket and a loop of its own, kept until the end. So a socket is opened for one piece of
work, in the thread and the network namespace that do it, for some 0.4 ms: nothing is shared, nothing is guarded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pyroute2.iproute.linux import IPRoute

NLM_F_DUMP_INTR: Final = 0x10
RTN_UNICAST: Final = 1
_LISTING_RETRIES: Final = 4

Message = Mapping[str, Any]
"""What pyroute2 makes of one netlink message: `message[field]`, `message.get(attribute)`, both without prefix."""


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address of a card, with its subnet."""

    index: int
    address: IPv4Address
    network: IPv4Network


@dataclass(frozen=True, slots=True)
class Route:
    """An IPv4 route to somewhere else; `index` is its card, 0 where it has none of its own."""

    destination: IPv4Network
    index: int


def warm_up() -> None:
    """Import pyroute2 and use it once, so that nobody waits for that."""
    with rtnetlink("look at the first card") as kernel:
        kernel.link("get", index=1)


@contextlib.contextmanager
def rtnetlink(what: str) -> Iterator[IPRoute]:
    """Open a socket in the network namespace of this thread, for this thread.

    Failures, also those of the work inside, are raised as OSError that begins with `what`.
    """
    from pyroute2.iproute.linux import IPRoute

    logging.getLogger("pyroute2").setLevel(logging.WARNING)  # at debug it tells of every message
    with as_os_error(what), IPRoute() as kernel:
        yield kernel


@contextlib.contextmanager
def as_os_error(what: str) -> Iterator[None]:
    """Raise pyroute2's errors, which are none of the operating system's to Python, as OSError."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, f"{what}: {os.strerror(error.code)}") from error


def index_of(name: str) -> int:
    """Give the index of a card in the network namespace of this thread, 0 if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def consistent(listing: Callable[[], Iterable[Message]]) -> list[Message]:
    """Give a whole table; asked again where it changed meanwhile, which pyroute2 leaves to us. Source: netlink(7)."""
    messages = list(listing())
    for _ in range(_LISTING_RETRIES):
        if not any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in messages):
            break
        messages = list(listing())
    return messages


def addresses(kernel: IPRoute) -> list[Address]:
    """Give every IPv4 address."""
    return [address_of(message) for message in consistent(lambda: kernel.addr("dump", family=socket.AF_INET))]


def routes(kernel: IPRoute) -> list[Route]:
    """Give the IPv4 routes to somewhere else, of all tables; `local` and `broadcast` ones are left out."""
    messages = consistent(lambda: kernel.route("dump", family=socket.AF_INET))
    return [route_of(message) for message in messages if message["type"] == RTN_UNICAST]


def address_of(message: Message) -> Address:
    """Read an RTM_NEWADDR of IPv4."""
    # IFA_LOCAL is the card's own address; on a point-to-point card IFA_ADDRESS is the partner's.
    own, covered = message.get("local") or message.get("address"), message.get("address") or message.get("local")
    network = IPv4Network((covered, message["prefixlen"]), strict=False)
    return Address(message["index"], IPv4Address(own), network)


def route_of(message: Message) -> Route:
    """Read an RTM_NEWROUTE of IPv4; the default route has no destination."""
    destination = IPv4Network((message.get("dst") or "0.0.0.0", message["dst_len"]), strict=False)
    return Route(destination, message.get("oif") or 0)
