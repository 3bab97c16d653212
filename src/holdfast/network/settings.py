"""What may be asked of a new network, checked in Docker's words. Pure.

Source: Docker Engine API, operationId NetworkCreate; moby, daemon/network.go and libnetwork's bridge driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import AddressValueError, NetmaskValueError, ip_address, ip_network
from typing import Final

from holdfast.errors import Forbidden, InvalidParameter, NotFound, Unsupported
from holdfast.network.model import NetworkRequest
from holdfast.network.segment import (
    BRIDGE_NAME,
    ENABLE_ICC,
    FALSE_WORDS,
    HOST_BINDING,
    MASQUERADE,
    MTU,
    TRUE_WORDS,
    Network,
)
from holdfast.store.networks import NetworkSettings, PoolRecord

PREDEFINED: Final = ("bridge", "host", "none", "default")
_LONGEST_DEVICE_NAME: Final = 15
"""IFNAMSIZ of linux/if.h, less its last zero."""
_ENDPOINT_TROUBLE: Final = "invalid endpoint settings:"


def check_name(name: str) -> None:
    """Raise Forbidden for a name that is taken for good, InvalidParameter for one that is none."""
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")


def check(request: NetworkRequest) -> None:
    """Raise InvalidParameter, Forbidden, NotFound or Unsupported for a network that cannot be."""
    check_name(request.name)
    if request.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    _check_driver(request.driver)
    if request.scope not in ("", "local"):
        raise Forbidden(f"cannot create a {request.scope} scoped network when swarm is not active")
    if request.enable_ipv4 is False and not request.enable_ipv6:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    if request.ipam_driver not in ("", "default"):
        raise NotFound(f'plugin "{request.ipam_driver}" not found')
    _check_options(request)
    _raise_all("invalid network config:", [trouble for pool in request.pools for trouble in _pool_troubles(pool)])
    versions = [ip_network(pool.subnet).version for pool in request.pools]
    if len(set(versions)) != len(versions):
        raise Forbidden("bridge driver doesn't support multiple subnets")


def endpoint_troubles(networks: Iterable[Network], ranges: Iterable[Network], address: str, version: int) -> list[str]:
    """Give what is wrong with an address that a container asks for.

    `networks` are those subnets of the network that somebody configured, `ranges` the parts that addresses may come
    from. Source: moby, api/types/network/endpoint.go.
    """
    if not address:
        return []
    troubles = []
    try:
        parsed = ip_address(address)
    except ValueError:
        parsed = None
    if parsed is None or parsed.version != version:
        troubles.append(f"invalid IPv{version} address: {address}")
    own = [network for network in networks if network.version == version]
    if not own:
        troubles.append(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    elif parsed is None or not any(parsed in network for network in (*own, *ranges)):
        troubles.append(f"no configured subnet or ip-range contain the IP address {address}")
    return troubles


def raise_endpoint_troubles(network: str, troubles: list[str]) -> None:
    """Raise InvalidParameter in Docker's words where there are any."""
    _raise_all(f"invalid config for network {network}: {_ENDPOINT_TROUBLE}", troubles)


def settle(
    request: NetworkRequest, bridge: str, choose: Callable[[], Network], choose6: Callable[[], Network]
) -> NetworkSettings:
    """Give a checked request's settings; `choose` and `choose6` give free subnets where none was asked for."""
    enable_ipv4 = request.enable_ipv4 is not False
    enable_ipv6 = bool(request.enable_ipv6)
    pools = [*request.pools]
    versions = {ip_network(pool.subnet).version for pool in pools}
    for version, wanted, chooser in ((4, enable_ipv4, choose), (6, enable_ipv6, choose6)):
        if wanted and version not in versions and not request.config_only:
            subnet = chooser()
            pools.append(PoolRecord(subnet=str(subnet), gateway=str(subnet[1]), chosen=True))
    return NetworkSettings(
        pools=tuple(pools),
        bridge=request.options.get(BRIDGE_NAME) or bridge,
        enable_ipv4=enable_ipv4,
        enable_ipv6=enable_ipv6,
        internal=request.internal,
        attachable=request.attachable,
        config_only=request.config_only,
        config_from=request.config_from,
        ipam_options=request.ipam_options,
        options=dict(request.options),
        labels=dict(request.labels),
    )


