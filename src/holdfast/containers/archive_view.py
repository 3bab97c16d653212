"""A container's file system as `docker cp` sees it: one descriptor, below which everything is resolved.

    root's tree  ←  volumes, binds, tmpfs and managed files, each attached where the container has it

Every source is cloned while it is detached. In a mount namespace made for that, the root's clone is attached, then each
other on the descriptor of its destination, which the kernel resolves inside the root: a link that a container puts in
the way leads nowhere else (CVE-2018-15664, CVE-2026-42306). A clone of the finished tree is all that leaves; the
namespace ends, and closing the descriptor takes every mount with it. Nothing is ever seen in the engine's own mount
table, and nobody's root or working directory becomes the container's, so nothing can be loaded from there
(CVE-2019-14271). Source: mount_namespaces(7), open_tree(2), move_mount(2).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.kernel import mount
from holdfast.kernel.libc import AT_EMPTY_PATH, AT_RECURSIVE
from holdfast.kernel.mount import OPEN_TREE_CLONE, mount_setattr, move_mount, open_tree
from holdfast.kernel.namespaces import CLONE_NEWNS, in_mount_namespace, in_own_thread, unshare
from holdfast.kernel.path import is_mount_point, make_dirs_beneath, open_in_root, owned_fd

# Device nodes can be made and described but not opened through a view: a file may become one at any moment.
_HARMLESS = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


@dataclass(frozen=True, slots=True)
class Part:
    """A detached tree and where it belongs."""

    destination: str
    tree: int
    writable: bool


def clone(fd: int, *, recursive: bool = False, readonly: bool = False, readonly_submounts: bool = True) -> int:
    """Clone the tree at `fd` (O_PATH), peer of nothing; the caller closes the descriptor. Raises OSError."""
    flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    tree = open_tree(fd, "", flags)
    try:
        mount_setattr(tree, propagation=mount.MS_PRIVATE, recursive=recursive)
        if readonly:
            mount_setattr(tree, attr_set=mount.MOUNT_ATTR_RDONLY, recursive=recursive and readonly_submounts)
    except BaseException:
        os.close(tree)
        raise
    return tree


def assemble(root: int, parts: Sequence[Part], at: Path, *, readonly_root: bool, readonly: bool) -> int:
    """Put a view together and give its descriptor; the caller closes it, and the trees that went into it.

    `root` is a detached tree. `parts` come in the order of their depth; a destination that is missing is made, as a
    start would. `at` is a directory of the engine's own, used while the view is made. With `readonly_root` only the
    parts can be written, with `readonly` nothing. Raises OSError. About 1 ms.
    """

    def enter_and_attach() -> int:
        unshare(CLONE_NEWNS)
        mount.mount("none", "/", None, mount.MS_REC | mount.MS_PRIVATE)
        move_mount(root, at)
        for part in parts:
            with owned_fd(_destination(root, part)) as target:
                move_mount(part.tree, target)
        if readonly_root:
            mount_setattr(root, attr_set=mount.MOUNT_ATTR_RDONLY)
        return open_tree(root, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE)

    view = in_own_thread(enter_and_attach)
    try:
        mount_setattr(view, attr_set=_HARMLESS | (mount.MOUNT_ATTR_RDONLY if readonly else 0), recursive=True)
    except BaseException:
        os.close(view)
        raise
    return view


def root_alone(tree: int) -> None:
    """Make a detached clone of a root a view by itself: read-only, with nothing mounted in it. Raises OSError."""
    mount_setattr(tree, attr_set=_HARMLESS | mount.MOUNT_ATTR_RDONLY)


def running_trees(namespace: int, destinations: Sequence[str]) -> list[tuple[str, int]]:
    """Clone what a running container has mounted at each destination, as its tmpfs; those not mounted are left out.

    `namespace` is the descriptor of its mount namespace. The caller closes the trees. Raises OSError.
    """

    def collect() -> list[tuple[str, int]]:
        with contextlib.ExitStack() as undo, owned_fd(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            trees = []
            for destination in destinations:
                with owned_fd(open_in_root(root, destination, os.O_PATH)) as fd:
                    if is_mount_point("", fd):
                        trees.append((destination, clone(fd)))
                        undo.callback(os.close, trees[-1][1])
            undo.pop_all()
            return trees

    return in_mount_namespace(namespace, collect)


def writable_at(path: str, parts: Sequence[Part]) -> bool | None:
    """Tell whether the part that holds `path`, with the longest destination, is writable; None for the root. Pure."""
    below = path.rstrip("/") + "/"
    holders = [part for part in parts if below.startswith(part.destination.rstrip("/") + "/")]
    return max(holders, key=lambda part: len(part.destination)).writable if holders else None


class Watchers:
    """Who looks at a container's files without holding its lock: at its volumes, or at its root.

    A root that is in view stays mounted, so that the next start finds it: two overlays over one upper directory would
    not see each other's changes. Source: Linux, Documentation/filesystems/overlayfs.rst.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts: dict[str, int] = {}
        self._roots: dict[str, int] = {}

    def take_root(self, container_id: str) -> None:
        """Count somebody who looks at the root; the container's lock is held."""
        with self._changed:
            self._roots[container_id] = self._roots.get(container_id, 0) + 1

    def leave_root(self, container_id: str) -> None:
        """Count one less."""
        with self._changed:
            self._roots[container_id] -= 1
            if not self._roots[container_id]:
                del self._roots[container_id]

    def sees_root(self, container_id: str) -> bool:
        """Whether somebody looks at the root."""
        return container_id in self._roots

    @contextlib.contextmanager
    def watching(self, container_id: str) -> Iterator[None]:
        """Count a view of the volumes for the length of the block."""
        with self._changed:
            self._counts[container_id] = self._counts.get(container_id, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._counts[container_id] -= 1
                if not self._counts[container_id]:
                    del self._counts[container_id]
                    self._changed.notify_all()

    def wait(self, container_id: str) -> None:
        """Wait until nobody looks at the container's volumes any more, as Docker does; its lock may be held."""
        with self._changed:
            self._changed.wait_for(lambda: container_id not in self._counts)


def _destination(root: int, part: Part) -> int:
    """Open (O_PATH) where a part belongs, made if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return open_in_root(root, part.destination, os.O_PATH)
    if stat.S_ISDIR(os.fstat(part.tree).st_mode):
        return make_dirs_beneath(root, part.destination, in_root=True)
    directory, name = posixpath.split(part.destination)
    with owned_fd(make_dirs_beneath(root, directory, in_root=True)) as parent:
        return os.open(name, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent)
