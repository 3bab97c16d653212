"""User-defined networks: subnets, isolation, names, IPv6, several networks in one container, ports, restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rrset
import pytest

from holdfast.errors import Conflict, Forbidden
from holdfast.kernel.namespaces import in_network_namespace
from holdfast.kernel.nft import Nft, NftError
from holdfast.network import Network, PortRequest
from holdfast.network.model import EndpointRequest, NetworkRequest, Upstream
from holdfast.network.segment import ENABLE_ICC
from holdfast.store.networks import PoolRecord
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.network import HOST, OUTSIDE, Machine, call, card_names, delete_card, machine, refuses, server

pytestmark = pytest.mark.kernel

ONE, TWO, THREE = "a" * 64, "b" * 64, "c" * 64


def join(host: Machine, container: str, *networks: str, names: tuple[str, ...] = (), port: int = 0) -> Path:
    """Start a container of that id in these networks."""
    namespace = host.network.make_namespace(container)
    requests = [EndpointRequest(network=network, names=(container[:12], *names)) for network in networks]
    ports = [PortRequest(80, "tcp", "", port)] if port else []
    host.network.connect_all(
        container, namespace, requests, name=container[:12], ports=ports, upstream=Upstream(("127.0.0.1",))
    )
    return namespace


def address_of(network: Network, container: str, name: str) -> str:
    """Give a container's IPv4 address in a network."""
    return next(found.ip_address for found in network.endpoints(container) if found.network_name == name)


def ask(namespace: Path, name: str, kind: str = "A", *, by_stream: bool = False, timeout_s: float = 10) -> list[str]:
    """Ask the resolver of a namespace; gives what it says, or the word for its refusal."""
    query = dns.message.make_query(name, kind)
    query_by: Callable[..., dns.message.Message] = dns.query.tcp if by_stream else dns.query.udp
    answer = in_network_namespace(namespace, lambda: query_by(query, "127.0.0.11", timeout=timeout_s))
    if answer.rcode():
        return [answer.rcode().to_text(answer.rcode())]
    return sorted(record.to_text() for found in answer.answer for record in found)


