"""The values of `-p` and `--expose`: `[address:][host port:]port[/protocol]`, each port one number or a range.

Source: docs.docker.com, "Publishing ports"; the messages are those of docker 28.
"""

from __future__ import annotations

from collections.abc import Iterable

_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})


def parse_published(specs: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """`PortBindings` of the API: for each `80/tcp` the host addresses and ports. Raises ValueError."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for spec in specs:
        for port, address, host_port in _expand(spec):
            bindings.setdefault(port, []).append({"HostIp": address, "HostPort": host_port})
    return bindings


def parse_exposed(specs: Iterable[str]) -> list[str]:
    """The ports, as `80/tcp`, that `--expose` names. Raises ValueError."""
    out: list[str] = []
    for spec in specs:
        if ":" in spec:
            raise ValueError(f"invalid port format for --expose: {spec}")
        text, protocol = _protocol(spec)
        first, last = _range(text, f"invalid range format for --expose: {text}")
        out += [f"{port}/{protocol}" for port in range(first, last + 1)]
    return out


def _expand(spec: str) -> Iterable[tuple[str, str, str]]:
    text, protocol = _protocol(spec)
    address, host_text, inner_text = _parts(text)
    if not inner_text:
        raise ValueError(f"no port specified: {spec}<empty>")
    first, last = _range(inner_text, f"invalid containerPort: {inner_text}")
    if not host_text:
        return [(f"{port}/{protocol}", address, "") for port in range(first, last + 1)]
    host_first, host_last = _range(host_text, f"invalid hostPort: {host_text}")
    if last - first == host_last - host_first:
        pairs = zip(range(first, last + 1), range(host_first, host_last + 1), strict=True)
        return [(f"{port}/{protocol}", address, str(host_port)) for port, host_port in pairs]
    if first != last:
        raise ValueError(f"invalid ranges specified for container and host Ports: {inner_text} and {host_text}")
    return [(f"{first}/{protocol}", address, f"{host_first}-{host_last}")]  # any free one of the range


def _protocol(spec: str) -> tuple[str, str]:
    text, given, protocol = spec.partition("/")
    protocol = protocol.lower() if given else "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    return text, protocol


def _parts(text: str) -> tuple[str, str, str]:
    """Address, host port and port; an IPv6 address may stand in brackets or bare before the last two colons."""
    if text.startswith("["):
        address, closed, rest = text[1:].partition("]:")
        if not closed:
            raise ValueError(f"invalid IP address: {text}")
        host_port, _, port = rest.rpartition(":")
    else:
        rest, _, port = text.rpartition(":")
        address, _, host_port = rest.rpartition(":")
    return _checked_address(address), host_port, port


def _checked_address(address: str) -> str:
    if address:
        from ipaddress import ip_address

        try:
            ip_address(address.partition("%")[0])
        except ValueError:
            raise ValueError(f"invalid IP address: {address}") from None
    return address


def _range(text: str, complaint: str) -> tuple[int, int]:
    first, given, last = text.partition("-")
    last = last if given else first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) <= 65535):
        raise ValueError(complaint)
    return int(first), int(last)
