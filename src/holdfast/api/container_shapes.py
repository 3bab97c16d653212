"""The joint of `wire` and `containers`: requests become records, records become the shapes of the API."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from holdfast.api.attach import parse_detach_keys
from holdfast.containers import model
from holdfast.containers.exec import Exec, ExecConfig
from holdfast.containers.logconfig import DEFAULT_DRIVER
from holdfast.containers.networking import dns_names, networks_of, parse_port
from holdfast.containers.security import parse_security_options
from holdfast.containers.status import describe
from holdfast.volumes.mounts import MountPoint, MountSpec
from holdfast.wire import containers as wire
from holdfast.wire import exec as wire_exec

if TYPE_CHECKING:
    from holdfast.containers.container import Container
    from holdfast.containers.service import Containers
    from holdfast.network.model import Endpoint

_OPTIONS = ("bind", "volume", "tmpfs", "image", "cluster")


def create_request(
    body: wire.ContainerCreate, name: str, platform: str, api_version: tuple[int, int]
) -> model.CreateRequest:
    """Give what a body asks for. Raises msgspec.ValidationError only if the two rooms disagree on a field."""
    host = body.host_config or wire.HostConfig()
    mounts = host.mounts
    endpoints = (body.networking_config.endpoints_config if body.networking_config else None) or {}
    return model.CreateRequest(
        name=name,
        platform=platform,
        config=msgspec.convert(body, type=model.ContainerConfig, from_attributes=True),
        host_config=host_config(host),
        mounts=tuple(mount_spec(mount) for mount in mounts or ()),
        endpoints={key: endpoint_config(value or wire.EndpointSettings()) for key, value in endpoints.items()},
        api_version=api_version,
    )


def container_config(body: wire.ContainerConfig) -> model.ContainerConfig:
    """Give the portable half of a request by itself, as a commit may send it."""
    return msgspec.convert(body, type=model.ContainerConfig, from_attributes=True)


def host_config(host: wire.HostConfig) -> model.HostConfig:
    """Give the half of a request that depends on the machine."""
    mounts, host.mounts = host.mounts, None
    converted = msgspec.convert(host, type=model.HostConfig, from_attributes=True)
    host.mounts = mounts
    return replace(converted, mounts=wire.encode_mounts(host))


def mount_spec(mount: wire.Mount) -> MountSpec:
    """Give an entry of `HostConfig.Mounts` in the volumes room's terms."""
    given = frozenset(
        f"{kind.capitalize()}Options" for kind in _OPTIONS if getattr(mount, f"{kind}_options") is not None
    )
    bind = mount.bind_options or wire.BindOptions()
    volume = mount.volume_options or wire.VolumeOptions()
    tmpfs = mount.tmpfs_options or wire.TmpfsOptions()
    image = mount.image_options or wire.ImageOptions()
    driver = volume.driver_config or wire.DriverConfig()
    return MountSpec(
        type=mount.type,
        source=mount.source,
        target=mount.target,
        read_only=mount.read_only,
        given=given,
        propagation=bind.propagation,
        non_recursive=bind.non_recursive,
        create_mountpoint=bind.create_mountpoint,
        read_only_non_recursive=bind.read_only_non_recursive,
        read_only_force_recursive=bind.read_only_force_recursive,
        no_copy=volume.no_copy,
        labels=volume.labels,
        driver=driver.name,
        driver_options=driver.options,
        subpath=volume.subpath or image.subpath,
        tmpfs_size_bytes=tmpfs.size_bytes,
        tmpfs_mode=tmpfs.mode,
        tmpfs_options=tmpfs.options or (),
    )


def exec_config(body: wire_exec.ExecCreate) -> ExecConfig:
    """Give what an exec's body asks for."""
    return ExecConfig(
        cmd=tuple(body.cmd or ()),
        env=body.env or (),
        user=body.user,
        working_dir=body.working_dir,
        tty=body.tty,
        attach_stdin=body.attach_stdin,
        attach_stdout=body.attach_stdout,
        attach_stderr=body.attach_stderr,
        privileged=body.privileged,
        detach_keys=body.detach_keys,
        console_size=console_size(body.console_size),
    )


def console_size(size: tuple[int, ...] | None) -> tuple[int, int] | None:
    """Give rows and columns, None if there are not two numbers."""
    return (size[0], size[1]) if size and len(size) >= 2 else None


