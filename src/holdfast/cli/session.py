"""A command's client, and how failures are shown."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

import click

from holdfast.client import Client, ClientError, Tls, choose_url
from holdfast.errors import EngineError, InvalidParameter

P = ParamSpec("P")


class Refused(ClientError, InvalidParameter):
    """What the command line asks for cannot be; nothing was sent. Shown as it is."""


@dataclass(frozen=True, slots=True)
class Session:
    """The global flags, from which each client is made."""

    host: str | None = None
    use_tls: bool = False
    verify: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def client(self) -> Client:
        """A client of the engine that flags and environment name. Raises BadAddress."""
        return Client(choose_url(self.host, os.environ), tls=self._tls())

    def _tls(self) -> Tls | None:
        verify = self.verify or os.environ.get("HOLDFAST_TLS_VERIFY", "") != ""
        if not (self.use_tls or verify):
            return None
        folder = os.environ.get("HOLDFAST_CERT_PATH") or os.path.expanduser("~/.holdfast")
        return Tls(
            ca=self.ca or os.path.join(folder, "ca.pem"),
            certificate=self.certificate or os.path.join(folder, "cert.pem"),
            key=self.key or os.path.join(folder, "key.pem"),
            verify=verify,
        )


def session() -> Session:
    """The session of the running command."""
    return click.get_current_context().find_object(Session) or Session()


def pass_client(function: Callable[Concatenate[Client, P], int]) -> Callable[P, int]:
    """Give a command its client as the first argument."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> int:
        with session().client() as client:
            return function(client, *args, **kwargs)

    return call


def explain(error: EngineError) -> str:
    """A failure as it is shown: what the engine said is marked as its words."""
    text = str(error) if isinstance(error, ClientError) else f"Error response from daemon: {error}"
    return f"{text}\n{error.hint}" if error.hint else text


def complain(error: EngineError) -> None:
    """Show a failure on stderr."""
    print(explain(error), file=sys.stderr)


def for_each(names: Iterable[str], work: Callable[[str], object], *, show: bool = True) -> int:
    """Do `work` for each name, keep going past failures. Names done go to stdout; 1 if any failed, else 0."""
    exit_code = 0
    for name in names:
        try:
            work(name)
        except EngineError as error:
            complain(error)
            exit_code = 1
        else:
            if show:
                print(name, flush=True)
    return exit_code


def confirmed(question: str) -> bool:
    """Ask on stdout; anything but y or yes means no."""
    print(f"WARNING! {question}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def require_terminal(*, stdin: bool, tty: bool) -> None:
    """Raises Refused when a container's terminal is to be typed at through something that is none."""
    if stdin and tty and not os.isatty(0):
        raise Refused("the input device is not a TTY")
