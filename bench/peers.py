"""The same work on our engine and on Docker Engine, in turn, in one run.

usage: python -m bench.peers [--n 10] [--volumes 10000] [--only run,exec,...] [--engines holdfast,docker]

Prints medians and the ratio to the peer, beside the ratio we budget for; writes them to build/bench/results.json.
Numbers inform, they do not pass or fail. The first round of each row is a warm-up and not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from bench.engines import PEER_ROOT, Connection, Peer, machine, peers
from bench.network import PORT, fetched_mb_per_s, outside
from bench.processor import group, spent_s
from bench.storage import FIO, Parts, storage
from tests.support.debian_images import CannotBuild
from tests.support.engine import PROJECT
from tests.support.images import busybox_image, docker_archive, image

FOLDER = PROJECT / "build" / "bench"
OF_BARE = "of bare"
RATES = ("per s", OF_BARE)
"""Units of which more is better."""
_PAUSE_S = 0.05
"""Before each turn: what the engine before still clears away is not charged to the next."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    unit: str
    values: dict[str, float]
    budget: float | None
    """Largest wanted ratio ours / peer; for rates (`per s`, `of bare`) the smallest."""

    @property
    def ratio(self) -> float | None:
        """Ours over the first peer's; what is a part of the bare file system's rate already is one."""
        ours = self.values.get("holdfast")
        if self.unit == OF_BARE:
            return ours
        others = [value for name, value in self.values.items() if name != "holdfast"]
        return ours / others[0] if ours is not None and others and others[0] else None

    @property
    def met(self) -> bool:
        """Whether the budget was kept."""
        ratio, budget = self.ratio, self.budget
        if ratio is None or budget is None:
            return True
        return ratio >= budget if self.unit in RATES else ratio <= budget


@dataclass
class Bench:
    """A run: its engines, how often, and the rows so far."""

    engines: Sequence[Peer]
    disk: Path
    """The file system with the state of all engines."""
    group: Path
    """The control group of the engines, for what they spend."""
    rounds: int
    volumes: int
    rows: list[Row] = field(default_factory=list)

    def row(self, name: str, unit: str, values: dict[str, float], budget: float | None = None) -> None:
        """Add a row and print it at once."""
        row = Row(name, unit, values, budget)
        self.rows.append(row)
        ratio, wanted = row.ratio, ""
        if ratio is not None:
            wanted = f"{ratio:7.2f}x"
            if budget is not None:
                wanted += f"   {'>=' if unit in RATES else '<='} {budget:.2f}  {'met' if row.met else 'MISSED'}"
        figures = "".join(f"{values.get(engine.name, float('nan')):12.2f}" for engine in self.engines)
        print(f"{name:44s}{unit:>8s}{figures}  {wanted}", flush=True)

    def interleaved(self, rounds: int, once: Callable[[Peer, int], float]) -> dict[str, float]:
        """Medians of `once(engine, round)`; the engines take turns."""
        taken: dict[str, list[float]] = {engine.name: [] for engine in self.engines}
        for number in range(rounds + 1):
            for engine in self.engines:
                time.sleep(_PAUSE_S)
                value = once(engine, number)
                if number:
                    taken[engine.name].append(value)
        return {name: statistics.median(values) for name, values in taken.items()}

    def timed(
        self, name: str, once: Callable[[Peer, int], float], budget: float | None = None, rounds: int | None = None
    ) -> None:
        """A row of interleaved medians in milliseconds."""
        self.row(name, "ms", self.interleaved(rounds or self.rounds, once), budget)


def milliseconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def remove_volume(engine: Peer, name: str) -> None:
    """Remove a volume if it is there."""
    engine.call("DELETE", f"/volumes/{name}?force=1", check=False)


def memory(bench: Bench) -> None:
    """Engines at rest."""
    time.sleep(2)
    bench.row("memory at rest", "MB", {engine.name: engine.memory_mb() for engine in bench.engines}, 80 / 139)


def client(bench: Bench) -> None:
    """What the client alone costs, contained in every row that uses it."""
    bench.timed("docker version, the client's own cost", lambda peer, _: milliseconds(lambda: peer.docker("version")))


