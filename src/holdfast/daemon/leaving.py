"""What an engine that ends well takes away with it, so that the kernel shows no trace of it.

Only where nothing runs: the next engine finds running containers again by what is left for it.
"""

from __future__ import annotations

from holdfast import log
from holdfast.containers.service import Containers
from holdfast.errors import EngineError
from holdfast.network.service import Network
from holdfast.runtime.runtime import Runtime

logger = log.get(__name__)


class Leaving:
    """To be called after the containers' service has been closed and before any other."""

    def __init__(self, network: Network, runtime: Runtime) -> None:
        self._network = network
        self._runtime = runtime
        self.restored: Containers | None = None
        """Set once it is known what runs; before that nothing is taken away."""

    def clear(self) -> None:
        """Remove bridge, packet rules and pinned namespaces. What cannot be removed is logged, and found again."""
        if self.restored is None or any(container.state.task is not None for container in self.restored.all()):
            return
        for work in (self._network.remove_all, self._runtime.leave):
            try:
                work()
            except (EngineError, OSError) as error:
                logger.warning("something of the engine stays in the kernel", extra={"error": str(error)})
