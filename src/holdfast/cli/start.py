"""`holdfast start`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.cli.command import command, detach_keys_option
from holdfast.cli.session import Refused, complain, pass_client, require_terminal
from holdfast.client import Client
from holdfast.errors import EngineError, NotModified


@command("start")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER [CONTAINER...]")
@click.option("-a", "--attach", is_flag=True, help="Attach stdout and stderr, pass signals on, wait for the end")
@click.option("-i", "--interactive", is_flag=True, help="Attach stdin too")
@detach_keys_option
@pass_client
def start(client: Client, names: Sequence[str], attach: bool, interactive: bool, detach_keys: str) -> int:
    """Start stopped containers; one that runs already is none to complain about."""
    if attach or interactive:
        if len(names) > 1:
            raise Refused("you cannot start and attach multiple containers at once")
        return _attached(client, names[0], interactive=interactive, detach_keys=detach_keys)
    failed: list[str] = []
    for name in names:
        try:
            _start(client, name)
        except EngineError as error:
            complain(error)
            failed.append(name)
        else:
            print(name, flush=True)
    if failed:
        raise Refused(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _start(client: Client, name: str) -> None:
    try:
        client.containers.start(name)
    except NotModified:
        pass  # it runs, as wanted


def _attached(client: Client, name: str, *, interactive: bool, detach_keys: str) -> int:
    from holdfast.cli.streams import join

    container = client.containers.get(name)
    identifier, config = container.text("Id"), container.document("Config")
    tty, stdin = config.flag("Tty"), interactive and config.flag("OpenStdin")
    require_terminal(stdin=stdin, tty=tty)
    removed = container.document("HostConfig").flag("AutoRemove")
    code = join(
        client,
        identifier,
        stdin=stdin,
        tty=tty,
        detach_keys=detach_keys,
        wait_for="removed" if removed else "next-exit",
        begin=lambda: _start(client, identifier),
    )
    return code or 0
