"""`holdfast attach`."""

from __future__ import annotations

import click

from holdfast.cli.command import command, detach_keys_option
from holdfast.cli.session import Refused, pass_client, require_terminal
from holdfast.cli.streams import join
from holdfast.client import Client


@command("attach")
@click.argument("name", metavar="CONTAINER")
@detach_keys_option
@click.option("--no-stdin", is_flag=True, help="Do not attach stdin")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the process (default)")
@pass_client
def attach(client: Client, name: str, detach_keys: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Take part in a running container's input and output; ends with its exit code."""
    container = client.containers.get(name)
    state, config = container.document("State"), container.document("Config")
    if not state.flag("Running"):
        raise Refused("cannot attach to a stopped container, start it first")
    if state.flag("Paused"):
        raise Refused("cannot attach to a paused container, unpause it first")
    if state.flag("Restarting"):
        raise Refused("cannot attach to a restarting container, wait until it is running")
    tty, stdin = config.flag("Tty"), config.flag("OpenStdin") and not no_stdin
    require_terminal(stdin=stdin, tty=tty)
    code = join(client, name, stdin=stdin, tty=tty, detach_keys=detach_keys, pass_signals=sig_proxy)
    if code is None:
        raise Refused("read escape sequence")
    return code
