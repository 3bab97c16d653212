"""Published ports: from outside, from the host, from containers, and when they clash."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

import pytest

from holdfast.errors import System, Unavailable
from holdfast.kernel.namespaces import in_network_namespace
from holdfast.kernel.nft import Nft
from holdfast.network import PortRequest, filters
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.network import HOST, OUTSIDE, call, machine, refuses, server

pytestmark = pytest.mark.kernel


@in_mount_and_network_namespace
def test_published_port_is_reached_from_everywhere(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        other = host.network.make_namespace("b" * 64)
        endpoint = host.network.connect("a" * 64, namespace, ports=[PortRequest(80, "tcp", "", 8080)])
        neighbour = host.network.connect("b" * 64, other)
        assert [(port.host_ip, port.host_port) for port in endpoint.ports] == [("0.0.0.0", 8080), ("::", 8080)]
        with server(namespace, 80):
            assert call(host.outside, HOST, 8080) == OUTSIDE
            assert call(None, "127.0.0.1", 8080) == endpoint.gateway
            assert call(None, HOST, 8080) == HOST
            assert call(None, endpoint.gateway, 8080) == endpoint.gateway
            assert call(namespace, HOST, 8080) == endpoint.gateway
            assert call(other, HOST, 8080) == endpoint.gateway
            assert call(other, endpoint.gateway, 8080) == endpoint.gateway
            assert call(other, endpoint.ip_address, 80) == neighbour.ip_address
        host.network.disconnect("a" * 64)
        assert refuses(host.outside, HOST, 8080)
        with socket.create_server(("0.0.0.0", 8080)):
            pass


@in_mount_and_network_namespace
def test_port_on_loopback_is_closed_to_others(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        endpoint = host.network.connect("a" * 64, namespace, ports=[PortRequest(80, "tcp", "127.0.0.1", 8080)])
        with server(namespace, 80), server(None, 9090, "127.0.0.1"):
            call(None, "127.0.0.1", 8080)
            assert refuses(None, HOST, 8080)
            assert refuses(host.outside, HOST, 8080)
            for port in (8080, 9090):
                assert not _reached_as_loopback(host.outside, OUTSIDE, port)
                assert not _reached_as_loopback(namespace, endpoint.ip_address, port)
            with Nft() as nft:
                nft.run("flush chain inet holdfast guard")
            assert _reached_as_loopback(namespace, endpoint.ip_address, 9090), "the guard is what keeps them out"


def _reached_as_loopback(namespace: Path, source: str, port: int) -> bool:
    """Whether somebody on the same wire reaches 127.0.0.1 of the host; the bridge answers for that address."""

    def work() -> bool:
        for setting in ("route_localnet", "accept_local"):
            Path("/proc/sys/net/ipv4/conf/all", setting).write_text("1")
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            caller.bind((source, 0))
            caller.settimeout(0.5)
            try:
                caller.connect(("127.0.0.1", port))
            except OSError:
                return False
            return True

    return in_network_namespace(namespace, work)


@in_mount_and_network_namespace
def test_udp_port(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        host.network.connect("a" * 64, namespace, ports=[PortRequest(53, "udp", "", 5353)])

        def listen() -> socket.socket:
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind(("0.0.0.0", 53))
            receiver.settimeout(2)
            return receiver

        def ask() -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.settimeout(2)
                sender.sendto(b"name?", (HOST, 5353))
                data, peer = receiver.recvfrom(100)
                receiver.sendto(data.upper(), peer)
                return sender.recv(100)

        with in_network_namespace(namespace, listen) as receiver:
            assert in_network_namespace(host.outside, ask) == b"NAME?"


@in_mount_and_network_namespace
def test_udp_client_that_never_stops_reaches_the_next_container(tmp_path: Path) -> None:
    """Its connection is remembered by the kernel, first as one to the host, then as one to a container now gone."""

    def open_socket() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(1)
        return made

    with machine(tmp_path) as host, in_network_namespace(host.outside, open_socket) as client:
        for name in ("a" * 64, "b" * 64):
            with contextlib.suppress(OSError):
                client.sendto(b"nobody there", (HOST, 5353))
            namespace = host.network.make_namespace(name)
            host.network.connect(name, namespace, ports=[PortRequest(53, "udp", "", 5353)])
            with in_network_namespace(namespace, open_socket) as receiver:
                receiver.bind(("0.0.0.0", 53))
                client.sendto(b"hello", (HOST, 5353))
                assert receiver.recv(100) == b"hello"
            host.network.disconnect(name)


@in_mount_and_network_namespace
def test_publishing_without_nftables_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(filters, "Nft", refuse)
    with machine(tmp_path) as host:
        first, second = (host.network.make_namespace(name) for name in ("a" * 64, "b" * 64))
        endpoint = host.network.connect("a" * 64, first)
        with pytest.raises(Unavailable, match="nftables does not work on this host: Protocol not supported"):
            host.network.connect("b" * 64, second, ports=[PortRequest(80)])
        host.network.connect("b" * 64, second)
        with server(first, 80):
            call(second, endpoint.ip_address, 80)
        host.network.disconnect("b" * 64)
        host.network.remove_all()


@in_mount_and_network_namespace
def test_a_port_is_given_once(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        first, second = (host.network.make_namespace(name) for name in ("a" * 64, "b" * 64))
        host.network.connect("a" * 64, first, name="one", ports=[PortRequest(80, "tcp", "", 8080)])
        wanted = [PortRequest(81), PortRequest(80, "tcp", "", 8080)]
        with pytest.raises(System) as taken:
            host.network.connect("b" * 64, second, name="two", ports=wanted)
        message = str(taken.value)
        assert message.startswith("driver failed programming external connectivity on endpoint two (")
        assert message.endswith("): Bind for 0.0.0.0:8080 failed: port is already allocated")
        assert host.network.endpoint("b" * 64) is None
        foreign = r"failed to bind host port 0\.0\.0\.0:7070/tcp: address already in use"
        with socket.create_server(("0.0.0.0", 7070)), pytest.raises(System, match=foreign):
            host.network.connect("b" * 64, second, ports=[PortRequest(80, "tcp", "", 7070)])
        with pytest.raises(OSError, match="already in use"):
            socket.create_server(("0.0.0.0", 8080))
        chosen = host.network.connect(
            "b" * 64, second, ports=[PortRequest(80, "tcp", "", 8080, 8090), PortRequest(81), PortRequest(81, "udp")]
        )
        assert chosen.ports[0].host_port == chosen.ports[1].host_port == 8081
        assert chosen.ports[2].host_port > 1024
        with server(second, 81):
            call(host.outside, HOST, chosen.ports[2].host_port)
