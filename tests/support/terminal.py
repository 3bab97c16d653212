"""A program on a terminal: what it writes, and keys typed into it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

ROWS, COLUMNS = 24, 80
_TOKEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|.", re.DOTALL)


class Terminal:
    """Runs `argv` on a pseudo terminal of its own; a context manager that ends it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], *, timeout_s: float = 10) -> None:
        self.timeout_s = timeout_s
        self.master, slave = pty.openpty()
        self.resize(ROWS, COLUMNS)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv], env={**environment, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window; the program gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Type, as soon as the program takes single keys; Enter is `\\r`."""
        deadline = time.monotonic() + self.timeout_s
        while termios.tcgetattr(self.master)[3] & termios.ICANON and time.monotonic() < deadline:
            time.sleep(0.01)
        os.write(self.master, keys.encode())

    def expect(self, pattern: re.Pattern[str]) -> str | None:
        """Wait until the screen below what was expected before is `pattern`; a line that has not ended stays there.

        Returns what is there instead where the time is over or the program ended, None where all is well.
        """
        deadline = time.monotonic() + self.timeout_s
        while pattern.fullmatch(on_screen := shown(self._unread)) is None:
            if not self._read(deadline - time.monotonic()):
                return on_screen
        self._unread = self._unread[self._unread.rfind(b"\n") + 1 :]
        return None

    def end(self) -> tuple[str, int]:
        """Wait for the end of the program: what was written since, and its exit code; -9 where it had to be killed."""
        deadline = time.monotonic() + self.timeout_s
        while self._read(deadline - time.monotonic()):
            pass
        if time.monotonic() > deadline:
            self.process.kill()
        return shown(self._unread), self.process.wait(self.timeout_s)

    def _read(self, timeout_s: float) -> bool:
        readable, _, _ = select.select([self.master], [], [], max(0, timeout_s))
        if not readable:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self._unread += data
        return bool(data)


def shown(data: bytes) -> str:
    """What `data` leaves on an endlessly long screen, as far as shells go: lines are rewritten and cut short."""
    return "\n".join(_line(line) for line in data.decode(errors="replace").replace("\r\n", "\n").split("\n"))


def _line(text: str) -> str:
    cells: list[str] = []
    column = 0
    for token in _TOKEN.findall(text):
        if token == "\r":
            column = 0
        elif token == "\b":
            column = max(0, column - 1)
        elif token in ("\x1b[J", "\x1b[K"):
            del cells[column:]
        elif not token.startswith("\x1b"):
            cells[column : column + 1] = [token]
            column += 1
    return "".join(cells)
