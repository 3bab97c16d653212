"""`holdfast undo`, `holdfast volume trash`, `protect`, `unprotect`, `update`: what one command cannot lose."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.cli import human
from holdfast.cli.command import command, format_option, key_value
from holdfast.cli.output import Layout, Row, joined, print_rows
from holdfast.cli.session import confirmed, for_each, pass_client
from holdfast.cli.when import timestamp
from holdfast.client import Client, Document

_LAYOUT = Layout(
    headings={
        "CreatedAt": "CREATED AT",
        "Driver": "DRIVER",
        "Expires": "EXPIRES",
        "ExpiresAt": "EXPIRES AT",
        "ID": "TRASH ID",
        "Labels": "LABELS",
        "Name": "VOLUME NAME",
        "Removed": "REMOVED",
        "RemovedAt": "REMOVED AT",
        "Size": "SIZE",
    },
    table="ID Name Removed Expires Size",
    quiet="ID",
)


def row(entry: Document) -> Row:
    """One removed volume in a list."""
    size = entry.number("Size", -1)
    left_s = -human.age(float(timestamp(entry.text("ExpiresAt"))))
    return {
        "CreatedAt": entry.text("CreatedAt"),
        "Driver": entry.text("Driver"),
        "Expires": "in " + human.duration(max(0, left_s)).lower(),
        "ExpiresAt": entry.text("ExpiresAt"),
        "ID": entry.text("Id")[:12],
        "Labels": joined(entry.mapping("Labels")),
        "Name": entry.text("Name"),
        "Removed": human.ago(float(timestamp(entry.text("RemovedAt")))),
        "RemovedAt": entry.text("RemovedAt"),
        "Size": human.size(size) if size >= 0 else "N/A",
    }


@command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Only show ids")
@format_option
@pass_client
def ls(client: Client, quiet: bool, template: str) -> int:
    """List removed volumes that can be had back, the last removed first."""
    print_rows(map(row, client.volumes.trash()), _LAYOUT, template=template, quiet=quiet)
    return 0


@command("restore")
@click.argument("reference", metavar="VOLUME|ID")
@click.option("--name", default="", metavar="NEW-NAME", help="Come back under another name")
@pass_client
def restore(client: Client, reference: str, name: str) -> int:
    """Take back a removed volume with its data, labels and options. Prints its name."""
    print(client.volumes.restore(reference, name).text("Name"))
    return 0


@command("empty")
@click.argument("references", nargs=-1, metavar="[VOLUME|ID...]")
@click.option("-f", "--force", is_flag=True, help="Do not ask first")
@pass_client
def empty(client: Client, references: Sequence[str], force: bool) -> int:
    """Delete removed volumes for good: those named, else all. This cannot be undone."""
    what = "these removed volumes" if references else "every removed volume"
    if not force and not confirmed(f"This will delete {what} for good."):
        return 0
    for entry in client.volumes.empty_trash(references):
        print(entry.text("Name"))
    return 0


@command("undo")
@pass_client
def undo(client: Client) -> int:
    """Take back the volumes that the last removal took: volume rm, volume prune, rm -v, compose down -v."""
    for volume in client.volumes.undo():
        print(volume.text("Name"))
    return 0


@command("protect")
@click.argument("names", nargs=-1, required=True, metavar="VOLUME [VOLUME...]")
@pass_client
def protect(client: Client, names: Sequence[str]) -> int:
    """Refuse every removal of volumes, in your name, until they are unprotected."""
    return for_each(names, client.volumes.protect)


@command("unprotect")
@click.argument("names", nargs=-1, required=True, metavar="VOLUME [VOLUME...]")
@pass_client
def unprotect(client: Client, names: Sequence[str]) -> int:
    """Let volumes be removed again."""
    return for_each(names, client.volumes.unprotect)


@command("update")
@click.argument("name", metavar="VOLUME")
@click.option("added", "--label-add", multiple=True, metavar="KEY=VALUE", help="Add or change a label")
@click.option("removed", "--label-rm", multiple=True, metavar="KEY", help="Remove a label")
@pass_client
def update(client: Client, name: str, added: Sequence[str], removed: Sequence[str]) -> int:
    """Change a volume's labels. Prints its name."""
    labels = client.volumes.get(name).mapping("Labels")
    labels = {key: value for key, value in labels.items() if key not in removed} | dict(map(key_value, added))
    client.volumes.relabel(name, labels)
    print(name)
    return 0
