"""`docker cp`: what a container's file system holds, as a tar archive, and an archive unpacked into it.

    lock → root, volumes, binds, running tmpfs → view (archive_view) → look | write_tree | extract → volumes unmounted

A container that does not run stays locked until its view is closed, as with Docker. One that runs is locked while its
view is made; it can be stopped meanwhile, and only starts again when nobody looks at the root of its earlier run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import posixpath
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast import log
from holdfast.containers.archive_extract import Rules, extract
from holdfast.containers.archive_paths import PathStat, absolute, follow, look, words
from holdfast.containers.archive_plain import plain
from holdfast.containers.archive_reader import Members, Source
from holdfast.containers.archive_view import Part, assemble, clone, running_trees, writable_at
from holdfast.containers.archive_walk import Emit, write_tree
from holdfast.containers.container import Container
from holdfast.containers.model import ContainerRecord
from holdfast.containers.rooms import Rooms
from holdfast.containers.staging import open_bind
from holdfast.errors import EngineError, InvalidParameter, NotFound, System
from holdfast.kernel.path import open_in_root, owned_fd
from holdfast.kernel.pidfd import is_same_process
from holdfast.runtime.user import resolve_user
from holdfast.volumes.mounts import MountPoint

logger = log.get(__name__)

_MANAGED_FILES = ("resolv.conf", "hostname", "hosts")


@dataclass(frozen=True, slots=True)
class Reading:
    """A file or directory about to be read."""

    stat: PathStat
    fd: int

    def write(self, emit: Emit) -> None:
        """Emit it as a tar archive, piece by piece. Raises System, whatever `emit` raises."""
        try:
            write_tree(self.fd, self.stat.name, emit)
        except ConnectionError:
            raise
        except OSError as error:
            raise System(f"archive {self.stat.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class _View:
    """A container's file system: `root` is the descriptor, `parts` what is mounted in it, `container` whose it is."""

    root: int
    parts: tuple[Part, ...]
    container: Container


