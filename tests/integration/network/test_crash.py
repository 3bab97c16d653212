"""The engine dies by SIGKILL while a container joins or leaves; the next one finds nothing in its way."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import faults
from holdfast.events import EventBus
from holdfast.network import Network, PortRequest
from holdfast.store import Store
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.network import HOST, OUTSIDE, Machine, bridge_ports, call, machine, refuses, server

pytestmark = [pytest.mark.kernel, pytest.mark.fault]

ONE, TWO = "a" * 64, "b" * 64
WEB = [PortRequest(80, "tcp", "", 8080)]


def connect(network: Network) -> None:
    network.connect(ONE, network.make_namespace(ONE), ports=WEB)


def connect_and_disconnect(network: Network) -> None:
    connect(network)
    network.disconnect(ONE)


@pytest.mark.parametrize(
    ("point", "work"),
    [
        ("endpoint-recorded-not-attached", connect),
        ("endpoint-attached-not-published", connect),
        ("endpoint-left-still-recorded", connect_and_disconnect),
        ("never", connect),
    ],
)
@in_mount_and_network_namespace
def test_killed(tmp_path: Path, point: str, work: Callable[[Network], None]) -> None:
    with machine(tmp_path) as host:
        die_in(host, point, work)
        host.start()
        assert host.store.networks.endpoints() == []
        assert not (host.config.run_root / "netns" / ONE).exists()
        assert refuses(host.outside, HOST, 8080)
        namespace = host.network.make_namespace(TWO)
        endpoint = host.network.connect(TWO, namespace, ports=WEB)
        with server(namespace, 80):
            assert call(host.outside, HOST, 8080) == OUTSIDE
            assert call(None, endpoint.ip_address, 80) == endpoint.gateway
        host.network.close()
        assert len(bridge_ports()) == 1
        host.start()


def die_in(host: Machine, point: str, work: Callable[[Network], None]) -> None:
    """Run `work` with an engine's network in a child that is killed at `point`, at the latest when it is done."""
    host.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, none of which the child uses
        child = os.fork()
    if child == 0:
        try:
            faults.arm(point)
            network = Network(host.config, Store(host.config.database_path), EventBus())
            network.restore({})
            work(network)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    host.store = Store(host.config.database_path)
