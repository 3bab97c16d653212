"""Environment variables and labels from the command line and from files."""

from __future__ import annotations

import os
from collections.abc import Iterable


def environment(flags: Iterable[str], files: Iterable[str]) -> list[str]:
    """`NAME=VALUE` texts of `-e` and `--env-file`, the files first. A bare NAME takes our own value.

    Where we have none, one in a file is left out; one of a flag stays bare, which takes it away from the image's.
    Raises ValueError, and OSError for a file that cannot be read.
    """
    from_files = [_with_value(line) for path in files for line in lines(path)]
    return [text for text in from_files if "=" in text] + [_with_value(flag) for flag in flags]


def _with_value(variable: str) -> str:
    name, given, _ = variable.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {variable}")
    return f"{name}={os.environ[name]}" if not given and name in os.environ else variable


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
