"""What no container can be, whatever the machine: words that mean nothing, and options that contradict each other.

Rules and texts are Docker's (`runconfig`, `daemon/container.go`). What Docker takes and drops without a word is said in
a warning, or refused where nobody can have meant it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from holdfast.containers import logconfig, policy
from holdfast.containers.health import validate as validate_health
from holdfast.containers.model import ContainerConfig, CreateRequest, HostConfig
from holdfast.containers.networking import port_requests
from holdfast.containers.signals import parse_signal
from holdfast.errors import InvalidParameter, Unsupported
from holdfast.network.addresses import parse_mac
from holdfast.network.files import HOST_GATEWAY

_TMPFS_FLAGS = frozenset({
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "remount",
    "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
    "nostrictatime", "bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave",
    "rslave",
})  # fmt: skip
_TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})
_MAC_IS_OLD = (
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)
_BEFORE_ENDPOINT_MAC = (1, 43)


def check_request(request: CreateRequest) -> tuple[str, ...]:
    """Check a request by itself; gives warnings. Raises InvalidParameter, Unsupported."""
    config, host = request.config, request.host_config
    _check_config(config)
    policy.check(host.restart_policy, auto_remove=host.auto_remove)
    logconfig.validate(host.log_config)
    _check_modes(host)
    _check_network_mode(config, host)
    _check_host(host)
    for path, options in (host.tmpfs or {}).items():
        _check_tmpfs(path, options)
    warnings = _mac_address(request)
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    if host.network_mode.startswith("container:"):
        lost = {"Domainname": config.domainname, "DnsOptions": host.dns_options, "DnsSearch": host.dns_search}
        for name in (name for name, value in lost.items() if value):
            warnings.append(f"{name} is discarded: a container has the names and servers of the one that it joins")
    if any(endpoint.links and not is_user_defined(name) for name, endpoint in request.endpoints.items()):
        warnings.append("Links are discarded: containers on a network of their own find each other by name")
    if host.volume_driver and any(mount.type == "volume" and not mount.driver for mount in request.mounts):
        warnings.append(
            "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
            "Use '--mount type=volume,volume-driver=...' instead"
        )
    return tuple(warnings)


def _check_config(config: ContainerConfig) -> None:
    validate_health(config.healthcheck)
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    check_environment(config.env or ())


def check_environment(variables: Sequence[str]) -> None:
    """Check that each entry names a variable. Raises InvalidParameter."""
    for variable in variables:
        if not variable or variable.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {variable}")


def _check_modes(host: HostConfig) -> None:
    """Modes of namespaces. Source: moby, api/types/container, the `Valid` of each mode."""
    _check_mode("IPC", host.ipc_mode, ("none", "private", "shareable", "host"), joins=True)
    _check_mode("PID", host.pid_mode, ("host",), joins=True)
    _check_mode("UTS", host.uts_mode, ("host",))
    _check_mode("USER", host.userns_mode, ("host",))
    _check_mode("cgroup namespace", host.cgroupns_mode, ("host", "private"))
    if host.isolation not in ("", "default"):
        raise InvalidParameter(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.cgroup:
        raise Unsupported("a container cannot use the control group of another", hint="use CgroupParent")
    if {".", ".."} & set(host.cgroup_parent.split("/")):
        raise InvalidParameter(f"invalid cgroup parent: {host.cgroup_parent}")


def _check_mode(kind: str, mode: str, words: Sequence[str], *, joins: bool = False) -> None:
    named = joins and mode.startswith("container:") and mode != "container:"
    if mode and mode not in words and not named:
        raise InvalidParameter(f"invalid {kind} mode: {mode}")


def _check_network_mode(config: ContainerConfig, host: HostConfig) -> None:
    """What a container cannot have of its own on another's network or the host's. Source: moby, validateNetMode."""
    if host.uts_mode == "host" and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if host.uts_mode == "host" and config.domainname:
        raise InvalidParameter("conflicting options: domain name and the UTS mode")
    if host.network_mode == "host" and host.links:
        raise _conflict("host type networking can't be used with links. This would result in undefined behavior")
    if not host.network_mode.startswith("container:"):
        return
    if host.network_mode == "container:":
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    for given, why in (
        (config.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (config.mac_address, "mac-address and the network mode"),
        (
            any((host.port_bindings or {}).values()) or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if given:
            raise _conflict(why)


def _conflict(why: str) -> InvalidParameter:
    return InvalidParameter(f"conflicting options: {why}")


def _check_host(host: HostConfig) -> None:
    port_requests(host, {})
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    for address in host.dns or ():
        try:
            ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise InvalidParameter(
                f'bad nameserver address {address}: ParseAddr("{address}"): unable to parse IP'
            ) from None
    for entry in host.extra_hosts or ():
        _check_extra_host(entry)
    if "" in (host.annotations or {}):
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")
    for option in host.storage_opt or {}:
        if option.lower() != "size":
            raise InvalidParameter(f"Unknown option {option}")
        raise Unsupported(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            hint="give the data that may grow a volume with a size of its own",
        )
    if host.links and not is_user_defined(host.network_mode):
        raise Unsupported(
            "links are not supported",
            hint="connect both containers to a network of their own: there they find each other by name",
        )


def is_user_defined(network: str) -> bool:
    """Whether it is a network's own name, or a network mode that is one. Source: moby, NetworkMode.IsUserDefined."""
    return network not in ("", "default", "bridge", "host", "none") and not network.startswith("container:")


def _check_extra_host(entry: str) -> None:
    """Source: moby, opts.ValidateExtraHost."""
    name, colon, address = entry.partition(":")
    if not name or not colon:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address == HOST_GATEWAY:
        return
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from None


def _check_tmpfs(path: str, options: str) -> None:
    """Source: moby, daemon/volume/mounts and sys/mount, MergeTmpfsOptions."""
    for option in filter(None, options.split(",")):
        name, equals, _ = option.partition("=")
        if option not in _TMPFS_FLAGS and not (equals and name in _TMPFS_VALUES):
            raise InvalidParameter(f'invalid tmpfs option "{name}"', hint=f"at {path}")


def _mac_address(request: CreateRequest) -> list[str]:
    """The container-wide address of old; from API 1.44 on it belongs to the endpoint."""
    address = request.config.mac_address
    endpoint = request.endpoints.get(request.host_config.network_mode or "bridge")
    of_endpoint = endpoint.mac_address if endpoint else ""
    if address and parse_mac(address) != parse_mac(of_endpoint or address):
        raise InvalidParameter(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
            "or be left empty"
        )
    return [_MAC_IS_OLD] if address and request.api_version > _BEFORE_ENDPOINT_MAC else []
