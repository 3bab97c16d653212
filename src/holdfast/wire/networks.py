"""JSON shapes of networks. Source: Docker Engine API 1.51, `Network`, `EndpointSettings`, `PortBinding`."""

from __future__ import annotations

import time
from typing import Any

from holdfast.network.model import Endpoint, NetworkInfo


def encode_network(network: NetworkInfo, *, with_endpoints: bool) -> dict[str, Any]:
    """Give a Network, keys in Docker's order. A list shows no endpoints, in any version since 1.28."""
    config = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else None
    endpoints = network.endpoints if with_endpoints else ()
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": _encode_nanoseconds(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": config},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {endpoint.container_id: _encode_container(endpoint) for endpoint in endpoints},
        "Options": dict(network.options),
        "Labels": {},
    }


def encode_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """Give an EndpointSettings, as `NetworkSettings.Networks` of a container shows it."""
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": endpoint.mac_address,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.ip_address,
        "IPPrefixLen": endpoint.prefix_length,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def encode_ports(endpoint: Endpoint) -> dict[str, list[dict[str, str]]]:
    """Give the published ports of a running container, as `NetworkSettings.Ports` shows them."""
    ports: dict[str, list[dict[str, str]]] = {}
    for port in endpoint.ports:
        binding = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
        ports.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    return ports


def _encode_container(endpoint: Endpoint) -> dict[str, str]:
    address = f"{endpoint.ip_address}/{endpoint.prefix_length}" if endpoint.ip_address else ""
    return {
        "Name": endpoint.container_name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac_address,
        "IPv4Address": address,
        "IPv6Address": "",
    }


def _encode_nanoseconds(seconds: float) -> str:
    """Give RFC 3339 in UTC with a fraction, for seconds since the Unix epoch."""
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e9):09d}Z"
