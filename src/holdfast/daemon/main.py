"""From configuration to a serving engine and back: open, restore, listen, wait for the end, close in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

from holdfast import __version__, log
from holdfast.api import archive as api_archive
from holdfast.api import build as api_build
from holdfast.api import checks as api_checks
from holdfast.api import container_files as api_container_files
from holdfast.api import containers as api_containers
from holdfast.api import exec as api_exec
from holdfast.api import images as api_images
from holdfast.api import networks as api_networks
from holdfast.api import plugins as api_plugins
from holdfast.api import stats as api_stats
from holdfast.api import system as api_system
from holdfast.api import trash as api_trash
from holdfast.api import volumes as api_volumes
from holdfast.api.engine import Engine
from holdfast.api.router import Router
from holdfast.api.server import serve, tcp_sockets, unix_socket
from holdfast.api.tls import server_context
from holdfast.api.worker import finish_work
from holdfast.builder.service import Builds
from holdfast.config import Config
from holdfast.containers.service import Containers
from holdfast.daemon import roots, systemd
from holdfast.daemon.leaving import Leaving
from holdfast.events import EventBus
from holdfast.images.rootfs import RootFs
from holdfast.images.service import Images
from holdfast.network.service import Network
from holdfast.plugins.registry import Plugins, Timeouts
from holdfast.runtime.runtime import Runtime
from holdfast.shapes import know_structs
from holdfast.store import Store
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.drivers.plugin import PluginHost
from holdfast.volumes.drivers.workers import Workers
from holdfast.volumes.model import TrashPolicy
from holdfast.volumes.service import Volumes

logger = log.get(__name__)

_GRACE_S = 5.0
_SWITCH_S = 0.0005
"""How long a thread keeps the interpreter while another one waits for it; the event loop waits for busy threads."""


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Containers run on when the engine ends, and the next one takes them over.

    Where none runs, the kernel shows no trace of the engine afterwards: see `leaving` and `roots`.

    Raises EngineError if the engine cannot start; nothing is left behind then.
    """
    began = time.monotonic()
    log.configure(config.log_level)
    os.umask(0o022)
    activated = systemd.activation_sockets()
    with contextlib.ExitStack() as closing:
        lock = roots.prepare(config)
        closing.callback(os.close, lock)
        closing.callback(roots.release, config)
        sockets, tls = _listen(config, activated)
        if not activated:
            closing.callback(config.socket_path.unlink, missing_ok=True)
        know_structs()
        engine = _open(config, closing)
        sys.setswitchinterval(_SWITCH_S)
        asyncio.run(_serve(engine, sockets, tls, began))


def router() -> Router:
    """Give every route of the API."""
    everything = Router()
    for part in (api_system, api_volumes, api_trash, api_checks, api_containers, api_archive, api_container_files,
                 api_stats, api_exec, api_images, api_build, api_networks, api_plugins):  # fmt: skip
        everything.include(part.routes)
    return everything


def _open(config: Config, closing: contextlib.ExitStack) -> Engine:
    """Make the services and bring them into agreement with disk, kernel and each other."""
    store = Store(config.database_path)
    closing.callback(store.close)
    events = EventBus()
    policy = TrashPolicy(
        config.trash_keep_s, config.trash_limit_bytes, config.trash_grace_s, config.trash_keep_anonymous
    )
    workers = Workers(config.mount_timeout_s)
    local = LocalDriver(config.state_root, workers)
    plugins = PluginHost(
        Plugins(timeouts=Timeouts(config.plugin_mount_timeout_s, config.plugin_timeout_s)),
        store.intents,
        workers,
        config.run_root / "plugin-volumes",
        (config.state_root, config.run_root),
    )
    volumes = Volumes(store, events, local, policy, plugins)
    closing.callback(volumes.close)
    images = Images(config, store, events)
    network = Network(config, store, events)
    closing.callback(network.close)
    runtime = Runtime(config)
    leaving = Leaving(network, runtime)
    closing.callback(leaving.clear)
    rootfs = RootFs(config.state_root)
    containers = Containers(config, store, events, volumes, images, rootfs, runtime, network)
    closing.callback(containers.close)
    closing.callback(finish_work)
    closing.callback(volumes.give_up_waiting)
    images.restore()
    containers.restore()
    leaving.restored = containers
    builds = Builds(config, store, images, network, runtime)
    builds.namespace_of = containers.network_namespace
    builds.restore()
    closing.callback(builds.close)
    return Engine(config, store, events, volumes, images, containers, runtime, network, builds)


def _listen(config: Config, activated: list[socket.socket]) -> tuple[list[socket.socket], ssl.SSLContext | None]:
    sockets = activated or [unix_socket(config.socket_path, mode=config.socket_mode, group=config.socket_group)]
    if not config.tcp_address:
        return sockets, None
    tls = server_context(ca=config.tls_ca, certificate=config.tls_certificate, key=config.tls_key)
    return [*sockets, *tcp_sockets(config.tcp_address)], tls


async def _serve(engine: Engine, sockets: list[socket.socket], tls: ssl.SSLContext | None, began: float) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await serve(sockets, engine, router(), tls=tls)
    logger.info(
        "engine is ready",
        extra={
            "version": __version__,
            "socket": engine.config.socket_path,
            "tcp": engine.config.tcp_address or "none",
            "after_ms": round((time.monotonic() - began) * 1000),
        },
    )
    systemd.notify("READY=1")
    _in_background(engine.network.warm_up, engine.containers.apply_restart_policies, engine.volumes.finish_start)
    await ended.wait()
    logger.info("engine is stopping, containers run on")
    systemd.notify("STOPPING=1")
    engine.containers.give_up_waiting()
    await server.stop(_GRACE_S)


def _in_background(*works: Callable[[], None]) -> None:
    """Do what makes the first requests faster, or may take long, after the engine answers."""
    for work in works:
        threading.Thread(target=work, name=work.__name__, daemon=True).start()