class Archives:
    """Copies in and out of containers, running or not. Calls block."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def stat(self, reference: str, path: str) -> PathStat:
        """Describe what lies at a path; a link at its end is not followed. Operation ContainerArchiveInfo.

        Raises NotFound for the container or the path, System in Docker's words.
        """
        with self._view(reference, readonly=True) as view, _missing(path, reference):
            fd, found = look(view.root, path)
            os.close(fd)
            return found

    @contextlib.contextmanager
    def read(self, reference: str, path: str) -> Iterator[Reading]:
        """Find what lies at a path, for as long as the block needs to write it. Operation ContainerArchive.

        Raises as `stat`.
        """
        with self._view(reference, readonly=True) as view:
            with _missing(path, reference):
                fd, found = look(view.root, absolute(path))
            with owned_fd(fd):
                self._rooms.tell(view.container, "archive-path")
                yield Reading(found, fd)

    def extract(
        self, reference: str, path: str, body: Source, *, keep_kinds: bool = False, own: bool = False
    ) -> None:
        """Unpack an archive, compressed or not, into the directory at a path. Operation PutContainerArchive.

        With `keep_kinds` no directory is replaced by anything else, nor the other way round. With `own` everything
        belongs to the container's user. Raises NotFound, InvalidParameter (no directory, read-only), System.
        """
        with self._view(reference, readonly=False) as view, _missing(path, reference):
            record = view.container.record
            wanted = absolute(path)
            with owned_fd(_open_directory(view.root, wanted)) as directory:
                where = follow(view.root, wanted)
                writable = writable_at(where, view.parts)
                if writable is False:
                    raise InvalidParameter("mounted volume is marked read-only")
                if writable is None and record.host_config.readonly_rootfs:
                    raise InvalidParameter("container rootfs is marked read-only")
                owner = _owner(view.root, record) if own else None
                with plain(body, self._rooms.config.run_root) as archive:
                    members = Members(archive)
                    extract(directory, members, Rules(where, owner, keep_kinds=keep_kinds))
                    members.drain()
                self._rooms.tell(view.container, "extract-to-dir")

    # --- inside ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _view(self, reference: str, *, readonly: bool) -> Iterator[_View]:
        """Assemble a container's file system for the length of the block. Raises as a start would."""
        rooms, container = self._rooms, self._rooms.registry.get(reference)
        with contextlib.ExitStack() as lock, contextlib.ExitStack() as undo:
            lock.enter_context(rooms.registry.hold(container))
            running = container.state.task is not None
            if running:
                undo.enter_context(rooms.watchers.watching(container.id))
            else:
                rooms.watchers.wait(container.id)
            with contextlib.ExitStack() as trees:
                try:
                    parts = self._parts(container, undo, trees)
                    root = self._root(container.record, running=running)
                    trees.callback(os.close, root)
                    view = assemble(
                        root,
                        parts,
                        rooms.rootfs.merged(container.id),
                        readonly_root=container.record.host_config.readonly_rootfs,
                        readonly=readonly,
                    )
                except OSError as error:
                    raise System(f"mount file system of container {container.id}: {error}") from error
                undo.callback(os.close, view)
            if running:
                lock.close()
            yield _View(view, tuple(parts), container)

    def _root(self, record: ContainerRecord, *, running: bool) -> int:
        """Clone the container's root, which is mounted no longer than that needs if the container does not run."""
        rootfs = self._rooms.rootfs
        try:
            with owned_fd(os.open(rootfs.mount(record.id, record.layers), os.O_PATH | os.O_CLOEXEC)) as merged:
                return clone(merged)
        finally:
            if not running:
                rootfs.unmount(record.id)

    def _parts(
        self, container: Container, undo: contextlib.ExitStack, trees: contextlib.ExitStack
    ) -> list[Part]:
        """Clone everything that is mounted below the root, by depth. Volumes are unmounted by `undo`."""
        record = container.record
        tmpfs = {posixpath.normpath(path) for path in record.host_config.tmpfs or {}}
        parts = []
        for point in record.mounts:
            if point.type in ("volume", "bind") and point.destination not in tmpfs:
                with owned_fd(self._open_source(record.id, point, undo)) as fd:
                    tree = clone(
                        fd,
                        recursive=point.recursive,
                        readonly=not point.rw,
                        readonly_submounts=point.read_only_recursive,
                    )
                trees.callback(os.close, tree)
                parts.append(Part(point.destination, tree, point.rw))
        readonly = {point.destination for point in record.mounts if point.type == "tmpfs" and not point.rw}
        tmpfs |= {point.destination for point in record.mounts if point.type == "tmpfs"}
        for destination, tree in self._running_tmpfs(container, sorted(tmpfs)):
            trees.callback(os.close, tree)
            parts.append(Part(destination, tree, destination not in readonly))
        taken = {part.destination for part in parts} | tmpfs
        for name in _MANAGED_FILES:
            if f"/etc/{name}" not in taken:
                with contextlib.suppress(FileNotFoundError):  # not before the first start
                    fd = os.open(self._rooms.files_of(record.id) / name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                    with owned_fd(fd):
                        tree = clone(fd, readonly=record.host_config.readonly_rootfs)
                    trees.callback(os.close, tree)
                    parts.append(Part(f"/etc/{name}", tree, not record.host_config.readonly_rootfs))
        return sorted(parts, key=lambda part: (part.destination.count("/"), part.destination))

    def _open_source(self, container_id: str, point: MountPoint, undo: contextlib.ExitStack) -> int:
        """Open (O_PATH) what a mount point shows; a volume is mounted until `undo`."""
        if point.type == "bind":
            return open_bind(point)
        mounted = dataclasses.replace(point, mount_id=secrets.token_hex(32))
        fd = self._rooms.volumes.mount(container_id, mounted)
        undo.callback(self._unmount, container_id, mounted)
        return fd

    def _unmount(self, container_id: str, point: MountPoint) -> None:
        try:
            self._rooms.volumes.unmount(container_id, point)
        except EngineError as error:
            logger.warning("error while unmounting volume", extra={"container": container_id, "error": error})

    def _running_tmpfs(self, container: Container, destinations: list[str]) -> list[tuple[str, int]]:
        """Clone the tmpfs of a container that runs; one that has just ended has none any more."""
        task = container.state.task
        if task is None or not destinations:
            return []
        try:
            with owned_fd(os.open(f"/proc/{task.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
                if not is_same_process(task.pid, task.pid_start_time):
                    return []
                return running_trees(namespace, destinations)
        except (FileNotFoundError, ProcessLookupError):
            return []


@contextlib.contextmanager
def _missing(path: str, reference: str) -> Iterator[None]:
    """Turn what is missing into Docker's words for it, container and path as the client wrote them."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"Could not find the file {path} in container {reference}") from error


def _open_directory(root: int, path: str) -> int:
    """Open (O_PATH) the directory to unpack into; links are followed, one at the end too."""
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except NotADirectoryError as error:
        with contextlib.suppress(OSError), owned_fd(open_in_root(root, path, os.O_PATH)):
            raise InvalidParameter("extraction point is not a directory") from error
        if path.endswith(("/", "/.")):
            raise System(f"lstat {path}: not a directory") from error
        raise System("not a directory") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise System("EvalSymlinks: too many links") from error
        raise System(f"lstat {path}: {words(error)}") from error


def _owner(root: int, record: ContainerRecord) -> tuple[int, int] | None:
    """Give the container's user, looked up in its own files by our own parser; None for root, as Docker does."""
    if not record.config.user:
        return None
    user = resolve_user(Path(f"/proc/self/fd/{root}"), record.config.user)
    return user.uid, user.gid
