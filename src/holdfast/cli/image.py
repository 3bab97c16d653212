"""`holdfast images`, `pull`, `tag`, `rmi`, `image prune` and `history`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from holdfast.cli import human, reference
from holdfast.cli.command import command, filter_option, format_option, gathered
from holdfast.cli.output import Layout, Row, columns, print_rows
from holdfast.cli.session import Refused, complain, confirmed, pass_client
from holdfast.client import Client, Document
from holdfast.errors import EngineError, NotFound

_FIELDS = "Repository Tag ID CreatedSince Size"

_LAYOUT = Layout(
    headings={
        "Containers": "CONTAINERS",
        "CreatedAt": "CREATED AT",
        "CreatedSince": "CREATED",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "SharedSize": "SHARED SIZE",
        "Size": "SIZE",
        "Tag": "TAG",
        "UniqueSize": "UNIQUE SIZE",
        "VirtualSize": "VIRTUAL SIZE",
    },
    table=_FIELDS,
    quiet="ID",
)

_HISTORY = Layout(
    headings={
        "Comment": "COMMENT",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "CreatedSince": "CREATED",
        "ID": "IMAGE",
        "Size": "SIZE",
    },
    table="ID CreatedSince CreatedBy Size Comment",
    quiet="ID",
)


def rows(image: Document, *, truncate: bool, digests: bool) -> Iterator[Row]:
    """One row for each name of an image, one with `<none>` for an image without a name."""
    for repository, tag, digest in _names(image, digests=digests):
        yield row(image, repository, tag, digest, truncate=truncate)


def row(image: Document, repository: str, tag: str, digest: str, *, truncate: bool) -> Row:
    """An image under one of its names."""
    identifier = image.text("Id")
    created, size, shared = image.number("Created"), image.number("Size"), image.number("SharedSize", -1)
    containers = image.number("Containers", -1)
    return {
        "Containers": str(containers) if containers >= 0 else "N/A",
        "CreatedAt": human.local_time(created),
        "CreatedSince": human.ago(created) if created > 0 else "N/A",
        "Digest": digest or "<none>",
        "ID": human.short_id(identifier) if truncate else identifier,
        "Repository": repository,
        "SharedSize": human.size(shared) if shared >= 0 else "N/A",
        "Size": human.size(size, 3),
        "Tag": tag,
        "UniqueSize": human.size(size - shared) if shared >= 0 else "N/A",
        "VirtualSize": human.size(size),
    }


def _names(image: Document, *, digests: bool) -> Iterator[tuple[str, str, str]]:
    """Repository, tag and digest of each name. Source: docker/cli, formatter.imageFormatTaggedAndDigest."""
    digests_of: dict[str, list[str]] = {}
    for name in image.strings("RepoDigests"):
        if name != "<none>@<none>":
            repository, digest = reference.split(name)
            digests_of.setdefault(repository, []).append(digest)
    named = False
    tagged: set[str] = set()
    for name in image.strings("RepoTags"):
        if name == "<none>:<none>":
            continue
        repository, tag = reference.split(name)
        tagged.add(repository)
        named = True
        for digest in (digests_of.get(repository) or [""]) if digests else [""]:
            yield repository, tag, digest
    for repository, found in digests_of.items():
        if repository not in tagged:
            named = True
            for digest in found if digests else [""]:
                yield repository, "<none>", digest
    if not named:
        yield "<none>", "<none>", ""


@command("images")
@click.argument("name", required=False, metavar="[REPOSITORY[:TAG]]")
@click.option("everything", "-a", "--all", is_flag=True, help="Show intermediate images too")
@click.option("--digests", is_flag=True, help="Show digests")
@filter_option("Show only images that fit: reference=, label=, dangling=, before=, since=")
@format_option
@click.option("--no-trunc", is_flag=True, help="Do not shorten")
@click.option("-q", "--quiet", is_flag=True, help="Only show ids")
@pass_client
def images(
    client: Client,
    name: str | None,
    everything: bool,
    digests: bool,
    filters: Sequence[tuple[str, str]],
    template: str,
    no_trunc: bool,
    quiet: bool,
) -> int:
    """List images, the newest first."""
    wanted = gathered([*filters, *([("reference", name)] if name else [])])
    found = client.images.find(wanted, everything=everything)
    if digests and not quiet and not template:
        template = "table " + columns("Repository Tag Digest ID CreatedSince Size")
    digests = digests or ".Digest" in template
    lines = (line for image in found for line in rows(image, truncate=not no_trunc, digests=digests))
    print_rows(lines, _LAYOUT, template=template, quiet=quiet)
    return 0


@command("pull")
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("all_tags", "-a", "--all-tags", is_flag=True, help="Fetch every tag of the repository")
@click.option("--platform", default="", metavar="PLATFORM", help="Platform, such as linux/arm64")
@click.option("-q", "--quiet", is_flag=True, help="Only print the name")
@pass_client
def pull(client: Client, name: str, all_tags: bool, platform: str, quiet: bool) -> int:
    """Download an image from a registry."""
    from holdfast.cli.credentials import auth_header
    from holdfast.cli.progress import show_progress

    repository, tag = reference.split(name)
    if tag and all_tags:
        raise Refused("tag can't be used with --all-tags/-a")
    if not tag and not all_tags:
        tag = "latest"
        if not quiet:
            print("Using default tag: latest", flush=True)
    wanted = "" if all_tags else tag
    messages = client.images.pull(reference.full(repository), wanted, platform=platform, auth=auth_header(repository))
    show_progress(messages, None if quiet else sys.stdout)
    print(reference.full(repository) if all_tags else reference.full_reference(name))
    return 0


@command("tag")
@click.argument("source", metavar="SOURCE_IMAGE[:TAG]")
@click.argument("target", metavar="TARGET_IMAGE[:TAG]")
@pass_client
def tag(client: Client, source: str, target: str) -> int:
    """Give an image one more name."""
    repository, name = reference.split(target)
    client.images.tag(source, repository, name or "latest")
    return 0


@command("rmi")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE [IMAGE...]")
@click.option("-f", "--force", is_flag=True, help="Remove it although stopped containers or other names use it")
@click.option("--no-prune", is_flag=True, help="Keep parents without a name")
@pass_client
def rmi(client: Client, names: Sequence[str], force: bool, no_prune: bool) -> int:
    """Take names away from images; an image goes with its last name."""
    exit_code = 0
    for name in names:
        try:
            removed = client.images.remove(name, force=force, prune=not no_prune)
        except EngineError as error:
            complain(error)
            if not (force and isinstance(error, NotFound)):
                exit_code = 1
        else:
            _print_removed(removed)
    return exit_code


def _print_removed(removed: Sequence[Document]) -> None:
    for item in removed:
        deleted = item.text("Deleted")
        print(f"Deleted: {deleted}" if deleted else f"Untagged: {item.text('Untagged')}", flush=True)


@command("prune")
@click.option("everything", "-a", "--all", is_flag=True, help="Remove all unused images, not just those without a name")
@click.option("-f", "--force", is_flag=True, help="Do not ask first")
@filter_option("Remove only images that fit: label=, label!=, until=", short=False)
@pass_client
def prune(client: Client, everything: bool, force: bool, filters: Sequence[tuple[str, str]]) -> int:
    """Remove images that no container uses."""
    kind = "all images without at least one container associated to them" if everything else "all dangling images"
    if not force and not confirmed(f"This will remove {kind}."):
        return 0
    answer = client.images.prune({**gathered(filters), "dangling": ["false" if everything else "true"]})
    if removed := answer.documents("ImagesDeleted"):
        print("Deleted Images:")
        for item in removed:
            deleted = item.text("Deleted")
            print(f"deleted: {deleted}" if deleted else f"untagged: {item.text('Untagged')}")
        print()
    print(f"Total reclaimed space: {human.size(answer.number('SpaceReclaimed'))}")
    return 0


@command("history")
@click.argument("name", metavar="IMAGE")
@format_option
@click.option("human_sizes", "-H", "--human/--no-human", default=True, help="Sizes and times for people (default)")
@click.option("--no-trunc", is_flag=True, help="Do not shorten")
@click.option("-q", "--quiet", is_flag=True, help="Only show ids")
@pass_client
def history(client: Client, name: str, template: str, human_sizes: bool, no_trunc: bool, quiet: bool) -> int:
    """Show how an image was built, the newest layer first."""
    lines = (_history_row(layer, readable=human_sizes, truncate=not no_trunc) for layer in client.images.history(name))
    print_rows(lines, _HISTORY, template=template, quiet=quiet)
    return 0


def _history_row(layer: Document, *, readable: bool, truncate: bool) -> Row:
    identifier = layer.text("Id")
    created, size = layer.number("Created"), layer.number("Size")
    created_by = layer.text("CreatedBy").replace("\t", " ")
    return {
        "Comment": layer.text("Comment"),
        "CreatedAt": human.local_time(created),
        "CreatedBy": human.ellipsis(created_by, 45) if truncate else created_by,
        "CreatedSince": human.ago(created) if readable else human.local_time(created),
        "ID": human.short_id(identifier) if truncate else identifier,
        "Size": human.size(size, 3) if readable else str(size),
    }
