"""`holdfast inspect` and its siblings: everything the engine says about an object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence

import click

from holdfast.cli.command import command
from holdfast.cli.session import Refused, complain, pass_client
from holdfast.client import Client, Document
from holdfast.errors import EngineError, NotFound


class NoSuchObject(Refused):
    """No kind of object has that name."""


def show(names: Iterable[str], find: Callable[[str], Document], template: str) -> int:
    """Print what `find` knows of each name: a JSON array, or one line each by the template. 1 if any failed."""
    found: list[object] = []
    failures: list[EngineError] = []
    for name in names:
        try:
            found.append(dict(find(name).raw))
        except EngineError as error:
            failures.append(error)
    if template and template != "json":
        _by_template(found, template)
    elif template == "json":
        print(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    sys.stdout.flush()
    for failure in failures:
        complain(failure)
    return 1 if failures else 0


def _by_template(found: Iterable[object], source: str) -> None:
    from holdfast.cli.output import unescape
    from holdfast.cli.template import Template, TemplateError

    try:
        compiled = Template(unescape(source))
        for item in found:
            print(compiled.render(item))
    except TemplateError as error:
        raise Refused(f"template parsing error: {error}") from error


def _template_option(function: Callable[..., int]) -> Callable[..., int]:
    option = click.option("template", "-f", "--format", default="", metavar="FORMAT", help='"json" or a Go template')
    return option(function)


@command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID [NAME|ID...]")
@_template_option
@click.option("-s", "--size", is_flag=True, help="Show the sizes of containers")
@click.option("kind", "--type", default="", metavar="KIND", help="container, image, network, volume or plugin")
@pass_client
def inspect(client: Client, names: Sequence[str], template: str, size: bool, kind: str) -> int:
    """Show all that is known of objects, as a JSON array: containers first, then images, networks, volumes, plugins."""
    finders: dict[str, Callable[[str], Document]] = {
        "container": lambda name: client.containers.get(name, size=size),
        "image": client.images.get,
        "network": client.networks.get,
        "volume": client.volumes.get,
        "plugin": client.engine.plugin,
    }
    if kind and kind not in finders:
        raise Refused(f'unknown type: "{kind}": must be one of "container", "image", "network", "volume", "plugin"')

    def find(name: str) -> Document:
        for finder in finders.values():
            try:
                return finder(name)
            except NotFound:
                continue  # perhaps it is of the next kind
        raise NoSuchObject(f"Error: No such object: {name}")

    return show(names, finders[kind] if kind else find, template)


@command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER [CONTAINER...]")
@_template_option
@click.option("-s", "--size", is_flag=True, help="Show their sizes")
@pass_client
def inspect_containers(client: Client, names: Sequence[str], template: str, size: bool) -> int:
    """Show all that is known of containers, as a JSON array."""
    return show(names, lambda name: client.containers.get(name, size=size), template)


@command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE [IMAGE...]")
@_template_option
@pass_client
def inspect_images(client: Client, names: Sequence[str], template: str) -> int:
    """Show all that is known of images, as a JSON array."""
    return show(names, client.images.get, template)
