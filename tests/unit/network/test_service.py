"""Networks by name and id, without touching the kernel's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.api.networks import select
from holdfast.config import Config
from holdfast.errors import Conflict, InvalidParameter, NotFound
from holdfast.events import Event, EventBus
from holdfast.network import Network
from holdfast.store import Store
from holdfast.store.networks import PoolRecord
from holdfast.wire.networks import encode_network

NOWHERE = Path("/nowhere")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    config = replace(
        Config(), state_root=tmp_path, run_root=tmp_path / "run", bridge_name="hftest9", bridge_subnet="198.18.0.0/24"
    )
    store = Store(config.database_path)
    made = Network(config, store, EventBus())
    yield made
    made.close()
    store.close()


def test_built_in_networks_keep_their_ids(network: Network) -> None:
    networks = {info.name: info for info in network.list()}
    drivers = [(name, info.driver) for name, info in networks.items()]
    assert drivers == [("bridge", "bridge"), ("host", "host"), ("none", "null")]
    bridge = networks["bridge"]
    assert bridge.pools == (PoolRecord(subnet="198.18.0.0/24", gateway="198.18.0.1"),)
    assert network.get("default").id == network.get(bridge.id).id == network.get(bridge.id[:12]).id == bridge.id
    for name in ("nope", ""):
        with pytest.raises(NotFound, match=f"network {name} not found"):
            network.get(name)


def test_endpoints_without_address(tmp_path: Path) -> None:
    store = Store(tmp_path / "holdfast.db")
    events = EventBus()
    seen: list[Event] = []
    events.subscribe(seen.append)
    config = replace(Config(), state_root=tmp_path, run_root=tmp_path / "run", bridge_name="hftest9")
    first = Network(config, store, events)
    endpoint = first.connect("a" * 64, NOWHERE, network="none", name="web")
    first.connect("b" * 64, NOWHERE, network="host")
    with pytest.raises(Conflict, match="already connected"):
        first.connect("a" * 64, NOWHERE, network="none")
    first.rename("a" * 64, "site")
    first.close()
    second = Network(config, store, events)
    second.restore({"a" * 64: NOWHERE})
    assert second.endpoint("a" * 64) == replace(endpoint, container_name="site")
    assert second.endpoint("b" * 64) is None
    second.disconnect("a" * 64)
    assert [event.action for event in seen] == ["connect", "connect", "disconnect"]
    assert seen[0].attributes == {"container": "a" * 64, "name": "none", "type": "null"}
    second.close()
    store.close()


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["bridge", "host", "none"]),
        ({"name": ["o"]}, ["host", "none"]),
        ({"driver": ["bridge", "null"]}, ["bridge", "none"]),
        ({"type": ["builtin"]}, ["bridge", "host", "none"]),
        ({"type": ["custom"]}, []),
        ({"dangling": ["true"]}, []),
        ({"dangling": ["0"]}, ["bridge", "host", "none"]),
        ({"scope": ["swarm"]}, []),
        ({"label": ["x"]}, []),
        ({"id": ["-"]}, []),
    ],
)
def test_filters(network: Network, filters: dict[str, list[str]], names: list[str]) -> None:
    assert [info.name for info in select(network.list(), filters)] == names


def test_filter_that_makes_no_sense(network: Network) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter: 'type'='x'"):
        select(network.list(), {"type": ["x"]})


def test_shapes(network: Network) -> None:
    endpoint = network.connect("a" * 64, NOWHERE, network="none", name="web")
    shape = encode_network(network.get("none"), with_endpoints=True)
    assert shape["Containers"] == {
        "a" * 64: {
            "Name": "web",
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": "",
            "IPv4Address": "",
            "IPv6Address": "",
        }
    }
    assert shape["IPAM"] == {"Driver": "default", "Options": None, "Config": None}
    bridge = encode_network(network.get("bridge"), with_endpoints=False)
    assert bridge["IPAM"]["Config"] == [{"Subnet": "198.18.0.0/24", "Gateway": "198.18.0.1"}]
    assert bridge["Options"]["com.docker.network.bridge.name"] == "hftest9"
    assert bridge["Created"].endswith("Z")
    assert list(bridge)[:5] == ["Name", "Id", "Created", "Scope", "Driver"]


def test_addresses_that_cannot_be_given(network: Network) -> None:
    with pytest.raises(InvalidParameter, match="invalid IPv4 address: x"):
        network.connect("a" * 64, NOWHERE, address="x")
    with pytest.raises(InvalidParameter, match="does not belong"):
        network.connect("a" * 64, NOWHERE, address="10.0.0.1")
    with pytest.raises(Conflict, match="Address already in use"):
        network.connect("a" * 64, NOWHERE, address="198.18.0.1")
    with pytest.raises(InvalidParameter, match="x is not a valid mac address"):
        network.connect("a" * 64, NOWHERE, mac_address="x")
    assert network.endpoint("a" * 64) is None
