"""The program as a whole on a terminal and under signals, against an engine that plays a shell."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.terminal import Terminal
from tests.unit.cli.fake_engine import Call, FakeEngine, Hijacked, frame

_ID = "c" * 64
_UPGRADE = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
_PROGRAM = [sys.executable, "-m", "holdfast.cli.main"]


def _can_run(engine: FakeEngine) -> None:
    engine.answers["POST /containers/create"] = (201, {"Id": _ID, "Warnings": []})
    engine.answers[f"POST /containers/{_ID}/start"] = (204, None)
    engine.answers[f"POST /containers/{_ID}/resize"] = (200, None)
    engine.answers[f"POST /containers/{_ID}/wait"] = (200, {"StatusCode": 4})


def _shell(call: Call) -> tuple[int, object]:
    """Prompts, and gives each byte back in brackets; `q` ends it."""
    connection, reader = call.raw
    connection.sendall(_UPGRADE + b"ready> ")
    while (byte := reader.read(1)) not in {b"", b"q"}:
        connection.sendall(b"[" + byte.hex().encode() + b"]")
    connection.shutdown(socket.SHUT_RDWR)
    return 200, None


def _read_until(terminal: Terminal, text: str) -> str:
    shown = b""
    while text.encode() not in shown:
        shown += os.read(terminal.master, 4096)
    return shown.decode()


def _environment(engine: FakeEngine) -> dict[str, str]:
    source = Path(__file__).resolve().parents[3] / "src"
    return {"HOLDFAST_HOST": engine.url, "PYTHONPATH": str(source), "PATH": "/usr/bin:/bin"}


def test_keys_pass_one_by_one_and_the_size_follows(engine: FakeEngine) -> None:
    _can_run(engine)
    engine.answers[f"POST /containers/{_ID}/attach"] = _shell
    sized = threading.Event()

    def resized(call: Call) -> tuple[int, object]:
        if call.query == {"h": ["40"], "w": ["100"]}:
            sized.set()
        return 200, None

    engine.answers[f"POST /containers/{_ID}/resize"] = resized
    with Terminal([*_PROGRAM, "run", "-it", "alpine"], _environment(engine)) as terminal:
        _read_until(terminal, "ready> ")
        terminal.type("a\x03\x10z")
        _read_until(terminal, "[61][03][10][7a]")
        terminal.resize(40, 100)
        assert sized.wait(10)
        terminal.type("q")
        assert terminal.process.wait(10) == 4
    created = engine.calls[0].document
    assert (created["Tty"], created["HostConfig"]["ConsoleSize"]) == (True, [24, 80])
    assert {"h": ["24"], "w": ["80"]} in [call.query for call in engine.asked(f"POST /containers/{_ID}/resize")]


def test_the_detach_keys_leave_the_container_alone(engine: FakeEngine) -> None:
    _can_run(engine)
    engine.answers[f"POST /containers/{_ID}/attach"] = _shell
    never = threading.Event()

    def wait(call: Call) -> tuple[int, object]:
        call.raw[0].sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        never.wait(20)
        return 200, None

    engine.answers[f"POST /containers/{_ID}/wait"] = wait
    with Terminal([*_PROGRAM, "run", "-it", "--detach-keys", "ctrl-a,d", "alpine"], _environment(engine)) as terminal:
        _read_until(terminal, "ready> ")
        terminal.type("x\x01")
        _read_until(terminal, "[78]")
        terminal.type("d")
        assert terminal.process.wait(10) == 0
    never.set()


def test_signals_are_passed_on(engine: FakeEngine) -> None:
    _can_run(engine)
    killed = threading.Event()

    def attach(call: Call) -> tuple[int, object]:
        call.raw[0].sendall(_UPGRADE + frame(1, b"ready\n"))
        assert killed.wait(20)
        call.raw[0].sendall(frame(1, b"done\n"))
        call.raw[0].shutdown(socket.SHUT_RDWR)
        return 200, None

    def kill(_: Call) -> tuple[int, object]:
        killed.set()
        return 204, None

    engine.answers[f"POST /containers/{_ID}/attach"] = attach
    engine.answers[f"POST /containers/{_ID}/kill"] = kill
    program = subprocess.Popen(
        [*_PROGRAM, "run", "alpine"], env=_environment(engine), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    with program:
        assert program.stdout
        assert program.stdout.readline() == b"ready\n"
        program.send_signal(signal.SIGINT)
        assert program.stdout.read() == b"done\n"
        assert program.wait(10) == 4
    assert engine.asked(f"POST /containers/{_ID}/kill")[0].query == {"signal": ["INT"]}


def test_a_reader_that_has_seen_enough(engine: FakeEngine) -> None:
    _can_run(engine)
    engine.answers[f"POST /containers/{_ID}/attach"] = (101, Hijacked(frame(1, b"y\n" * 500_000)))
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$@" | head -1', "bash", *_PROGRAM, "run", "alpine"],
        env=_environment(engine),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"y\n", b"")