def exec_inspect(found: Exec) -> wire_exec.ExecInspect:
    """Give an exec as inspect shows it."""
    config = found.config
    return wire_exec.ExecInspect(
        id=found.id,
        running=found.running,
        exit_code=found.exit_code,
        process_config=wire_exec.ProcessConfig(
            tty=config.tty,
            entrypoint=config.cmd[0],
            arguments=list(config.cmd[1:]),
            privileged=config.privileged,
            user=config.user,
        ),
        open_stdin=config.attach_stdin,
        open_stderr=config.attach_stderr,
        open_stdout=config.attach_stdout,
        can_remove=found.exit_code is not None and not found.running and found.pid == 0,
        container_id=found.container.id,
        detach_keys=b64encode(parse_detach_keys(config.detach_keys)).decode() if config.detach_keys else "",
        pid=found.pid,
    )


def inspect(containers: Containers, container: Container, size: tuple[int, int] | None) -> wire.ContainerInspect:
    """Give a container as inspect shows it; `size` is what it changed and what all of it takes, in bytes."""
    record, state = container.record, container.state
    endpoint = containers.endpoint(container)
    files = containers.files_of(container)
    argv = record.argv
    upper, merged, lower = containers.rootfs_of(container)
    execs = [key for key, found in container.execs.items() if found.running]
    return wire.ContainerInspect(
        id=record.id,
        created=wire.encode_time(record.created_at),
        path=argv[0] if argv else "",
        args=list(argv[1:]),
        state=wire.ContainerState(
            status=state.status,
            running=state.running,
            paused=state.status == "paused",
            restarting=state.status == "restarting",
            oom_killed=state.oom_killed,
            dead=state.status == "dead",
            pid=state.pid,
            exit_code=state.exit_code,
            error=state.error,
            started_at=wire.encode_time(state.started_at),
            finished_at=wire.encode_time(state.finished_at),
            health=_health(container.health) if container.health else msgspec.UNSET,
        ),
        image=record.image_id,
        resolv_conf_path=str(files / "resolv.conf") if state.started_at else "",
        hostname_path=str(files / "hostname") if state.started_at else "",
        hosts_path=str(files / "hosts") if state.started_at else "",
        log_path=str(containers.log_of(container))
        if state.started_at and record.host_config.log_config.type == DEFAULT_DRIVER
        else "",
        name=f"/{record.name}",
        restart_count=state.restart_count,
        driver="overlay2",
        platform=record.platform,
        exec_ids=execs or None,
        app_armor_profile=parse_security_options(record.host_config.security_opt or ()).apparmor,
        host_config={
            **wire.encode_host_config(record.host_config),
            "Runtime": record.host_config.runtime or containers.runtime_name,
        },
        graph_driver=wire.GraphDriver(
            {
                "ID": record.id,
                "LowerDir": ":".join(map(str, lower)),
                "MergedDir": str(merged),
                "UpperDir": str(upper),
                "WorkDir": str(upper.with_name("work")),
            },
            "overlay2",
        ),
        size_rw=size[0] if size else msgspec.UNSET,
        size_root_fs=size[1] if size else msgspec.UNSET,
        mounts=[mount_point(point) for point in record.mounts],
        config=wire.encode_config(record.config),
        network_settings=_network_settings(containers, container, endpoint),
    )


def summary(
    containers: Containers, container: Container, image_name: str, size: tuple[int, int] | None
) -> wire.ContainerSummary:
    """Give a container as lists show it."""
    record, state = container.record, container.state
    endpoint = containers.endpoint(container)
    argv = record.argv
    return wire.ContainerSummary(
        id=record.id,
        names=[f"/{record.name}"],
        image=image_name,
        image_id=record.image_id,
        command=wire.command_text(argv[0], argv[1:]) if argv else "",
        created=int(record.created_at.timestamp()),
        ports=_ports(record, endpoint),
        size_rw=(size[0] or msgspec.UNSET) if size else msgspec.UNSET,
        size_root_fs=(size[1] or msgspec.UNSET) if size else msgspec.UNSET,
        labels=dict(record.labels),
        state=state.status,
        status=describe(state, model.now(), container.health.status if container.health else ""),
        host_config={"NetworkMode": record.host_config.network_mode},
        network_settings={"Networks": _networks(containers, container)},
        mounts=[mount_point(point) for point in record.mounts],
    )


def mount_point(point: MountPoint) -> wire.MountPoint:
    """Give a mount point as inspect and lists show it."""
    return wire.MountPoint(
        type=point.type,
        name=point.name,
        source=point.source,
        destination=point.destination,
        driver=point.driver if point.type == "volume" else "",
        mode=point.mode,
        rw=point.rw,
        propagation=point.propagation,
    )


