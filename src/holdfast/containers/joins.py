"""Joining what another container has: its PID, IPC or network namespace, found when a container starts.

The other must run. Its IPC can be joined if it was made `shareable`, and its /dev/shm comes along: that mount is cloned
in the other's mount namespace, since a path that leads there means nothing here.
"""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.containers.container import Container, Registry
from holdfast.errors import Conflict, InvalidParameter, NotFound, System
from holdfast.kernel.libc import AT_EMPTY_PATH
from holdfast.kernel.mount import MS_PRIVATE, OPEN_TREE_CLONE, mount_setattr, open_tree
from holdfast.kernel.namespaces import in_mount_namespace
from holdfast.kernel.path import open_beneath, owned_fd

_PREFIX = "container:"
_SHAREABLE = ("shareable", "host")


class Joins:
    """Finds the containers that modes such as `container:NAME` stand for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def pid(self, kind: str, reference: str) -> int:
        """Give the first process of the container whose `PID` or `IPC` namespace is joined.

        Raises InvalidParameter if there is none or its IPC is its own, Conflict if it does not run.
        """
        what = f"failed to join {kind} namespace"
        other = self._find(reference, what)
        if not other.state.running or other.state.pid == 0:
            raise Conflict(f"{what}: container {other.id} is not running")
        if other.state.status == "restarting":
            raise Conflict(f"{what}: container {other.id} is restarting, wait until the container is running")
        mode = other.record.host_config.ipc_mode
        if kind == "IPC" and mode not in _SHAREABLE and not mode.startswith(_PREFIX):
            raise InvalidParameter(
                f"{what}: container {other.id}: non-shareable IPC "
                "(hint: use IpcMode:shareable for the donor container)"
            )
        return other.state.pid

    def shared_memory(self, ipc_mode: str) -> int | None:
        """Give /dev/shm of the container that an IPC mode names, as a detached mount; None if it names none.

        Raises as `pid`, and System.
        """
        if not ipc_mode.startswith(_PREFIX):
            return None
        pid = self.pid("IPC", ipc_mode.removeprefix(_PREFIX))
        try:
            return in_mount_namespace(Path(f"/proc/{pid}/ns/mnt"), _clone_shared_memory)
        except OSError as error:
            raise System(f"failed to join IPC namespace: /dev/shm: {error.strerror}") from error

    def network(self, network_mode: str) -> Container | None:
        """Give the container whose network a mode names, None if it names none.

        Raises InvalidParameter if there is no such container, Conflict if it does not run.
        """
        if not network_mode.startswith(_PREFIX):
            return None
        other = self._find(network_mode.removeprefix(_PREFIX), "joining network namespace of container")
        if other.state.status == "restarting":
            raise Conflict(f"Container {other.id} is restarting, wait until the container is running")
        if not other.state.running or other.state.pid == 0:
            raise Conflict(
                "cannot join network namespace of a non running container: "
                f"container {other.name} is {other.state.status}"
            )
        return other

    def network_owner(self, container: Container) -> Container:
        """Follow those whose network a container joins to the one whose own it is. Raises as `network`."""
        passed = {container.id}
        while (other := self.network(container.record.host_config.network_mode)) is not None:
            if other.id in passed:
                raise Conflict("cannot join own network")
            passed.add(other.id)
            container = other
        return container

    def _find(self, reference: str, what: str) -> Container:
        try:
            return self._registry.get(reference)
        except NotFound as error:
            raise InvalidParameter(f"{what}: {error}") from None


def _clone_shared_memory() -> int:
    """Clone the mount at /dev/shm of the namespace that the thread is in. Raises OSError."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with owned_fd(os.open("/", flags)) as root, owned_fd(open_beneath(root, "dev/shm", flags | os.O_NOFOLLOW)) as place:
        tree = open_tree(place, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
    try:
        mount_setattr(tree, propagation=MS_PRIVATE)
    except OSError:
        os.close(tree)
        raise
    return tree
