"""Root file systems of containers: an overlay of an image's layers and a directory of the container's own.

    containers/ID/upper    what the container changed
                  work     overlayfs's own
                  merged   where the overlay is mounted
    rootfs-base/           the lowest layer of all: what every container finds, unless its image has it
    rootfs-nothing/        empty directories, as a read-only overlay must have two layers

What is mounted into every container needs something to be mounted on, and programs look for `/.dockerenv` and
`/etc/mtab`. In a layer below the image it is in nobody's way and no change of the container's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from holdfast import faults
from holdfast.errors import NotFound, System
from holdfast.images.differences import Change, changes
from holdfast.images.files import ImageFiles, remove_entry
from holdfast.images.model import LAYERS_MAX
from holdfast.kernel import mount
from holdfast.kernel.libc import AT_FDCWD
from holdfast.kernel.namespaces import CLONE_NEWNS, in_own_thread, unshare
from holdfast.kernel.path import is_mount_point, owned_fd, tree_size_bytes

_OWN: Final = ("merged", "work", "upper")
_BASE_DIRECTORIES: Final = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_BASE_FILES: Final = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")
_BASE_MTAB: Final = "/proc/mounts"
_UNMOUNTS_MAX: Final = 64


class RootFs:
    """Makes, mounts and removes root file systems. Who calls holds the container's lock. Raises OSError, System."""

    def __init__(self, state_root: Path) -> None:
        self._containers = state_root / "containers"
        self._files = ImageFiles(state_root)
        self._base = state_root / "rootfs-base"
        self._base_made = False
        self._nothing = state_root / "rootfs-nothing"

    def directory(self, container_id: str) -> Path:
        """The directory that holds a container's part."""
        return self._containers / container_id

    def upper(self, container_id: str) -> Path:
        """Where what the container changed is kept."""
        return self.directory(container_id) / "upper"

    def merged(self, container_id: str) -> Path:
        """Where the root file system is, or will be, mounted."""
        return self.directory(container_id) / "merged"

    def lower_dirs(self, layers: Sequence[str]) -> tuple[Path, ...]:
        """The directories of an image's layers, topmost first as overlayfs wants them, and the base below."""
        own = tuple(self._files.layer(chain_id) for chain_id in reversed(layers))
        return own if len(own) >= LAYERS_MAX else (*own, self._base)

    def prepare(self, container_id: str, layers: Sequence[str] = ()) -> None:
        """Make the directories; harmless to repeat.

        With `layers` (see `mount`) the root directory takes owner and mode of the topmost one, else root and 0755.
        """
        directory = self.directory(container_id)
        directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        for name in _OWN:
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        like = os.stat(self._files.layer(layers[-1])) if layers else None
        with owned_fd(os.open(directory / "upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as upper:
            if like is not None:
                os.fchown(upper, like.st_uid, like.st_gid)
            os.fchmod(upper, 0o755 if like is None else like.st_mode & 0o7777)
        faults.point("rootfs-prepared")

    def is_prepared(self, container_id: str) -> bool:
        """Whether all that `prepare` makes is there: it is not flushed, so a power cut soon after may have taken it."""
        return all((self.directory(container_id) / name).is_dir() for name in _OWN)

    def mount(self, container_id: str, layers: Sequence[str], *, volatile: bool = False) -> Path:
        """Mount the root file system and give its path; one that is mounted already stays.

        `layers` are chain ids, lowest first, as `Image.layers`. A `volatile` root is never flushed to disk: nobody
        needs it after a power cut. Unmounting any other flushes everything else on its file system too, which may take
        seconds. Raises NotFound if a layer is gone, System otherwise. Source: Linux, overlayfs.rst, "Volatile mount".
        """
        directory = self.directory(container_id)
        merged = directory / "merged"
        if self.is_mounted(container_id):
            return merged
        # A kernel that redirects renamed directories by default must not: `changes` knows layers by their names.
        options = ("redirect_dir=follow", *(("volatile",) if volatile else ()))
        with self._mounting(container_id, layers):
            with contextlib.suppress(FileNotFoundError):  # the mark of a volatile mount refuses all others
                remove_entry(directory / "work" / "work", "incompat")
            mount.overlay(merged, self.lower_dirs(layers), directory / "upper", directory / "work", options=options)
        faults.point("rootfs-mounted")
        return merged

    @contextlib.contextmanager
    def viewed(self, container_id: str, layers: Sequence[str]) -> Iterator[tuple[Path, tuple[Path, ...]]]:
        """Mount the root file system for reading for the length of the block; nobody else has it mounted meanwhile.

        Gives its path and the directories that it is made of, the container's own first. Unlike the end of `mount`, its
        end flushes nothing. Raises as `mount`.
        """
        merged = self.merged(container_id)
        with self._mounting(container_id, layers):
            own = self.upper(container_id)
            lower_dirs = self.lower_dirs(layers)
            visible = (own, *lower_dirs) if len(lower_dirs) < LAYERS_MAX else lower_dirs
            mount.overlay(merged, visible, None, None)
        try:
            yield merged, (own, *lower_dirs)
        finally:
            mount.umount2(merged)

    def mount_image(self, destination: Path, layers: Sequence[str]) -> None:
        """Mount an image's files at a directory, read-only. Raises NotFound if a layer is gone, System otherwise."""
        own = [self._files.layer(chain_id) for chain_id in reversed(layers)]
        with self._mounting(destination.parent.name, layers):
            mount.overlay(destination, self._readable(own), None, None)

    def changes(self, container_id: str, layers: Sequence[str]) -> list[Change]:
        """List what the container changed, mounted or not. Raises NotFound if a layer is gone, System otherwise."""
        with owned_fd(self._below(container_id, layers)) as below, self._mounting(container_id, layers):
            upper = os.open(self.upper(container_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with owned_fd(upper) as own:
                return changes(own, below)

    def _below(self, container_id: str, layers: Sequence[str]) -> int:
        """Open the root file system as it was before any change, read-only; nothing of it shows in the mount table."""
        at = self.merged(container_id)

        def make() -> int:
            unshare(CLONE_NEWNS)
            mount.mount("none", "/", None, mount.MS_REC | mount.MS_PRIVATE)
            mount.overlay(at, self._readable(self.lower_dirs(layers)), None, None)
            return mount.open_tree(AT_FDCWD, at, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)

        with self._mounting(container_id, layers):
            return in_own_thread(make)

    def _readable(self, lower_dirs: Sequence[Path]) -> list[Path]:
        """Directories of an overlay without an upper one, which must be two at least."""
        nothing = [self._nothing / name for name in ("1", "2")]
        for path in nothing:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return [*lower_dirs, *nothing[: max(0, 2 - len(lower_dirs))]]

    @contextlib.contextmanager
    def _mounting(self, container_id: str, layers: Sequence[str]) -> Iterator[None]:
        """Make the base, and say in the engine's words why a mount made in the block failed."""
        self._make_base()
        try:
            yield
        except OSError as error:
            for chain_id in layers:
                if not self._files.layer(chain_id).is_dir():
                    raise NotFound(f"layer {chain_id} of container {container_id} is missing") from error
            raise System(f"mount root file system of container {container_id}: {error}") from error

    def _make_base(self) -> None:
        """Make the base, the same way whoever comes first; harmless to repeat. Source: moby, initlayer."""
        if self._base_made:
            return
        for name in ("", *_BASE_DIRECTORIES):
            (self._base / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in _BASE_FILES:
            (self._base / name).touch(mode=0o755)
        with contextlib.suppress(FileExistsError):
            (self._base / "etc/mtab").symlink_to(_BASE_MTAB)
        self._base_made = True

    def unmount(self, container_id: str) -> None:
        """Unmount the root file system, lazily, however often it was mounted; nothing happens if it was not."""
        for _ in range(_UNMOUNTS_MAX):
            if not self.is_mounted(container_id):
                return
            mount.umount2(self.merged(container_id))

    def is_mounted(self, container_id: str) -> bool:
        """Whether the root file system is mounted now."""
        try:
            return is_mount_point(self.merged(container_id))
        except FileNotFoundError:
            return False

    def size_bytes(self, container_id: str) -> int:
        """Size of the files that the container changed or added; 0 once they are removed."""
        try:
            fd = os.open(self.upper(container_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        with owned_fd(fd):
            return tree_size_bytes(fd)

    def remove(self, container_id: str) -> None:
        """Unmount the root file system and remove what the container changed; harmless to repeat.

        Other entries of the container's directory stay, and the directory with them.
        """
        self.unmount(container_id)
        directory = self.directory(container_id)
        with contextlib.suppress(FileNotFoundError):
            for name in _OWN:
                remove_entry(directory, name)
            with contextlib.suppress(OSError):
                directory.rmdir()
