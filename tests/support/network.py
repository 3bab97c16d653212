"""A machine for network tests: a namespace with an uplink to a world outside, and containers made of namespaces."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from holdfast.config import Config
from holdfast.events import EventBus
from holdfast.kernel.namespaces import in_network_namespace, pin_network_namespace
from holdfast.network import Network
from holdfast.network.attendant import AttendantLine
from holdfast.network.bridge import Bridge
from holdfast.network.links import rtnetlink
from holdfast.store import Store

UPLINK = IPv4Network("192.0.2.0/24")
HOST = "192.0.2.2"
OUTSIDE = "192.0.2.1"
TIMEOUT_S = 3.0


class Machine:
    """A host with an engine's network; made inside a fresh network namespace, which takes everything away again."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.config = replace(
            Config(), state_root=directory / "state", run_root=directory / "run", **settings  # type: ignore[arg-type]
        )
        self.config.state_root.mkdir()
        self.config.run_root.mkdir()
        self.store = Store(self.config.database_path)
        self.events = EventBus()
        self.outside = directory / "outside"
        pin_network_namespace(self.outside)
        self._connect_outside()
        self.network = self.start()

    def start(self, live: Mapping[str, Path] | None = None) -> Network:
        """Start an engine's network, as a restarted engine would."""
        self.network = Network(self.config, self.store, self.events)
        self.network.restore(live or {})
        return self.network

    def close(self) -> None:
        """Stop the engine's network and close the catalogue."""
        self.network.close()
        AttendantLine(self.config.run_root).end()
        self.store.close()

    def _connect_outside(self) -> None:
        with open(self.outside, "rb") as namespace, rtnetlink("connect a world outside") as kernel:
            peer = {"ifname": "eth0", "net_ns_fd": namespace.fileno(), "address": "02:00:00:00:00:01", "mtu": 1450}
            kernel.link("add", ifname="up0", kind="veth", mtu=1450, peer=peer)
            kernel.link("set", ifname="lo", state="up")
            in_network_namespace(self.outside, lambda: _configure("eth0", OUTSIDE, HOST))
        _configure("up0", HOST, OUTSIDE)


def _configure(card: str, address: str, gateway: str) -> None:
    """Set up a card of this thread's network namespace."""
    index = socket.if_nametoindex(card)
    with rtnetlink(f"configure {card}") as kernel:
        kernel.link("set", index=index, state="up")
        kernel.addr("add", index=index, address=address, prefixlen=UPLINK.prefixlen)
        kernel.route("add", gateway=gateway, oif=index)


@contextlib.contextmanager
def machine(directory: Path, **settings: str) -> Iterator[Machine]:
    """Give a machine and close it."""
    made = Machine(directory, **settings)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def server(namespace: Path | None, port: int, address: str = "0.0.0.0") -> Iterator[None]:
    """Serve there: every connection is told the caller's address. None stands for the host."""

    def listen() -> socket.socket:
        both = address == "::"
        return socket.create_server(
            (address, port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )

    listener = listen() if namespace is None else in_network_namespace(namespace, listen)

    def work() -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(peer[0].encode())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def call(namespace: Path | None, address: str, port: int, timeout_s: float = TIMEOUT_S) -> str:
    """Connect from there and give what the server says: the address it sees. Raises OSError."""

    def work() -> str:
        with socket.create_connection((address, port), timeout_s) as connection:
            return connection.recv(100).decode()

    return work() if namespace is None else in_network_namespace(namespace, work)


def refuses(namespace: Path | None, address: str, port: int) -> bool:
    """Whether a connection from there fails, refused or unanswered."""
    try:
        call(namespace, address, port, 0.5)
    except OSError:
        return True
    return False


def bridge_ports(bridge: str = "holdfast0") -> list[str]:
    """Give the names of the cards in the bridge."""
    return Bridge(bridge).ports()


def card_names() -> set[str]:
    """Give the names of all cards of this thread's network namespace."""
    return {name for _, name in socket.if_nameindex()}


def delete_card(name: str) -> None:
    """Remove a card, as another program would."""
    with rtnetlink(f"delete {name}") as kernel:
        kernel.link("del", ifname=name)
