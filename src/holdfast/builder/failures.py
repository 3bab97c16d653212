"""Why buildah stopped, in Docker's words. Pure.

Source: recordings of Docker Engine's classic builder and of buildah 1.28.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from holdfast.builder.transcript import Transcript
from holdfast.errors import System
from holdfast.runtime import messages

_PREFIX: Final = re.compile(r"(?:Error|error): (?:building at STEP \".*?\": )?", re.DOTALL)
_STATUS: Final = re.compile(r"while running runtime: exit status (\d+)$")
_CREATE: Final = re.compile(r"error running container: from (\S+) creating container for \[.*?\]: (.*)", re.DOTALL)
_MISSING: Final = re.compile(r"copier: (?:stat|get|lstat).*?: no such file or directory|no items matching glob")
_RESOLVING: Final = re.compile(r"^resolving step \{.* Original:\S+ (.*?) Flags:.*?\}: (.*)$", re.DOTALL)
_READING: Final = re.compile(r'^reading "[^"]*": ')
_USER: Final = re.compile(r"user: unknown user error looking up user \"([^\"]*)\"")
_WILDCARDS: Final = frozenset("*?[")
_COPIES: Final = ("ADD", "COPY")


class BuildFailed(System):
    """A build that ended badly; `code` is the exit code of its command, 0 where none ran."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def failure(transcript: Transcript, *, runtime: str, status: int) -> BuildFailed:
    """Explain the end of a build from what buildah complained about last; `runtime` is the OCI runtime's name."""
    said = "\n".join(transcript.errors)
    last = next((line for line in reversed(transcript.errors) if _PREFIX.match(line)), "")
    created = _CREATE.search(said)
    if created is not None:
        text = created[2].partition("\nError: ")[0].removesuffix("\n: exit status 1")
        return BuildFailed(str(messages.create_failed(runtime, text, transcript.command.partition(" ")[0])))
    if (ended := _STATUS.search(last)) is not None:
        code = int(ended[1])
        return BuildFailed(f"The command '{transcript.command}' returned a non-zero code: {code}", code)
    why = _PREFIX.sub("", last, count=1) or said or f"buildah ended with status {status} without a word"
    instruction = transcript.instruction
    unknown = _USER.search(why)
    if (wrong := _RESOLVING.search(why)) is not None:
        return BuildFailed(f'failed to process "{wrong[1]}": {wrong[2]}')
    if instruction is not None and instruction.name in _COPIES:
        if unknown is not None:
            return BuildFailed(
                "unable to convert uid/gid chown string to host mapping: "
                f"can't find uid for user {unknown[1]}: no such user: {unknown[1]}"
            )
        return BuildFailed(f"{instruction.name} failed: {_copy_failure(instruction.arguments.split()[:-1], why)}")
    if unknown is not None:
        return BuildFailed(f"unable to find user {unknown[1]}: no matching entries in passwd file")
    return BuildFailed(why)


def _copy_failure(sources: Sequence[str], why: str) -> str:
    outside = next((source for source in sources if _leaves(source)), None)
    if outside is not None:
        return f"forbidden path outside the build context: {outside} ()"
    if _MISSING.search(why) is None:
        return _READING.sub("", why)
    named = re.search(r"copier: stat: \[?\"/?([^\"]*)\"", why)
    name = named[1] if named else " ".join(sources)
    if _WILDCARDS & set(name):
        return "no source files were specified"
    return f"file not found in build context or excluded by .dockerignore: stat {name}: file does not exist"


def _leaves(source: str) -> bool:
    """Whether a path leads out of the directory that it is relative to."""
    depth = 0
    for part in source.strip("/").split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return True
    return False
