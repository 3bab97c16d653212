"""Joining our stdin, stdout and stderr to a container's, and passing our signals on to it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from holdfast.cli.session import Refused
from holdfast.cli.terminal import DEFAULT_DETACH_KEYS, KeyWatch, following_size, parse_keys, raw_mode, terminal_size
from holdfast.client import Client
from holdfast.client.frames import STDERR, frames
from holdfast.client.transport import Hijacked
from holdfast.errors import EngineError, System

_STDIN = 0
_RESIZE_ATTEMPTS = 10
_PASSED_ON = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "TSTP")


class Relay:
    """One session: output goes here as it comes, input goes there until it ends or the detach keys are typed.

    Input is read in a thread of its own, output by the caller of `run`, which therefore takes the signals.
    """

    def __init__(
        self,
        streams: Hijacked,
        *,
        stdin: bool,
        tty: bool,
        detach_keys: str = "",
        resize: Callable[[Client, int, int], None],
        client: Client,
        redraw: bool = False,
    ) -> None:
        """`resize` tells the other side rows and columns. With `redraw`, its program is made to draw all anew."""
        self.detached = False
        self._streams = streams
        self._stdin = stdin
        self._tty = tty
        self._resize = resize
        self._client = client
        self._redraw = redraw
        try:
            keys = parse_keys(detach_keys or DEFAULT_DETACH_KEYS)
        except ValueError as error:
            raise Refused(str(error)) from error
        self._keys = KeyWatch(keys if tty and stdin else b"")

    def run(self, begin: Callable[[], None] | None = None) -> None:
        """Relay until the process closes its output, or the user detaches: `detached` says which.

        `begin` is called once everything is in place, to start the process; what it raises ends the session.
        """
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._streams)
            if begin:
                begin()
            if self._tty:
                threading.Thread(target=self._fit, daemon=True).start()
                undo.enter_context(following_size(self._resized))
            if self._tty and self._stdin:
                undo.enter_context(raw_mode(_STDIN))
            if self._stdin:
                threading.Thread(target=self._pump_input, daemon=True).start()
            if self._tty:
                copy_raw(self._streams.chunks())
            else:
                copy_framed(self._streams.chunks())

    def _pump_input(self) -> None:
        try:
            while data := os.read(_STDIN, 1 << 16):
                passed, self.detached = self._keys.take(data)
                if passed:
                    self._streams.write(passed)
                if self.detached:
                    self._streams.leave()
                    return
        except OSError:
            return  # the process is gone, or the terminal is
        self._streams.end_input()

    def _fit(self) -> None:
        """Give the other side our size: it may not be ready at once."""
        size = terminal_size()
        if size and self._redraw:
            self._resized(size[0] + 1, size[1])
        for attempt in range(_RESIZE_ATTEMPTS):
            if not size or self._resized(*size):
                return
            time.sleep(0.01 * (attempt + 1))

    def _resized(self, rows: int, columns: int) -> bool:
        """Whether it took the size. Comes from a thread or a signal handler, so with a client of its own."""
        try:
            with self._client.twin() as aside:
                self._resize(aside, rows, columns)
        except EngineError:
            return False  # it has not begun, or has just ended
        return True


def join(
    client: Client,
    identifier: str,
    *,
    stdin: bool,
    tty: bool,
    stdout: bool = True,
    stderr: bool = True,
    detach_keys: str = "",
    wait_for: str = "",
    pass_signals: bool = True,
    begin: Callable[[], None] | None = None,
) -> int | None:
    """Take part in a container's streams until it ends; its exit code, or None when the user detaches.

    Both the streams and the wait are opened before `begin`, which may start the container, so that nothing is missed.
    A container that could not begin and removes itself is gone when this raises: its name is free again.
    """

    def kill(signal_name: str) -> None:
        with client.twin() as aside:  # a signal may come in the middle of an exchange
            aside.containers.kill(identifier, signal_name)

    with contextlib.ExitStack() as undo:
        streams = client.containers.attach(
            identifier, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=detach_keys
        )
        waiting = client.containers.wait(identifier, wait_for)
        undo.callback(waiting.abandon)
        relay = Relay(
            streams,
            stdin=stdin,
            tty=tty,
            detach_keys=detach_keys,
            resize=lambda aside, rows, columns: aside.containers.resize(identifier, rows, columns),
            client=client,
            redraw=begin is None,
        )
        if pass_signals and not tty:
            undo.enter_context(signals_passed_on(kill))
        try:
            relay.run(begin)
        except EngineError:
            if wait_for == "removed":
                waiting.exit_code()
            raise
        return None if relay.detached else waiting.exit_code()


def copy_raw(chunks: Iterator[bytes]) -> None:
    """Copy a terminal's output to stdout."""
    for data in chunks:
        _write(sys.stdout.buffer, data)


def copy_framed(chunks: Iterator[bytes]) -> None:
    """Copy framed output to stdout and stderr. Raises System with the text of a frame of the engine's own."""
    for stream, data in frames(chunks):
        if stream > STDERR:
            raise System(data.decode("utf-8", "replace").strip())
        _write(sys.stderr.buffer if stream == STDERR else sys.stdout.buffer, data)


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()


@contextlib.contextmanager
def signals_passed_on(kill: Callable[[str], None]) -> Iterator[None]:
    """Send the signals that reach us on to the container with `kill(name)` instead of heeding them."""

    def passed_on(number: int, _frame: object) -> None:
        try:
            kill(signal.Signals(number).name.removeprefix("SIG"))
        except EngineError:
            pass  # it has just ended, or has not begun

    before = {name: signal.signal(signal.Signals[f"SIG{name}"], passed_on) for name in _PASSED_ON}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[f"SIG{name}"], handler)
