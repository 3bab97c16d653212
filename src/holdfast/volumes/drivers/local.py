"""The local driver: volumes as directories of a pool on this machine.

    <pool>/volumes/                    0701, as Docker lays it out
        <name>/                        0701
            _data/                     what containers see; a mount while a volume with `type` and `device` is in use
            volume.json                0600, the record: the catalogue can be rebuilt from it
            .fill-<id>/                a copy from an image that is not complete yet
        .new-<id>/                     a volume that is not made yet
    <pool>/trash/                      0700
        <id>/                          a removed volume, whole, until its space is taken back

A volume is prepared under `.new-<id>` and appears by one rename; it goes by one rename into the trash. Whatever moment
the engine dies at, `recover` finds either the one name or the other. A power cut may undo the last of these renames,
as they are not flushed one by one: the catalogue, which is, tells what to do again (see `volumes/restore`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from holdfast import faults, log
from holdfast.errors import InvalidParameter, NotFound, System
from holdfast.kernel.mountinfo import mount_at, read_mountinfo
from holdfast.kernel.path import (
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    fsync_fd,
    openat2,
    owned_fd,
    remove_tree,
    rename_noreplace,
    syncfs,
    tree_size_bytes,
)
from holdfast.kernel.storage_worker import Failed
from holdfast.store.volumes import VolumeRecord
from holdfast.volumes import subpath as subpaths
from holdfast.volumes.drivers import mounting
from holdfast.volumes.drivers.base import (
    HERE,
    Capabilities,
    DriverVolume,
    Hands,
    MountFailed,
    Opened,
    opened_here,
)
from holdfast.volumes.drivers.check import Checker, Step
from holdfast.volumes.drivers.mounter import Mounter, is_mount_point, why
from holdfast.volumes.drivers.mounting import Source, source_of
from holdfast.volumes.drivers.workers import Workers, on_network

logger = log.get(__name__)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DATA = "_data"
RECORD = "volume.json"
_STAGED = ".new-"
_RECORD_LIMIT_BYTES = 4 << 20
_STAY = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS
"""How names below a volume are opened: a mount is an error, EXDEV, before it is asked anything."""
_ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLUSHED_ONE_BY_ONE = 32


class LocalDriver:
    """Volumes of one pool: a directory whose file system holds `volumes/` and `trash/`."""

    name = "local"
    capabilities = Capabilities(scope="local")

    def __init__(self, pool_root: Path, workers: Workers | None = None) -> None:
        """Use the pool at `pool_root`, making its directories. `workers` touch what may hang. Raises OSError."""
        self._workers = workers or Workers()
        self._mounter = Mounter(self._workers)
        self.volumes_root = pool_root / "volumes"
        self.trash_root = pool_root / "trash"
        for path, mode in ((self.volumes_root, 0o701), (self.trash_root, 0o700)):
            path.mkdir(mode=mode, parents=True, exist_ok=True)
            path.chmod(mode)
        self._volumes_fd = os.open(self.volumes_root, _DIRECTORY)
        self._trash_fd = os.open(self.trash_root, _DIRECTORY)
        self._mounts: dict[str, set[str]] = {}
        self._guard = threading.Lock()

    def validate(self, name: str, options: Mapping[str, str] | None) -> None:
        """Raise InvalidParameter in Docker's words for a name or an option that the driver refuses."""
        if len(name) < 2:
            raise InvalidParameter("volume name is too short, names should be at least two alphanumeric characters")
        if not _NAME.fullmatch(name):
            raise InvalidParameter(
                f"{_quote(name)} includes invalid characters for a local volume name, "
                'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
                "If you intended to pass a host directory, use absolute path"
            )
        if len(name.encode()) > 255:
            raise InvalidParameter(f"volume name is too long: {len(name)} characters, at most 255 are allowed")
        own = dict(options or {})
        subpaths.of_options(own)
        own.pop(subpaths.OPTION, None)
        mounting.validate(own)

    def create(self, record: VolumeRecord) -> None:
        """Make the volume: its directory, its empty data directory and its record. `sync` brings them to the disk.

        Raises System; nothing is left behind then.
        """
        self._make(record, self._volumes_fd, record.name)

    def create_removed(self, record: VolumeRecord) -> None:
        """Make the volume in the trash, empty. Raises System; nothing is left behind then."""
        self._make(record, self._trash_fd, record.id)

    def _make(self, record: VolumeRecord, folder: int, name: str) -> None:
        staged = _STAGED + record.id
        try:
            os.mkdir(staged, 0o701, dir_fd=self._volumes_fd)
            try:
                with owned_fd(os.open(staged, _DIRECTORY, dir_fd=self._volumes_fd)) as directory:
                    os.mkdir(DATA, 0o755, dir_fd=directory)
                    _write_record(directory, record, RECORD)
                faults.point("volume-staged")
                rename_noreplace(self._volumes_fd, staged, folder, name)
            except BaseException:
                remove_tree(self._volumes_fd, staged)
                raise
        except OSError as error:
            raise System(
                f"error while creating volume root path '{self.volumes_root / record.name}': {_why(error)}"
            ) from error

    def names(self) -> frozenset[str]:
        """Give the names of the directories that may be volumes, without looking into any."""
        with os.scandir(self._volumes_fd) as entries:
            return frozenset(
                entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and _NAME.fullmatch(entry.name)
            )

    def list(self) -> Sequence[DriverVolume]:
        """Give every volume found on disk, with the record stored beside its data where that can be read."""
        return self.look_at(self.names())

    def look_at(self, names: Collection[str]) -> Sequence[DriverVolume]:
        """Give those of these directories that are volumes, by name, each with its record where that can be read."""
        found: list[DriverVolume] = []
        for name in sorted(names):
            try:
                with owned_fd(os.open(name, _DIRECTORY, dir_fd=self._volumes_fd)) as directory:
                    is_mount_point(directory, DATA)
                    found.append(DriverVolume(name, _read_record(directory, name)))
            except OSError as error:
                logger.warning("not a volume", extra={"path": self.volumes_root / name, "error": _why(error)})
        return found

    def exists(self, name: str) -> bool:
        """Tell whether a volume directory of this name is there."""
        try:
            os.stat(name, dir_fd=self._volumes_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def mountpoint(self, record: VolumeRecord) -> str:
        """Give `<pool>/volumes/<name>/_data`."""
        return f"{self.volumes_root}/{record.name}/{DATA}"

    def mount(self, record: VolumeRecord, mount_id: str) -> Path:
        """Mount what the options name, unless it is mounted, count it and give the data's path.

        Raises NotFound if the directory is gone, MountFailed in Docker's words.
        """
        source = source_of(record.options)
        if source is None:
            if not self.exists(record.name):
                raise self._gone(record)
        else:
            self._mount(record, source)
        self.adopt(record, mount_id)
        return Path(self.mountpoint(record))

    def adopt(self, record: VolumeRecord, mount_id: str) -> None:
        """Count a mount that is there already."""
        with self._guard:
            self._mounts.setdefault(record.id, set()).add(mount_id)

    def hands(self, record: VolumeRecord) -> Hands:
        """Give who may touch the volume's data, once it is mounted."""
        return self._workers if self.may_hang(record) and not self._is_of_pool(record) else HERE

    def home(self, record: VolumeRecord) -> Path:
        """Give the volume's own directory, the parent of its data."""
        return self.volumes_root / record.name

    def hands_at(self, path: str) -> Hands:
        """Give who may touch a path of the host."""
        try:
            return self._workers if on_network(path) else HERE
        except OSError:
            return self._workers

    def open(self, record: VolumeRecord, subpath: str) -> Opened:
        """Open mounted data, or what lies at `subpath` in it. Raises NotFound, InvalidParameter, MountFailed, System.
        """
        if self.hands(record) is HERE:
            return opened_here(subpaths.open_data(Path(self.mountpoint(record)), subpath))
        try:
            with self._volume(record) as directory:
                return Opened(*self._workers.open(directory, DATA, subpath), self._workers)
        except Failed as error:
            data = Path(self.mountpoint(record))
            step, _, depth = error.at.partition("-")
            if step != "subpath":
                raise MountFailed(f"error while mounting volume '{data}': stat {data}: {why(error)}") from None
            raise subpaths.refused(data, subpath, error, int(depth)) from None

    def unmount(self, record: VolumeRecord, mount_id: str) -> None:
        """Drop the mount from the count, unmounting at the last one; an id that is not counted is no error.

        Raises System if what was mounted stays; it is not counted any more nevertheless, as with Docker.
        """
        with self._guard:
            ids = self._mounts.get(record.id, set())
            ids.discard(mount_id)
            if not ids:
                self._mounts.pop(record.id, None)
        if not ids:
            self.unmount_unused(record)

    def unmount_unused(self, record: VolumeRecord) -> None:
        """Take off what the volume's options mounted if no mount is counted. Raises System if it stays."""
        source = source_of(record.options)
        if source is None or self.is_mounted(record):
            return
        with contextlib.suppress(NotFound, FileNotFoundError), self._volume(record) as directory:
            self._mounter.unmount(source, directory, DATA, self.mountpoint(record))

    def mounted_names(self) -> frozenset[str]:
        """Give the names of the volumes on whose data something is mounted now. Raises OSError."""
        root = os.path.realpath(self.volumes_root)
        found = (Path(entry.mount_point) for entry in read_mountinfo())
        return frozenset(path.parent.name for path in found if path.name == DATA and str(path.parent.parent) == root)

    def may_hang(self, record: VolumeRecord) -> bool:
        """Tell whether mounting it may have to wait for a server or a device."""
        source = source_of(record.options)
        return source is not None and source.type not in mounting.MEMORY_TYPES

    def check(self, record: VolumeRecord) -> Sequence[Step]:
        """Take the steps from the volume's options to its data, up to the first that fails. See `check`."""
        try:
            with self._volume(record) as directory:
                there = Step("directory", True, f"{self.volumes_root / record.name} is there")
                source = source_of(record.options)
                if source is None:
                    is_mount_point(directory, DATA)
                    return [there]
                checker = Checker(self._workers, self._mounter)
                return [there, *checker.check(source, directory, DATA, self.mountpoint(record))]
        except (NotFound, OSError) as error:
            return [Step("directory", False, f"{self.volumes_root / record.name}: {error}")]

    def can_stage(self, record: VolumeRecord) -> bool:
        """Tell whether the data is a directory of the pool now and no mount of its own."""
        try:
            with self._volume(record) as directory:
                return not is_mount_point(directory, DATA)
        except (NotFound, OSError):
            return False

    def is_mounted(self, record: VolumeRecord) -> bool:
        """Tell whether any mount is counted."""
        with self._guard:
            return record.id in self._mounts

    def remove(self, record: VolumeRecord) -> None:
        """Rename the volume into the trash; `reclaim` takes back its space.

        What is mounted goes first, and if it stays, so does the volume: nothing may be deleted through it. Raises
        System in Docker's words: active mounts, or what the file system says.
        """
        if self.is_mounted(record):
            raise System("volume has active mounts")
        self._check_unmounted(record)
        try:
            rename_noreplace(self._volumes_fd, record.name, self._trash_fd, record.id)
        except FileNotFoundError:
            logger.warning("volume directory was gone already", extra={"volume": record.name})
            return
        except OSError as error:
            raise System(f"error removing volume path '{self.volumes_root / record.name}': {_why(error)}") from error
        faults.point("volume-in-trash")

    def take_back(self, record: VolumeRecord) -> None:
        """Rename a volume out of the trash to the record's name. Raises OSError, also if the name is taken.

        The record beside the data goes first: whoever finds the volume under a new name knows whose it is.
        """
        with owned_fd(os.open(record.id, _DIRECTORY, dir_fd=self._trash_fd)) as directory:
            _replace_record(directory, record)
        rename_noreplace(self._trash_fd, record.id, self._volumes_fd, record.name)

    def unmake(self, record: VolumeRecord) -> None:
        """Undo `create`, at once and for good. Raises OSError, System if something is mounted on it."""
        staged = _STAGED + record.id
        self._check_unmounted(record)
        rename_noreplace(self._volumes_fd, record.name, self._volumes_fd, staged)
        remove_tree(self._volumes_fd, staged)

    def sync(self) -> None:
        """Bring everything that was made or renamed so far to the disk. Raises OSError."""
        syncfs(self._volumes_fd)

    def sync_made(self, records: Sequence[VolumeRecord]) -> None:
        """Bring the directories of these volumes to the disk, without what else waits there unless they are many.

        Flushing the whole file system would write out what containers have just written, and copies from images that
        may be about to go again. Raises OSError.
        """
        if len(records) > _FLUSHED_ONE_BY_ONE:
            self.sync()
            return
        try:
            for record in records:
                with owned_fd(self.open_volume(record)) as volume:
                    for name in (RECORD, DATA):
                        with owned_fd(openat2(volume, name, _ENTRY, resolve=_STAY)) as entry:
                            fsync_fd(entry)
                    fsync_fd(volume)
            fsync_fd(self._volumes_fd)
        except OSError as error:
            # Removed meanwhile, changed by hand, or hidden by a mount, which must not be asked.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                raise
            self.sync()

    def reclaim(self, record: VolumeRecord) -> None:
        """Take back the space of a volume in the trash; one that is not there is no error. Raises OSError."""
        try:
            remove_tree(self._trash_fd, record.id)
        except FileNotFoundError:
            return

    def rewrite(self, record: VolumeRecord) -> None:
        """Replace the record beside the volume's data. Raises OSError."""
        with owned_fd(os.open(record.name, _DIRECTORY, dir_fd=self._volumes_fd)) as directory:
            _replace_record(directory, record)

    def trash_size_bytes(self, record: VolumeRecord) -> int:
        """Give the apparent size of a volume in the trash, 0 if it is not there."""
        try:
            with owned_fd(os.open(record.id, _DIRECTORY, dir_fd=self._trash_fd)) as directory:
                return tree_size_bytes(directory)
        except OSError:
            return 0

    @property
    def capacity_bytes(self) -> int:
        """Give the size of the pool's file system."""
        status = os.fstatvfs(self._volumes_fd)
        return status.f_frsize * status.f_blocks

    def in_trash(self) -> frozenset[str]:
        """Give the ids of removed volumes whose space is not taken back yet."""
        return frozenset(os.listdir(self._trash_fd))

    def recover(self) -> None:
        """Clear away what a dead engine left half-made. To be called before any other call."""
        for name in os.listdir(self._volumes_fd):
            if name.startswith(_STAGED):
                logger.info("removing half-made volume", extra={"path": self.volumes_root / name})
                remove_tree(self._volumes_fd, name)

    def size_bytes(self, record: VolumeRecord) -> int:
        """Give the apparent size of the volume's regular files, hard links once.

        That is -1 if it vanished meanwhile or if something is mounted on its data: what that is may never answer.
        """
        try:
            with owned_fd(self._open_plain(record)) as data:
                return tree_size_bytes(data)
        except OSError:
            return -1

    def is_empty(self, record: VolumeRecord) -> bool:
        """Tell whether there is nothing in the volume's data; False if that cannot be told."""
        try:
            with owned_fd(self._open_plain(record)) as data, os.scandir(data) as entries:
                return next(entries, None) is None
        except OSError:
            return False

    def open_volume(self, record: VolumeRecord) -> int:
        """Give an fd on the volume's own directory, the parent of its data. Raises OSError."""
        return os.open(record.name, _DIRECTORY, dir_fd=self._volumes_fd)

    def close(self) -> None:
        """Give up whatever still waits for storage."""
        self._workers.close()

    def _mount(self, record: VolumeRecord, source: Source) -> None:
        counted = self.is_mounted(record)
        with self._volume(record) as directory:
            target = self.mountpoint(record)
            try:
                self._mounter.mount(source, directory, DATA, target)
            except FileNotFoundError as error:
                raise self._gone(record) from error
            except MountFailed:
                if not counted:  # it is there but does not answer: leave nothing behind that nobody counts
                    with contextlib.suppress(System, OSError):
                        self._mounter.unmount(source, directory, DATA, target)
                raise

    @contextlib.contextmanager
    def _volume(self, record: VolumeRecord) -> Iterator[int]:
        """Open the volume's own directory for the length of the block. Raises NotFound if it is gone."""
        try:
            directory = self.open_volume(record)
        except FileNotFoundError as error:
            raise self._gone(record) from error
        with owned_fd(directory):
            yield directory

    def _open_plain(self, record: VolumeRecord) -> int:
        """Open the data directory if it is one, EXDEV if it is a mount: nobody is asked then. Raises OSError."""
        return openat2(self._volumes_fd, f"{record.name}/{DATA}", _DIRECTORY, resolve=_STAY)

    def _check_unmounted(self, record: VolumeRecord) -> None:
        """Unmount the data if the options mounted it. Raises System if anything is mounted on it then."""
        path = self.mountpoint(record)
        try:
            directory = self.open_volume(record)
        except OSError:
            return  # it is gone, or no directory: what is there is moved away whole, and nothing below it is followed
        with owned_fd(directory), contextlib.suppress(FileNotFoundError):
            if not is_mount_point(directory, DATA):
                return
            source = source_of(record.options)
            if source is not None:
                self._mounter.unmount(source, directory, DATA, path)
            if is_mount_point(directory, DATA):
                raise System(
                    f"error removing volume path '{os.path.dirname(path)}': unlinkat {path}: device or resource busy",
                    hint=f"something else is mounted there: umount {path}",
                )

    def _is_of_pool(self, record: VolumeRecord) -> bool:
        """Tell whether what is mounted is one directory of the pool's own file system, which hangs when we do."""
        source = source_of(record.options)
        if source is None or source.type != "none" or "rbind" in source.words:
            return False
        try:
            mounted = mount_at(f"{os.path.realpath(self.volumes_root)}/{record.name}/{DATA}")
        except OSError:
            return False
        ours = os.fstat(self._volumes_fd).st_dev
        return mounted is not None and mounted.device == f"{os.major(ours)}:{os.minor(ours)}"

    def _gone(self, record: VolumeRecord) -> NotFound:
        return NotFound(
            f"get {record.name}: no such volume", hint=f"its directory {self.volumes_root / record.name} is gone"
        )


def _replace_record(directory: int, record: VolumeRecord) -> None:
    """Write a volume's record anew: a power cut leaves the old one or the new one."""
    _write_record(directory, record, RECORD + ".new", flush=True)
    os.rename(RECORD + ".new", RECORD, src_dir_fd=directory, dst_dir_fd=directory)


def _write_record(directory: int, record: VolumeRecord, name: str, *, flush: bool = False) -> None:
    content = asdict(record)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with owned_fd(os.open(name, flags, 0o600, dir_fd=directory)) as file:
        data = memoryview(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape"))
        while data:
            data = data[os.write(file, data) :]
        if flush:
            fsync_fd(file)


def _read_record(directory: int, name: str) -> VolumeRecord | None:
    """Read a volume's record; None if it is missing, damaged or another volume's."""
    try:
        with owned_fd(os.open(RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) as file:
            content = json.loads(os.read(file, _RECORD_LIMIT_BYTES))
        record = VolumeRecord(**content)
        return record if record.name == name and re.fullmatch(r"[0-9a-f]{64}", record.id) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        logger.warning("volume record is damaged", extra={"volume": name, "error": error})
        return None


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _why(error: OSError) -> str:
    """Give the kernel's words for an error, lower case as Docker prints them."""
    return (error.strerror or errno.errorcode.get(error.errno or 0, str(error))).lower()
