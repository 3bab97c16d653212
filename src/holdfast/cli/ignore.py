"""`.dockerignore`: which files of a folder stay at home. Pure.

Its patterns are not git's: each counts from the folder itself, and a later one that begins with `!` brings files back.
Source: the Dockerfile reference, ".dockerignore file"; moby/patternmatcher.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

_PARTS = re.compile(r"\*\*/?|\*|\?|\[[^\]]*\]|\\.|[^*?\[\\]+|.", re.DOTALL)


class Ignored:
    """The patterns of one `.dockerignore`."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [_rule(line) for line in map(str.strip, lines) if line and not line.startswith("#")]
        self.brings_back = any(not excludes for excludes, _ in self._rules)
        """Whether something below an ignored folder may have to go all the same."""

    def __contains__(self, path: str) -> bool:
        """Whether `path`, relative to the folder, stays at home: the last pattern for it or what it is in counts."""
        ignored = False
        for excludes, pattern in self._rules:
            if excludes is not ignored and pattern.fullmatch(path):
                ignored = excludes
        return ignored


def _rule(line: str) -> tuple[bool, re.Pattern[str]]:
    excludes = not line.startswith("!")
    text = posixpath.normpath(line.removeprefix("!").strip().lstrip("/") or ".")
    return excludes, re.compile("".join(map(_translated, _PARTS.findall(text))) + "(/.*)?", re.DOTALL)


def _translated(part: str) -> str:
    if part == "**/":
        return "(.*/)?"
    if part == "**":
        return ".*"
    if part in ("*", "?"):
        return f"[^/]{part.replace('?', '')}"
    if part.startswith("[") and part.endswith("]"):
        return part.replace("[!", "[^") if len(part) > 2 else re.escape(part)
    return re.escape(part[1:] if part.startswith("\\") and len(part) > 1 else part)