def run(bench: Bench) -> None:
    """A container from start to end, with a volume."""
    for engine in bench.engines:
        engine.call("POST", "/volumes/create", {"Name": "bench"})

    def once(*options: str) -> Callable[[Peer, int], float]:
        return lambda engine, number: milliseconds(
            lambda: engine.docker("run", "--rm", *(option.format(number) for option in options), "busybox", "true")
        )

    none = ("--network", "none")
    bench.timed("run --rm -v, network none", once(*none, "-v", "bench:/data"), 0.40)
    bench.timed("run --rm -v, bridge", once("-v", "bench:/data"), 0.40)
    bench.timed("run --rm -v on a new volume", once(*none, "-v", "bench-new-{}:/data"))
    for engine in bench.engines:
        for number in range(bench.rounds + 1):
            remove_volume(engine, f"bench-new-{number}")
        remove_volume(engine, "bench")


def execute(bench: Bench) -> None:
    """A second process in a running container."""
    for engine in bench.engines:
        engine.docker("run", "-d", "--name", "bench-exec", "--network", "none", "busybox", "sleep", "3600")
    bench.timed("exec", lambda engine, _: milliseconds(lambda: engine.docker("exec", "bench-exec", "true")), 0.60)
    for engine in bench.engines:
        engine.docker("rm", "-f", "bench-exec")


def api(bench: Bench) -> None:
    """Volumes over one kept connection."""
    rounds = bench.rounds * 20

    def once(method: str, path: str, body: bool = False) -> Callable[[Peer, int], float]:
        return lambda engine, number: milliseconds(
            lambda: engine.call(method, path.format(number), {"Name": f"bench-{number}"} if body else None)
        )

    bench.timed("volume create", once("POST", "/volumes/create", True), 1.0, rounds)
    bench.timed("volume inspect", once("GET", "/volumes/bench-{}"), 1.0, rounds)
    bench.timed("volume remove", once("DELETE", "/volumes/bench-{}"), 1.0, rounds)


def concurrent(bench: Bench) -> None:
    """16 clients, each creating, inspecting and removing 40 volumes."""
    rates, slowest = {}, {}
    for engine in bench.engines:
        began = time.perf_counter()
        with ThreadPoolExecutor(16) as clients:
            results = list(clients.map(functools.partial(_one_client, engine), range(16)))
        taken = [value for values, _ in results for value in values]
        rates[engine.name] = len(taken) / (time.perf_counter() - began)
        slowest[engine.name] = statistics.quantiles(taken, n=100)[98]
        if errors := sum(count for _, count in results):
            print(f"   {engine.name}: {errors} of {len(taken)} calls failed")
    bench.row("16 clients, calls", "per s", rates, 1.0)
    bench.row("16 clients, p99", "ms", slowest, 1.0)


def _one_client(engine: Peer, client: int) -> tuple[list[float], int]:
    """The milliseconds of each call, and how many failed."""
    connection, taken, errors = Connection(engine.socket_path), [], 0
    for number in range(40):
        name = f"bench-{client}-{number}"
        created = ("POST", "/volumes/create", {"Name": name})
        for method, path, body in (created, ("GET", f"/volumes/{name}", None), ("DELETE", f"/volumes/{name}", None)):
            began = time.perf_counter()
            try:
                engine.call(method, path, body, connection=connection)
            except (OSError, RuntimeError):
                errors += 1
                connection.close()
            taken.append((time.perf_counter() - began) * 1e3)
    connection.close()
    return taken, errors


