"""Sixteen clients at once, working at random: nothing may fail, and nothing may be left when they have gone.

A minute in every test run, twice SOAK_SECONDS under `make soak`. HOLDFAST_SEED repeats a run as far as the machine's
own timing allows.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.crowd import Account, Pace, crowd, measure
from tests.support.engine import Engine
from tests.support.state import assert_empty

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

PROCESSES = 4
CLIENTS = 4
DEFAULT_S = 60
HURRIED_S = 0.05
"""Thinking time in a short run: the clients take all the processor that there is."""
UNHURRIED_S = 0.5
"""Thinking time in a long one, as of people and pipelines: there is processor left."""
P99_S = 0.100
HURRIED_P99_S = 2.0
"""What is asked of lists in a short run, where whoever asks waits for two cores behind everybody else."""


@dataclass(frozen=True)
class Footprint:
    """What an idle engine holds. Memory in MiB; descriptors without those that each thread has on the catalogue."""

    memory: float
    descriptors: int
    threads: int
    processes: int
    mounts: int
    links: int
    cgroups: int
    rows: int
    files: int


def footprint(engine: Engine) -> Footprint:
    """Count what is there now."""
    assert engine.process is not None
    proc = Path(f"/proc/{engine.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    database = f"file:{engine.state_root / 'holdfast.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as catalogue:
        tables = [name for (name,) in catalogue.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = sum(catalogue.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)
    own = str(engine.folder).encode()
    return Footprint(
        memory=int(status["VmRSS"].split()[0]) / 1024,
        descriptors=sum(1 for target in _open_files(proc / "fd") if "/holdfast.db" not in target),
        threads=len(os.listdir(proc / "task")),
        processes=sum(1 for line in _command_lines() if own in line),
        mounts=len((proc / "mountinfo").read_text().splitlines()),
        links=len(engine.inside("ip", "-o", "link").stdout.splitlines()),
        cgroups=sum(1 for _ in _groups(engine.cgroup_parent)),
        rows=rows,
        files=sum(1 for _ in _files(engine)),
    )


def _groups(parent: str) -> Iterator[str]:
    """Control groups below `parent`, in the one hierarchy or in each of them; other engines' may go meanwhile."""
    top = Path("/sys/fs/cgroup")
    for root in (top, *(entry for entry in top.iterdir() if entry.is_dir())):
        for _, folders, _ in os.walk(f"{root}{parent}"):
            yield from folders


def _open_files(folder: Path) -> Iterator[str]:
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(entry)


def _command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                yield (entry / "cmdline").read_bytes()


def _files(engine: Engine) -> Iterator[str]:
    """What is in the state and run roots, but for images, and removed volumes, which wait in the trash."""
    for root in (engine.state_root, engine.run_root):
        for place, folders, names in os.walk(root):  # what goes meanwhile is passed over
            if place == str(root):
                folders[:] = [folder for folder in folders if folder not in ("images", "trash")]
            yield from (f"{place}/{name}" for name in (*folders, *names))


Work = tuple[Callable[..., None], tuple[Any, ...]]


def together(works: list[Work], within_s: float) -> Account:
    """Run each in a process of its own; give what they counted, added up."""
    context = multiprocessing.get_context("spawn")
    total, running = Account(), []
    for work, arguments in works:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(*arguments, sender))
        process.start()
        sender.close()
        running.append((process, receiver))
    for process, receiver in running:
        assert receiver.poll(within_s), "clients that do not end"
        account = receiver.recv()
        total.done.update(account.done)
        total.failures += account.failures
        total.list_s += account.list_s
        receiver.close()
        process.join(30)
        process.close()
    return total


def crowds(engine: Engine, name: str, seed: int, pace: Pace) -> list[Work]:
    """All clients, spread over processes."""
    return [
        (crowd, (engine.folder, f"{name}{number}", CLIENTS, seed + 100 * number, pace)) for number in range(PROCESSES)
    ]


def blame(engine: Engine, account: Account) -> str:
    """What went wrong, first of all."""
    return "\n".join([*account.failures[:5], str(dict(account.done)), engine.log_tail(15)])


def tidy(engine: Engine) -> None:
    """Take away what clients leave on purpose: volumes without a name, and the trash."""
    engine.call("POST", "/volumes/prune")
    engine.call("DELETE", "/holdfast/trash")
    assert_empty(engine)


@pytest.mark.soak
def test_a_crowd(fresh_engine: Engine, pytestconfig: pytest.Config) -> None:
    soak = int(pytestconfig.getoption("--soak"))
    seconds = 2 * soak or DEFAULT_S
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")
    account = together(crowds(fresh_engine, "warm", seed, Pace(rounds=1)), 100)
    assert not account.failures, blame(fresh_engine, account)
    tidy(fresh_engine)
    before = footprint(fresh_engine)

    pace = Pace(seconds, thinking_s=UNHURRIED_S if soak else HURRIED_S)
    works = crowds(fresh_engine, "work", seed, pace)
    account = together([*works, (measure, (fresh_engine.folder, seconds))], seconds + 120)
    assert not account.failures, blame(fresh_engine, account)
    tidy(fresh_engine)

    p99_s = statistics.quantiles(account.list_s, n=100)[98]
    print(f"{sum(account.done.values())} pieces of work: {dict(sorted(account.done.items()))}")
    print(f"GET /containers/json: p50 {statistics.median(account.list_s) * 1000:.1f} ms, p99 {p99_s * 1000:.1f} ms")
    after = settled(fresh_engine, before)
    print(f"before {before}\nafter  {after}")
    assert leaks(before, after) == []
    assert p99_s < (P99_S if soak else HURRIED_P99_S)


def settled(engine: Engine, before: Footprint) -> Footprint:
    """The footprint once what is cleared away behind an answer is gone; that may take a moment."""
    deadline = time.monotonic() + 15
    while leaks(before, found := footprint(engine)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def leaks(before: Footprint, after: Footprint) -> list[str]:
    """What has grown. Memory may by what the allocator and SQLite keep for each thread; the rest hardly at all."""
    slack = {"memory": 64, "descriptors": 2, "threads": 64, "files": 4}
    return [
        f"{name}: {getattr(before, name)} -> {getattr(after, name)}"
        for name in Footprint.__dataclass_fields__
        if getattr(after, name) > getattr(before, name) + slack.get(name, 0)
    ]
