"""What a volume costs against the bare file system below it: fio and pgbench, the same programs on the same disk.

The programs are Debian's, in one root file system: for containers it is the image, for the bare measurement a chroot on
the same disk. Both work on the same files, those of the volume, in turns: what differs is the engine's doing alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.engines import Peer
from tests.support.debian_images import debian_root
from tests.support.images import docker_archive, image

FIO = {
    "random write 4k": "--rw=randwrite --bs=4k --direct=1 --iodepth=16",
    "random read 4k": "--rw=randread --bs=4k --direct=1 --iodepth=16",
    "write and fsync 4k": "--rw=write --bs=4k --fsync=1",
    "sequential write 1M": "--rw=write --bs=1M --direct=1 --iodepth=4",
}
"""Name of a row → what fio does."""

_IMAGE = "bench-storage:latest"
_VOLUME = "bench-storage"
_PACKAGES = ("fio", "postgresql")
_FIO = (
    "fio --name=bench --directory=/data --size=256M --ioengine=libaio --time_based --output-format=json "
    "--runtime={seconds} {options}"
)
_PGBENCH = r"""
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
cd /tmp
initdb -D /data/pg >/dev/null
pg_ctl -w -s -D /data/pg -l /tmp/log -o "-k /tmp -c listen_addresses=''" start
pgbench -h /tmp -q -i -s 10 postgres >/dev/null 2>&1
pgbench -h /tmp -T {seconds} -c 4 -j 2 postgres
pg_ctl -w -s -D /data/pg -m fast stop
rm -r /data/pg
"""
_AS_POSTGRES = "chown postgres /data; exec setpriv --reuid postgres --regid postgres --init-groups sh -ec '{script}'"
_CHROOT = """
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount --bind "$2" "$1/data"
exec chroot "$1" sh -ec "$3"
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """Engine → one number a round."""

    inside: dict[str, list[float]]
    """The rate in a container over the mean of the bare rates before and after."""
    again: dict[str, list[float]]
    """The bare rate after over the one before: how far the machine alone moves it."""


class Storage:
    """The root file system unpacked on the engines' disk, and as an image with a volume in every engine."""

    def __init__(self, root: Path, engines: Sequence[Peer]) -> None:
        self._root, self._engines = root, engines

    def fio(self, options: str, rounds: int, seconds: int = 4) -> Parts:
        """Reads and writes per second on a volume, as a part of those without a container."""
        return self._parts(_FIO.format(options=options, seconds=seconds), rounds, _operations)

    def pgbench(self, rounds: int, seconds: int = 8) -> Parts:
        """Transactions per second of a PostgreSQL on a volume, as a part of those without a container."""
        script = _PGBENCH.format(seconds=seconds).replace("'", "'\\''")
        return self._parts(_AS_POSTGRES.format(script=script), rounds, _transactions)

    def _parts(self, script: str, rounds: int, rate_of: Callable[[str], float]) -> Parts:
        """Medians of the rounds. In each a container runs between two bare runs, all on the same files."""
        parts = Parts({engine.name: [] for engine in self._engines}, {engine.name: [] for engine in self._engines})
        for engine in self._engines:
            self._bare(engine, script)
        for _ in range(rounds):
            for engine in self._engines:
                before = rate_of(self._bare(engine, script))
                inside = rate_of(_in_container(engine, script))
                after = rate_of(self._bare(engine, script))
                parts.inside[engine.name].append(inside * 2 / (before + after))
                parts.again[engine.name].append(after / before)
        return parts

    def _bare(self, engine: Peer, script: str) -> str:
        data = json.loads(engine.call("GET", f"/volumes/{_VOLUME}"))["Mountpoint"]
        chroot = ["sh", "-ec", _CHROOT, "sh", str(self._root), data]
        enter = ["unshare", "--mount", "--propagation", "private", *chroot]
        done = subprocess.run(
            [*enter, script], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"bare: {done.returncode} {done.stdout[-300:]} {done.stderr[-300:]}")
        return done.stdout


@contextlib.contextmanager
def storage(folder: Path, engines: Sequence[Peer]) -> Iterator[Storage]:
    """Make the root file system and the images ready; both are gone afterwards. Raises CannotBuild."""
    archive = debian_root(*_PACKAGES)
    root = folder / "root"
    try:
        root.mkdir(parents=True)
        subprocess.run(["tar", "--numeric-owner", "-xf", archive, "-C", root], check=True)
        for name in ("data", "dev", "proc", "tmp"):
            (root / name).mkdir(exist_ok=True)
        loadable = docker_archive([image([archive.read_bytes()], tags=[_IMAGE])])
        for engine in engines:
            engine.call("POST", "/images/load?quiet=1", raw=loadable)
            engine.call("POST", "/volumes/create", {"Name": _VOLUME})
        yield Storage(root, engines)
    finally:
        for engine in engines:
            engine.call("DELETE", f"/volumes/{_VOLUME}?force=1", check=False)
            engine.call("DELETE", f"/images/{_IMAGE}?force=1", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _in_container(engine: Peer, script: str) -> str:
    words = ("run", "--rm", "--network", "none", "-v", f"{_VOLUME}:/data:nocopy", _IMAGE)
    return engine.docker(*words, "sh", "-ec", script)


def _operations(output: str) -> float:
    job = json.loads(output[output.index("{") :])["jobs"][0]
    return float(job["read"]["iops"]) + float(job["write"]["iops"])


def _transactions(output: str) -> float:
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pgbench said no rate: {output[-500:]}")
    return float(found[1])
