"""Types that are worked out before there are threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

RACE = """
import sys, threading
from holdfast.containers import model
from holdfast.shapes import know_structs
from holdfast.wire import containers
know_structs()
sys.setswitchinterval(1e-6)
gate = threading.Barrier(6)
def read():
    gate.wait()
    for _ in range(3):
        containers.encode_host_config(model.HostConfig())
        containers.encode_config(model.ContainerConfig())
readers = [threading.Thread(target=read) for _ in range(6)]
for reader in readers:
    reader.start()
for reader in readers:
    reader.join()
"""
"""Without `know_structs` about one run in four ends with a segmentation fault."""


@pytest.mark.parametrize("_", range(8))
def test_many_threads_read_at_once(_: int) -> None:
    subprocess.run([sys.executable, "-c", RACE], check=True, timeout=30)
