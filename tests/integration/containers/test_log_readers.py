"""Those who read logs: many, slow, or gone."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

COUNT = 150
"""More than there are threads for streams."""


def reader(engine: Engine, query: str) -> socket.socket:
    """Ask for a log and read nothing of it."""
    connection = socket.socket(socket.AF_UNIX)
    folder = os.open(engine.socket_path.parent, os.O_PATH)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(f"/proc/self/fd/{folder}/{engine.socket_path.name}")
    os.close(folder)
    connection.sendall(f"GET /containers/talks/logs?stdout=1&{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def resident_mb(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_readers_that_do_not_read_hold_up_nobody(engine: Engine) -> None:
    assert engine.process is not None
    script = "yes 0123456789012345678901234567890123456789 | head -c 20000000; echo last; sleep 1000"
    engine.docker("run", "-d", "--name", "talks", "--network", "none", "busybox", "sh", "-c", script)
    while not engine.docker("logs", "--tail", "1", "talks").stdout.endswith("last\n"):
        time.sleep(0.1)
    pid = engine.process.pid
    before, memory = descriptors(pid), resident_mb(pid)
    readers = [reader(engine, "follow=1" if number % 2 else "tail=all") for number in range(COUNT)]
    for connection in readers:
        assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    deadline = time.monotonic() + 30
    while True:  # what each of them gets at first is still being read
        began = time.monotonic()
        assert engine.docker("logs", "--tail", "1", "talks").stdout.endswith("last\n")
        if time.monotonic() - began < 1:
            break
        assert time.monotonic() < deadline, "others wait for those who do not read"
    assert resident_mb(pid) - memory < 200
    for connection in readers:
        connection.close()
    deadline = time.monotonic() + 10
    while descriptors(pid) > before + 3:
        assert time.monotonic() < deadline, f"{descriptors(pid)} descriptors, {before} before"
        time.sleep(0.1)

