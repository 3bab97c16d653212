"""Attach, terminal, standard input, logs and exec."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.errors import Conflict, DeadlineExceeded
from holdfast.runtime.attach import PACKET_BYTES, STDERR, STDOUT, send_stdin, split_packet
from holdfast.runtime.logs import LogFollower, read_entries
from holdfast.runtime.messages import StartFailed
from holdfast.runtime.spec import SpecInput, build_spec
from tests.integration.runtime.conftest import Box

pytestmark = pytest.mark.kernel


def drain(connection: socket.socket) -> dict[int, bytes]:
    """All output up to the end, by stream."""
    output = {STDOUT: b"", STDERR: b""}
    connection.settimeout(20)
    while packet := connection.recv(PACKET_BYTES):
        stream, data = split_packet(packet)
        output[stream] += data
    return output


def process(box: Box, *args: str, terminal: bool = False) -> dict[str, object]:
    """An OCI process for an exec."""
    spec, _ = build_spec(
        SpecInput(id="x", rootfs=box.rootfs, args=args, cgroups_path="/x", terminal=terminal), box.runtime.host_facts()
    )
    found = spec["process"]
    assert isinstance(found, dict)
    return found


def test_attach_before_start_gets_every_byte(box: Box) -> None:
    box.create("att", "sh", "-c", "echo one; echo two >&2; yes | head -c 1000000")
    with box.runtime.open_attach("att") as connection, box.runtime.open_attach("att") as other:
        box.runtime.start("att")
        with ThreadPoolExecutor() as both:                     # a client that does not read holds up all
            first, second = both.map(drain, (connection, other))
    assert first[STDERR] == b"two\n"
    assert first[STDOUT] == b"one\n" + b"y\n" * 500000
    assert second == first
    box.ended("att")
    box.remove("att")
    with pytest.raises(Conflict):
        box.runtime.open_attach("att")


def test_standard_input_arrives_whole(box: Box) -> None:
    data = os.urandom(3_000_000)
    box.create("in", "sh", "-c", "cat > /tmp/copied", open_stdin=True, stdin_once=True)
    with box.runtime.open_attach("in") as connection:
        box.runtime.start("in")
        send_stdin(connection, data)
        connection.shutdown(socket.SHUT_WR)
        assert box.ended("in").exit_code == 0
    copied = (box.rootfs / "tmp/copied").read_bytes()
    assert hashlib.sha256(copied).digest() == hashlib.sha256(data).digest()
    (box.rootfs / "tmp/copied").unlink()
    box.remove("in")


def test_standard_input_stays_open_for_the_next_client(box: Box) -> None:
    box.create("keep", "sh", "-c", "read a; read b; echo $a $b", open_stdin=True)
    with box.runtime.open_attach("keep") as connection:
        box.runtime.start("keep")
        connection.send(b"first\n")
        connection.shutdown(socket.SHUT_WR)
    with box.runtime.open_attach("keep") as connection:
        connection.send(b"second\n")
        assert box.ended("keep").exit_code == 0
    assert box.output("keep") == "first second\n"
    box.remove("keep")


def test_without_open_stdin_it_is_empty(box: Box) -> None:
    assert box.run("noin", "sh", "-c", "cat; echo end") == (0, "end\n")


def test_terminal_and_its_size(box: Box) -> None:
    box.create("tty", "sh", "-c", "read x; stty size; tty; ls /proc/self/fd >&2", terminal=True, open_stdin=True)
    with box.runtime.open_attach("tty") as connection:
        box.runtime.resize("tty", 40, 120)
        box.runtime.start("tty")
        time.sleep(0.1)
        connection.send(b"go\n")
        output = drain(connection)
    assert output[STDERR] == b""
    assert b"40 120\r\n" in output[STDOUT]
    assert b"/dev/" in output[STDOUT]
    box.ended("tty")
    box.remove("tty")
    with pytest.raises(Conflict, match="not running"):
        box.runtime.resize("tty", 1, 1)


def test_console_size_from_the_spec(box: Box) -> None:
    code, output = box.run("size", "stty", "size", terminal=True, console_size=(33, 99))
    assert (code, output) == (0, "33 99\r\n")


def test_log_records_streams_and_long_lines(box: Box) -> None:
    box.start("long", "sh", "-c", "yes | head -c 100000 | tr -d '\\n'; echo; echo e >&2; printf end")
    box.ended("long")
    entries = list(read_entries(box.log_path("long")))
    assert [(entry.stream, entry.data) for entry in entries if entry.stream == "stderr"] == [("stderr", b"e\n")]
    assert [entry.data for entry in entries if entry.stream == "stdout"] == [b"y" * 50000 + b"\n", b"end"]
    assert [entry.data for entry in read_entries(box.log_path("long"), tail=1)] == [b"end"]
    assert abs(entries[0].time_ns / 1e9 - time.time()) < 60
    box.remove("long")


def test_log_followed_across_a_rotation(box: Box) -> None:
    path = box.log_path("rot")
    box.start("rot", "sh", "-c", "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.002; done")
    follower = LogFollower(path)
    lines: list[bytes] = []
    rotated = False
    ended = False
    while not ended or lines[-1:] != [b"line 299\n"]:
        found = follower.read()
        lines += [entry.data for entry in found]
        if not rotated and len(lines) > 50:
            path.rename(f"{path}.1")
            box.runtime.reopen_log("rot")
            rotated = True
        if not found:
            select.select([follower], [], [], 0.5)
            ended = ended or not box.exits["rot"].empty()
    follower.close()
    assert lines == [b"line %d\n" % number for number in range(300)]
    assert [entry.data for entry in read_entries(path)] == lines
    assert [entry.data for entry in read_entries(path, tail=2)] == lines[-2:]
    assert [entry.data for entry in read_entries(path, tail=299)] == lines[-299:]
    box.remove("rot")
    path.with_name(path.name + ".1").unlink()


def test_exec(box: Box) -> None:
    box.start("ex", "sleep", "60")
    runtime = box.runtime
    with runtime.exec_start("ex", "e1", process(box, "sh", "-c", "echo out; echo err >&2; exit 5")) as task:
        assert task.socket is not None
        assert drain(task.socket) == {STDOUT: b"out\n", STDERR: b"err\n"}
        assert task.wait(10) == 5
        assert task.wait() == 5
    with runtime.exec_start("ex", "e2", process(box, "cat"), stdin=True) as task:
        assert task.socket is not None
        send_stdin(task.socket, b"x" * 100_000)
        task.socket.shutdown(socket.SHUT_WR)
        assert drain(task.socket)[STDOUT] == b"x" * 100_000
        assert task.wait(10) == 0
    with runtime.exec_start("ex", "e3", process(box, "sh", "-c", "sleep 0.2; exit 6"), attach=False) as task:
        assert task.socket is None
        assert task.pid in runtime.processes("ex")
        with pytest.raises(DeadlineExceeded):
            task.wait(0.01)
        assert task.wait(10) == 6
    with runtime.exec_start("ex", "e4", process(box, "cat", "/proc/self/status")) as task:
        assert task.socket is not None
        assert b"Seccomp:\t2\n" in drain(task.socket)[STDOUT]
        task.wait(10)
    for command, code in (("nosuch", 127), ("/etc", 126)):
        with pytest.raises(StartFailed, match="OCI runtime exec failed: exec failed: ") as failed:
            runtime.exec_start("ex", "bad", process(box, command))
        assert failed.value.exit_code == code
    assert [path.name for path in (box.config.run_root / "containers/ex").glob("exec-*")] == []
    box.remove("ex")
    with pytest.raises(Conflict):
        runtime.exec_start("ex", "late", process(box, "true"))


def test_exec_with_a_terminal(box: Box) -> None:
    box.start("ext", "sleep", "60")
    words = process(box, "sh", "-c", "read x; stty size", terminal=True)
    with box.runtime.exec_start("ext", "t1", words, terminal=True, stdin=True) as task:
        assert task.socket is not None
        task.resize(22, 77)
        time.sleep(0.1)
        task.socket.send(b"go\n")
        assert b"22 77" in drain(task.socket)[STDOUT]
        assert task.wait(10) == 0
    with box.runtime.exec_start("ext", "t2", process(box, "sleep", "60"), attach=False):
        pass
    box.remove("ext")
