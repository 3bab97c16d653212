"""Run another program: no shell, a clean environment, explicit descriptors, always a deadline.

Everything here stays on the vfork path of `subprocess` (no preexec_fn, no change of user in the child): the
cost of a fork grows with the size of the daemon, the cost of vfork does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from holdfast.errors import DeadlineExceeded, System

CLEAN_ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
"""What a program gets unless the caller says otherwise; nothing leaks in from the engine's own environment."""

_STDERR_TAIL_BYTES: Final = 2000
_KILL_GRACE_S: Final = 2.0

Stream = int | IO[bytes] | None


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended. `returncode` is negative for a signal, as in `subprocess`."""

    returncode: int
    stdout: bytes
    stderr: bytes


class ProgramFailed(System):
    """A program ended with a status other than 0, or could not be started (`returncode` 127)."""

    def __init__(self, argv0: str, returncode: int, stderr: bytes) -> None:
        self.argv0 = os.path.basename(argv0)
        self.returncode = returncode
        self.stderr = stderr[-_STDERR_TAIL_BYTES:].decode(errors="replace").strip()
        how = f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
        super().__init__(f"{self.argv0}: {how}" + (f": {self.stderr}" if self.stderr else ""))


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
    stdin: bytes | None = None,
    check: bool = True,
    cwd: Path | None = None,
) -> Completed:
    """Run `argv` to its end and return what it wrote.

    The program leads a session of its own, so that after `timeout_s` seconds it and its children are killed
    together. `env` replaces `CLEAN_ENVIRONMENT` entirely; `stdin` is fed to it, else it reads nothing.
    Raises ProgramFailed where `check` is set and it ended badly, or where it could not be started at all;
    DeadlineExceeded after the time is up, without waiting for a process that even SIGKILL cannot end.
    """
    words = [os.fspath(word) for word in argv]
    process = spawn(
        words,
        env=env,
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        new_session=True,
        cwd=cwd,
    )
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _give_up(process)
        raise DeadlineExceeded(f"{os.path.basename(words[0])}: no answer within {timeout_s:g} s") from None
    except BaseException:
        _give_up(process)
        raise
    if check and process.returncode != 0:
        raise ProgramFailed(words[0], process.returncode, stderr or stdout)
    return Completed(process.returncode, stdout, stderr)


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
    new_session: bool = True,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv` and return at once; the caller reaps it.

    Only `pass_fds` and the three streams reach the program. Raises ProgramFailed where it cannot be started.
    """
    words = [os.fspath(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            env=dict(CLEAN_ENVIRONMENT if env is None else env),
            pass_fds=tuple(pass_fds),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=new_session,
            cwd=cwd,
        )
    except OSError as error:
        raise ProgramFailed(words[0], 127, os.fsencode(str(error))) from error


def _give_up(process: subprocess.Popen[bytes]) -> None:
    """Kill the session that `process` leads and let go of its pipes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_GRACE_S)
