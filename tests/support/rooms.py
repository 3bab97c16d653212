"""The rooms of an engine put together without its daemon, for tests that look below the API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.config import Config
from holdfast.containers.model import ContainerConfig, CreateRequest, HostConfig
from holdfast.containers.service import Containers
from holdfast.daemon import roots
from holdfast.events import Event, EventBus
from holdfast.images.rootfs import RootFs
from holdfast.images.service import Images
from holdfast.network.service import Network
from holdfast.runtime.logs import read_entries
from holdfast.runtime.runtime import Runtime
from holdfast.store import Store
from holdfast.volumes.drivers.local import LocalDriver
from holdfast.volumes.service import Volumes
from tests.support.images import busybox_archive


@dataclass(slots=True)
class Rooms:
    """The services, and the events since they were made."""

    config: Config
    store: Store
    volumes: Volumes
    images: Images
    containers: Containers
    events: list[Event]

    def create(self, *cmd: str, name: str = "", host: HostConfig | None = None, **config: object) -> str:
        """Make a container of busybox without network and give its id."""
        container, _ = self.containers.create(
            CreateRequest(
                name=name,
                config=ContainerConfig(image="busybox", cmd=cmd or ("true",), **config),  # type: ignore[arg-type]
                host_config=host or HostConfig(network_mode="none"),
            )
        )
        return container.id

    def run(self, *cmd: str, **more: object) -> tuple[str, int, bytes]:
        """Run a container to its end; gives id, exit code and output."""
        key = self.create(*cmd, **more)  # type: ignore[arg-type]
        container = self.containers.get(key)
        ended = container.ended()
        self.containers.start(key)
        assert ended.wait(20), "the container did not end"
        return key, container.state.exit_code, self.output(key)

    def output(self, key: str) -> bytes:
        """All that a container wrote."""
        path = self.config.state_root / "containers" / key / "container.log"
        return b"".join(entry.data for entry in read_entries(path))

    def actions(self, key: str) -> list[str]:
        """What happened to a container, in order."""
        return [event.action for event in self.events if event.actor_id == key]


@contextlib.contextmanager
def rooms_below(folder: Path) -> Iterator[Rooms]:
    """Open an engine's rooms below `folder`, with busybox:latest; what runs at the end is removed."""
    config = Config(
        state_root=folder / "state", run_root=folder / "run", cgroup_parent=f"/holdfast-test-{os.getpid()}"
    )
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, roots.prepare(config))
        store = Store(config.database_path)
        closing.callback(store.close)
        bus = EventBus()
        events: list[Event] = []
        bus.subscribe(events.append)
        volumes = Volumes(store, bus, LocalDriver(config.state_root))
        closing.callback(volumes.close)
        images = Images(config, store, bus)
        images.restore()
        network = Network(config, store, bus)
        closing.callback(network.close)
        containers = Containers(
            config, store, bus, volumes, images, RootFs(config.state_root), Runtime(config), network
        )
        closing.callback(containers.close)
        containers.restore()
        if not images.count():
            with busybox_archive().open("rb") as archive:
                images.load(archive)
        rooms = Rooms(config, store, volumes, images, containers, events)
        closing.callback(_remove_all, containers)
        yield rooms


def _remove_all(containers: Containers) -> None:
    for container in containers.all():
        containers.remove(container.id, force=True, volumes=True)