def listing(bench: Bench) -> None:
    """Many volumes."""
    count = bench.volumes
    for engine in bench.engines:
        engine.call("POST", "/volumes/create", {"Name": "bench-0"})
    one = restart(bench, "ready after start, 1 volume")
    for engine in bench.engines:
        remove_volume(engine, "bench-0")
    for engine in bench.engines:
        for number in range(count):
            engine.call("POST", "/volumes/create", {"Name": f"bench-{number}", "Labels": {"k": str(number % 10)}})
    bench.timed(f"list of {count} volumes", lambda engine, _: milliseconds(lambda: engine.call("GET", "/volumes")), 1.0)
    path = "/volumes?filters=" + quote(json.dumps({"label": ["k=3"]}))
    bench.timed(f"list by label, of {count}", lambda engine, _: milliseconds(lambda: engine.call("GET", path)))
    words = ("run", "--rm", "--network", "none", "-v", "bench-1:/d", "busybox", "true")
    bench.timed(f"run --rm -v, beside {count} volumes", lambda engine, _: milliseconds(lambda: engine.docker(*words)))
    full = restart(bench, f"ready after start, {count} volumes")
    longer = {name: taken / one[name] for name, taken in full.items()}
    bench.row(f"... with {count} over with 1", "times", longer)
    every = quote(json.dumps({"label": ["k"], "all": ["true"]}))
    spent = {}
    for engine in bench.engines:
        began = time.perf_counter()
        engine.call("POST", f"/volumes/prune?filters={every}")
        spent[engine.name] = (time.perf_counter() - began) * 1e3
    bench.row(f"prune of {count} volumes", "ms", spent)


def restart(bench: Bench, name: str, budget: float | None = None) -> dict[str, float]:
    """From the start of the process until the engine has answered a list of everything; the row's medians."""

    def once(engine: Peer, _: int) -> float:
        engine.process.stop()
        engine.connection.close()

        def ready() -> None:
            engine.process.start()
            engine.call("GET", "/containers/json?all=1")

        return milliseconds(ready)

    medians = bench.interleaved(2, once)
    bench.row(name, "ms", medians, budget)
    return medians


def restarting(bench: Bench) -> None:
    """1,000 volumes and 100 containers."""
    for engine in bench.engines:
        for number in range(1000):
            engine.call("POST", "/volumes/create", {"Name": f"bench-{number}"})
        for number in range(100):
            host = {"Binds": [f"bench-{number}:/data"], "NetworkMode": "none"}
            engine.call("POST", f"/containers/create?name=bench-{number}", {"Image": "busybox", "HostConfig": host})
    restart(bench, "ready after start, 1000 volumes, 100 containers", 1000 / 1900)
    for engine in bench.engines:
        for number in range(100):
            engine.call("DELETE", f"/containers/bench-{number}?force=1")
        for number in range(1000):
            remove_volume(engine, f"bench-{number}")


def seeded_image(files: int, big_mb: int) -> bytes:
    """An image with `files` small files, or one big one, in /seed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"seed/{number // 200}/{number}")
            info.size, info.mode = 512, 0o644
            tar.addfile(info, io.BytesIO(b"x" * 512))
        if big_mb:
            info = tarfile.TarInfo("seed/big")
            info.size = big_mb << 20
            tar.addfile(info, io.BytesIO(os.urandom(1 << 20) * big_mb))
    return docker_archive([image([*busybox_image().layers, out.getvalue()], tags=["bench-seed:latest"])])


def filling(bench: Bench) -> None:
    """A new volume gets the image's content."""
    for files, big_mb, what, budget in ((20_000, 0, "20,000 files", 0.7), (0, 512, "512 MB", 0.6)):
        archive = seeded_image(files, big_mb)
        for engine in bench.engines:
            engine.call("POST", "/images/load?quiet=1", raw=archive)

        def once(engine: Peer, number: int) -> float:
            volume = f"bench-fill-{number}"
            words = ("run", "--rm", "--network", "none", "-v", f"{volume}:/seed", "bench-seed", "/bin/true")
            spent = milliseconds(lambda: engine.docker(*words))
            remove_volume(engine, volume)
            return spent

        bench.timed(f"run on a new volume, filled with {what}", once, budget, 4)
        for engine in bench.engines:
            engine.call("DELETE", "/images/bench-seed:latest?force=1")


def copying(bench: Bench) -> None:
    """docker cp, both ways."""
    source, target = FOLDER / "copy.bin", FOLDER / "copy.out"
    source.write_bytes(os.urandom(1 << 20) * 256)
    for engine in bench.engines:
        engine.docker("create", "--name", "bench-cp", "-v", "bench:/data", "busybox", "true")

    def once(*words: str) -> Callable[[Peer, int], float]:
        return lambda engine, _: milliseconds(lambda: engine.docker("cp", *words))

    bench.timed("cp of 256 MB into a volume", once(str(source), "bench-cp:/data/"), 1.0, 4)
    bench.timed("cp of 256 MB out of a volume", once("bench-cp:/data/copy.bin", str(target)), 1.0, 4)
    for engine in bench.engines:
        engine.docker("rm", "-f", "bench-cp")
        remove_volume(engine, "bench")
    source.unlink()
    target.unlink()


