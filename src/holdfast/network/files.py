"""The text of a container's /etc/resolv.conf and /etc/hosts. Pure but for the reading of the host's resolv.conf."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

HOST_RESOLV_CONF = Path("/etc/resolv.conf")
UPSTREAM_RESOLV_CONFS = (
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
)
"""Where local resolvers keep the servers behind them."""

PUBLIC_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
"""Used where the host names no server that a container can reach, as Docker does."""

OWN_RESOLVER = "127.0.0.11"
"""Where the resolver of user-defined networks listens, in each container's own network namespace."""

HOST_GATEWAY = "host-gateway"

HOSTS_HEAD = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What matters of a resolv.conf(5)."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a resolv.conf(5): every `nameserver`, the last `search` or `domain`, all `options`."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        keyword, values = words[0], words[1:]
        if keyword == "nameserver" and values:
            nameservers.append(values[0])
        elif keyword in ("search", "domain"):
            search = tuple(values)
        elif keyword == "options":
            options += values
    return ResolvConf(tuple(nameservers), search, tuple(options))


def reachable_nameservers(nameservers: Iterable[str]) -> tuple[str, ...]:
    """Leave out what a container on the bridge cannot ask: loopback addresses, IPv6, and what is no address."""
    kept: list[str] = []
    for text in nameservers:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if isinstance(address, IPv4Address) and not address.is_loopback and not address.is_unspecified:
            kept.append(text)
    return tuple(kept)


def host_resolv_conf(
    path: Path = HOST_RESOLV_CONF, upstream: Sequence[Path] = UPSTREAM_RESOLV_CONFS, *, host_network: bool = False
) -> ResolvConf:
    """Give the host's settings with name servers that a container can reach.

    Where the host asks a resolver on its own loopback, the servers are those that this resolver asks. A container in
    the host's network can use the loopback too and gets the file as it is. A file that is not there is empty.
    """
    own = parse_resolv_conf(_read(path))
    if host_network:
        return own
    for candidate in (own, *(parse_resolv_conf(_read(other)) for other in upstream)):
        nameservers = reachable_nameservers(candidate.nameservers)
        if nameservers:
            return ResolvConf(nameservers, own.search or candidate.search, own.options)
    return ResolvConf(PUBLIC_NAMESERVERS, own.search, own.options)


def resolv_conf(host: ResolvConf, dns: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    """Give the file's text; each of `dns`, `search` and `options` replaces the host's where it is given.

    A search of `.` alone means none. Source: docker-run(1), `--dns`, `--dns-search`, `--dns-option`.
    """
    domains = [domain for domain in (search or host.search) if domain]
    if domains == ["."]:
        domains = []
    lines = [f"nameserver {server}" for server in (dns or host.nameservers)]
    if domains:
        lines.append("search " + " ".join(domains))
    chosen = list(options or host.options)
    if chosen:
        lines.append("options " + " ".join(chosen))
    return "".join(line + "\n" for line in lines)


def own_resolv_conf(host: ResolvConf, search: Sequence[str], options: Sequence[str]) -> str:
    """Give the file's text on a user-defined network: our resolver, which is asked even for names without a dot.

    A number of dots that the user gave stays. Source: moby, libnetwork/internal/resolvconf.
    """
    chosen = list(options or host.options)
    if not any(option.startswith("ndots:") for option in options):
        chosen = [option for option in chosen if not option.startswith("ndots:")] + ["ndots:0"]
    return resolv_conf(host, (OWN_RESOLVER,), search, chosen)


def own_hosts_lines(hostname: str, domainname: str, addresses: Sequence[str]) -> list[str]:
    """Give the lines with a container's own name, one for each of its addresses."""
    full = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    return [f"{address}\t{full}\n" for address in addresses]


def hosts_file(
    hostname: str,
    domainname: str,
    addresses: Sequence[str],
    extra_hosts: Sequence[str],
    *,
    host_gateway: str,
    head: str = HOSTS_HEAD,
) -> str:
    """Give the file's text: loopback names, `extra_hosts`, and the container's own name for each of its addresses.

    An entry of `extra_hosts` is `NAME:ADDRESS` or `NAME=ADDRESS`; the address may be `host-gateway` and, for IPv6,
    in brackets. Source: Docker Engine API, `HostConfig.ExtraHosts`; docker-run(1), `--add-host`.
    """
    lines = [head if head.endswith("\n") else head + "\n"]
    for entry in extra_hosts:
        separator = "=" if "=" in entry else ":"
        name, _, address = entry.partition(separator)
        address = host_gateway if address == HOST_GATEWAY else address.removeprefix("[").removesuffix("]")
        lines.append(f"{address}\t{name}\n")
    return "".join([*lines, *own_hosts_lines(hostname, domainname, addresses)])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def host_hosts_file(path: Path = Path("/etc/hosts")) -> str:
    """Give the host's own file, or the loopback names where it has none."""
    return _read(path) or HOSTS_HEAD
