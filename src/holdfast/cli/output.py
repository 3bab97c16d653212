"""Lists as tables, templates or JSON lines: what `--format`, `-q` and nothing at all print.

Source: docs.docker.com, "Format command and log output"; Go's text/tabwriter for the width of columns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.cli.session import Refused
from holdfast.cli.template import Template, TemplateError, to_json

_MIN_WIDTH, _PADDING = 10, 3

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a noun is listed: its fields' headings, the fields of its table, the field that `-q` shows."""

    headings: Mapping[str, object]
    table: str
    quiet: str

    def default(self, *, quiet: bool) -> str:
        """The format when none is asked for."""
        return "{{." + self.quiet + "}}" if quiet else "table " + columns(self.table)


def columns(fields: str) -> str:
    """A table's template from its fields' names: `Driver Name` gives `{{.Driver}}<tab>{{.Name}}`."""
    return "\t".join("{{." + field + "}}" for field in fields.split())


def print_rows(
    rows: Iterable[Row], layout: Layout, *, template: str = "", quiet: bool = False, end: str = ""
) -> None:
    """Print a list to stdout, `end` after each line. Raises Refused for a template that does not fit."""
    if not template or template == "table":
        template = layout.default(quiet=quiet)
    is_table = template == "table" or template.startswith("table ")
    if template in {"json", "{{json .}}"}:
        for row in rows:
            print(row_as_json(row))
        return
    source = unescape(template.removeprefix("table").strip() if is_table else template)
    try:
        compiled = Template(source)
        lines = [compiled.render(layout.headings)] if is_table else []
        lines += [compiled.render(row) for row in rows]
    except TemplateError as error:
        raise Refused(f"template parsing error: {error}") from error
    if is_table:
        lines = align(lines)
    if lines:
        sys.stdout.write("".join(f"{line}{end}\n" for line in lines))


def row_as_json(row: Row) -> str:
    """A row as one line of JSON, with the characters of HTML escaped as docker's lists have them."""
    text = to_json(row)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def unescape(template: str) -> str:
    r"""A template from the command line: `\t` and `\n` stand for a tab and a line."""
    return template.replace(r"\t", "\t").replace(r"\n", "\n")


def align(lines: list[str], *, minimum: int = _MIN_WIDTH) -> list[str]:
    """Lines of tab-separated cells as a table: columns of at least `minimum` characters, three spaces between."""
    rows = [line.split("\t") for line in lines]
    widths: list[int] = []
    for row in rows:
        for position, cell in enumerate(row[:-1]):
            if position == len(widths):
                widths.append(minimum)
            widths[position] = max(widths[position], len(cell) + _PADDING)
    return ["".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] for row in rows]


def joined(labels: Mapping[str, str]) -> str:
    """Labels in one cell: `a=1,b=2`."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))
