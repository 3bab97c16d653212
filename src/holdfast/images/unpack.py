"""A layer's tar, compressed or not, made into a directory that overlayfs can stack. Layers are hostile.

What keeps them in is a root of its own for the programs that read them (kernel/confine.py): GNU tar and the
decompressor see the host's programs, read-only, and the directory to fill. They hold no privilege beyond making files,
little memory, and a time limit. Whiteouts come out of the tar as plain files and are turned here into overlayfs's own.
Source: OCI image specification, `layer.md`; Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from holdfast import faults
from holdfast.errors import DeadlineExceeded, InvalidParameter, System
from holdfast.images.whiteouts import Listing, apply_hard_links, apply_whiteouts
from holdfast.kernel.confine import DATA, in_private_root
from holdfast.kernel.path import owned_fd, tree_size_bytes
from holdfast.process.run import CLEAN_ENVIRONMENT, spawn

MEDIA_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
CHUNK: Final = 1 << 20

_TIMEOUT_S: Final = 3600.0
_MEMORY_BYTES: Final = 1 << 30
_FREE_RESERVE_BYTES: Final = 64 << 20
_FREE_CHECK_BYTES: Final = 64 << 20
_SAID_BYTES: Final = 2000

_PRIVILEGES: Final = "-all,+chown,+dac_override,+fowner,+fsetid,+mknod,+setfcap"
_CONFINED: Final = ("setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={_PRIVILEGES}", "--")
_TAR: Final = (
    "tar",
    "--extract",
    "--verbose",
    "--verbose",
    "--file=-",
    f"--directory={DATA}",
    "--absolute-names",  # else it puts off links with `..`, and what goes through them fails
    "--transform=s,^//*,,rhS",
    "--numeric-owner",
    "--same-owner",
    "--same-permissions",
    "--delay-directory-restore",
    "--quoting-style=escape",
    "--quote-chars= ",  # a name ends where ` link to ` begins
    "--warning=no-timestamp",
    "--xattrs",
    "--xattrs-include=*",
    "--xattrs-exclude=trusted.*",  # only overlayfs itself may write these: they redirect and hide files
    "--xattrs-exclude=security.selinux",
)
_DECOMPRESSORS: Final = {
    "gzip": ("gzip", "--decompress", "--stdout"),
    "bzip2": ("bzip2", "--decompress", "--stdout"),
    "xz": ("xz", "--decompress", "--stdout", "--memlimit-decompress=512MiB"),
    "zstd": ("zstd", "--decompress", "--stdout", "--quiet"),
}
_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out of a layer: the digest of the uncompressed tar, and the size of its files in bytes."""

    diff_id: str
    size_bytes: int


