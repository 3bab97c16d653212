"""Commands that show one side of one container: its processes, changes, files, ports."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from holdfast.cli.command import command
from holdfast.cli.human import natural_key
from holdfast.cli.image_archive import write_whole
from holdfast.cli.output import align
from holdfast.cli.session import Refused, pass_client
from holdfast.client import Client, Document

_TOP_WIDTH = 20
_KINDS = "CAD"


@command("top", flags_first=True)
@click.argument("name", metavar="CONTAINER")
@click.argument("options", nargs=-1, metavar="[PS OPTIONS]")
@pass_client
def top(client: Client, name: str, options: Sequence[str]) -> int:
    """Show a container's processes, as ps of the host lists them."""
    rows = client.containers.top(name, " ".join(options))
    print("\n".join(align(["\t".join(row) for row in rows], minimum=_TOP_WIDTH)))
    return 0


@command("diff")
@click.argument("name", metavar="CONTAINER")
@pass_client
def diff(client: Client, name: str) -> int:
    """Show what a container changed in its root: C changed, A added, D deleted. Volumes do not count."""
    for change in client.containers.changes(name):
        print(_KINDS[change.number("Kind")], change.text("Path"))
    return 0


@command("export")
@click.argument("name", metavar="CONTAINER")
@click.option("path", "-o", "--output", default="", metavar="FILE", help="Write this file instead of stdout")
@pass_client
def export(client: Client, name: str, path: str) -> int:
    """Write a container's files as a tar archive. Volumes are left out."""
    if not path and sys.stdout.isatty():
        raise Refused("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with client.containers.export(name) as response:
        if path:
            write_whole(path, response.chunks())
        else:
            for data in response.chunks():
                sys.stdout.buffer.write(data)
    return 0


@command("port")
@click.argument("name", metavar="CONTAINER")
@click.argument("wanted", required=False, default="", metavar="[PRIVATE_PORT[/PROTOCOL]]")
@pass_client
def port(client: Client, name: str, wanted: str) -> int:
    """Show where a container's ports are published, or where one of them is."""
    published = client.containers.get(name).document("NetworkSettings").document("Ports")
    if wanted:
        number, _, protocol = wanted.partition("/")
        key = f"{number}/{protocol or 'tcp'}"
        if not published.documents(key):
            raise Refused(f"Error: No public port '{wanted}' published for {name}")
        lines = [_address(binding) for binding in published.documents(key)]
    else:
        lines = [f"{key} -> {_address(binding)}" for key in published.raw for binding in published.documents(key)]
    for line in sorted(lines, key=natural_key):
        print(line)
    return 0


def _address(binding: Document) -> str:
    host, number = binding.text("HostIp"), binding.text("HostPort")
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
