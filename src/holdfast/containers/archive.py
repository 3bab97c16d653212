"""`docker cp`: what a container's file system holds, as a tar archive, and an archive unpacked into it.

    lock → root, volumes, binds, running tmpfs → view (archive_view) → look | write_tree | extract → volumes unmounted

A container that does not run stays locked until its view is closed, as with Docker. One that runs is locked while its
view is made; it can be stopped and started meanwhile.

Where the container has a volume whose storage may hang, every step that could meet it is done by a process that can be
given up (`archive_steps`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import posixpath
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from holdfast import log
from holdfast.containers import archive_steps
from holdfast.containers.archive_paths import PathStat, absolute
from holdfast.containers.archive_plain import plain
from holdfast.containers.archive_reader import Source
from holdfast.containers.archive_view import Part, clone
from holdfast.containers.archive_walk import Emit
from holdfast.containers.bindsource import open_bind
from holdfast.containers.container import Container
from holdfast.containers.model import ContainerRecord
from holdfast.containers.rooms import Rooms
from holdfast.errors import EngineError, NotFound, System
from holdfast.kernel.path import owned_fd
from holdfast.kernel.pidfd import is_same_process
from holdfast.volumes.drivers.base import HERE, Hands, MountFailed, Opened
from holdfast.volumes.mounts import MountPoint

logger = log.get(__name__)

_MANAGED_FILES = ("resolv.conf", "hostname", "hosts")


@dataclass(frozen=True, slots=True)
class Reading:
    """A file or directory about to be read."""

    stat: PathStat
    fd: int
    hands: Hands

    def write(self, emit: Emit) -> None:
        """Emit it as a tar archive, piece by piece. Raises System, whatever `emit` raises."""
        try:
            self.hands.pour(archive_steps.write, [self.fd], self.stat.name, emit=emit)
        except ConnectionError:
            raise
        except MountFailed as error:
            raise error.within(f"archive {self.stat.name}") from None
        except OSError as error:
            raise System(f"archive {self.stat.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class _View:
    """A container's file system: `root` is the descriptor, `parts` what is mounted in it, `container` whose it is.

    Only `hands` touch it.
    """

    root: int
    parts: tuple[Part, ...]
    container: Container
    hands: Hands

    def look(self, path: str) -> tuple[int, PathStat]:
        """Open (O_PATH) what lies at a path, and describe it; the caller closes it."""
        found, (fd,) = self.hands.do(archive_steps.look_at, [self.root], path)
        return fd, PathStat(*cast("tuple[str, int, int, int, str]", found))


class Archives:
    """Copies in and out of containers, running or not. Calls block."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def stat(self, reference: str, path: str) -> PathStat:
        """Describe what lies at a path; a link at its end is not followed. Operation ContainerArchiveInfo.

        Raises NotFound for the container or the path, System in Docker's words.
        """
        with self._view(reference, readonly=True) as view, _missing(path, reference):
            fd, found = view.look(path)
            os.close(fd)
            return found

    @contextlib.contextmanager
    def read(self, reference: str, path: str) -> Iterator[Reading]:
        """Find what lies at a path, for as long as the block needs to write it. Operation ContainerArchive.

        Raises as `stat`.
        """
        with self._view(reference, readonly=True) as view:
            with _missing(path, reference):
                fd, found = view.look(absolute(path))
            with owned_fd(fd):
                self._rooms.tell(view.container, "archive-path")
                yield Reading(found, fd, view.hands)

    def extract(
        self, reference: str, path: str, body: Source, *, keep_kinds: bool = False, own: bool = False
    ) -> None:
        """Unpack an archive, compressed or not, into the directory at a path. Operation PutContainerArchive.

        With `keep_kinds` no directory is replaced by anything else, nor the other way round. With `own` everything
        belongs to the container's user. Raises NotFound, InvalidParameter (no directory, read-only), System.
        """
        with self._view(reference, readonly=False) as view, _missing(path, reference):
            record = view.container.record
            writable = [(part.destination, part.writable) for part in view.parts]
            user = record.config.user if own else ""
            found, (directory,) = view.hands.do(
                archive_steps.open_target, [view.root], path, writable, record.host_config.readonly_rootfs, user
            )
            where, owner = cast("tuple[str, list[int] | None]", found)
            with owned_fd(directory):
                with plain(body, self._rooms.config.run_root) as archive:
                    view.hands.feed(archive_steps.unpack, [directory], where, owner, keep_kinds, stream=archive)
                self._rooms.tell(view.container, "extract-to-dir")

    # --- inside ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _view(self, reference: str, *, readonly: bool) -> Iterator[_View]:
        """Assemble a container's file system for the length of the block. Raises as a start would."""
        rooms, container = self._rooms, self._rooms.registry.get(reference)
        with contextlib.ExitStack() as root_kept, contextlib.ExitStack() as lock, contextlib.ExitStack() as undo:
            lock.enter_context(rooms.registry.hold(container))
            running = container.state.task is not None
            if running:
                root_kept.enter_context(rooms.looking(container))
                undo.enter_context(rooms.watchers.watching(container.id))
            else:
                rooms.watchers.wait(container.id)
            with contextlib.ExitStack() as trees:
                what = f"mount file system of container {container.id}"
                try:
                    parts, hands = self._parts(container, undo, trees)
                    root = self._root(container.record, running=running)
                    trees.callback(os.close, root)
                    _, (view,) = hands.do(
                        archive_steps.assemble_view,
                        [root, *(part.tree for part in parts)],
                        [part.destination for part in parts],
                        os.fspath(rooms.rootfs.merged(container.id)),
                        container.record.host_config.readonly_rootfs,
                        readonly,
                    )
                except MountFailed as error:
                    raise error.within(what) from None
                except OSError as error:
                    raise System(f"{what}: {error}") from error
                undo.callback(os.close, view)
            if running:
                lock.close()
            yield _View(view, tuple(parts), container, hands)

    def _root(self, record: ContainerRecord, *, running: bool) -> int:
        """Clone the container's root, which is mounted no longer than that needs if the container does not run."""
        rootfs = self._rooms.rootfs
        try:
            with owned_fd(os.open(rootfs.mount(record.id, record.layers), os.O_PATH | os.O_CLOEXEC)) as merged:
                return clone(merged)
        finally:
            if not running:
                self._rooms.unmount_root(record.id)

    def _parts(
        self, container: Container, undo: contextlib.ExitStack, trees: contextlib.ExitStack
    ) -> tuple[list[Part], Hands]:
        """Clone everything that is mounted below the root, by depth, and tell who may touch all of it.

        Volumes are unmounted by `undo`.
        """
        record = container.record
        tmpfs = {posixpath.normpath(path) for path in record.host_config.tmpfs or {}}
        parts = []
        hands: Hands = HERE
        for point in record.mounts:
            if point.type in ("volume", "bind") and point.destination not in tmpfs:
                opened = self._open_source(record.id, point, undo)
                hands = hands if opened.hands is HERE else opened.hands
                with owned_fd(opened.fd):
                    how = (point.recursive, not point.rw, point.read_only_recursive)
                    _, (tree,) = opened.hands.do(archive_steps.clone_source, [opened.fd], *how)
                trees.callback(os.close, tree)
                parts.append(Part(point.destination, tree, point.rw))
        readonly = {point.destination for point in record.mounts if point.type == "tmpfs" and not point.rw}
        tmpfs |= {point.destination for point in record.mounts if point.type == "tmpfs"}
        for destination, tree in self._running_tmpfs(container, sorted(tmpfs), hands):
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
        return sorted(parts, key=lambda part: (part.destination.count("/"), part.destination)), hands

    def _open_source(self, container_id: str, point: MountPoint, undo: contextlib.ExitStack) -> Opened:
        """Open what a mount point shows; a volume is mounted until `undo`."""
        if point.type == "bind":
            return open_bind(point, self._rooms.volumes.hands_at(point.source))
        mounted = dataclasses.replace(point, mount_id=secrets.token_hex(32))
        opened = self._rooms.volumes.mount(container_id, mounted)
        undo.callback(self._unmount, container_id, mounted)
        return opened

    def _unmount(self, container_id: str, point: MountPoint) -> None:
        try:
            self._rooms.volumes.unmount(container_id, point)
        except EngineError as error:
            logger.warning("error while unmounting volume", extra={"container": container_id, "error": error})

    def _running_tmpfs(
        self, container: Container, destinations: list[str], hands: Hands
    ) -> list[tuple[str, int]]:
        """Clone the tmpfs of a container that runs; one that has just ended has none any more."""
        task = container.state.task
        if task is None or not destinations:
            return []
        try:
            with owned_fd(os.open(f"/proc/{task.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
                if not is_same_process(task.pid, task.pid_start_time):
                    return []
                found, trees = hands.do(archive_steps.clone_running, [namespace], destinations)
                return list(zip(cast("list[str]", found), trees, strict=True))
        except (FileNotFoundError, ProcessLookupError):
            return []


@contextlib.contextmanager
def _missing(path: str, reference: str) -> Iterator[None]:
    """Turn what is missing into Docker's words for it, container and path as the client wrote them.

    Storage that does not answer is named by them, too.
    """
    try:
        yield
    except MountFailed as error:
        raise error.within(f"{path} in container {reference}") from None
    except FileNotFoundError as error:
        raise NotFound(f"Could not find the file {path} in container {reference}") from error
