"""What the OCI runtime says when it cannot start something, turned into Docker's words and exit codes.

Docker's command line looks for `executable file not found` and `no such file or directory` (exit code 127) and for
`permission denied` (126) in the engine's message, so those words matter more than the runtime's own.
"""

from __future__ import annotations

import errno
import json
import os
import re
from typing import Final

from holdfast.errors import InvalidParameter

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
OTHER: Final = 128
"""Exit codes of a container that never ran. Source: Docker, `daemon/start.go`."""

_RUNC_LINE: Final = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_CRUN_PREFIX: Final = re.compile(r"^\d{4}-\d\d-\d\dT[^ ]+: ")
_NOT_EXECUTABLE: Final = (
    "open executable: operation not permitted", "open executable: permission denied",
    "exists but it is not executable",
)
_NO_PROGRAM: Final = ("is not a regular file", "is a directory")
"""crun's words for a program that is there and cannot be run, the older releases' first; runc says what Docker does."""
_WRONG_TYPE: Final = (": Are you trying to mount a directory onto a file (or vice-versa)? "
                      "Check if the specified host path exists and is the expected type")
_LOWERED: Final = {os.strerror(number): os.strerror(number).lower() for number in errno.errorcode}


class StartFailed(InvalidParameter):
    """A container or exec could not be started; `exit_code` is what it is recorded with (126, 127, 128)."""

    def __init__(self, message: str, exit_code: int = OTHER, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code

    def within(self, what: str) -> StartFailed:
        """Keep the exit code when text is put in front."""
        return StartFailed(f"{what}: {self.message}", self.exit_code, hint=self.hint)


def create_failed(runtime: str, said: str, command: str) -> StartFailed:
    """The error for a container whose first process, `command`, could not be set up."""
    why, exit_code = _explain(said, command)
    return StartFailed(
        f"failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"{runtime} create failed: {why}",
        exit_code,
    )


def exec_failed(said: str, command: str) -> StartFailed:
    """The error for a further process in a running container."""
    why, exit_code = _explain(said, command)
    return StartFailed(f"OCI runtime exec failed: exec failed: {why}", exit_code)


def _explain(said: str, command: str) -> tuple[str, int]:
    """Pure: the runtime's text and the command it was to run → (why, exit code)."""
    text = plain_text(said)
    lower = text.lower()
    start = "unable to start container process: "
    if ("executable file" in lower and "not found" in lower) or (not command and "open executable" in lower):
        if command.startswith("/"):
            return f'{start}exec: "{command}": stat {command}: no such file or directory', NOT_FOUND
        return f'{start}exec: "{command}": executable file not found in $PATH', NOT_FOUND
    if any(words in lower for words in _NOT_EXECUTABLE) or (
        any(words in lower for words in _NO_PROGRAM) and any(command + quote in text for quote in '`"')
    ):
        return f'{start}exec: "{command}": permission denied', NOT_EXECUTABLE
    for said_by_libc, said_by_go in _LOWERED.items():
        text = text.replace(said_by_libc, said_by_go)
    if "no such file or directory" in text:
        return start + text, NOT_FOUND
    if "permission denied" in text:
        return start + text, NOT_EXECUTABLE
    if "not a directory" in text:
        text += _WRONG_TYPE
        return start + text, NOT_EXECUTABLE
    return start + text, OTHER


def plain_text(said: str) -> str:
    """The message in what a runtime wrote: crun's plain line, runc's `level=error msg="..."`, or JSON. Pure."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    found: list[str] = []
    for line in lines:
        if line.startswith("{"):
            try:
                found.append(str(json.loads(line)["msg"]))
                continue
            except (ValueError, KeyError, TypeError):
                pass
        match = _RUNC_LINE.search(line)
        text = json.loads(f'"{match.group(1)}"') if match and "\\x" not in match.group(1) else line
        text = _CRUN_PREFIX.sub("", text)
        for prefix in ("runc create failed: ", "exec failed: ", "unable to start container process: "):
            text = text.removeprefix(prefix)
        found.append(text)
    return "; ".join(dict.fromkeys(found)) or "the runtime gave no reason"
