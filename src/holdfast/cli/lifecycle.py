"""Commands that do one thing to each of several containers."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.cli import human
from holdfast.cli.command import INTEGER, command, filter_option, gathered
from holdfast.cli.session import complain, confirmed, for_each, pass_client
from holdfast.client import Client
from holdfast.errors import EngineError, NotFound, NotModified

_containers = click.argument("names", nargs=-1, required=True, metavar="CONTAINER [CONTAINER...]")
_signal = click.option("-s", "--signal", default="", metavar="SIGNAL", help="Signal to send")
_timeout = click.option(
    "timeout_s",
    "-t",
    "--timeout",
    "--time",
    type=INTEGER,
    metavar="SECONDS",
    help="Wait so long before SIGKILL; -1 for ever",
)


@command("stop")
@_containers
@_signal
@_timeout
@pass_client
def stop(client: Client, names: Sequence[str], signal: str, timeout_s: int | None) -> int:
    """Stop running containers: their stop signal first, SIGKILL when they do not heed it."""

    def one(name: str) -> None:
        try:
            client.containers.stop(name, timeout_s=timeout_s, signal=signal)
        except NotModified:
            pass  # it does not run, as wanted

    return for_each(names, one)


@command("restart")
@_containers
@_signal
@_timeout
@pass_client
def restart(client: Client, names: Sequence[str], signal: str, timeout_s: int | None) -> int:
    """Stop and start containers."""
    return for_each(names, lambda name: client.containers.restart(name, timeout_s=timeout_s, signal=signal))


@command("kill")
@_containers
@click.option("-s", "--signal", default="KILL", metavar="SIGNAL", help="Signal to send (default KILL)")
@pass_client
def kill(client: Client, names: Sequence[str], signal: str) -> int:
    """Send a signal to the first process of running containers."""
    return for_each(names, lambda name: client.containers.kill(name, signal))


@command("pause")
@_containers
@pass_client
def pause(client: Client, names: Sequence[str]) -> int:
    """Freeze all processes of containers."""
    return for_each(names, client.containers.pause)


@command("unpause")
@_containers
@pass_client
def unpause(client: Client, names: Sequence[str]) -> int:
    """Let the processes of paused containers go on."""
    return for_each(names, client.containers.unpause)


@command("rename")
@click.argument("name", metavar="CONTAINER")
@click.argument("new_name", metavar="NEW_NAME")
@pass_client
def rename(client: Client, name: str, new_name: str) -> int:
    """Give a container another name."""
    client.containers.rename(name, new_name)
    return 0


@command("rm")
@_containers
@click.option("-f", "--force", is_flag=True, help="Kill running ones first; accept those that are not there")
@click.option("-v", "--volumes", is_flag=True, help="Remove their anonymous volumes too")
@pass_client
def rm(client: Client, names: Sequence[str], force: bool, volumes: bool) -> int:
    """Remove containers. Named volumes stay."""
    exit_code = 0
    for name in names:
        try:
            client.containers.remove(name.strip("/"), force=force, volumes=volumes)
        except EngineError as error:
            complain(error)
            if not (force and isinstance(error, NotFound)):
                exit_code = 1
        else:
            print(name, flush=True)
    return exit_code


@command("wait")
@_containers
@pass_client
def wait(client: Client, names: Sequence[str]) -> int:
    """Block until containers stop; print their exit codes in the order given."""

    def one(name: str) -> None:
        print(client.containers.wait(name).exit_code(), flush=True)

    return for_each(names, one, show=False)


@command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask first")
@filter_option("Remove only containers that fit: label=, label!=, until=", short=False)
@pass_client
def prune(client: Client, force: bool, filters: Sequence[tuple[str, str]]) -> int:
    """Remove all containers that do not run. Their volumes stay."""
    if not force and not confirmed("This will remove all stopped containers."):
        return 0
    answer = client.containers.prune(gathered(filters))
    if removed := answer.strings("ContainersDeleted"):
        print("Deleted Containers:", *removed, "", sep="\n")
    print(f"Total reclaimed space: {human.size(answer.number('SpaceReclaimed'))}")
    return 0
