"""Routes of the engine itself. Docker Engine API, tag System."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import __version__
from holdfast.api import events
from holdfast.api.containers import summaries
from holdfast.api.filters import decode_filters
from holdfast.api.response import API_VERSION, MIN_API_VERSION, Response, json_response, text_response
from holdfast.api.router import Router
from holdfast.api.worker import SharedWork, in_worker
from holdfast.errors import InvalidParameter
from holdfast.kernel import identity
from holdfast.kernel.mountinfo import read_mountinfo
from holdfast.wire.build import encode_cache
from holdfast.wire.images import encode_summary
from holdfast.wire.system import (
    Counts,
    Machine,
    Part,
    encode_disk_usage,
    encode_info,
    encode_version,
)
from holdfast.wire.volumes import encode_usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.api.engine import Engine
    from holdfast.api.request import Request
    from holdfast.config import Config
    from holdfast.runtime.spec import HostFacts

routes = Router()
_usages = SharedWork()
routes.include(events.routes)

_PING_HEADERS = {
    "Builder-Version": "1",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_DISK_OBJECTS = frozenset({"container", "image", "volume", "build-cache"})
_IPV4_SETTINGS = Path("/proc/sys/net/ipv4")
_INITS = ("catatonit", "tini", "docker-init")


@routes.add_immediate("GET", "/_ping")
def ping(_request: Request, _engine: Engine) -> Response:
    """GET /_ping → 200 OK. Operation SystemPing. Builder-Version 1 keeps `docker build` from asking for BuildKit."""
    return text_response(200, "OK", _PING_HEADERS)


@routes.add_immediate("HEAD", "/_ping")
def ping_head(_request: Request, _engine: Engine) -> Response:
    """HEAD /_ping → 200, length 0. Operation SystemPingHead."""
    return text_response(200, "", _PING_HEADERS)


@routes.add_immediate("GET", "/version")
def version(_request: Request, engine: Engine) -> Response:
    """GET /version → 200 SystemVersion. Operation SystemVersion."""
    facts = engine.runtime.facts
    return json_response(
        200,
        encode_version(
            version=__version__,
            api_version=API_VERSION,
            min_api_version=MIN_API_VERSION,
            machine=identity.machine(),
            kernel_release=identity.kernel_release(),
            parts=(Part(facts.name, facts.version),),
        ),
    )


@routes.add("GET", "/info")
async def info(_request: Request, engine: Engine) -> Response:
    """GET /info → 200 SystemInfo. Operation SystemInfo."""
    return json_response(200, await in_worker(_info, engine))


@routes.add("GET", "/system/df", since=(1, 25))
async def disk_usage(request: Request, engine: Engine) -> Response:
    """GET /system/df → 200 SystemDataUsage. Operation SystemDataUsage."""
    asked = request.query.all("type") if request.api_version >= (1, 42) else []
    for kind in asked:
        if kind not in _DISK_OBJECTS:
            raise InvalidParameter(f"unknown object type: {kind}")
    wanted = frozenset(asked) or _DISK_OBJECTS
    version = request.api_version
    usage = await _usages.in_worker((id(engine), wanted, version), lambda: _disk_usage(engine, wanted, version))
    return json_response(200, usage)


def _disk_usage(engine: Engine, asked: frozenset[str], api_version: tuple[int, int]) -> dict[str, Any]:
    images = containers = volumes = None
    if "image" in asked:
        images = [encode_summary(listed, api_version, disk_usage=True) for listed in engine.images.disk_usage()]
    if "container" in asked:
        containers = summaries(engine, decode_filters(""), everything=True, limit=0, size=True)
    if "volume" in asked:
        volumes = [encode_usage(usage) for usage in engine.volumes.disk_usage()]
    cache = engine.builds.usage() if "build-cache" in asked else None
    return encode_disk_usage(
        images=images,
        layers_size_bytes=0 if images is None else engine.images.layers_size(),
        containers=containers,
        volumes=volumes,
        build_cache=None if cache is None else encode_cache(cache),
        builder_size_bytes=sum(record.size_bytes for record in cache or ()) if api_version < (1, 42) else 0,
    )


def _info(engine: Engine) -> dict[str, Any]:
    facts = engine.runtime.facts
    machine = _machine(engine.config, engine.runtime.host_facts())
    return encode_info(
        engine_id=_engine_id(engine.config.state_root),
        version=__version__,
        state_root=str(engine.config.state_root),
        labels=engine.config.labels,
        debug=engine.config.log_level.lower() == "debug",
        counts=_counts(engine),
        machine=machine,
        runtime=Part(facts.name, facts.version),
        runtimes={facts.name: str(facts.path)},
        init_binary=next((name for name in _INITS if shutil.which(name)), ""),
        volume_drivers=engine.volumes.driver_names,
        listeners=engine.events.listener_count,
        threads=threading.active_count(),
        now=_now(),
        warnings=_warnings(machine),
    )


def _counts(engine: Engine) -> Counts:
    by_status = Counter(container.state.status for container in engine.containers.all())
    running = by_status["running"] + by_status["restarting"]
    stopped = by_status.total() - running - by_status["paused"]
    return Counts(running, by_status["paused"], stopped, engine.images.count())


def _machine(config: Config, host: HostFacts) -> Machine:
    """Read what the machine is. Anything that cannot be read counts as absent: `info` must answer on every machine."""
    release = _os_release()
    cgroup_version = "2" if host.cgroup_v2 else "1"
    return Machine(
        name=platform.node(),
        kernel_release=identity.kernel_release(),
        architecture=identity.machine(),
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        cpus=identity.cpu_count(),
        memory_bytes=identity.total_memory_bytes(),
        cgroup_version=cgroup_version,
        controllers=host.controllers,
        swap_limit=host.swap_limit,
        ipv4_forwarding=_forwards_ipv4(config.bridge_name),
        backing_filesystem=_filesystem_of(config.state_root),
        security_options=_security_options(host),
        open_files=len(os.listdir("/proc/self/fd")),
    )


def _forwards_ipv4(bridge: str) -> bool:
    """Whether containers reach other hosts as far as this setting goes: it is switched on together with the bridge.

    /proc/sys/net shows the network namespace of whoever reads it, /sys/class/net that of its mount.
    """
    return not (_IPV4_SETTINGS / "conf" / bridge).exists() or _read(str(_IPV4_SETTINGS / "ip_forward")) == "1"


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _filesystem_of(path: Path) -> str:
    """Name the file system that holds `path`, by the longest mount point above it."""
    best, name = -1, "unknown"
    for entry in read_mountinfo():
        place = Path(entry.mount_point)
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, name = len(place.parts), entry.fstype
    return {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs"}.get(name, name)


def _security_options(host: HostFacts) -> Sequence[str]:
    options = []
    if _read("/sys/module/apparmor/parameters/enabled") == "Y":
        options.append("name=apparmor")
    if host.seccomp is not None:
        options.append("name=seccomp,profile=builtin")
    if host.cgroup_v2:
        options.append("name=cgroupns")
    return options


def _engine_id(state_root: Path) -> str:
    """Give an id that stays with this machine and state root, and does not show the machine's own."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"holdfast:{_read('/etc/machine-id')}:{state_root}"))


def _now() -> str:
    nanoseconds = time.time_ns()
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 1_000_000_000))
    return f"{whole}.{nanoseconds % 1_000_000_000:09}Z"


def _warnings(machine: Machine) -> Sequence[str]:
    """Say what is missing, in Docker's words where it has them."""
    missing = []
    for controller, text in (
        ("memory", "WARNING: No memory limit support"),
        ("cpu", "WARNING: No cpu cfs quota support"),
        ("pids", "WARNING: No pids limit support"),
    ):
        if controller not in machine.controllers:
            missing.append(text)
    if not machine.swap_limit:
        missing.append("WARNING: No swap limit support")
    if not machine.ipv4_forwarding:
        missing.append("WARNING: IPv4 forwarding is disabled")
    return missing
