"""Processes for calls that may hang: what they answer, and that one that does not is given up. A FIFO is what hangs."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from holdfast.containers import archive_steps, bindsource
from holdfast.errors import Unavailable
from holdfast.kernel.storage_worker import READ_LIMIT_BYTES, Failed
from holdfast.volumes import copyup, subpath
from holdfast.volumes.drivers.base import MountFailed
from holdfast.volumes.drivers.workers import Workers
from holdfast.volumes.outages import Outages
from tests.support.engine import PROJECT


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(5)
    yield workers
    workers.close()


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def children() -> list[bytes]:
    """Command lines of our own worker processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == str(os.getpid()) and b"storage_worker" in command:
            found.append(command)
    return found


def test_answers_and_failures(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("ümlaut\n")
    assert workers.read_text(str(tmp_path / "file")) == "ümlaut\n"
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_text("x" * (READ_LIMIT_BYTES + 1))
    assert len(workers.read_text(str(tmp_path / "long"))) == READ_LIMIT_BYTES
    for name, number in (("missing", errno.ENOENT), ("binary", errno.EILSEQ), ("", errno.EISDIR)):
        with pytest.raises(Failed) as failed:
            workers.read_text(str(tmp_path / name))
        assert (failed.value.number, failed.value.at) == (number, "read")
    assert "127.0.0.1" in workers.resolve("127.0.0.1")
    with pytest.raises(Failed) as failed:
        workers.resolve("name with spaces." + "x" * 300)
    assert failed.value.at == "resolve"
    assert len(children()) == 1, "one is enough for calls that follow each other"


@pytest.mark.parametrize("module", [copyup, subpath, archive_steps, bindsource])
def test_what_workers_do_needs_the_standard_library_alone(module: ModuleType) -> None:
    source = f"import sys; sys.path.append({str(PROJECT / 'src')!r}); import {module.__name__}"
    subprocess.run([sys.executable, "-I", "-S", "-c", source], check=True, timeout=20)


def test_descriptors_come_back(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "data/inner").mkdir(parents=True)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        for subpath in ("", "inner"):
            fd, mode = workers.open(directory, "data", subpath)
            assert mode == os.fstat(fd).st_mode
            assert os.path.samestat(os.fstat(fd), (tmp_path / "data" / subpath).stat())
            assert not os.get_inheritable(fd)
            os.close(fd)
        with pytest.raises(Failed) as failed:
            workers.open(directory, "data", "inner/missing/more")
        assert (failed.value.number, failed.value.at) == (errno.ENOENT, "subpath-1")
        workers.look(directory, "data")
        workers.mount(directory, "data", [])
    finally:
        os.close(directory)


def test_ports(workers: Workers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        workers.connect("127.0.0.1", port)
    with pytest.raises(Failed) as failed:
        workers.connect("127.0.0.1", port)
    assert (failed.value.number, failed.value.at) == (errno.ECONNREFUSED, "connect")


def test_what_does_not_answer_is_given_up(hanging: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("there")
    workers = Workers(0.5)
    began = time.monotonic()
    with pytest.raises(Failed) as failed:
        workers.read_text(str(hanging))
    assert failed.value.number == errno.ETIMEDOUT
    assert 0.5 <= time.monotonic() - began < 2
    assert workers.read_text(str(tmp_path / "file")) == "there"
    workers.close()
    assert children() == []


def test_many_at_once_leave_two(workers: Workers, hanging: Path) -> None:
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(workers.read_text(str(hanging)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(children()) < 4:
        time.sleep(0.01)
    while any(thread.is_alive() for thread in threads):
        writer = os.open(hanging, os.O_RDWR)
        time.sleep(0.05)
        os.close(writer)
    assert len(texts) == 4
    assert len(children()) == 2


def test_closing_wakes_those_who_wait(workers: Workers, hanging: Path) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            workers.read_text(str(hanging))
        except Unavailable as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not children():
        time.sleep(0.01)
    time.sleep(0.1)
    workers.close()
    thread.join(2)
    assert [str(error) for error in errors] == ["the engine is stopping"]
    with pytest.raises(Unavailable):
        workers.read_text(str(hanging))


def test_a_worker_that_dies_is_an_error_and_replaced(workers: Workers, tmp_path: Path, hanging: Path) -> None:
    (tmp_path / "file").write_text("there")

    def kill() -> None:
        while not children():
            time.sleep(0.01)
        time.sleep(0.2)
        for worker in list(workers._busy):
            worker._process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(Failed) as failed:
        workers.read_text(str(hanging))
    thread.join()
    assert failed.value.number == errno.EIO
    assert workers.read_text(str(tmp_path / "file")) == "there"


def test_an_outage_is_shared_by_those_who_waited() -> None:
    outages = Outages()
    early = time.monotonic()
    with pytest.raises(MountFailed), outages.attempt("v", early):
        raise MountFailed("away", hint="try")
    with pytest.raises(MountFailed) as shared, outages.attempt("v", early):
        raise AssertionError("not tried again")
    assert (str(shared.value), shared.value.hint) == ("away", "try")
    with outages.attempt("other", early):
        pass
    with outages.attempt("v", time.monotonic()):
        pass
    with outages.attempt("v", early):
        pass
