"""`holdfast load`, `save` and `import`: images in and out of files."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import click

from holdfast.cli import reference
from holdfast.cli.command import command
from holdfast.cli.progress import show_progress
from holdfast.cli.session import Refused, pass_client
from holdfast.client import Client
from holdfast.client.transport import pieces


@command("load")
@click.option("path", "-i", "--input", default="", metavar="FILE", help="Read this file instead of stdin")
@click.option("--platform", default="", metavar="PLATFORM", help="Load only this platform, such as linux/arm64")
@click.option("-q", "--quiet", is_flag=True, help="No progress")
@pass_client
def load(client: Client, path: str, platform: str, quiet: bool) -> int:
    """Load images from an archive that save wrote."""
    if not path and sys.stdin.isatty():
        raise Refused("requested load from stdin, but stdin is empty")
    with _opened(path or "-") as archive:
        messages = client.images.load(pieces(archive), quiet=quiet or not sys.stdout.isatty(), platform=platform)
        show_progress(messages, sys.stdout)
    return 0


@command("save")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE [IMAGE...]")
@click.option("path", "-o", "--output", default="", metavar="FILE", help="Write this file instead of stdout")
@click.option("--platform", default="", metavar="PLATFORM", help="Save only this platform, such as linux/arm64")
@pass_client
def save(client: Client, names: Sequence[str], path: str, platform: str) -> int:
    """Save images with all their layers to an archive."""
    if not path and sys.stdout.isatty():
        raise Refused("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with client.images.save(names, platform=platform) as response:
        if path:
            write_whole(path, response.chunks())
        else:
            for data in response.chunks():
                sys.stdout.buffer.write(data)
    return 0


@command("import")
@click.argument("source", metavar="FILE|URL|-")
@click.argument("name", required=False, default="", metavar="[REPOSITORY[:TAG]]")
@click.option("changes", "-c", "--change", multiple=True, metavar="INSTRUCTION", help="Dockerfile instruction to apply")
@click.option("-m", "--message", default="", metavar="TEXT", help="Message for the image's history")
@click.option("--platform", default="", metavar="PLATFORM", help="Platform of the image")
@pass_client
def import_(client: Client, source: str, name: str, changes: Sequence[str], message: str, platform: str) -> int:
    """Make an image of a tarball of a root file system and print its id."""
    repository, tag = reference.split(name)
    remote = source.startswith(("http://", "https://"))
    with contextlib.ExitStack() as undo:
        body = None if remote else pieces(undo.enter_context(_opened(source)))
        messages = client.images.import_(
            source if remote else "-",
            body,
            repository=repository,
            tag=tag,
            message=message,
            changes=changes,
            platform=platform,
        )
        show_progress(messages, sys.stdout)
    return 0


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """A file, or stdin for `-`. Raises Refused for one that cannot be read."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; errors of its reader are not ours
    except OSError as error:
        raise Refused(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    with file:
        yield file


def write_whole(path: str, chunks: Iterator[bytes]) -> None:
    """Write a file under another name first, so that `path` never holds half an archive."""
    try:
        handle, partial = tempfile.mkstemp(prefix=".holdfast-save-", dir=os.path.dirname(path) or ".")
    except OSError as error:
        raise Refused(f"invalid output path: {path}: {(error.strerror or str(error)).lower()}") from error
    with contextlib.ExitStack() as undo:
        undo.callback(os.unlink, partial)
        with os.fdopen(handle, "wb") as file:
            for data in chunks:
                file.write(data)
            os.fchmod(file.fileno(), 0o600)
        os.replace(partial, path)
        undo.pop_all()