def many(bench: Bench) -> None:
    """Twenty containers at once."""
    names = [f"bench-{number}" for number in range(20)]
    started, removed, held = {}, {}, {}
    for engine in bench.engines:
        began = time.perf_counter()
        for name in names:
            volume = f"{name}:/data"
            engine.docker("run", "-d", "--name", name, "--network", "none", "-v", volume, "busybox", "sleep", "900")
        started[engine.name] = (time.perf_counter() - began) * 1e3 / len(names)
        held[engine.name] = engine.memory_mb()
        began = time.perf_counter()
        engine.docker("rm", "-f", *names)
        removed[engine.name] = (time.perf_counter() - began) * 1e3 / len(names)
        for name in names:
            remove_volume(engine, name)
    bench.row("run -d, each of 20", "ms", started)
    bench.row("rm -f, each of 20", "ms", removed)
    bench.row("memory of the engine beside 20 containers", "MB", held)


def logging(bench: Bench) -> None:
    """A container that writes lines of 100 bytes as fast as it can, and those who read them."""
    megabytes = 200
    script = f"yes {'x' * 99} | head -c {megabytes}000000"

    def discard(engine: Peer, *words: str) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": engine.url}
        subprocess.run(
            [engine.client, *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
        )

    def follow(engine: Peer, _: int) -> float:
        engine.call("DELETE", "/containers/bench-logs?force=1", check=False)
        engine.docker("create", "--name", "bench-logs", "--network", "none", "busybox", "sh", "-c", script)

        def work() -> None:
            engine.docker("start", "bench-logs")
            discard(engine, "logs", "-f", "bench-logs")
            engine.docker("wait", "bench-logs")

        return milliseconds(work)

    bench.timed(f"logs -f of {megabytes} MB while they are written", follow, 1.0, 2)
    read = lambda engine, _: milliseconds(lambda: discard(engine, "logs", "bench-logs"))  # noqa: E731
    bench.timed(f"logs of {megabytes} MB", read, 1.0, 2)
    end = lambda engine, _: milliseconds(lambda: discard(engine, "logs", "--tail", "100", "bench-logs"))  # noqa: E731
    bench.timed(f"logs --tail 100 of {megabytes} MB", end, 1.0)
    for engine in bench.engines:
        engine.docker("rm", "-f", "bench-logs")


def checking(bench: Bench) -> None:
    """A hundred containers that are asked every ten seconds how they are: what that costs, of one processor."""
    names = [f"bench-{number}" for number in range(100)]
    check = ("--health-cmd", "true", "--health-interval", "10s", "--network", "none")
    spent = {}
    for engine in bench.engines:
        for name in names:
            engine.docker("run", "-d", "--name", name, *check, "busybox", "sleep", "900")
        ids = engine.docker("ps", "-q", "--no-trunc").split()
        time.sleep(10)
        before, began = spent_s(bench.group, ids), time.monotonic()
        time.sleep(20)
        spent[engine.name] = (spent_s(bench.group, ids) - before) / (time.monotonic() - began) * 100
        engine.docker("rm", "-f", *names)
    bench.row("100 containers, a health check each 10 s", "% of 1", spent, 1.0)


def composing(bench: Bench) -> None:
    """An application of five services by Docker Compose, and the network below it."""
    program = str(PEER_ROOT / "libexec" / "docker" / "cli-plugins" / "docker-compose")
    folder = FOLDER / "bench-compose"
    folder.mkdir(parents=True, exist_ok=True)
    box = "{image: busybox, command: [sleep, '900'], stop_grace_period: 0s, volumes: ['data:/data']}"
    services = "".join(f"  s{number}: {box}\n" for number in range(5))
    (folder / "compose.yaml").write_text(f"services:\n{services}volumes: {{data: {{}}}}\n")

    def compose(engine: Peer, *words: str) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": engine.url}
        subprocess.run([program, *words], cwd=folder, env=environment, capture_output=True, check=True, timeout=120)

    def up(engine: Peer, _: int) -> float:
        spent = milliseconds(lambda: compose(engine, "up", "-d"))
        compose(engine, "down", "-v")
        return spent

    def down(engine: Peer, _: int) -> float:
        compose(engine, "up", "-d")
        return milliseconds(lambda: compose(engine, "down", "-v"))

    def network(engine: Peer, number: int) -> float:
        name = f"bench-{number}"
        spent = milliseconds(lambda: engine.call("POST", "/networks/create", {"Name": name}))
        engine.call("DELETE", f"/networks/{name}")
        return spent

    bench.timed("compose up -d of five services", up, 0.50)
    bench.timed("compose down -v of five services", down)
    bench.timed("network create", network, 1.0, bench.rounds * 2)


def publishing(bench: Bench) -> None:
    """One stream through a published port, from a machine outside."""
    serve = ("nc", "-ll", "-p", "80", "-e", "dd", "if=/dev/zero", "bs=1M", "count=2000")
    with contextlib.ExitStack() as machines:
        enter = {}
        for engine in bench.engines:
            engine.docker("run", "-d", "--name", "bench-port", "-p", f"{PORT}:80", "busybox", *serve)
            enter[engine.name] = machines.enter_context(outside(engine))
        medians = bench.interleaved(bench.rounds, lambda engine, _: fetched_mb_per_s(enter[engine.name]))
    bench.row("2 GB through a published port, MB", "per s", medians, 0.90)
    for engine in bench.engines:
        engine.docker("rm", "-f", "bench-port")


def storing(bench: Bench) -> None:
    """Input and output on a volume, against the same on the same files without a container."""

    def row(name: str, parts: Parts) -> None:
        bench.row(name, OF_BARE, {engine: statistics.median(values) for engine, values in parts.inside.items()}, 0.98)
        again = {engine: statistics.median(values) for engine, values in parts.again.items()}
        bench.row("  the same without a container, again", OF_BARE, again)

    with storage(bench.disk / "storage", bench.engines) as measured:
        for name, options in FIO.items():
            row(f"fio on a volume, {name}", measured.fio(options, bench.rounds))
        row("pgbench on a volume, transactions", measured.pgbench(max(3, bench.rounds // 2)))


GROUPS: dict[str, Callable[[Bench], None]] = {
    "memory": memory, "client": client, "run": run, "exec": execute, "api": api, "concurrent": concurrent,
    "fill": filling, "cp": copying, "many": many, "logs": logging, "health": checking, "compose": composing,
    "port": publishing, "storage": storing,
    "restart": restarting, "list": listing,
}  # fmt: skip


def main() -> int:
    """Measure and print; 1 if a group could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10, help="rounds of each row")
    parser.add_argument("--volumes", type=int, default=10_000, help="volumes in the lists")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups: " + ", ".join(GROUPS))
    parser.add_argument("--engines", default="holdfast,docker")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = 0
    with group() as place, peers(FOLDER, arguments.engines.split(",")) as (disk, engines):
        facts = machine() | {engine.name: engine.version() for engine in engines}
        facts["client"] = subprocess.run(
            [engines[0].client, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()  # fmt: skip
        print("\n".join(f"{name}: {value}" for name, value in facts.items()), end="\n\n")
        heads = "".join(f"{engine.name:>12s}" for engine in engines)
        print(f"{'':44s}{'':8s}{heads}     ratio   budget", flush=True)
        bench = Bench(engines, disk, place, arguments.n, arguments.volumes)
        for name in arguments.only.split(","):
            try:
                GROUPS[name](bench)
            except (RuntimeError, OSError, AssertionError, CannotBuild) as error:
                failed = 1
                print(f"{name}: {error}", flush=True)
    rows = [
        {"name": row.name, "unit": row.unit, "budget": row.budget, "ratio": row.ratio, "medians": row.values}
        for row in bench.rows
    ]
    (FOLDER / "results.json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=2) + "\n")
    print(f"\nratio: holdfast over the other; {Path('build/bench/results.json')} has the same numbers")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
