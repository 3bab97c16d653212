"""`holdfast run` and `holdfast create`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import click

from holdfast.cli.command import command
from holdfast.cli.container_body import container_body
from holdfast.cli.container_flags import container_options
from holdfast.cli.reference import split, with_tag
from holdfast.cli.session import Refused, explain, pass_client, require_terminal
from holdfast.client import Client, ClientError
from holdfast.errors import EngineError, NotFound

_IMAGE = click.argument("image", metavar="IMAGE")
_COMMAND = click.argument("words", nargs=-1, metavar="[COMMAND] [ARG...]", type=click.UNPROCESSED)


@command("create", flags_first=True)
@container_options
@_IMAGE
@_COMMAND
@pass_client
def create(client: Client, /, image: str, words: Sequence[str], **flags: object) -> int:
    """Create a container of IMAGE and print its id; it is not started."""
    try:
        body = container_body(image, words, flags, detach=False)
    except Refused as error:
        return _failed("create", error, 125)
    print(create_container(client, body, flags))
    return 0


@command("run", flags_first=True)
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process (default)")
@container_options
@_IMAGE
@_COMMAND
@pass_client
def run(client: Client, /, image: str, words: Sequence[str], detach: bool, sig_proxy: bool, **flags: object) -> int:
    """Create a container of IMAGE and start it; in the foreground, end with its exit code.

    125 means that the engine failed, 126 that COMMAND cannot be run, 127 that it is not there.
    """
    if detach and flags["attach"]:
        raise Refused("conflicting options: cannot specify both --attach and --detach")
    if not detach:
        require_terminal(stdin=bool(flags["interactive"]), tty=bool(flags["tty"]))
    try:
        body = container_body(image, words, flags, detach=detach)
        if detach:
            identifier = create_container(client, body, flags)
            try:
                client.containers.start(identifier)
            finally:
                print(identifier)
            return 0
        return _in_foreground(client, body, flags, sig_proxy=sig_proxy)
    except EngineError as error:
        return _failed("run", error, _status(error))


def _in_foreground(client: Client, body: dict[str, object], flags: dict[str, object], *, sig_proxy: bool) -> int:
    from holdfast.cli.streams import join
    from holdfast.cli.terminal import terminal_size

    tty, stdin = bool(flags["tty"]), bool(body["AttachStdin"])
    if tty and (size := terminal_size()):
        host = body["HostConfig"]
        assert isinstance(host, dict)
        host["ConsoleSize"] = list(size)
    identifier = create_container(client, body, flags)
    code = join(
        client,
        identifier,
        stdin=stdin,
        tty=tty,
        stdout=bool(body["AttachStdout"]),
        stderr=bool(body["AttachStderr"]),
        detach_keys=str(flags["detach_keys"] or ""),
        wait_for="removed" if flags["rm"] else "next-exit",
        pass_signals=sig_proxy,
        begin=lambda: client.containers.start(identifier),
    )
    return code or 0


def create_container(client: Client, body: dict[str, object], flags: dict[str, object]) -> str:
    """Create the container and give its id; fetch the image first where `--pull` says so or the engine lacks it."""
    image, name, platform = str(body["Image"]), str(flags["name"] or ""), str(flags["platform"] or "")
    policy = flags["pull"] or "missing"
    with _id_file(str(flags["cidfile"] or "")) as write_id:
        if policy == "always":
            _pull(client, image, platform, quiet=bool(flags["quiet"]))
        try:
            created = client.containers.create(body, name=name, platform=platform)
        except NotFound:
            if policy != "missing":
                raise
            if not flags["quiet"]:
                print(f"Unable to find image '{with_tag(image)}' locally", file=sys.stderr)
            _pull(client, image, platform, quiet=bool(flags["quiet"]))
            created = client.containers.create(body, name=name, platform=platform)
        for warning in created.strings("Warnings"):
            print(f"WARNING: {warning}", file=sys.stderr)
        write_id(created.text("Id"))
        return created.text("Id")


@contextlib.contextmanager
def _id_file(path: str) -> Iterator[Callable[[str], object]]:
    """Open the file of `--cidfile` before anything is made, and take it away if nothing was. Raises Refused."""
    if not path:
        yield str
        return
    try:
        file = open(path, "x", encoding="ascii")  # noqa: SIM115 - its errors are told apart from the body's
    except FileExistsError:
        raise Refused(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Refused(f"failed to create the container ID file: open {path}: {reason}") from error
    with file, contextlib.ExitStack() as undo:
        undo.callback(os.unlink, path)
        yield file.write
        undo.pop_all()


def _pull(client: Client, image: str, platform: str, *, quiet: bool) -> None:
    from holdfast.cli.credentials import auth_header
    from holdfast.cli.progress import show_progress
    from holdfast.cli.reference import full

    repository, tag = split(with_tag(image))
    messages = client.images.pull(full(repository), tag, platform=platform, auth=auth_header(repository))
    show_progress(messages, None if quiet else sys.stderr)


def _status(error: EngineError) -> int:
    """The exit code for a container that could not run. Source: docker/cli, toStatusError."""
    text = str(error)
    if isinstance(error, ClientError):
        return 125
    if "executable file not found" in text or "no such file or directory" in text.lower():
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 125


def _failed(verb: str, error: EngineError, code: int) -> int:
    print(f"holdfast: {explain(error)}\n\nRun 'holdfast {verb} --help' for more information", file=sys.stderr)
    return code
