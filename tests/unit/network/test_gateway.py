"""Which network has a container's default route."""

from __future__ import annotations

import pytest

from holdfast.network.gateway import choose_gateway
from holdfast.store.networks import NetworkRecord, NetworkSettings


def network(name: str, *, ipv6: bool = False, internal: bool = False, driver: str = "bridge") -> NetworkRecord:
    return NetworkRecord(name, name, driver, "", 0.0, NetworkSettings(enable_ipv6=ipv6, internal=internal))


@pytest.mark.parametrize(
    ("places", "chosen"),
    [
        ((), None),
        (((network("a", internal=True), 9),), None),
        (((network("none", driver="null"), 0),), None),
        (((network("b"), 0), (network("a"), 0)), "a"),
        (((network("a"), 0), (network("b", ipv6=True), 0)), "b"),
        (((network("a", ipv6=True), 0), (network("b"), 1)), "b"),
        (((network("a"), -1), (network("b"), 0), (network("c", internal=True), 5)), "b"),
    ],
)
def test_choice(places: tuple[tuple[NetworkRecord, int], ...], chosen: str | None) -> None:
    assert choose_gateway((record, priority, record.name) for record, priority in places) == chosen