def _health(found: model.Health) -> wire.Health:
    return wire.Health(
        status=found.status,
        failing_streak=found.failing_streak,
        log=[
            wire.HealthcheckResult(
                start=wire.encode_time(result.start),
                end=wire.encode_time(result.end),
                exit_code=result.exit_code,
                output=result.output,
            )
            for result in found.log
        ],
    )


def endpoint_config(settings: wire.EndpointSettings) -> model.EndpointConfig:
    """Give what a container wants of a network."""
    return model.EndpointConfig(
        aliases=settings.aliases,
        links=settings.links,
        ipv4_address=settings.ipam_config.ipv4_address if settings.ipam_config else "",
        ipv6_address=settings.ipam_config.ipv6_address if settings.ipam_config else "",
        link_local_ips=(settings.ipam_config.link_local_ips or ()) if settings.ipam_config else (),
        asks_addresses=settings.ipam_config is not None,
        mac_address=settings.mac_address,
        driver_opts=settings.driver_opts,
        gw_priority=settings.gw_priority,
    )


def _networks(containers: Containers, container: Container) -> dict[str, wire.EndpointInfo]:
    record = container.record
    found = {endpoint.network_name: endpoint for endpoint in containers.endpoints(container)}
    shown = {}
    for name, config in networks_of(record).items():
        info = wire.EndpointInfo(
            ipam_config=_ipam_config(config),
            links=config.links,
            aliases=config.aliases,
            driver_opts=config.driver_opts,
            gw_priority=config.gw_priority,
        )
        endpoint = found.get(name)
        if endpoint is not None:
            _fill_in(info, endpoint)
        elif container.state.started_at is not None:
            info.network_id, has_names = containers.network_id(name)
            info.dns_names = dns_names(record, config) if has_names else None
        shown[name] = info
    return shown


def _ipam_config(config: model.EndpointConfig) -> dict[str, str] | None:
    if not config.asks_addresses:
        return None
    asked = {"IPv4Address": config.ipv4_address, "IPv6Address": config.ipv6_address}
    return {key: value for key, value in asked.items() if value}


def _fill_in(info: wire.EndpointInfo, endpoint: Endpoint) -> None:
    """Show what a container has got."""
    info.mac_address = endpoint.mac_address
    info.network_id = endpoint.network_id
    info.endpoint_id = endpoint.endpoint_id
    info.gateway = endpoint.gateway
    info.ip_address = endpoint.ip_address
    info.ip_prefix_len = endpoint.prefix_length
    info.ipv6_gateway = endpoint.gateway6
    info.global_ipv6_address = endpoint.ip6_address
    info.global_ipv6_prefix_len = endpoint.prefix6_length
    info.dns_names = endpoint.names


def _network_settings(
    containers: Containers, container: Container, endpoint: Endpoint | None
) -> wire.NetworkSettings:
    record = container.record
    shown = wire.NetworkSettings(networks=_networks(containers, container))
    if endpoint is None:
        return shown
    shown.sandbox_id = endpoint.container_id
    shown.sandbox_key = f"/var/run/docker/netns/{endpoint.container_id[:12]}"
    shown.ports = _port_map(record, endpoint)
    bridge = shown.networks.get("bridge")
    if bridge is not None:
        shown.endpoint_id = bridge.endpoint_id
        shown.gateway = bridge.gateway
        shown.ip_address = bridge.ip_address
        shown.ip_prefix_len = bridge.ip_prefix_len
        shown.mac_address = bridge.mac_address
    return shown


def _port_map(record: model.ContainerRecord, endpoint: Endpoint) -> dict[str, list[wire.PortBinding] | None]:
    ports: dict[str, list[wire.PortBinding] | None] = dict.fromkeys(_exposed(record.config.exposed_ports or {}))
    for port in endpoint.ports:
        binding = wire.PortBinding(host_ip=port.host_ip, host_port=str(port.host_port))
        key = f"{port.container_port}/{port.protocol}"
        ports[key] = [*(ports.get(key) or ()), binding]
    return ports


def _ports(record: model.ContainerRecord, endpoint: Endpoint | None) -> list[wire.Port]:
    if endpoint is None:
        return []
    shown = [
        wire.Port(ip=port.host_ip, private_port=port.container_port, public_port=port.host_port, type=port.protocol)
        for port in endpoint.ports
    ]
    published = {(port.container_port, port.protocol) for port in endpoint.ports}
    for text in _exposed(record.config.exposed_ports or {}):
        number, protocol = parse_port(text)
        if (number, protocol) not in published:
            shown.append(wire.Port(private_port=number, type=protocol))
    return shown


def _exposed(ports: Mapping[str, object]) -> list[str]:
    return [f"{number}/{protocol}" for number, protocol in map(parse_port, ports)]