def attendant_below(folder: Path) -> int:
    """Give the process id of the attendant of the engine with this folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str(folder / "run/attendant").encode() in (entry / "cmdline").read_bytes():
                    return int(entry.name)
    raise AssertionError("there is none")


@contextlib.contextmanager
def name_server(namespace: Path, address: str) -> Iterator[None]:
    """Answer every question in a namespace, over datagrams, with one record."""

    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((OUTSIDE, 53))
        return opened

    listener = in_network_namespace(namespace, listen)

    def work() -> None:
        while True:
            wire, sender = listener.recvfrom(4096)
            if wire == b"end":
                return
            query = dns.message.from_wire(wire)
            answer = dns.message.make_response(query)
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
            listener.sendto(answer.to_wire(), sender)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        in_network_namespace(namespace, _send_end)
        thread.join()
        listener.close()


def _send_end() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ended:
        ended.sendto(b"end", (OUTSIDE, 53))


@in_mount_and_network_namespace
def test_networks_do_not_see_each_other(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        for name in ("one", "two"):
            host.network.create(NetworkRequest(name=name))
        host.network.create(NetworkRequest(name="inner", internal=True))
        host.network.create(NetworkRequest(name="silent", options={ENABLE_ICC: "false"}))
        first, second = join(host, ONE, "one"), join(host, TWO, "two", port=8080)
        inner = join(host, THREE, "inner")
        quiet, still = join(host, "d" * 64, "silent"), join(host, "e" * 64, "silent")
        with server(second, 80), server(inner, 80), server(host.outside, 81), server(still, 80):
            assert refuses(first, address_of(host.network, TWO, "two"), 80)
            assert refuses(first, address_of(host.network, THREE, "inner"), 80)
            assert call(first, HOST, 8080), "what is published is for everybody"
            assert call(first, OUTSIDE, 81) == HOST
            assert refuses(inner, OUTSIDE, 81)
            assert refuses(inner, HOST, 8080)
            assert call(None, address_of(host.network, THREE, "inner"), 80)
            assert refuses(quiet, address_of(host.network, "e" * 64, "silent"), 80)
            assert call(quiet, OUTSIDE, 81) == HOST
        host.network.remove_all()
        assert not {name for name in card_names() if name.startswith(("br-", "hf"))}
        with Nft() as nft:
            assert host.config.nft_table not in nft.run("list tables")


@in_mount_and_network_namespace
def test_names(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        for name in ("one", "two"):
            host.network.create(NetworkRequest(name=name))
        first = join(host, ONE, "one", names=("web",))
        second = join(host, TWO, "one", "two", names=("Both", "web"))
        third = join(host, THREE, "two")
        one, two = address_of(host.network, ONE, "one"), address_of(host.network, TWO, "one")
        assert ask(first, "web") == ask(second, "WEB.one", by_stream=True) == sorted([one, two])
        assert ask(first, TWO[:12]) == ask(first, "both") == [two]
        assert ask(third, "both") == [address_of(host.network, TWO, "two")]
        assert ask(second, THREE[:12]) == [address_of(host.network, THREE, "two")]
        assert ask(first, "web", "AAAA") == []
        reverse = ".".join(reversed(two.split("."))) + ".in-addr.arpa"
        assert ask(first, reverse, "PTR") == [f"{TWO[:12]}.one."]
        assert ask(first, THREE[:12]) == ["SERVFAIL"], "another network's, and nobody is there to ask"
        host.network.rename(TWO, "new", TWO[:12])
        assert ask(first, "new") == [two]
        host.network.disconnect_from(TWO, "one", second)
        assert ask(first, "both") == ["SERVFAIL"]
        host.network.close()
        assert ask(second, THREE[:12]) == [address_of(host.network, THREE, "two")], "nobody has to be up for that"
        network = host.start({ONE: first, TWO: second, THREE: third})
        assert ask(second, THREE[:12]) == [address_of(network, THREE, "two")]
        network.remove_all()


@in_mount_and_network_namespace
def test_the_world_outside_is_asked_except_from_internal_networks(tmp_path: Path) -> None:
    with machine(tmp_path) as host, name_server(host.outside, "203.0.113.7"):
        host.network.create(NetworkRequest(name="one"))
        host.network.create(NetworkRequest(name="inner", internal=True))
        for container, network, answer in ((ONE, "one", "203.0.113.7"), (TWO, "inner", "SERVFAIL")):
            namespace = host.network.make_namespace(container)
            request = EndpointRequest(network=network, names=("web",))
            host.network.connect_all(container, namespace, [request], upstream=Upstream((OUTSIDE,)))
            assert ask(namespace, "example.org") == [answer]
            assert ask(namespace, "web") == [address_of(host.network, container, network)]
        host.network.remove_all()


@in_mount_and_network_namespace
def test_attendant_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        host.network.create(NetworkRequest(name="one"))
        first = join(host, ONE, "one", names=("web",), port=8080)
        assert ask(first, "web") == [address_of(host.network, ONE, "one")]
        os.kill(attendant_below(tmp_path), signal.SIGKILL)
        deadline = time.monotonic() + 15
        with server(first, 80):
            while time.monotonic() < deadline:
                try:
                    assert ask(first, "web", timeout_s=0.5) == [address_of(host.network, ONE, "one")]
                    assert call(None, "::1", 8080, 1)
                    break
                except (OSError, dns.exception.Timeout):
                    time.sleep(0.1)
            else:
                pytest.fail("it does not come back")
        host.network.remove_all()


@in_mount_and_network_namespace
def test_ipv6_and_its_ports(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        host.network.create(NetworkRequest(name="both", enable_ipv6=True))
        host.network.create(NetworkRequest(name="six", enable_ipv4=False, enable_ipv6=True))
        first, second = join(host, ONE, "both", names=("web",), port=8080), join(host, TWO, "both")
        only = join(host, THREE, "six", port=8081)
        (endpoint,) = host.network.endpoints(ONE)
        assert [(port.host_ip, port.host_port) for port in endpoint.ports] == [("0.0.0.0", 8080), ("::", 8080)]
        assert ask(second, "web", "AAAA") == [endpoint.ip6_address]
        with server(first, 80, "::"), server(only, 80, "::"):
            assert call(second, endpoint.ip6_address, 80)
            for address in ("::1", "127.0.0.1", HOST, endpoint.gateway6, endpoint.gateway):
                assert call(None, address, 8080)
            for address in ("::1", "127.0.0.1"):
                assert call(None, address, 8081)
            assert refuses(only, endpoint.ip6_address, 80), "networks are apart in IPv6, too"
        host.network.disconnect(ONE)
        with socket.create_server(("::", 8080), family=socket.AF_INET6):
            pass
        host.network.remove_all()


@in_mount_and_network_namespace
def test_default_route_and_ports_go_where_they_belong(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        for name in ("one", "two"):
            host.network.create(NetworkRequest(name=name))
        host.network.create(NetworkRequest(name="inner", internal=True))
        namespace = join(host, ONE, "inner", "two", port=8080)
        with server(namespace, 80), server(host.outside, 81):
            assert call(host.outside, HOST, 8080)
            host.network.connect_more(ONE, namespace, EndpointRequest(network="one"), name="x")
            assert _ports(host.network) == {"inner": 0, "two": 0, "one": 2}
            assert call(host.outside, HOST, 8080)
            assert call(namespace, OUTSIDE, 81) == HOST
            host.network.disconnect_from(ONE, "one", namespace)
            assert _ports(host.network) == {"inner": 0, "two": 2}
            assert call(host.outside, HOST, 8080)
            assert call(None, "::1", 8080)
            host.network.disconnect_from(ONE, "two", namespace)
            assert _ports(host.network) == {"inner": 0}
            assert refuses(host.outside, HOST, 8080)
            assert refuses(namespace, OUTSIDE, 81)
            ports = [PortRequest(80, "tcp", "", 8080)]
            request = EndpointRequest(network="bridge", gateway_priority=1)
            host.network.connect_more(ONE, namespace, request, name="x", ports=ports)
            assert call(host.outside, HOST, 8080)
        host.network.remove_all()


def _ports(network: Network) -> dict[str, int]:
    return {endpoint.network_name: len(endpoint.ports) for endpoint in network.endpoints(ONE)}


@in_mount_and_network_namespace
def test_networks_outlive_the_engine(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        made = host.network.create(NetworkRequest(name="one", pools=(PoolRecord(subnet="10.5.0.0/24"),)))
        host.network.create(NetworkRequest(name="two"))
        bridge = f"br-{made.id[:12]}"
        namespace = join(host, ONE, "one", "two", port=8080)
        join(host, TWO, "one")
        before = host.network.endpoints(ONE)
        host.network.close()
        delete_card(bridge)
        with Nft() as nft:
            nft.run("flush ruleset")
        network = host.start({ONE: namespace})
        assert network.endpoints(ONE) == before
        assert network.endpoints(TWO) == []
        assert network.get("one").id == made.id
        with server(namespace, 80):
            assert call(host.outside, HOST, 8080)
            assert call(None, address_of(network, ONE, "one"), 80)
        network.disconnect(ONE)
        network.remove("one")
        assert bridge not in card_names()
        network.remove_all()


@in_mount_and_network_namespace
def test_what_a_record_does_not_want_goes(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        for name in ("one", "two"):
            host.network.create(NetworkRequest(name=name))
        namespace = join(host, ONE, "one", "two")
        host.network.close()
        network = Network(host.config, host.store, host.events)
        network.restore({ONE: namespace}, {ONE: frozenset({"two"})})
        assert [found.network_name for found in network.endpoints(ONE)] == ["two"]
        network.close()
        cards = in_network_namespace(namespace, card_names)
        assert cards == {"lo", "eth1"}
        host.network = network
        network.remove_all()


@in_mount_and_network_namespace
def test_addresses_and_refusals(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        pool = PoolRecord(subnet="10.5.0.0/24", ip_range="10.5.0.8/29", gateway="10.5.0.9", reserved={"x": "10.5.0.10"})
        host.network.create(NetworkRequest(name="one", pools=(pool,)))
        with pytest.raises(Forbidden, match="Pool overlaps"):
            host.network.create(NetworkRequest(name="two", pools=(PoolRecord(subnet="10.5.0.128/25"),)))
        with pytest.raises(Conflict, match="network with name one already exists"):
            host.network.create(NetworkRequest(name="one"))
        for container, address in ((ONE, "10.5.0.8"), (TWO, "10.5.0.11")):
            join(host, container, "one")
            assert address_of(host.network, container, "one") == address
        with pytest.raises(Conflict, match="Address already in use"):
            host.network.connect(THREE, host.network.make_namespace(THREE), network="one", address="10.5.0.10")
        listed = 'name:"aaaaaaaaaaaa" id:"'
        with pytest.raises(Forbidden, match=f"network one has active endpoints \\({listed}"):
            host.network.remove("one")
        with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
            host.network.remove("bridge")
        host.network.disconnect(ONE)
        host.network.disconnect(TWO)
        assert host.network.prune(lambda network: network.name == "one") == ["one"]
        with Nft() as nft, pytest.raises(NftError):
            nft.run(f"get element inet {host.config.nft_table} subnets {{ 10.5.0.0/24 }}")
        host.network.remove_all()
