"""`docker export`: a container's root as a tar archive, without what is mounted in it.

The container can be started, stopped and removed while a slow reader takes the archive: nothing is locked but while the
root is cloned, and the root stays mounted for as long as somebody looks (`Rooms.looking`).
"""

from __future__ import annotations

import contextlib
import os

from holdfast.containers.archive_view import clone, root_alone
from holdfast.containers.archive_walk import Emit, write_contents
from holdfast.containers.rooms import Rooms
from holdfast.errors import System
from holdfast.kernel.path import owned_fd


def export(rooms: Rooms, reference: str, emit: Emit) -> None:
    """Emit the archive piece by piece; a removal meanwhile ends it. Operation ContainerExport.

    Raises NotFound, System, whatever `emit` raises.
    """
    container = rooms.registry.get(reference)
    record = container.record
    with contextlib.ExitStack() as undo:
        try:
            with rooms.registry.hold(container):
                undo.enter_context(rooms.looking(container))
                mounted = rooms.rootfs.mount(record.id, record.layers)
                with owned_fd(os.open(mounted, os.O_PATH | os.O_CLOEXEC)) as merged:
                    root = clone(merged)
                undo.callback(os.close, root)
            root_alone(root)
            rooms.tell(container, "export")
            write_contents(root, emit)
            rooms.registry.get(container.id)  # what was removed meanwhile is not whole
        except ConnectionError:
            raise
        except OSError as error:
            raise System(f"export container {container.id}: {error}") from error