def _check_driver(driver: str) -> None:
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay":
        raise Forbidden(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
            "swarm and try again."
        )
    if driver in ("macvlan", "ipvlan"):
        raise Unsupported(
            f"network driver {driver} is not supported: this engine makes bridge networks only",
            hint="use the driver bridge, or the network host",
        )
    if driver != "bridge":
        raise NotFound(f'plugin "{driver}" not found')


def _check_options(request: NetworkRequest) -> None:
    for option in (ENABLE_ICC, MASQUERADE):
        value = request.options.get(option, "true")
        if value not in TRUE_WORDS | FALSE_WORDS:
            raise InvalidParameter(
                f'failed to parse {option} value: {value} (strconv.ParseBool: parsing "{value}": invalid syntax)'
            )
    mtu = request.options.get(MTU, "")
    if mtu and not (mtu.isascii() and mtu.isdigit()):
        raise InvalidParameter(f'failed to parse {MTU} value: {mtu} (strconv.Atoi: parsing "{mtu}": invalid syntax)')
    if mtu and not 68 <= int(mtu) <= 65535:
        raise InvalidParameter(f"invalid MTU {mtu}: must be between 68 and 65535")
    bridge = request.options.get(BRIDGE_NAME, "")
    if (
        len(bridge.encode()) > _LONGEST_DEVICE_NAME
        or any(character in '/:"' or character.isspace() for character in bridge)
        or bridge in (".", "..")
    ):
        raise InvalidParameter(f"invalid bridge name {bridge!r}: at most 15 characters, no slash, colon or space")
    binding = request.options.get(HOST_BINDING, "")
    if binding:
        try:
            found = ip_address(binding)
        except ValueError:
            found = None
        if found is None or found.version != 4:
            raise InvalidParameter(f"failed to parse {HOST_BINDING} value: {binding} (nil ip)")


def _pool_troubles(pool: PoolRecord) -> list[str]:
    """Give what is wrong with one subnet. Source: moby, api/types/network/ipam.go."""
    try:
        subnet = ip_network(pool.subnet)
    except (AddressValueError, NetmaskValueError, ValueError):
        try:
            near = ip_network(pool.subnet, strict=False)
        except ValueError:
            return [f"invalid subnet {pool.subnet}: invalid CIDR block notation"]
        if "/" not in pool.subnet:
            return [f"invalid subnet {pool.subnet}: invalid CIDR block notation"]
        return [f"invalid subnet {pool.subnet}: it should be {near}"]
    if "/" not in pool.subnet:
        return [f"invalid subnet {pool.subnet}: invalid CIDR block notation"]
    troubles = []
    if pool.ip_range:
        troubles += _range_troubles(pool.ip_range, subnet)
    if pool.gateway:
        troubles += _address_troubles("gateway", pool.gateway, pool.gateway, subnet)
    for name, address in pool.reserved.items():
        troubles += _address_troubles("auxiliary address", name, address, subnet)
    return troubles


def _range_troubles(text: str, subnet: Network) -> list[str]:
    try:
        part = ip_network(text, strict=False)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if part.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    if str(part) != text:
        return [f"invalid ip-range {text}: it should be {part}"]
    if part.network_address not in subnet or part.broadcast_address not in subnet:
        return [f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"]
    return []


def _address_troubles(what: str, name: str, text: str, subnet: Network) -> list[str]:
    try:
        address = ip_address(text)
    except ValueError:
        return [f"invalid {what} {name}: invalid address"]
    if address.version != subnet.version:
        return [f"invalid {what} {name}: parent subnet is an IPv{subnet.version} block"]
    if address not in subnet:
        return [f"invalid {what} {name}: parent subnet {subnet} doesn't contain this address"]
    return []


def _raise_all(head: str, troubles: list[str]) -> None:
    if len(troubles) == 1:
        raise InvalidParameter(f"{head}\n{troubles[0]}")
    if troubles:
        raise InvalidParameter(head + "".join(f"\n* {trouble}" for trouble in troubles))
