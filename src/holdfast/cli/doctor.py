"""`holdfast doctor`: what this machine can and cannot do for the engine."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli.command import command

_MARKS = {"ok": "ok      ", "note": "note    ", "problem": "PROBLEM "}


@command("doctor", params=[click.Option(["config_file", "--config"], metavar="FILE", help="Configuration file")])
def doctor(config_file: str | None) -> int:
    """Check kernel, control groups, file systems, runtimes and programs, and say how to mend what is missing.

    Exits with 1 if the engine cannot work here.
    """
    from holdfast.config import load
    from holdfast.daemon.doctor import examine

    problems = 0
    for finding in examine(load({}, file=Path(config_file) if config_file else None)):
        print(f"{_MARKS[finding.level]}{finding.subject}: {finding.what}", flush=True)
        if finding.fix:
            print(f"        fix: {finding.fix}", flush=True)
        problems += finding.level == "problem"
    return 1 if problems else 0
