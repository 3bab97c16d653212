"""`holdfast volume check`: which step between a volume's options and its data fails."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.cli.command import command
from holdfast.cli.session import pass_client
from holdfast.client import Client


@command("check")
@click.argument("names", nargs=-1, required=True, metavar="VOLUME [VOLUME...]")
@pass_client
def check(client: Client, names: Sequence[str]) -> int:
    """See whether the storage of volumes can be reached, step by step: name, route, kernel, export, credentials.

    The exit code is 1 if a step fails.
    """
    exit_code = 0
    for name in names:
        found = client.volumes.check(name)
        print(f"{name}: {'ok' if found.flag('OK') else 'cannot be used'}")
        for step in found.documents("Steps"):
            print(f"  {'ok  ' if step.flag('OK') else 'FAIL'}  {step.text('Step'):<12}{step.text('Detail')}")
        if not found.flag("OK"):
            exit_code = 1
    return exit_code
