"""Which of a container's networks has its default route and its published ports. Pure.

It is the one of the highest priority; then one that speaks both IPv4 and IPv6; then the first by name; never one that
is internal. Source: Docker Engine API, `EndpointSettings.GwPriority`; moby, libnetwork, Endpoint.Less.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from holdfast.store.networks import NetworkRecord

Place = TypeVar("Place")


def choose_gateway(places: Iterable[tuple[NetworkRecord, int, Place]]) -> Place | None:
    """Choose among places, each with its network and its priority; None where none can be a gateway."""
    candidates = [entry for entry in places if versions_outside(entry[0])]
    chosen = min(candidates, key=lambda entry: _precedence(entry[0], entry[1]), default=None)
    return chosen[2] if chosen else None


def versions_outside(network: NetworkRecord) -> frozenset[int]:
    """Give the IP versions in which a network leads to the world outside."""
    settings = network.settings
    if network.driver != "bridge" or settings.internal:
        return frozenset()
    return frozenset(version for version, spoken in ((4, settings.enable_ipv4), (6, settings.enable_ipv6)) if spoken)


def _precedence(network: NetworkRecord, priority: int) -> tuple[int, bool, str]:
    return -priority, len(versions_outside(network)) < 2, network.name
