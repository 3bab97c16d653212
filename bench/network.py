"""What passes through a published port, seen from a machine outside the engine's.

`outside` connects a namespace of its own to the engine's by a pair of cards, so that packets come in as from a network.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.engines import Peer

HOST = "198.18.0.1"
PORT = 18099
_CONNECT = """
set -e
ip link add bench0 type veth peer name bench1 netns "$1"
ip addr add 198.18.0.1/24 dev bench0
ip link set bench0 up
"""
_CONFIGURE = "ip addr add 198.18.0.2/24 dev bench1 && ip link set bench1 up"
_FETCH = """
import socket, sys, time
deadline = time.monotonic() + 10
while True:
    try:
        connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
buffer, got, began = bytearray(1 << 20), 0, time.perf_counter()
while count := connection.recv_into(buffer):
    got += count
print(got, time.perf_counter() - began)
"""


@contextlib.contextmanager
def outside(engine: Peer) -> Iterator[list[str]]:
    """A machine connected to the engine's, for the time of a `with`: the command that puts a program into it."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        time.sleep(0.2)  # until unshare has made the namespace
        _inside(engine.process.pids()[0], _CONNECT, str(holder.pid))
        _inside(holder.pid, _CONFIGURE)
        yield ["nsenter", "--target", str(holder.pid), "--net", "--"]
    finally:
        holder.kill()
        holder.wait()


def fetched_mb_per_s(enter: list[str]) -> float:
    """Fetch all that the published port gives; megabytes a second."""
    done = subprocess.run(
        [*enter, sys.executable, "-c", _FETCH, HOST, str(PORT)], capture_output=True, text=True, check=True, timeout=120
    )
    got, taken = done.stdout.split()
    return int(got) / float(taken) / 1e6


def _inside(pid: int, script: str, *words: str) -> None:
    subprocess.run(["nsenter", "--target", str(pid), "--net", "sh", "-c", script, "sh", *words], check=True)
