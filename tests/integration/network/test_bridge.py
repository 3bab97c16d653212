"""Containers on the default bridge: each other, the world outside, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import Conflict, NotFound
from holdfast.events import Event
from holdfast.kernel.namespaces import in_network_namespace
from holdfast.kernel.nft import Nft
from holdfast.network.links import rtnetlink
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.network import HOST, OUTSIDE, bridge_ports, call, card_names, machine, refuses, server

pytestmark = pytest.mark.kernel


@in_mount_and_network_namespace
def test_two_containers_reach_each_other(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        first, second = (host.network.make_namespace(name) for name in ("a" * 64, "b" * 64))
        one = host.network.connect("a" * 64, first)
        two = host.network.connect("b" * 64, second)
        assert one.ip_address != two.ip_address
        assert one.gateway == two.gateway
        assert one.prefix_length == 16
        assert one.mac_address.startswith("02:42:")
        with server(first, 80):
            assert call(second, one.ip_address, 80) == two.ip_address
            assert call(None, one.ip_address, 80) == one.gateway


@in_mount_and_network_namespace
def test_container_borrows_the_hosts_address_outside(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        host.network.connect("a" * 64, namespace)
        with server(host.outside, 80):
            assert call(namespace, OUTSIDE, 80) == HOST


@in_mount_and_network_namespace
def test_outside_cannot_enter_where_no_port_is_published(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        endpoint = host.network.connect("a" * 64, namespace)
        with server(namespace, 80):
            assert refuses(host.outside, endpoint.ip_address, 80)
            assert refuses(host.outside, HOST, 80)
            with Nft() as nft:
                nft.run("flush chain inet holdfast forward")
            assert call(host.outside, endpoint.ip_address, 80) == OUTSIDE, "there is a way but for our rules"


@in_mount_and_network_namespace
def test_cards_are_as_large_as_the_uplinks_and_have_no_ipv6(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        host.network.connect("a" * 64, namespace)

        def look() -> tuple[int, str]:
            with rtnetlink("look") as kernel:
                (card,) = kernel.link("get", ifname="eth0")
                return card.get("mtu"), Path("/proc/thread-self/net/if_inet6").read_text()

        mtu, ipv6 = in_network_namespace(namespace, look)
        assert mtu == 1450
        assert "eth0" not in ipv6
        assert "lo" in ipv6
        assert "hf" not in Path("/proc/net/if_inet6").read_text().replace("holdfast0", "")


@in_mount_and_network_namespace
def test_address_is_free_after_disconnect_and_the_card_goes(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        endpoint = host.network.connect("a" * 64, namespace, address="")
        host.network.disconnect("a" * 64)
        host.network.disconnect("a" * 64)
        assert host.network.endpoint("a" * 64) is None
        again = host.network.connect("b" * 64, host.network.make_namespace("b" * 64), address=endpoint.ip_address)
        assert again.ip_address == endpoint.ip_address
        with server(tmp_path / "run" / "netns" / ("b" * 64), 80):
            assert call(None, again.ip_address, 80) == again.gateway
        with pytest.raises(Conflict, match="Address already in use"):
            host.network.connect("c" * 64, namespace, address=endpoint.ip_address)
        host.network.disconnect("b" * 64)
        host.network.close()
        assert card_names() == {"lo", "up0", "holdfast0"}
        host.start()


@in_mount_and_network_namespace
def test_small_subnet_runs_out_and_is_refilled(tmp_path: Path) -> None:
    with machine(tmp_path, bridge_subnet="10.9.8.0/29") as host:
        for number in range(5):
            name = str(number) * 64
            host.network.connect(name, host.network.make_namespace(name))
        for _ in range(3):
            host.network.disconnect("2" * 64)
            endpoint = host.network.connect("2" * 64, host.network.make_namespace("2" * 64))
            assert endpoint.ip_address == "10.9.8.4"


@in_mount_and_network_namespace
def test_none_and_host_are_only_recorded(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        seen: list[Event] = []
        _, end = host.events.subscribe(seen.append)
        endpoint = host.network.connect("a" * 64, Path("/nowhere"), network="none", name="quiet")
        assert endpoint.ip_address == ""
        assert endpoint.network_name == "none"
        host.network.connect("b" * 64, Path("/nowhere"), network="host")
        host.network.disconnect("a" * 64)
        with pytest.raises(NotFound, match="network nope not found"):
            host.network.connect("c" * 64, Path("/nowhere"), network="nope")
        end()
        assert [(event.type, event.action, event.attributes["type"]) for event in seen] == [
            ("network", "connect", "null"),
            ("network", "connect", "host"),
            ("network", "disconnect", "null"),
        ]
        assert "holdfast0" not in card_names()


@in_mount_and_network_namespace
def test_failed_connect_leaves_nothing(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        with pytest.raises(Exception, match="failed to create endpoint"):
            host.network.connect("a" * 64, tmp_path / "missing")
        assert host.network.endpoint("a" * 64) is None
        assert host.store.networks.endpoints() == []
        assert bridge_ports() == []
