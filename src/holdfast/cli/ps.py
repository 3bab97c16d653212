"""`holdfast ps`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from holdfast.cli import human
from holdfast.cli.command import INTEGER, command, filter_option, format_option, gathered
from holdfast.cli.output import Layout, Row, columns, joined, print_rows
from holdfast.cli.session import pass_client
from holdfast.client import Client, Document

_FIELDS = "ID Image Command RunningFor Status Ports Names"

_LAYOUT = Layout(
    headings={
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Label": lambda name: str(name).rpartition(".")[2].replace("-", " ").replace("_", " "),
        "Labels": "LABELS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Mounts": "MOUNTS",
        "Names": "NAMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
        "Ports": "PORTS",
        "RunningFor": "CREATED",
        "Size": "SIZE",
        "State": "STATE",
        "Status": "STATUS",
    },
    table=_FIELDS,
    quiet="ID",
)


def row(container: Document, *, truncate: bool) -> Row:
    """One container in a list."""
    labels = container.mapping("Labels")
    identifier = container.text("Id")
    created = container.number("Created")
    mounts = container.documents("Mounts")
    return {
        "Command": _quoted(container.text("Command"), truncate=truncate),
        "CreatedAt": human.local_time(created),
        "ID": human.short_id(identifier) if truncate else identifier,
        "Image": _image(container, truncate=truncate),
        "Label": lambda name: labels.get(name, ""),
        "Labels": joined(labels),
        "LocalVolumes": str(sum(1 for mount in mounts if mount.text("Driver") == "local")),
        "Mounts": ",".join(_mount(mount, truncate=truncate) for mount in mounts),
        "Names": _names(container.strings("Names"), truncate=truncate),
        "Networks": ",".join(container.document("NetworkSettings").document("Networks").raw),
        "Platform": None,
        "Ports": human.ports(container.documents("Ports")),
        "RunningFor": human.ago(created),
        "Size": size(container),
        "State": container.text("State"),
        "Status": container.text("Status"),
    }


def size(container: Document) -> str:
    """What a container wrote, and with its image in brackets."""
    own = human.size(container.number("SizeRw"), 3)
    whole = container.number("SizeRootFs")
    return f"{own} (virtual {human.size(whole, 3)})" if whole > 0 else own


def _quoted(text: str, *, truncate: bool) -> str:
    return json.dumps(human.ellipsis(text, 20) if truncate else text, ensure_ascii=False)


def _image(container: Document, *, truncate: bool) -> str:
    image = container.text("Image")
    if not image:
        return "<no image>"
    if not truncate:
        return image
    identifier = human.short_id(container.text("ImageID"))
    if human.short_id(image) == identifier:
        return identifier
    name, _, digest = image.partition("@")
    return name if digest and ":" in name.rpartition("/")[2] else image


def _mount(mount: Document, *, truncate: bool) -> str:
    name = mount.text("Name") or mount.text("Source")
    return human.ellipsis(name, 15) if truncate else name


def _names(names: Sequence[str], *, truncate: bool) -> str:
    """Names without their slash; the long form shows links (`/other/alias`) too."""
    plain = [name.removeprefix("/") for name in names]
    return ",".join(name for name in plain if not truncate or "/" not in name)


@command("ps")
@click.option("everything", "-a", "--all", is_flag=True, help="Show all containers, not just running ones")
@filter_option("Show only containers that fit: name=, status=, volume=, label=, ancestor= and others")
@format_option
@click.option("-n", "--last", type=INTEGER, default=-1, metavar="N", help="Show the N last created, in any state")
@click.option("-l", "--latest", is_flag=True, help="Show the last created, in any state")
@click.option("--no-trunc", is_flag=True, help="Do not shorten")
@click.option("-q", "--quiet", is_flag=True, help="Only show ids")
@click.option("-s", "--size", "with_size", is_flag=True, help="Show sizes")
@pass_client
def ps(
    client: Client,
    everything: bool,
    filters: Sequence[tuple[str, str]],
    template: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    with_size: bool,
) -> int:
    """List containers, the newest first."""
    limit = 1 if latest and last < 0 else max(last, 0)
    with_size = with_size or ".Size" in template
    if not template and with_size and not quiet:
        template = "table " + columns(f"{_FIELDS} Size")
    containers = client.containers.find(gathered(filters), everything=everything, limit=limit, size=with_size)
    rows = (row(container, truncate=not no_trunc) for container in containers)
    print_rows(rows, _LAYOUT, template=template, quiet=quiet)
    sys.stdout.flush()
    return 0
