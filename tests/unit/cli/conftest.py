"""An engine of canned answers, and the command line run against it within this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.cli.main import main
from tests.unit.cli.fake_engine import FakeEngine


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


Holdfast = Callable[..., Outcome]


def _not_here(program: object, *_: object) -> None:
    raise AssertionError(f"{program} would take the place of the tests")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    """A fake engine on a socket of its own."""
    with FakeEngine(tmp_path / "s") as fake:
        yield fake


@pytest.fixture
def holdfast(engine: FakeEngine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Holdfast:
    """Run `holdfast WORDS...` against the fake engine."""
    monkeypatch.setenv("HOLDFAST_HOST", engine.url)

    def run(*words: str) -> Outcome:
        with open(os.devnull) as nothing, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", nothing)
            patched.setattr(os, "execve", _not_here)
            code = main(words)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
