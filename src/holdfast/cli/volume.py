"""`holdfast volume`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from holdfast.cli import human
from holdfast.cli.command import command, filter_option, format_option, gathered, key_value
from holdfast.cli.output import Layout, Row, joined, print_rows
from holdfast.cli.session import Refused, confirmed, for_each, pass_client
from holdfast.client import Client, Document

_LAYOUT = Layout(
    headings={
        "Availability": "AVAILABILITY",
        "Driver": "DRIVER",
        "Group": "GROUP",
        "Label": lambda name: str(name).rpartition(".")[2],
        "Labels": "LABELS",
        "Links": "LINKS",
        "Mountpoint": "MOUNTPOINT",
        "Name": "VOLUME NAME",
        "Scope": "SCOPE",
        "Size": "SIZE",
        "Status": "STATUS",
    },
    table="Driver Name",
    quiet="Name",
)


def row(volume: Document) -> Row:
    """One volume in a list. Links and Size are known only where the engine measured them (`system df`)."""
    labels = volume.mapping("Labels")
    usage = volume.document("UsageData")
    size = usage.number("Size", -1)
    return {
        "Availability": "N/A",
        "Driver": volume.text("Driver"),
        "Group": "N/A",
        "Label": lambda name: labels.get(name, ""),
        "Labels": joined(labels),
        "Links": str(usage.number("RefCount")) if usage.raw else "N/A",
        "Mountpoint": volume.text("Mountpoint"),
        "Name": volume.text("Name"),
        "Scope": volume.text("Scope"),
        "Size": human.size(size) if size >= 0 else "N/A",
        "Status": "N/A",
    }


@command("create")
@click.argument("name", required=False, metavar="[VOLUME]")
@click.option("-d", "--driver", default="local", metavar="NAME", help="Driver of the volume (default local)")
@click.option("options", "-o", "--opt", multiple=True, metavar="KEY=VALUE", help="Option for the driver")
@click.option("labels", "--label", multiple=True, metavar="KEY=VALUE", help="Label")
@click.option("named", "--name", hidden=True, metavar="VOLUME")
@pass_client
def create(
    client: Client,
    name: str | None,
    driver: str,
    options: Sequence[str],
    labels: Sequence[str],
    named: str | None,
) -> int:
    """Create a volume, or find the one of that name; without a name, an anonymous one. Prints the name."""
    if name and named:
        raise Refused("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
    volume = client.volumes.create(
        name or named or "",
        driver=driver,
        options=dict(map(key_value, options)),
        labels=dict(map(key_value, labels)),
    )
    print(volume.text("Name"))
    return 0


@command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Only show volume names")
@filter_option("Show only volumes that fit: dangling=true, driver=, label=, name=")
@format_option
@pass_client
def ls(client: Client, quiet: bool, filters: Sequence[tuple[str, str]], template: str) -> int:
    """List volumes, in the natural order of their names."""
    found = client.volumes.find(gathered(filters))
    volumes = found.documents("Volumes")
    volumes.sort(key=lambda volume: human.natural_key(volume.text("Name")))
    print_rows(map(row, volumes), _LAYOUT, template=template, quiet=quiet)
    for warning in found.strings("Warnings"):
        print(f"WARNING: {warning}", file=sys.stderr)
    return 0


@command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="VOLUME [VOLUME...]")
@click.option("template", "-f", "--format", default="", metavar="FORMAT", help='"json" or a Go template')
@pass_client
def inspect(client: Client, names: Sequence[str], template: str) -> int:
    """Show all that is known of volumes, as a JSON array."""
    from holdfast.cli.inspect import show

    return show(names, client.volumes.get, template)


@command("rm")
@click.argument("names", nargs=-1, required=True, metavar="VOLUME [VOLUME...]")
@click.option("-f", "--force", is_flag=True, help="Do not complain about a volume that is not there")
@pass_client
def rm(client: Client, names: Sequence[str], force: bool) -> int:
    """Remove volumes. A volume that a container uses, running or not, stays. Undo takes them back."""
    exit_code = for_each(names, lambda name: client.volumes.remove(name, force=force))
    _tell_way_back(client, names)
    return exit_code


@command("prune")
@click.option("everything", "-a", "--all", is_flag=True, help="Remove named volumes too, not just anonymous ones")
@click.option("-f", "--force", is_flag=True, help="Do not ask first")
@filter_option("Remove only volumes that fit: label=, label!=", short=False)
@pass_client
def prune(client: Client, everything: bool, force: bool, filters: Sequence[tuple[str, str]]) -> int:
    """Remove local volumes that no container uses."""
    wanted = gathered(filters)
    if everything:
        if "all" in wanted:
            raise Refused("conflicting options: cannot specify both --all and --filter all=1")
        wanted["all"] = ["true"]
    kind = "all" if everything else "anonymous"
    if not force and not confirmed(f"This will remove {kind} local volumes not used by at least one container."):
        return 0
    answer = client.volumes.prune(wanted)
    if removed := answer.strings("VolumesDeleted"):
        print("Deleted Volumes:", *removed, "", sep="\n")
    print(f"Total reclaimed space: {human.size(answer.number('SpaceReclaimed'))}")
    _tell_way_back(client, removed)
    return 0


def _tell_way_back(client: Client, names: Sequence[str]) -> None:
    """Say on a terminal's stderr how removed volumes come back."""
    if not names or not sys.stderr.isatty():
        return
    kept = [entry for entry in client.volumes.trash() if entry.text("Name") in names]
    if kept:
        print(f"Kept until {kept[0].text('ExpiresAt')}. To take back: holdfast undo", file=sys.stderr)
