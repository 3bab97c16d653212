"""The terminal on this side: its size, its raw mode, the keys that detach."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def terminal_size() -> tuple[int, int] | None:
    """Rows and columns of the terminal that stdout is, else stdin; None where neither is one."""
    for descriptor in (1, 0):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return None


@contextlib.contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Pass every key on as it is pressed; the old settings come back at the end."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def following_size(resize: Callable[[int, int], object]) -> Iterator[None]:
    """Call `resize(rows, columns)` whenever the terminal's size changes."""

    def changed(*_: object) -> None:
        if size := terminal_size():
            resize(*size)

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def parse_keys(text: str) -> bytes:
    """The bytes of a key sequence such as `ctrl-p,ctrl-q` or `a,b`. Raises ValueError."""
    out = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            out += key.encode()
            continue
        name = key.removeprefix("ctrl-")
        if name == key or len(name) != 1 or not (name in "@[\\]^_" or "a" <= name <= "z"):
            raise ValueError(f'invalid detach keys ({text}): Unknown character: "{key}"')
        out.append(ord(name.upper()) - 64)
    return bytes(out)


class KeyWatch:
    """Finds the detach keys in what is typed; they may arrive one at a time."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def take(self, typed: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the keys are complete. A sequence broken off is passed on after all."""
        if not self._keys or (not self._matched and self._keys[0] not in typed):
            return typed, False
        out = bytearray()
        for byte in typed:
            if byte != self._keys[self._matched]:
                out += self._keys[: self._matched]  # broken off
                self._matched = 0
            if byte != self._keys[self._matched]:
                out.append(byte)
                continue
            self._matched += 1
            if self._matched == len(self._keys):
                return bytes(out), True
        return bytes(out), False
