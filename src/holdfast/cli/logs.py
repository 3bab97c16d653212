"""`holdfast logs`."""

from __future__ import annotations

import click

from holdfast.cli.command import command
from holdfast.cli.session import pass_client
from holdfast.cli.streams import copy_framed, copy_raw
from holdfast.cli.when import timestamp
from holdfast.client import Client


@command("logs")
@click.argument("name", metavar="CONTAINER")
@click.option("--details", is_flag=True, help="Show what else the logging driver knows")
@click.option("-f", "--follow", is_flag=True, help="Go on as the container writes")
@click.option("--since", default="", metavar="TIME", help="Only what is newer: a time, or 42m for 42 minutes ago")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines")
@click.option("-t", "--timestamps", is_flag=True, help="Show times")
@click.option("--until", default="", metavar="TIME", help="Only what is older")
@pass_client
def logs(
    client: Client, name: str, details: bool, follow: bool, since: str, tail: str, timestamps: bool, until: str
) -> int:
    """Show what a container wrote: its stdout on stdout, its stderr on stderr."""
    container = client.containers.get(name)
    response = client.containers.logs(
        container.text("Id"),
        details=details,
        follow=follow,
        since=timestamp(since),
        tail=tail,
        timestamps=timestamps,
        until=timestamp(until),
    )
    with response:
        copy = copy_raw if container.document("Config").flag("Tty") else copy_framed
        copy(response.chunks())
    return 0
