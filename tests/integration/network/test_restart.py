"""Restarts, other programs that meddle, and the end of it all."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import System
from holdfast.kernel.mountinfo import read_mountinfo
from holdfast.kernel.nft import Nft, NftError
from holdfast.network import PortRequest
from holdfast.process.run import run
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.network import HOST, OUTSIDE, bridge_ports, call, card_names, delete_card, machine, refuses, server

pytestmark = pytest.mark.kernel


@in_mount_and_network_namespace
def test_restarted_engine_goes_on(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        live, dead = (host.network.make_namespace(name) for name in ("a" * 64, "b" * 64))
        before = host.network.connect("a" * 64, live, name="web", ports=[PortRequest(80, "tcp", "", 8080)])
        gone = host.network.connect("b" * 64, dead, ports=[PortRequest(80, "tcp", "", 8081)])
        host.network.close()
        with server(live, 80):
            assert call(host.outside, HOST, 8080) == OUTSIDE
            host.start({"a" * 64: live})
            assert host.network.endpoint("a" * 64) == before
            assert host.network.endpoint("b" * 64) is None
            assert call(host.outside, HOST, 8080) == OUTSIDE
            assert refuses(host.outside, HOST, 8081)
            fresh = host.network.make_namespace("c" * 64)
            with pytest.raises(System, match="port is already allocated"):
                host.network.connect("c" * 64, fresh, ports=[PortRequest(1, "tcp", "", 8080)])
            again = host.network.connect("c" * 64, fresh, address=gone.ip_address)
            assert again.ip_address == gone.ip_address
        assert not dead.exists()
        assert len(bridge_ports()) == 2


@in_mount_and_network_namespace
@pytest.mark.parametrize("harm", ["bridge", "table", "pair"])
def test_restart_makes_again_what_is_missing(tmp_path: Path, harm: str) -> None:
    with machine(tmp_path) as host:
        live = host.network.make_namespace("a" * 64)
        host.network.connect("a" * 64, live, ports=[PortRequest(80, "tcp", "", 8080)])
        host.network.close()
        if harm == "table":
            with Nft() as nft:
                nft.run("flush ruleset")
        else:
            delete_card("holdfast0" if harm == "bridge" else host.store.networks.endpoints()[0].device)
        with server(live, 80):
            assert refuses(host.outside, HOST, 8080)
            host.start({"a" * 64: live})
            assert call(host.outside, HOST, 8080) == OUTSIDE


@in_mount_and_network_namespace
def test_bridge_removed_under_a_running_engine_is_made_again(tmp_path: Path) -> None:
    with machine(tmp_path) as host:
        host.network.connect("a" * 64, host.network.make_namespace("a" * 64))
        delete_card("holdfast0")
        namespace = host.network.make_namespace("b" * 64)
        host.network.connect("b" * 64, namespace)
        with server(host.outside, 80):
            assert call(namespace, OUTSIDE, 80) == HOST


@in_mount_and_network_namespace
def test_flushed_ruleset_is_made_again(tmp_path: Path) -> None:
    with machine(tmp_path) as host, Nft() as nft:
        namespace = host.network.make_namespace("a" * 64)
        host.network.connect("a" * 64, namespace, ports=[PortRequest(80, "tcp", "", 8080)])
        nft.run("flush ruleset")
        with server(namespace, 80):
            _eventually(lambda: not refuses(host.outside, HOST, 8080))


@in_mount_and_network_namespace
@pytest.mark.parametrize("with_docker", [True, False])
def test_another_program_that_drops_forwarded_packets(tmp_path: Path, with_docker: bool) -> None:
    with machine(tmp_path) as host, Nft() as nft:
        base = "type filter hook forward priority filter; policy drop;"
        others = f"add table ip filter\nadd chain ip filter FORWARD {{ {base} }}\n"
        if with_docker:
            others += "add chain ip filter DOCKER-USER\nadd rule ip filter FORWARD jump DOCKER-USER\n"
        nft.run(others)
        before = nft.run("list table ip filter")
        namespace = host.network.make_namespace("a" * 64)
        host.network.connect("a" * 64, namespace, ports=[PortRequest(80, "tcp", "", 8080)])
        with server(host.outside, 80), server(namespace, 80):
            assert call(namespace, OUTSIDE, 80) == HOST
            assert call(host.outside, HOST, 8080) == OUTSIDE
            nft.run(f"flush ruleset\n{others}")
            _eventually(lambda: not refuses(host.outside, HOST, 8080))
        place = "DOCKER-USER" if with_docker else "FORWARD"
        assert nft.run(f"list chain ip filter {place}").count('comment "holdfast"') == 2
        host.network.remove_all()
        assert nft.run("list table ip filter") == before


@in_mount_and_network_namespace
def test_the_older_iptables_that_drop_forwarded_packets(tmp_path: Path, tool: Callable[[str], Path]) -> None:
    program = tool("iptables-legacy")
    if run([program, "-P", "FORWARD", "DROP"], timeout_s=10, check=False).returncode:
        pytest.skip("this kernel has no legacy iptables")
    before = run([program, "-S"], timeout_s=10).stdout
    with machine(tmp_path) as host:
        namespace = host.network.make_namespace("a" * 64)
        host.network.connect("a" * 64, namespace, ports=[PortRequest(80, "tcp", "", 8080)])
        with server(host.outside, 80), server(namespace, 80):
            assert call(namespace, OUTSIDE, 80) == HOST
            assert call(host.outside, HOST, 8080) == OUTSIDE
        assert run([program, "-S", "FORWARD"], timeout_s=10).stdout.count(b"holdfast0") == 2
        host.network.close()
        host.start({"a" * 64: namespace})
        assert run([program, "-S", "FORWARD"], timeout_s=10).stdout.count(b"holdfast0") == 2
        host.network.remove_all()
    assert run([program, "-S"], timeout_s=10).stdout == before


@in_mount_and_network_namespace
def test_nothing_stays_after_remove_all(tmp_path: Path) -> None:
    with machine(tmp_path) as host, Nft() as nft:
        mounts = len(read_mountinfo())
        for name in ("a" * 64, "b" * 64):
            host.network.connect(name, host.network.make_namespace(name), ports=[PortRequest(80)])
        host.network.remove_all()
        assert card_names() == {"lo", "up0"}
        with pytest.raises(NftError):
            nft.run("list table inet holdfast")
        assert len(read_mountinfo()) == mounts
        assert host.store.networks.endpoints() == []


def _eventually(condition: Callable[[], bool], within_s: float = 10) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
