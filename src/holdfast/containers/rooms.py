"""What every part of this room works with: the other rooms, and a few facts shared by several parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.containers.archive_view import Watchers
from holdfast.containers.container import Container, Registry
from holdfast.containers.model import ContainerRecord
from holdfast.containers.staging import Staging
from holdfast.errors import NotFound

if TYPE_CHECKING:
    from holdfast.config import Config
    from holdfast.events import EventBus
    from holdfast.images.rootfs import RootFs
    from holdfast.images.service import Images
    from holdfast.network.service import Network
    from holdfast.runtime.runtime import Runtime
    from holdfast.store import Store
    from holdfast.volumes.service import Volumes


@dataclass(frozen=True, slots=True)
class Rooms:
    """The services a container is made of."""

    config: Config
    store: Store
    events: EventBus
    volumes: Volumes
    images: Images
    rootfs: RootFs
    network: Network
    runtime: Runtime
    registry: Registry
    staging: Staging
    watchers: Watchers = field(default_factory=Watchers)

    def files_of(self, container_id: str) -> Path:
        """Give the folder of a container that outlives reboots: its log and the files bound into it."""
        return self.config.state_root / "containers" / container_id

    def log_of(self, container_id: str) -> Path:
        """Give the path of a container's log."""
        return self.files_of(container_id) / "container.log"

    @contextlib.contextmanager
    def looking(self, container: Container) -> Iterator[None]:
        """Keep a container's root mounted for the length of the block, which begins with the lock held.

        Who comes last unmounts it, unless the container runs by then.
        """
        self.watchers.take_root(container.id)
        try:
            yield
        finally:
            with contextlib.ExitStack() as lock:
                with contextlib.suppress(NotFound):  # removed, its root unmounted with it
                    lock.enter_context(self.registry.hold(container))
                self.watchers.leave_root(container.id)
                if container.state.task is None:
                    self.unmount_root(container.id)

    def unmount_root(self, container_id: str) -> None:
        """Unmount a container's root, unless somebody looks at it, who does so later; the lock is held."""
        if not self.watchers.sees_root(container_id):
            self.rootfs.unmount(container_id)

    def cgroup_of(self, record: ContainerRecord) -> str:
        """Give the name of a container's control group."""
        parent = record.host_config.cgroup_parent
        return f"/{parent.strip('/')}/{record.id}" if parent else self.runtime.cgroup_path(record.id)

    def tell(self, container: Container, action: str, attributes: Mapping[str, str] | None = None) -> None:
        """Publish an event of a container, with the attributes that Docker gives all of them."""
        record = container.record
        self.events.publish(
            "container",
            action,
            record.id,
            {**record.labels, "image": record.config.image, "name": record.name, **(attributes or {})},
        )
