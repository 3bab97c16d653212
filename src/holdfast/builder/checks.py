"""What Docker refuses in a Dockerfile before it runs anything, with the number of the line. Pure.

Source: moby/buildkit, frontend/dockerfile/instructions; texts as recorded from Docker Engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from holdfast.builder.dockerfile import Dockerfile, Instruction
from holdfast.errors import InvalidParameter, Unsupported

_FLAGS: Final = {
    "ADD": ("chown", "chmod", "keep-git-dir", "checksum", "link", "exclude"),
    "ARG": (),
    "CMD": (),
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "ENTRYPOINT": (),
    "ENV": (),
    "EXPOSE": (),
    "FROM": ("platform",),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
    "LABEL": (),
    "MAINTAINER": (),
    "ONBUILD": None,
    "RUN": ("mount", "network", "security"),
    "SHELL": (),
    "STOPSIGNAL": (),
    "USER": (),
    "VOLUME": (),
    "WORKDIR": (),
}
"""Every instruction with the flags that it knows; those behind ONBUILD are looked at when they run."""
_AT_LEAST_ONE: Final = frozenset({"ARG", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "SHELL", "VOLUME"})
_EXACTLY_ONE: Final = frozenset({"MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR"})
_STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9-_.]*", re.IGNORECASE)
_SUGGESTED_WITHIN: Final = 3


def check(dockerfile: Dockerfile, *, heredocs: bool) -> None:
    """Refuse what Docker refuses. `heredocs` says whether this machine's buildah knows here-documents.

    Raises InvalidParameter, Unsupported for here-documents that buildah does not know.
    """
    for instruction in dockerfile.instructions:
        _check_name(instruction)
        _check_flags(instruction)
        _check_arguments(instruction)
        if instruction.has_heredoc and not heredocs:
            raise Unsupported(
                f"dockerfile line {instruction.line}: here-documents need buildah 1.33 or newer on this machine",
                hint="write the lines into a file of the context and COPY it, or join them with && \\",
            )
    for instruction in dockerfile.instructions:
        if instruction.name == "FROM":
            return
        if instruction.name != "ARG":
            break
    raise InvalidParameter("no build stage in current context")


def _check_name(instruction: Instruction) -> None:
    if instruction.name not in _FLAGS:
        near = _nearest(instruction.name, _FLAGS)
        raise _wrong(instruction, f"unknown instruction: {instruction.name}{near}")


def _check_flags(instruction: Instruction) -> None:
    known = _FLAGS[instruction.name]
    for flag, _ in instruction.flags if known is not None else ():
        if flag not in (known or ()):
            raise _wrong(instruction, f"unknown flag: --{flag}{_nearest(flag, known or ())}")


def _check_arguments(instruction: Instruction) -> None:
    name, words = instruction.name, instruction.arguments.split()
    count = len(instruction.json_words or words)
    if name == "FROM":
        if count not in (1, 3) or (count == 3 and words[1].lower() != "as"):
            raise _wrong(instruction, "FROM requires either one or three arguments")
        if count == 3 and _STAGE_NAME.fullmatch(words[2]) is None:
            why = "name can't start with a number or contain symbols"
            raise _wrong(instruction, f'invalid name for build stage: "{words[2]}", {why}')
    elif name in ("ADD", "COPY") and count < 2 and not instruction.has_heredoc:
        why = f"{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        raise _wrong(instruction, why)
    elif name in _AT_LEAST_ONE and not count:
        raise _wrong(instruction, f"{name} requires at least one argument")
    elif name in _EXACTLY_ONE and not count:
        raise _wrong(instruction, f"{name} requires exactly one argument")
    elif name in ("ENV", "LABEL") and count == 1 and "=" not in words[0]:
        raise InvalidParameter(f"failed to parse Dockerfile: {name} must have two arguments")


def _wrong(instruction: Instruction, why: str) -> InvalidParameter:
    return InvalidParameter(f"dockerfile parse error on line {instruction.line}: {why}")


def _nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, as Docker asks for it; "" where none is near."""
    ranked = sorted((_distance(word.lower(), other.lower()), other) for other in known)
    return f" (did you mean {ranked[0][1]}?)" if ranked and ranked[0][0] < _SUGGESTED_WITHIN else ""


def _distance(one: str, other: str) -> int:
    """Levenshtein's: how many letters to add, remove or exchange."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one[:64], start=1):
        previous, row[0] = row[0], number
        for place, opposite in enumerate(other, start=1):
            previous, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, previous + (letter != opposite))
    return row[-1]
