"""`holdfast system df`: what takes how much room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from holdfast.cli import human, image, ps, reference, volume
from holdfast.cli.command import command, format_option
from holdfast.cli.output import Layout, Row, print_rows
from holdfast.cli.session import Refused, pass_client
from holdfast.client import Client, Document

_LAYOUT = Layout(
    headings={"Active": "ACTIVE", "Reclaimable": "RECLAIMABLE", "Size": "SIZE", "TotalCount": "TOTAL", "Type": "TYPE"},
    table="Type TotalCount Active Size Reclaimable",
    quiet="Type",
)
_IMAGES = Layout(
    headings={
        "Containers": "CONTAINERS",
        "CreatedSince": "CREATED",
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "SharedSize": "SHARED SIZE",
        "Size": "SIZE",
        "Tag": "TAG",
        "UniqueSize": "UNIQUE SIZE",
    },
    table="Repository Tag ID CreatedSince Size SharedSize UniqueSize Containers",
    quiet="ID",
)
_CONTAINERS = Layout(
    headings={
        "Command": "COMMAND",
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "LocalVolumes": "LOCAL VOLUMES",
        "Names": "NAMES",
        "RunningFor": "CREATED",
        "Size": "SIZE",
        "Status": "STATUS",
    },
    table="ID Image Command LocalVolumes Size RunningFor Status Names",
    quiet="ID",
)
_VOLUMES = Layout(
    headings={"Links": "LINKS", "Name": "VOLUME NAME", "Size": "SIZE"}, table="Name Links Size", quiet="Name"
)
_CACHE = Layout(
    headings={
        "CacheType": "CACHE TYPE",
        "CreatedSince": "CREATED",
        "ID": "CACHE ID",
        "LastUsedSince": "LAST USED",
        "Shared": "SHARED",
        "Size": "SIZE",
        "UsageCount": "USAGE",
    },
    table="ID CacheType Size CreatedSince LastUsedSince UsageCount Shared",
    quiet="ID",
)
_IN_USE = frozenset({"running", "paused", "restarting"})


@command("df")
@format_option
@click.option("-v", "--verbose", is_flag=True, help="Show each image, container and volume")
@pass_client
def df(client: Client, template: str, verbose: bool) -> int:
    """Show how much room images, containers and volumes take, and how much of it could be had back."""
    if verbose and template:
        raise Refused("the verbose and the format options conflict")
    usage = client.engine.disk_usage()
    if verbose:
        _print_verbose(usage)
    else:
        print_rows(_summary(usage), _LAYOUT, template=template)
    return 0


def _summary(usage: Document) -> Sequence[Row]:
    images, containers = usage.documents("Images"), usage.documents("Containers")
    volumes, cache = usage.documents("Volumes"), usage.documents("BuildCache")
    layers = usage.number("LayersSize")
    used = sum(
        item.number("Size") - max(item.number("SharedSize"), 0) for item in images if item.number("Containers") > 0
    )
    idle = sum(item.number("SizeRw") for item in containers if item.text("State") not in _IN_USE)
    sizes = [(_refs(item), max(item.document("UsageData").number("Size", -1), 0)) for item in volumes]
    written = sum(item.number("SizeRw") for item in containers)
    cached = sum(item.number("Size") for item in cache)
    unused_cache = sum(item.number("Size") for item in cache if not item.flag("InUse") and not item.flag("Shared"))
    return [
        _row("Images", len(images), sum(item.number("Containers") > 0 for item in images), layers, layers - used),
        _row("Containers", len(containers), sum(i.text("State") in _IN_USE for i in containers), written, idle),
        _row(
            "Local Volumes",
            len(volumes),
            sum(refs > 0 for refs, _ in sizes),
            sum(size for _, size in sizes),
            sum(size for refs, size in sizes if refs == 0),
        ),
        _row("Build Cache", len(cache), sum(item.flag("InUse") for item in cache), cached, unused_cache, share=False),
    ]


def _refs(item: Document) -> int:
    return item.document("UsageData").number("RefCount")


def _row(kind: str, total: int, active: int, size: int, reclaimable: int, *, share: bool = True) -> Row:
    text = human.size(reclaimable)
    if share and size > 0:
        text += f" ({reclaimable * 100 // size}%)"
    return {
        "Active": str(active),
        "Reclaimable": text,
        "Size": human.size(size),
        "TotalCount": str(total),
        "Type": kind,
    }


def _print_verbose(usage: Document) -> None:
    print("Images space usage:\n")
    print_rows(_image_rows(usage.documents("Images")), _IMAGES)
    print("\nContainers space usage:\n")
    print_rows((_container_row(item) for item in usage.documents("Containers")), _CONTAINERS)
    print("\nLocal Volumes space usage:\n")
    print_rows(map(volume.row, usage.documents("Volumes")), _VOLUMES)
    cache = usage.documents("BuildCache")
    print(f"\nBuild cache usage: {human.size(sum(item.number('Size') for item in cache))}\n")
    print_rows((), _CACHE)


def _image_rows(images: Iterable[Document]) -> Iterable[Row]:
    """One row an image, under its first name, as docker shows it."""
    for item in images:
        names = [name for name in item.strings("RepoTags") if name != "<none>:<none>"]
        repository, tag = reference.split(names[0]) if names else ("<none>", "<none>")
        yield image.row(item, repository, tag, "", truncate=True)


def _container_row(container: Document) -> Row:
    return {**ps.row(container, truncate=True), "Size": human.size(container.number("SizeRw"), 3)}
