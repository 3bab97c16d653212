"""`holdfast stats`: a table of what containers use, renewed for as long as one looks.

Each container has a thread that reads its stream and keeps the newest sample; the table is drawn from those.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

import click

from holdfast.cli import human
from holdfast.cli.command import command, format_option
from holdfast.cli.output import Layout, Row, print_rows
from holdfast.cli.session import complain, pass_client
from holdfast.client import Client, Document
from holdfast.errors import EngineError

_LAYOUT = Layout(
    headings={
        "Container": "CONTAINER",
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
    table="ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs",
    quiet="ID",
)
_TURN_S = 0.5
_FIRST_S = 5.0
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


class Watched:
    """One container, its newest sample, and why there is none any more."""

    def __init__(self, client: Client, name: str, *, stream: bool) -> None:
        """Begin to read, in a thread of its own."""
        self.name = name
        self.sample: Document | None = None
        self.error: EngineError | None = None
        self.ready = threading.Event()
        self._client = client
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether no sample follows."""
        return not self._thread.is_alive()

    def _read(self, stream: bool) -> None:
        try:
            for sample in self._client.containers.stats(self.name, stream=stream):
                self.sample = sample
                self.ready.set()
        except EngineError as error:
            self.error = error
        finally:
            self.ready.set()


@command("stats")
@click.argument("names", nargs=-1, metavar="[CONTAINER...]")
@click.option("everything", "-a", "--all", is_flag=True, help="Show containers that do not run, too")
@format_option
@click.option("--no-stream", is_flag=True, help="Show one result and end")
@click.option("--no-trunc", is_flag=True, help="Do not shorten")
@pass_client
def stats(
    client: Client, names: Sequence[str], everything: bool, template: str, no_stream: bool, no_trunc: bool
) -> int:
    """Show what containers use: processor, memory, network, disks."""
    chosen = {name: Watched(client, name, stream=not no_stream) for name in names}
    if not names:
        _add_new(client, chosen, everything=everything, stream=not no_stream)
    for watched in chosen.values():
        watched.ready.wait(None if no_stream else _FIRST_S)
    errors = [watched.error for watched in chosen.values() if watched.error]
    if names and errors:
        for error in errors:
            complain(error)
        return 1
    if no_stream:
        _show(chosen, template, truncate=not no_trunc)
        return 0
    live = sys.stdout.isatty()
    while not names or any(not watched.over for watched in chosen.values()):
        if live:
            sys.stdout.write(_HOME)
        _show(chosen, template, truncate=not no_trunc, end=_CLEAR_LINE if live else "")
        if live:
            sys.stdout.write(_CLEAR_REST)
        sys.stdout.flush()
        time.sleep(_TURN_S)
        if not names:
            for name in [name for name, watched in chosen.items() if watched.over]:
                del chosen[name]
            _add_new(client, chosen, everything=everything, stream=True)
    return 0


def _add_new(client: Client, chosen: dict[str, Watched], *, everything: bool, stream: bool) -> None:
    """Watch every container there is; one that has stopped is shown no more, unless all are wanted."""
    present = [container.text("Id") for container in client.containers.find(everything=everything)]
    for identity in present:
        if identity not in chosen:
            chosen[identity] = Watched(client, identity, stream=stream)
    for identity in chosen.keys() - {*present}:
        del chosen[identity]


def _show(chosen: dict[str, Watched], template: str, *, truncate: bool, end: str = "") -> None:
    rows = [row(watched.name, watched.sample, truncate=truncate) for watched in chosen.values()]
    print_rows(rows, _LAYOUT, template=template, end=end)


def row(name: str, sample: Document | None, *, truncate: bool) -> Row:
    """One container; dashes until there is something to show. Source: docker/cli, formatter_stats.go."""
    if sample is None:
        dashes = dict.fromkeys(_LAYOUT.headings, "--")
        return {**dashes, "Container": name, "MemUsage": "-- / --", "NetIO": "--", "BlockIO": "--"}
    identity = sample.text("id")
    memory = sample.document("memory_stats")
    used, limit = memory_used(memory), memory.number("limit")
    networks = [Document(value) for value in sample.document("networks").raw.values() if isinstance(value, dict)]
    read, written = disk_bytes(sample.document("blkio_stats"))
    received = sum(network.number("rx_bytes") for network in networks)
    sent = sum(network.number("tx_bytes") for network in networks)
    return {
        "Container": name,
        "ID": human.short_id(identity) if truncate else identity,
        "Name": sample.text("name").removeprefix("/"),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{human.binary_size(used)} / {human.binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{human.size(received, 3)} / {human.size(sent, 3)}",
        "BlockIO": f"{human.size(read, 3)} / {human.size(written, 3)}",
        "PIDs": str(sample.document("pids_stats").number("current")),
    }


def cpu_percent(sample: Document) -> float:
    """How much of one processor it used since the sample before: 150 is one and a half."""
    now, before = sample.document("cpu_stats"), sample.document("precpu_stats")
    used = now.document("cpu_usage").number("total_usage") - before.document("cpu_usage").number("total_usage")
    passed = now.number("system_cpu_usage") - before.number("system_cpu_usage")
    processors = now.number("online_cpus")
    return used / passed * processors * 100 if used > 0 and passed > 0 else 0.0


def memory_used(memory: Document) -> int:
    """Memory without what the kernel would drop first, in bytes; cgroup v1 and v2 name that differently."""
    usage, counters = memory.number("usage"), memory.document("stats")
    for name in ("total_inactive_file", "inactive_file"):
        if name in counters.raw and counters.number(name) < usage:
            return usage - counters.number(name)
    return usage


def disk_bytes(blkio: Document) -> tuple[int, int]:
    """Bytes read and written."""
    read = written = 0
    for entry in blkio.documents("io_service_bytes_recursive"):
        operation = entry.text("op").lower()[:1]
        if operation == "r":
            read += entry.number("value")
        elif operation == "w":
            written += entry.number("value")
    return read, written
