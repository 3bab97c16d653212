"""From the flags of `network create` to the request that makes the network. Source: docker/cli, network/create.go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from holdfast.cli.command import key_value
from holdfast.cli.session import Refused

Fields = dict[str, object]


def network_body(name: str, values: Mapping[str, object]) -> Fields:
    """The body of NetworkCreate. `values` are the flags by their names. Raises Refused for what does not fit."""

    def texts(key: str) -> Sequence[str]:
        found = values[key]
        assert isinstance(found, tuple)
        return found

    body: Fields = {"Name": name, "Driver": values["driver"]}
    ipam: Fields = {
        "Driver": values["ipam_driver"],
        "Options": dict(map(key_value, texts("ipam_options"))),
        "Config": _pools(texts("subnets"), texts("ranges"), texts("gateways"), texts("aux_addresses")),
    }
    body["IPAM"] = ipam
    for key, field in (("internal", "Internal"), ("attachable", "Attachable"), ("config_only", "ConfigOnly")):
        if values[key]:
            body[field] = True
    for key, field in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if values[key] is not None:
            body[field] = values[key]
    if values["config_from"]:
        body["ConfigFrom"] = {"Network": values["config_from"]}
    body["Options"] = dict(map(key_value, texts("options")))
    body["Labels"] = dict(map(key_value, texts("labels")))
    return body


def _pools(
    subnets: Sequence[str], ranges: Sequence[str], gateways: Sequence[str], others: Sequence[str]
) -> list[Fields]:
    """Give each range, gateway and other host's address to the subnet that holds it."""
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise Refused("every ip-range or gateway must have a corresponding subnet")
    pools: dict[str, Fields] = {}
    for text in subnets:
        subnet = _subnet(text)
        if any(subnet.version == other.version and _overlap(subnet, other) for other in map(_subnet, pools)):
            raise Refused("multiple overlapping subnet configuration is not supported")
        pools[text] = {"Subnet": text}
    for text in ranges:
        pool = _holder(pools, str(_subnet(text).network_address), f"no matching subnet for range {text}")
        if "IPRange" in pool:
            raise Refused(
                f"cannot configure multiple ranges ({text}, {pool['IPRange']}) on the same subnet ({pool['Subnet']})"
            )
        pool["IPRange"] = text
    for text in gateways:
        pool = _holder(pools, text, f"no matching subnet for gateway {text}")
        if "Gateway" in pool:
            raise Refused(
                f"cannot configure multiple gateways ({text}, {pool['Gateway']}) for the same subnet ({pool['Subnet']})"
            )
        pool["Gateway"] = text
    for entry in others:
        name, text = key_value(entry)
        pool = _holder(pools, text, f"no matching subnet for aux-address {text}")
        known = pool.setdefault("AuxiliaryAddresses", {})
        assert isinstance(known, dict)
        known[name] = text
    return list(pools.values())


def _overlap(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return one.network_address in other or other.network_address in one


def _subnet(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise Refused(f"invalid CIDR address: {text}") from None


def _holder(pools: Mapping[str, Fields], text: str, otherwise: str) -> Fields:
    try:
        address = ip_address(text)
    except ValueError:
        raise Refused(f"invalid IP address: {text}") from None
    for subnet, pool in pools.items():
        if address in _subnet(subnet):
            return pool
    raise Refused(otherwise)
