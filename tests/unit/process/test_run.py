from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from holdfast.errors import DeadlineExceeded, System
from holdfast.process import ProgramFailed, run, spawn


def test_returns_what_the_program_wrote() -> None:
    done = run(["sh", "-c", "cat; echo oops >&2"], timeout_s=10, stdin=b"hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"oops\n")


def test_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    lines = run(["/usr/bin/env"], timeout_s=10).stdout.decode().splitlines()
    assert sorted(line.partition("=")[0] for line in lines) == ["LANG", "PATH"]
    assert run(["/usr/bin/env"], timeout_s=10, env={"A": "b"}).stdout == b"A=b\n"


def test_failure_carries_status_and_text() -> None:
    with pytest.raises(ProgramFailed, match="sh: exit status 3: broken") as failed:
        run(["sh", "-c", "echo broken >&2; exit 3"], timeout_s=10)
    assert failed.value.returncode == 3
    assert isinstance(failed.value, System)
    assert run(["sh", "-c", "exit 3"], timeout_s=10, check=False).returncode == 3


def test_missing_program() -> None:
    with pytest.raises(ProgramFailed) as failed:
        run(["/nowhere/program"], timeout_s=10)
    assert failed.value.returncode == 127


def test_deadline_kills_children_too(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"sh: no answer within 0\.3 s"):
        run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], timeout_s=0.3)
    assert time.monotonic() - started < 10
    child = int((tmp_path / "pid").read_text())
    while _state(child) not in (None, "Z"):
        assert time.monotonic() - started < 10
        time.sleep(0.01)


def test_only_named_descriptors_pass() -> None:
    reader, writer = os.pipe()
    try:
        child = spawn(["sh", "-c", f"echo hi >/proc/self/fd/{writer}"], pass_fds=(writer,))
        os.close(writer)
        assert child.wait(10) == 0
        assert os.read(reader, 10) == b"hi\n"
        other = os.dup(reader)
        listing = run(["ls", "/proc/self/fd"], timeout_s=10).stdout.split()
        os.close(other)
        assert len(listing) <= 4
    finally:
        os.close(reader)


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None
