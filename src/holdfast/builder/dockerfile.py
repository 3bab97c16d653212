"""A Dockerfile as its instructions, one by one, with the text that Docker shows for each. Pure.

buildah parses and runs the file; it is read here as well for what Docker says about it: the number of steps, refusals
with a line number before anything runs, and the images that it starts from.
Sources: the Dockerfile reference; moby/buildkit, frontend/dockerfile/parser; recordings of Docker Engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InvalidParameter

SIZE_MAX_BYTES: Final = 2 << 20
_INSTRUCTIONS_MAX: Final = 10_000

_DIRECTIVE: Final = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC: Final = re.compile(r"(?:^|\s)\d*<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_.]*)\2(?=\s|$)")
_HEREDOC_INSTRUCTIONS: Final = ("ADD", "COPY", "RUN")
_FLAG: Final = re.compile(r"--([a-z][a-z0-9-]*)(?:=(\S*))?(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    `text` is what Docker shows: continued lines joined, comments between them left out. `arguments` is what follows the
    name and the flags. `line` counts from 1; `raw` are the lines of the file that it takes, here-documents included.
    """

    name: str
    text: str
    flags: tuple[tuple[str, str], ...]
    arguments: str
    line: int
    raw: tuple[str, ...]
    has_heredoc: bool = False

    @property
    def json_words(self) -> list[str] | None:
        """The arguments where they are a list in JSON, the form that needs no shell."""
        if not self.arguments.startswith("["):
            return None
        try:
            words = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return None
        return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None

    def flag(self, name: str) -> str:
        """The value of a flag, "" where it is not given."""
        return next((value for flag, value in self.flags if flag == name), "")


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A file that was read: its instructions, and the character that continues a line."""

    instructions: tuple[Instruction, ...]
    escape: str


def parse(data: bytes, name: str) -> Dockerfile:
    """Read a Dockerfile called `name`. Raises InvalidParameter in Docker's words, for what is no Dockerfile at all."""
    if not data:
        raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
    if len(data) > SIZE_MAX_BYTES:
        raise InvalidParameter(f"the Dockerfile ({name}) has {len(data)} bytes, at most {SIZE_MAX_BYTES}")
    lines = data.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    escape = _escape_of(lines)
    instructions = tuple(_instructions(lines, escape))
    if not instructions:
        raise InvalidParameter("failed to parse Dockerfile: file with no instructions")
    if len(instructions) > _INSTRUCTIONS_MAX:
        raise InvalidParameter(f"failed to parse Dockerfile: more than {_INSTRUCTIONS_MAX} instructions")
    return Dockerfile(instructions, escape)


def _escape_of(lines: Sequence[str]) -> str:
    """The character that a directive chooses; directives stand before everything else. Raises InvalidParameter."""
    for line in lines:
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape":
            if match[2] not in ("\\", "`"):
                raise InvalidParameter(
                    f"failed to parse Dockerfile: invalid escape token '{match[2]}' does not match ` or \\"
                )
            return match[2]
    return "\\"


def _instructions(lines: Sequence[str], escape: str) -> Iterator[Instruction]:
    continued = re.compile(rf"(.*){re.escape(escape)}[ \t]*")
    place = 0
    while place < len(lines):
        first = place
        line = lines[place].lstrip()
        place += 1
        if not line or line.startswith("#"):
            continue
        text, more = "", True
        while more:
            match = continued.fullmatch(line)
            text += line if match is None else match[1]
            more = match is not None
            while more and place < len(lines) and _is_nothing(lines[place]):
                place += 1
            if more and place == len(lines):
                break
            if more:
                line = lines[place]
                place += 1
        if not text.strip():
            continue
        endings = _heredocs(text)
        for strips_tabs, ending in endings:
            while place < len(lines) and (lines[place].lstrip("\t") if strips_tabs else lines[place]) != ending:
                place += 1
            place += 1
        yield _instruction(text, first + 1, tuple(lines[first:place]), has_heredoc=bool(endings))


def _instruction(text: str, line: int, raw: tuple[str, ...], *, has_heredoc: bool) -> Instruction:
    text = text.strip()
    name, _, rest = text.replace("\t", " ").partition(" ")
    rest = text[len(name) :].strip()
    flags = []
    while (match := _FLAG.match(rest)) is not None:
        flags.append((match[1], match[2] or ""))
        rest = rest[match.end() :]
    return Instruction(name.upper(), text, tuple(flags), rest, line, raw, has_heredoc)


def _heredocs(text: str) -> list[tuple[bool, str]]:
    """The here-documents that an instruction opens: whether tabs before them go, and the line that ends each."""
    words = text.split(None, 2)
    name = words[1] if words[0].upper() == "ONBUILD" and len(words) > 1 else words[0]
    if name.upper() not in _HEREDOC_INSTRUCTIONS or "[" in text.partition("<<")[0]:
        return []
    return [(match[1] == "-", match[3]) for match in _HEREDOC.finditer(text)]


def _is_nothing(line: str) -> bool:
    """Whether a line between continued ones does not count: empty, or a comment."""
    bare = line.strip()
    return not bare or bare.startswith("#")
