"""Mounting what a local volume's options name on its data directory, and taking it off again.

Whatever may wait for a server or a device is done by `workers`. Errors are Docker's words; secrets are never in them.
"""

from __future__ import annotations

import errno
import os
import socket

from holdfast.errors import System
from holdfast.kernel import storage_worker
from holdfast.kernel.storage_worker import Failed
from holdfast.volumes.drivers import mounting
from holdfast.volumes.drivers.base import MountFailed
from holdfast.volumes.drivers.mounting import Call, Source
from holdfast.volumes.drivers.workers import Workers

_HINT = "holdfast volume check NAME says which step fails"


class Mounter:
    """Mounts at a name in a directory given by descriptor. `target` is its path, for messages only."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def mount(self, source: Source, directory: int, name: str, target: str) -> None:
        """Mount, and see that the storage answers. What is mounted already is only asked.

        Raises MountFailed; nothing is mounted then that was not before.
        """
        calls: tuple[Call, ...] = ()
        if not is_mount_point(directory, name):
            if not source.device:
                raise MountFailed("missing device in volume options")
            calls = mounting.plan(self.ready(source))
        plain = [(call.source, call.fstype, call.flags, call.data) for call in calls]
        try:
            if source.type in mounting.MEMORY_TYPES:
                storage_worker.perform("mount", [name, plain], [directory])
            else:
                self._workers.mount(directory, name, plain)
        except Failed as error:
            raise MountFailed(f"failed to mount local volume: {_describe(error, calls, target)}", hint=_HINT) from None

    def ready(self, source: Source) -> Source:
        """Give the source with its credentials read and its host names resolved. Raises MountFailed."""
        path = mounting.credentials_file(source)
        if path:
            try:
                source = mounting.with_credentials(source, self._workers.read_text(path))
            except Failed as error:
                raise MountFailed(f"error reading credentials of network volume: {why(error)}", hint=_HINT) from None
        host = mounting.host_to_resolve(source)
        if not host:
            return mounting.with_known_address(source)
        try:
            return mounting.with_address(source, self._workers.resolve(host)[0])
        except Failed as error:
            raise MountFailed(
                f"error resolving passed in network volume address: lookup {host}: {why(error)}", hint=_HINT
            ) from None

    def unmount(self, source: Source, directory: int, name: str, target: str) -> None:
        """Take off what is mounted, if anything is. Raises System if it stays."""
        if not is_mount_point(directory, name):
            return
        try:
            if source.type in mounting.MEMORY_TYPES:
                storage_worker.perform("unmount", [name], [directory])
            elif source.is_network:
                self._workers.unmount(directory, name, gone=lambda: not is_mount_point(directory, name))
            else:
                self._workers.unmount(directory, name)
        except Failed as error:
            if is_mount_point(directory, name):
                raise System(f"umount {target}, flags: 0x2: {why(error)}") from None


def is_mount_point(directory: int, name: str) -> bool:
    """Tell whether something is mounted at `name`, without touching it. What is no directory is no mount point.

    Raises FileNotFoundError if there is no such name, OSError.
    """
    try:
        return storage_worker.is_mount_point(directory, name)
    except Failed as error:
        if error.number in (errno.ELOOP, errno.ENOTDIR):
            return False
        raise OSError(error.number, error.text, name) from None


def why(error: Failed) -> str:
    """Give Docker's words for what went wrong."""
    if error.at == "resolve":
        unknown = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)
        return "no such host" if error.number in unknown else error.text.lower()
    if error.number == errno.ESTALE:
        return "stale NFS file handle"
    return os.strerror(error.number).lower()


def _describe(error: Failed, calls: tuple[Call, ...], target: str) -> str:
    step, _, number = error.at.partition("-")
    if step == "mount" and calls:
        return calls[int(number)].describe(target, why(error))
    if step == "wait" and calls:
        return calls[0].describe(target, why(error))
    return f"stat {target}: {why(error)}"
