"""JSON shapes of networks. Source: Docker Engine API 1.51, `Network`, `NetworkCreateRequest`, `EndpointSettings`."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec import field

from holdfast.network.model import Endpoint, NetworkInfo, NetworkRequest
from holdfast.store.networks import PoolRecord
from holdfast.wire.containers import EndpointSettings


class IPAMPool(msgspec.Struct, rename="pascal", kw_only=True):
    """`IPAMConfig` of a network: one subnet."""

    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(msgspec.Struct, rename="pascal", kw_only=True):
    """`IPAM`."""

    driver: str = ""
    options: dict[str, str] | None = None
    config: tuple[IPAMPool, ...] | None = None


class ConfigReference(msgspec.Struct, rename="pascal", kw_only=True):
    """`ConfigReference`."""

    network: str = ""


class NetworkCreate(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of POST /networks/create."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = field(default=None, name="EnableIPv6")
    ipam: IPAM | None = field(default=None, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    check_duplicate: bool = False


class NetworkConnect(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


def network_request(body: NetworkCreate) -> NetworkRequest:
    """Give what a body asks for, in the network room's terms."""
    ipam = body.ipam or IPAM()
    return NetworkRequest(
        name=body.name,
        driver=body.driver or "bridge",
        scope=body.scope,
        ipam_driver=ipam.driver or "default",
        ipam_options=ipam.options,
        pools=tuple(
            PoolRecord(
                subnet=pool.subnet,
                ip_range=pool.ip_range,
                gateway=pool.gateway,
                reserved=pool.auxiliary_addresses or {},
            )
            for pool in ipam.config or ()
        ),
        enable_ipv4=body.enable_ipv4,
        enable_ipv6=body.enable_ipv6,
        internal=body.internal,
        attachable=body.attachable,
        ingress=body.ingress,
        config_only=body.config_only,
        config_from=body.config_from.network if body.config_from else "",
        options=body.options or {},
        labels=body.labels or {},
    )


def encode_network(network: NetworkInfo, *, with_endpoints: bool) -> dict[str, Any]:
    """Give a Network, keys in Docker's order. A list shows no endpoints, in any version since 1.28."""
    settings = network.settings
    endpoints = network.endpoints if with_endpoints else ()
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": _encode_nanoseconds(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": settings.enable_ipv4,
        "EnableIPv6": settings.enable_ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None if settings.ipam_options is None else dict(settings.ipam_options),
            "Config": None if network.pools is None else [_encode_pool(pool) for pool in network.pools],
        },
        "Internal": settings.internal,
        "Attachable": settings.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": settings.config_from},
        "ConfigOnly": settings.config_only,
        "Containers": {endpoint.container_id: _encode_container(endpoint) for endpoint in endpoints},
        "Options": dict(network.options),
        "Labels": dict(settings.labels),
    }


def _encode_pool(pool: PoolRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {"Subnet": pool.subnet}
    if pool.ip_range:
        shown["IPRange"] = pool.ip_range
    if pool.gateway:
        shown["Gateway"] = pool.gateway
    if pool.reserved:
        shown["AuxiliaryAddresses"] = dict(pool.reserved)
    return shown


def _encode_container(endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": endpoint.container_name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac_address,
        "IPv4Address": f"{endpoint.ip_address}/{endpoint.prefix_length}" if endpoint.ip_address else "",
        "IPv6Address": f"{endpoint.ip6_address}/{endpoint.prefix6_length}" if endpoint.ip6_address else "",
    }


def _encode_nanoseconds(seconds: float) -> str:
    """Give RFC 3339 in UTC with a fraction, for seconds since the Unix epoch."""
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e9):09d}Z"
