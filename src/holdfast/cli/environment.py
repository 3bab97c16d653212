"""Environment variables and labels from the command line and from files."""

from __future__ import annotations

import os
from collections.abc import Iterable


def environment(variables: Iterable[str]) -> list[str]:
    """`NAME=VALUE` texts; a bare NAME takes our own value, or is left out where we have none. Raises ValueError."""
    out: list[str] = []
    for variable in variables:
        name, given, _ = variable.partition("=")
        if not name:
            raise ValueError(f"invalid environment variable: {variable}")
        if given:
            out.append(variable)
        elif name in os.environ:
            out.append(f"{name}={os.environ[name]}")
    return out


def lines(path: str) -> list[str]:
    """The assignments in a file: no comments, no empty lines.

    Raises ValueError for a name with a space, OSError for a file that cannot be read.
    """
    out: list[str] = []
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            line = line.lstrip().rstrip("\r\n")
            if line and not line.startswith("#"):
                name = line.partition("=")[0]
                if any(character.isspace() for character in name):
                    raise ValueError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
                out.append(line)
    return out
