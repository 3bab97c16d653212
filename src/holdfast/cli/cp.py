"""`holdfast cp`: files and directories in and out of containers."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator

import click

from holdfast.cli import human
from holdfast.cli.command import command
from holdfast.cli.cp_paths import (
    End,
    link_target,
    local,
    local_destination,
    local_source,
    parse_argument,
    plan,
    rebased,
)
from holdfast.cli.session import Refused, pass_client
from holdfast.client import Client
from holdfast.client.containers import path_stat
from holdfast.client.document import Document
from holdfast.client.http import Response
from holdfast.client.transport import pieces
from holdfast.containers.archive_extract import Rules, extract
from holdfast.containers.archive_reader import Members
from holdfast.containers.archive_walk import write_tree
from holdfast.errors import EngineError
from holdfast.kernel.path import owned_fd

_GO_DIRECTORY, _GO_LINK, _GO_DEVICE = 1 << 31, 1 << 27, 1 << 26
_AHEAD = 8


@command("cp")
@click.option("own", "-a", "--archive", is_flag=True, help="Archive mode (copy all uid/gid information)")
@click.option("follow", "-L", "--follow-link", is_flag=True, help="Always follow symlinks in SRC_PATH")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what was copied; never said where there is no terminal")
@click.argument("source", metavar="CONTAINER:SRC_PATH|SRC_PATH|-")
@click.argument("destination", metavar="DEST_PATH|CONTAINER:DEST_PATH|-")
@pass_client
def cp(client: Client, source: str, destination: str, own: bool, follow: bool, quiet: bool) -> int:
    """Copy files/folders between a container and the local filesystem.

    `-` as the source reads a tar archive from stdin and unpacks it into a directory of the container. `-` as the
    destination writes a tar archive of the container's file or directory to stdout.
    """
    if not source:
        raise Refused("source can not be empty")
    if not destination:
        raise Refused("destination can not be empty")
    source_container, source_path = parse_argument(source)
    container, path = parse_argument(destination)
    if source_container and container:
        raise Refused("copying between containers is not supported")
    if source_container:
        size_bytes = _copy_out(client, source_container, source_path, path, follow=follow)
        where = local(path)
    elif container:
        where, size_bytes = _copy_in(client, source_path, container, path, own=own, follow=follow)
    else:
        raise Refused("must specify at least one container source")
    if not quiet and sys.stdout.isatty() and path != "-":
        print(f"Successfully copied {human.size(size_bytes, 3)} to {where}", file=sys.stderr)
    return 0


def _copy_out(client: Client, container: str, path: str, destination: str, *, follow: bool) -> int:
    """Copy from a container; the size of the archive that came, in bytes."""
    if destination != "-":
        local_destination(local(destination))  # before anything is asked
    shown_as = ""
    if follow:
        with contextlib.suppress(EngineError):  # the engine says so again below
            found = client.containers.archive_stat(container, path)
            if found.number("mode") & _GO_LINK:
                path, shown_as = link_target(path, found.text("linkTarget"))
    with client.containers.archive_get(container, path) as response:
        archive = _Pieces(response)
        if destination == "-":
            while data := archive.read(1 << 20):
                sys.stdout.buffer.write(data)
            return archive.size_bytes
        source = End(path, True, _is_directory(path_stat(response)), shown_as)
        # The archive's top has the name of what was asked for, whatever it shall be called here.
        top = End(path).top
        goal = plan(source, local_destination(local(destination)))
        members = Members(archive, lambda name: rebased(name, top, goal.name))
        with owned_fd(_open(goal.directory, os.O_PATH | os.O_DIRECTORY)) as directory:
            try:
                extract(directory, members, Rules(goal.directory, chown=False, keep_kinds=True))
            except FileNotFoundError as error:
                raise Refused(f"{error.filename}: no such file or directory") from error
            except ConnectionResetError as error:
                raise Refused("unexpected EOF") from error
            members.drain()
        return archive.size_bytes


def _copy_in(client: Client, source: str, container: str, path: str, *, own: bool, follow: bool) -> tuple[str, int]:
    """Copy into a container; where to, and the size of the archive that was sent, in bytes."""
    if source != "-":
        source = local(source)
    destination = _look(client, container, path)
    if source == "-":
        if not destination.is_directory:
            raise Refused(f'destination "{container}:{path}" must be a directory')
        counted = _Counted(pieces(sys.stdin.buffer))
        client.containers.archive_put(container, destination.path, counted, own=own)
        return f"{container}:{destination.path}", counted.size_bytes
    begin = local_source(source, follow=follow)
    goal = plan(begin, destination)
    with owned_fd(_open(begin.path, os.O_PATH | os.O_NOFOLLOW)) as fd:
        counted = _Counted(_produced(lambda emit: write_tree(fd, goal.name, emit)))
        client.containers.archive_put(container, goal.directory, counted, own=own)
    return f"{container}:{destination.path}", counted.size_bytes


def _look(client: Client, container: str, path: str) -> End:
    """Look at a destination in a container, through a link at its end; what cannot be seen counts as missing."""
    try:
        found = client.containers.archive_stat(container, path)
        if found.number("mode") & _GO_LINK:
            path = found.text("linkTarget")
            found = client.containers.archive_stat(container, path)
    except EngineError:
        return End(path, exists=False)
    if found.number("mode") & _GO_DEVICE:
        raise Refused(f'destination "{container}:{path}" must be a directory or a regular file: got a device')
    return End(path, True, _is_directory(found))


def _is_directory(found: Document) -> bool:
    return bool(found.number("mode") & _GO_DIRECTORY)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"open {path}: {(error.strerror or str(error)).lower()}") from error


class _Pieces:
    """An answer's body as an archive's source."""

    def __init__(self, response: Response) -> None:
        self._chunks = response.chunks()
        self._current = memoryview(b"")
        self.size_bytes = 0

    def read(self, size: int) -> memoryview:
        if not self._current:
            self._current = memoryview(next(self._chunks, b""))
            self.size_bytes += len(self._current)
        piece, self._current = self._current[:size], self._current[size:]
        return piece


class _Counted:
    """Pieces on their way out, and their size so far."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._source:
            self.size_bytes += len(piece)
            yield piece


def _produced(work: Callable[[Callable[[bytes], None]], None]) -> Iterator[bytes]:
    """Give what `work(emit)` emits in a thread of its own; then raise what it raised, if anything."""
    waiting: queue.Queue[bytes | OSError | EngineError] = queue.Queue(_AHEAD)

    def run() -> None:
        try:
            work(waiting.put)
            waiting.put(b"")
        except (OSError, EngineError) as error:
            waiting.put(error)

    threading.Thread(target=run, daemon=True).start()
    while piece := waiting.get():
        if isinstance(piece, OSError):
            raise Refused(f"{piece.filename}: {(piece.strerror or str(piece)).lower()}") from piece
        if isinstance(piece, EngineError):
            raise Refused(str(piece)) from piece
        yield piece
