"""What a request handler can reach: the services, gathered once by the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.builder.service import Builds
    from holdfast.config import Config
    from holdfast.containers.service import Containers
    from holdfast.events import EventBus
    from holdfast.images.service import Images
    from holdfast.network.service import Network
    from holdfast.runtime.runtime import Runtime
    from holdfast.store import Store
    from holdfast.volumes.service import Volumes


@dataclass(frozen=True, slots=True)
class Engine:
    """The services behind the API. Their methods block: call them through `in_worker`."""

    config: Config
    store: Store
    events: EventBus
    volumes: Volumes
    images: Images
    containers: Containers
    runtime: Runtime
    network: Network
    builds: Builds
