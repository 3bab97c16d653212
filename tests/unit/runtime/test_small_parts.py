"""Attach packets, devices, conmon's command line, facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import InvalidParameter
from holdfast.runtime.attach import STDERR, STDIN_PACKET_BYTES, STDOUT, split_packet, stdin_packets
from holdfast.runtime.conmon import Streams, command, exec_arguments
from holdfast.runtime.devices import resolve_device
from holdfast.runtime.facts import parse_release


def test_packets() -> None:
    assert split_packet(b"\2out") == (STDOUT, b"out")
    assert split_packet(b"\3err") == (STDERR, b"err")
    assert split_packet(b"") == (0, b"")
    data = b"x" * (2 * STDIN_PACKET_BYTES + 1)
    assert [len(packet) for packet in stdin_packets(data)] == [STDIN_PACKET_BYTES, STDIN_PACKET_BYTES, 1]
    assert stdin_packets(b"") == []


def test_devices() -> None:
    (node,) = resolve_device("/dev/null", "/dev/nothing", "rw")
    assert (node.path, node.type, node.major, node.minor, node.access) == ("/dev/nothing", "c", 1, 3, "rw")
    with pytest.raises(InvalidParameter, match=r'custom device "/dev/nope": no such file or directory'):
        resolve_device("/dev/nope")
    with pytest.raises(InvalidParameter, match=r'custom device "/etc/passwd": not a device node'):
        resolve_device("/etc/passwd")
    with pytest.raises(InvalidParameter, match="invalid device mode: rx"):
        resolve_device("/dev/null", access="rx")


def test_command_line() -> None:
    words = command(
        Path("/c"), container_id="id", unique_id="id", name="n", bundle=Path("/b"), exit_dir=Path("/e"),
        runtime=Path("/crun"), runtime_root=Path("/root"), log_path=Path("/l"), streams=Streams(True, True, True),
    )
    assert words[:3] == ["/c", "--api-version", "1"]
    assert words[-3:] == ["-t", "-i", "--leave-stdin-open"]
    assert words[words.index("-l") + 1] == "k8s-file:/l"
    assert exec_arguments(Path("/p"), attach=True) == ["-e", "--exec-process-spec", "/p", "--exec-attach"]


@pytest.mark.parametrize(
    ("release", "version"), [("6.1.0-18-amd64", (6, 1)), ("6.18.44", (6, 18)), ("5.10", (5, 10)), ("odd", (0, 0))]
)
def test_kernel_release(release: str, version: tuple[int, int]) -> None:
    assert parse_release(release) == version