def compression_of(head: bytes) -> str:
    """Tell by its first bytes how data is compressed: gzip, bzip2, xz, zstd or "" for none of these. Pure."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")


def media_type_of(compression: str) -> str:
    """The OCI media type of a layer compressed so; bzip2 and xz have none of their own."""
    return f"{MEDIA_TYPE}+{compression}" if compression in ("gzip", "zstd") else MEDIA_TYPE


@contextlib.contextmanager
def decompressed(path: Path, compression: str) -> Iterator[IO[bytes]]:
    """Read a compressed file as what it holds. Raises InvalidParameter at the end if the data is damaged."""
    with open(path, "rb", buffering=0) as source, tempfile.TemporaryDirectory(dir=path.parent) as nothing:
        errors = _scratch(path.parent)
        with errors, _killed_at_the_end() as children:
            child = in_private_root(
                nothing,
                lambda: _start(
                    _DECOMPRESSORS[compression], stdin=source.fileno(), stdout=subprocess.PIPE, stderr=errors.fileno()
                ),
            )
            children.append(child)
            assert child.stdout is not None
            with child.stdout as plain:
                yield plain
                ended_early = bool(plain.read(1))
            if child.wait() != 0 and not ended_early:
                raise InvalidParameter(f"invalid archive: {_said(errors)}")


def start_decompressor(compression: str, directory: Path) -> subprocess.Popen[bytes]:
    """Start the host's program for a stream of data from elsewhere, confined; the caller feeds, reads and reaps it.

    `directory` is empty and stays so. What is damaged ends early. Raises ProgramFailed, OSError.
    """
    argv, pipe = _DECOMPRESSORS[compression], subprocess.PIPE
    with open(os.devnull, "wb") as nowhere:
        errors = nowhere.fileno()
        return in_private_root(directory, lambda: _start(argv, stdin=pipe, stdout=pipe, stderr=errors))


def unpack(
    blob: Path, destination: Path, *, known_diff_id: str | None = None, whiteouts: bool = True
) -> Unpacked:
    """Unpack a layer's tar into the empty directory `destination`; without `whiteouts` any other tar.

    `known_diff_id` is the digest of the blob itself where the caller has computed it: an uncompressed tar is then not
    read twice. Needs root. Raises InvalidParameter for a damaged or malicious layer (wrong entries, an attempt to get
    out), System when the disk refuses or is full. What was written stays in `destination` for the caller to remove.
    """
    with (
        open(blob, "rb", buffering=0) as source,
        _scratch(destination.parent) as errors,
        _scratch(destination.parent) as names,
        _killed_at_the_end() as children,
    ):
        compression = compression_of(os.pread(source.fileno(), 8, 0))
        direct = known_diff_id is not None and not compression
        plain: IO[bytes] = source

        def start() -> subprocess.Popen[bytes]:
            nonlocal plain
            if compression:
                decompressor = _start(
                    _DECOMPRESSORS[compression], stdin=source.fileno(), stdout=subprocess.PIPE, stderr=errors.fileno()
                )
                children.append(decompressor)
                assert decompressor.stdout is not None
                plain = decompressor.stdout
            child = _start(
                _TAR,
                stdin=source.fileno() if direct else subprocess.PIPE,
                stdout=names.fileno(),
                stderr=errors.fileno(),
            )
            children.append(child)
            return child

        tar = in_private_root(destination, start)
        if known_diff_id is not None and direct:
            check_room(destination, os.fstat(source.fileno()).st_size)
            diff_id = known_diff_id
        else:
            diff_id = _pump(plain, tar, destination)
        statuses = [child.wait() for child in children]
        _raise_failure(statuses, errors, destination)
        faults.point("image-layer-extracted")
        names.seek(0)
        with owned_fd(os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            listed = Listing.parse(names)
            apply_hard_links(root, listed.hard_links)
            if whiteouts:
                apply_whiteouts(root, listed.whiteouts)
            return Unpacked(diff_id, tree_size_bytes(root))


def _pump(plain: IO[bytes], tar: subprocess.Popen[bytes], destination: Path) -> str:
    """Feed tar what `plain` gives and digest it in passing, to the end even if tar is content before that."""
    digest = hashlib.sha256()
    assert tar.stdin is not None
    room = Room(destination)
    with plain, contextlib.suppress(BrokenPipeError), tar.stdin as sink:
        while data := plain.read(CHUNK):
            digest.update(data)
            room.take(len(data))
            try:
                sink.write(data)
            except BrokenPipeError:
                if tar.wait(_TIMEOUT_S) != 0:
                    break
                while data := plain.read(CHUNK):
                    digest.update(data)
    return f"sha256:{digest.hexdigest()}"


class Room:
    """Looks now and then whether there is still room for what is written to a directory; see `check_room`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unchecked = 0

    def take(self, size_bytes: int) -> None:
        """Say that so much is about to be written. Raises System when the disk would be too full."""
        self._unchecked += size_bytes
        if self._unchecked > _FREE_CHECK_BYTES:
            check_room(self._directory, self._unchecked)
            self._unchecked = 0


def check_room(destination: Path, size_bytes: int) -> None:
    """Stop before the disk is full, for other data lives on it: 64 MiB are kept free, a fiftieth of a small disk.

    Raises System if `size_bytes` more would leave less.
    """
    disk = shutil.disk_usage(destination)
    if disk.free < size_bytes + min(_FREE_RESERVE_BYTES, disk.total // 50):
        raise System(f"unpack layer: {os.strerror(errno.ENOSPC)}", hint="remove what is not needed, or add room")


def _start(argv: tuple[str, ...], *, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    child = spawn([*_CONFINED, *argv], env=CLEAN_ENVIRONMENT, stdin=stdin, stdout=stdout, stderr=stderr)
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(PermissionError):  # beyond the user's limit; it is only slower then
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, CHUNK)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(child.pid, resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
    return child


def _scratch(directory: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=directory)


@contextlib.contextmanager
def _killed_at_the_end() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Collect children; whatever still runs at the end of the block, or after the time limit, is killed."""
    children: list[subprocess.Popen[bytes]] = []
    late = threading.Event()

    def give_up() -> None:
        late.set()
        for child in children:
            child.kill()

    timer = threading.Timer(_TIMEOUT_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield children
    except Exception as error:
        if late.is_set():
            raise DeadlineExceeded(f"unpack layer: given up after {_TIMEOUT_S:g} s") from error
        raise
    finally:
        timer.cancel()
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _raise_failure(statuses: list[int], errors: IO[bytes], destination: Path) -> None:
    if not any(statuses):
        return
    said = _said(errors)
    if os.strerror(errno.ENOSPC) in said or os.strerror(errno.EDQUOT) in said:
        raise System(f"unpack layer: {said}")
    check_room(destination, 0)
    raise InvalidParameter(f"invalid layer: {said or statuses}")


def _said(errors: IO[bytes]) -> str:
    """The first thing a program complained about; later ones are mostly consequences."""
    errors.seek(0)
    text = errors.read(_SAID_BYTES).decode(errors="replace").strip()
    return text.partition("\n")[0]
