"""Groups of commands that load one command at a time."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is loaded when it is used: `module:name`, and its line in the list."""

    target: str
    summary: str


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time, so that each pays only for itself."""

    def __init__(self, name: str | None, entries: Mapping[str, Entry], **attributes: Any) -> None:
        attributes.setdefault("callback", help_when_alone)
        super().__init__(name, invoke_without_command=True, subcommand_metavar="COMMAND", **attributes)
        if not self.params:
            self.options_metavar = ""
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Their names, in the order of the table."""
        return [*self.entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items() if entry.summary])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names. Raises UnknownCommand."""
        if args[0] not in self.entries:
            raise UnknownCommand(args[0], ctx)
        return super().resolve_command(ctx, args)


class UnknownCommand(click.UsageError):
    """There is no command of that name."""


@click.pass_context
def help_when_alone(ctx: click.Context) -> int:
    """Print a group's help page when no command follows, as docker does."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
    return 0
