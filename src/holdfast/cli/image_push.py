"""`holdfast push` and `commit`: images made here, and on their way out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from holdfast.cli import reference
from holdfast.cli.command import command
from holdfast.cli.credentials import auth_header
from holdfast.cli.session import Refused, pass_client
from holdfast.client import Client


@command("push")
@click.argument("name", metavar="NAME[:TAG]")
@click.option("all_tags", "-a", "--all-tags", is_flag=True, help="Push every tag of the repository")
@click.option("--platform", default="", metavar="PLATFORM", help="Refuse an image for another platform")
@click.option("-q", "--quiet", is_flag=True, help="Only print the name")
@pass_client
def push(client: Client, name: str, all_tags: bool, platform: str, quiet: bool) -> int:
    """Upload an image to a registry."""
    from holdfast.cli.progress import show_progress

    repository, tag = reference.split(name)
    if all_tags and tag:
        raise Refused("tag can't be used with --all-tags/-a")
    if not all_tags and not tag:
        tag = "latest"
        if not quiet:
            print("Using default tag: latest", flush=True)
    messages = client.images.push(repository, tag, platform=platform, auth=auth_header(repository))
    show_progress(messages, None if quiet else sys.stdout)
    if quiet:
        print(reference.full(repository) if all_tags else reference.full_reference(name))
    return 0


@command("commit")
@click.argument("container")
@click.argument("name", required=False, default="", metavar="[REPOSITORY[:TAG]]")
@click.option("author", "-a", "--author", default="", metavar="NAME", help="Author of the image")
@click.option("changes", "-c", "--change", multiple=True, metavar="INSTRUCTION", help="Dockerfile instruction to apply")
@click.option("message", "-m", "--message", default="", metavar="TEXT", help="Message for the image's history")
@click.option("pause", "-p", "--pause/--no-pause", default=True, help="Pause the container meanwhile (default)")
@pass_client
def commit(
    client: Client, container: str, name: str, author: str, changes: Sequence[str], message: str, pause: bool
) -> int:
    """Make an image of what a container is now and print its id."""
    repository, tag = reference.split(name)
    print(
        client.images.commit(
            container, repository, tag, author=author, changes=changes, message=message, pause=pause
        )
    )
    return 0
