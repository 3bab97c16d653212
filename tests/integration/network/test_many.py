"""Many containers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.network import PortRequest
from tests.support.namespace import in_mount_and_network_namespace
from tests.support.network import call, card_names, machine, server

pytestmark = pytest.mark.kernel


@in_mount_and_network_namespace
def test_threads_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    with machine(tmp_path) as host:

        def live(number: int) -> str:
            container = f"{number:064x}"
            for turn in range(3):
                namespace = host.network.make_namespace(container)
                endpoint = host.network.connect(container, namespace, ports=[PortRequest(80)] * (number % 2))
                if turn == 2:
                    return endpoint.ip_address
                host.network.disconnect(container)
                host.network.remove_namespace(container)
            raise AssertionError

        with ThreadPoolExecutor(8) as pool:
            addresses = list(pool.map(live, range(40)))
        assert len(set(addresses)) == 40
        for number in (0, 1, 39):
            container = f"{number:064x}"
            endpoint = host.network.endpoint(container)
            assert endpoint is not None
            with server(host.config.run_root / "netns" / container, 80):
                call(None, endpoint.ip_address, 80)
                for port in endpoint.ports:
                    call(None, "127.0.0.1", port.host_port)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: host.network.disconnect(f"{number:064x}"), range(40)))
        assert host.store.networks.endpoints() == []
        host.network.remove_all()
        assert card_names() == {"lo", "up0"}
