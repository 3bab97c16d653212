"""`holdfast events`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from holdfast.cli.command import command, filter_option, gathered
from holdfast.cli.session import Refused, pass_client
from holdfast.cli.when import timestamp
from holdfast.client import Client, Document


@command("events")
@filter_option("Show only events that fit: type=, event=, container=, volume=, image=, label= and others")
@click.option("template", "--format", default="", metavar="FORMAT", help='"json" or a Go template')
@click.option("--since", default="", metavar="TIME", help="Begin there: a time, or 42m for 42 minutes ago")
@click.option("--until", default="", metavar="TIME", help="End there")
@pass_client
def events(client: Client, filters: Sequence[tuple[str, str]], template: str, since: str, until: str) -> int:
    """Show what happens in the engine, as it happens."""
    from holdfast.cli.output import unescape
    from holdfast.cli.template import Template, TemplateError

    try:
        show = line
        if template in {"json", "{{json .}}"}:
            show = _as_it_came
        elif template:
            compiled = Template(unescape(template), strict=False)
            show = lambda event: compiled.render(_fields(event))  # noqa: E731 - one of three ways to show
        for event in client.engine.events(gathered(filters), since=timestamp(since), until=timestamp(until)):
            print(show(event), flush=True)
    except TemplateError as error:
        raise Refused(f"template parsing error: {error}") from error
    return 0


def line(event: Document) -> str:
    """One event: `TIME TYPE ACTION ID (key=value, ...)`."""
    actor = event.document("Actor")
    attributes = actor.mapping("Attributes")
    nanoseconds = event.number("timeNano") or event.number("time") * 10**9
    moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC).astimezone()
    zone = moment.strftime("%z")
    offset = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}{offset}"
    text += f" {event.text('Type')} {event.text('Action')} {actor.text('ID')}"
    if attributes:
        text += " (" + ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes)) + ")"
    return text


def _as_it_came(event: Document) -> str:
    return json.dumps(event.raw, separators=(",", ":"), ensure_ascii=False)


def _fields(event: Document) -> dict[str, object]:
    """An event for templates: Go's names of the fields beside those of the API."""
    renamed = {"ID": "id", "From": "from", "Scope": "scope", "Time": "time", "TimeNano": "timeNano", "Status": "status"}
    return {**event.raw, **{name: event.raw.get(key, "") for name, key in renamed.items()}}
