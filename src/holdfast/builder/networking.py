"""The network of what a build runs: that of a container in the same mode. Joined before, left after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.builder.buildah import NETWORK
from holdfast.builder.model import BuildRequest
from holdfast.errors import InvalidParameter

if TYPE_CHECKING:
    from holdfast.network.service import Network as Networks

_HOST_GATEWAY: Final = "host-gateway"
_BRIDGE: Final = "bridge"
_LOCAL: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, slots=True)
class Network:
    """What a build has got. `mode` is for buildah: `none`, `host` or the place of `namespace` inside the sandbox."""

    mode: str
    namespace: Path | None
    hosts: tuple[str, ...]
    """`NAME:ADDRESS`, further lines of /etc/hosts."""
    resolv_conf: str
    hosts_file: str = _LOCAL


@contextlib.contextmanager
def networked(
    network: Networks, request: BuildRequest, build_id: str, namespace_of: Callable[[str], str], *, needed: bool
) -> Iterator[Network]:
    """Join a build to the network that it asks for, for the length of the block; to none unless that is `needed`.

    The default is the default bridge, as for containers. Raises NotFound, InvalidParameter, Conflict, System.
    """
    mode = request.network
    mode = _BRIDGE if mode in ("", "default") else mode
    if not needed:
        mode = "none"
    hosts = tuple(_host(entry, network) for entry in request.extra_hosts)
    resolv_conf = network.resolv_conf(host_network=mode == "host")
    if mode in ("none", "host"):
        yield Network(mode, None, hosts, resolv_conf)
        return
    if mode.startswith("container:"):
        yield Network(NETWORK, Path(namespace_of(mode.removeprefix("container:"))), hosts, resolv_conf)
        return
    with contextlib.ExitStack() as undo:
        namespace = network.make_namespace(build_id)
        undo.callback(network.remove_namespace, build_id)
        network.connect(build_id, namespace, network=mode, name=f"build-{build_id[:12]}")
        undo.callback(network.disconnect, build_id)
        yield Network(NETWORK, namespace, hosts, resolv_conf)


def _host(entry: str, network: Networks) -> str:
    """One `NAME:ADDRESS`, the address of this machine put in. Raises InvalidParameter."""
    name, separator, address = entry.partition(":")
    if not separator:
        name, separator, address = entry.partition("=")
    if not name or not address:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    return f"{name}:{network.get(_BRIDGE).gateway if address == _HOST_GATEWAY else address}"
