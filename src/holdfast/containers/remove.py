"""Removing containers.

    intent "container.remove"  →  volumes.release  →  folder discarded  →  one transaction: row gone, intent ended


Volumes are released before the row goes: a row without references is a removal to finish, references without a row
would be volumes that nobody can free.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from holdfast import faults, log
from holdfast.containers.container import Container
from holdfast.containers.folders import Folders
from holdfast.containers.rooms import Rooms
from holdfast.errors import Conflict, EngineError, NotFound

logger = log.get(__name__)

INTENT = "container.remove"


class Remover:
    """Removes containers that do not run."""

    def __init__(self, rooms: Rooms, lane: Executor) -> None:
        self._rooms = rooms
        self._lane = lane
        self._folders = Folders(rooms)

    def remove(
        self, container: Container, kill: Callable[[Container], None], *, force: bool = False, volumes: bool = False
    ) -> None:
        """Remove a container; with `force` a running one is killed by `kill`, with `volumes` its anonymous ones go.

        Raises Conflict in Docker's words, System if it cannot be killed. Source: Docker Engine API, operationId
        ContainerDelete.
        """
        self._claim(container)
        try:
            if container.state.running:
                if not force:
                    raise Conflict(f'cannot remove container "{container.name}": {_obstacle(container)}')
                kill(container)
            with self._rooms.registry.hold(container):
                if container.state.running:
                    raise Conflict(f'cannot remove container "{container.name}": {_obstacle(container)}')
                self.finish(container, volumes=volumes)
        except NotFound:
            return  # an AutoRemove container was quicker
        finally:
            container.removing = False

    def remove_ended(self, container: Container) -> None:
        """Remove an AutoRemove container that has ended, anonymous volumes too; the lock is held."""
        if not container.removing:
            self.finish(container, volumes=True)

    def finish(self, container: Container, *, volumes: bool) -> None:
        """Remove a container that does not run; the lock is held. Raises System; it can be tried again then."""
        rooms = self._rooms
        rooms.watchers.wait(container.id)
        status = container.state.status
        rooms.registry.note(container, status="removing")
        try:
            intent = rooms.store.intents.begin(INTENT, container.id, volumes="yes" if volumes else "")
            faults.point("container-removing")
            auto_remove = container.record.host_config.auto_remove
            rooms.volumes.release(container.id, remove_anonymous=volumes, auto_remove=auto_remove)
            faults.point("container-volumes-released")
            self._folders.discard(container.id)
            faults.point("container-folder-discarded")
            rooms.store.containers.remove(container.id, intent=intent)
        except EngineError:
            rooms.registry.note(container, status=status)
            raise
        faults.point("container-removed-not-told")
        rooms.registry.remove(container)
        rooms.registry.note(container, status="exited")
        rooms.tell(container, "destroy")  # before whoever waited, so that they find it among the events
        container.tell_removal()
        self._lane.submit(self._after, container)

    def _after(self, container: Container) -> None:
        self._folders.reclaim(container.id)
        for image_id in container.record.image_ids:
            self._rooms.images.container_removed(image_id)

    def _claim(self, container: Container) -> None:
        if container.removing:
            raise Conflict(f"removal of container {container.name} is already in progress")
        container.removing = True


def _obstacle(container: Container) -> str:
    if container.state.status == "paused":
        return "container is paused and must be unpaused first"
    what = "restarting" if container.state.status == "restarting" else "running"
    return f"container is {what}: stop the container before removing or force remove"
