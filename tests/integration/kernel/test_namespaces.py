"""Pinned network and mount namespaces, and what runs inside them."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from holdfast.kernel import mount, mountinfo, namespaces, path
from tests.support.namespace import in_mount_namespace

pytestmark = pytest.mark.kernel


def own(kind: str) -> str:
    return os.readlink(f"/proc/thread-self/ns/{kind}")


@in_mount_namespace
def test_pinned_network_namespace_has_only_lo_and_it_works(tmp_path: Path) -> None:
    before = own("net")
    namespaces.pin_network_namespace(tmp_path / "net")
    assert own("net") == before
    assert namespaces.is_pinned(tmp_path / "net")

    def talk() -> tuple[str, list[str], bytes]:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(b"hello")
            with server.accept()[0] as accepted:
                return own("net"), [name for _, name in socket.if_nameindex()], accepted.recv(5)

    inside, interfaces, heard = namespaces.in_network_namespace(tmp_path / "net", talk)
    assert inside != before
    assert "lo" in interfaces
    assert not any(name.startswith(("eth", "en")) for name in interfaces)
    assert heard == b"hello"
    with path.owned_fd(os.open(tmp_path / "net", os.O_RDONLY)) as fd:
        assert namespaces.in_network_namespace(fd, lambda: own("net")) == inside
    assert own("net") == before


@in_mount_namespace
def test_pinning_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    namespaces.pin_network_namespace(tmp_path / "first")
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(5):
        namespaces.pin_network_namespace(tmp_path / str(number))
        namespaces.in_network_namespace(tmp_path / str(number), os.getpid)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    deadline = time.monotonic() + 5             # the kernel's part of a thread ends a moment after Python's
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(os.listdir("/proc/self/task")) == 1


@in_mount_namespace
def test_pin_twice_unpin_twice(tmp_path: Path) -> None:
    pin = tmp_path / "net"
    pin.touch()                                 # as a crash between the two steps leaves it
    namespaces.pin_network_namespace(pin)
    with pytest.raises(FileExistsError):
        namespaces.pin_network_namespace(pin)
    assert namespaces.is_pinned(pin)
    for _ in range(2):
        namespaces.unpin(pin)
    assert not pin.exists()
    assert not namespaces.is_pinned(pin)


@in_mount_namespace
def test_errors_cross_over_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        namespaces.pin_network_namespace(tmp_path / "missing" / "net")
    namespaces.pin_network_namespace(tmp_path / "net")
    with pytest.raises(ZeroDivisionError):
        namespaces.in_network_namespace(tmp_path / "net", lambda: 1 // 0)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="setns"):
        namespaces.in_network_namespace(tmp_path / "file", os.getpid)


@in_mount_namespace
def test_mount_namespace_hides_the_file_and_sees_later_mounts(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    mount.make_shared(run)
    (run / "private").mkdir()
    (run / "volume").mkdir()
    hide = tmp_path / "cgroup.controllers"
    hide.write_text("hugetlb\n")
    pin = run / "private" / "crun"
    namespaces.pin_mount_namespace_hiding(pin, hide)
    mount.mount_tmpfs(run / "volume")
    (run / "volume" / "file").write_text("seen")

    def look() -> tuple[str, str, str]:
        read = subprocess.run(["cat", run / "volume" / "file", hide], check=True, capture_output=True, text=True)
        return hide.read_text(), read.stdout, os.readlink("/proc/thread-self/ns/mnt")

    assert namespaces.in_mount_namespace(pin, look)[:2] == ("", "seen")
    assert hide.read_text() == "hugetlb\n"
    cat = ["nsenter", f"--mount={pin}", "cat", os.fspath(run / "volume" / "file"), os.fspath(hide)]
    assert subprocess.run(cat, check=True, capture_output=True, text=True).stdout == "seen"
    mount.umount2(run / "volume")
    assert not namespaces.in_mount_namespace(pin, (run / "volume" / "file").exists)


@in_mount_namespace
def test_mount_namespace_is_used_again_unless_it_hides_nothing(tmp_path: Path) -> None:
    hide, other = tmp_path / "hide", tmp_path / "other"
    hide.write_text("hugetlb\n")
    other.write_text("memory\n")
    (tmp_path / "private").mkdir()
    pin = tmp_path / "private" / "crun"

    def inside() -> str:
        return namespaces.in_mount_namespace(pin, lambda: own("mnt"))

    namespaces.pin_mount_namespace_hiding(pin, hide)
    first = inside()
    namespaces.pin_mount_namespace_hiding(pin, hide)
    assert inside() == first
    namespaces.pin_mount_namespace_hiding(pin, other)
    assert namespaces.in_mount_namespace(pin, lambda: (hide.read_text(), other.read_text())) == ("hugetlb\n", "")
    assert [entry.fstype for entry in mountinfo.mounts_below(pin)] == ["nsfs"]
    namespaces.unpin(pin)
    assert mountinfo.mounts_below(pin) == ()


@in_mount_namespace
def test_mount_namespace_is_pinned_on_whichever_processor_it_was_made(tmp_path: Path) -> None:
    """Since Linux 6.18 ids of namespaces grow on each processor for itself; the kernel then sees loops in some."""
    (tmp_path / "private").mkdir()
    hide = tmp_path / "hide"
    hide.write_text("x")
    allowed = os.sched_getaffinity(0)
    for processor in allowed:
        os.sched_setaffinity(0, {processor})
        namespaces.unshare(namespaces.CLONE_NEWNS)
        os.sched_setaffinity(0, allowed)
        for number in range(8):
            namespaces.pin_mount_namespace_hiding(tmp_path / "private" / str(number), hide)
            namespaces.unpin(tmp_path / "private" / str(number))


@in_mount_namespace
def test_a_thread_with_a_root_of_its_own_does_not_move_the_others(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    hide = tmp_path / "hide"
    hide.write_text("x")
    namespaces.pin_mount_namespace_hiding(tmp_path / "private" / "crun", hide)
    os.chdir(tmp_path)
    assert namespaces.in_mount_namespace(tmp_path / "private" / "crun", os.getcwd) == "/"
    assert os.getcwd() == str(tmp_path)


@in_mount_namespace
def test_pinning_is_quick(tmp_path: Path) -> None:
    """Far above the 1 to 2 ms measured, far below what a started program or a fork of a big engine costs."""
    namespaces.pin_network_namespace(tmp_path / "warm")
    took: list[float] = []
    for number in range(10):
        before = time.perf_counter()
        namespaces.pin_network_namespace(tmp_path / str(number))
        took.append(time.perf_counter() - before)
    assert min(took) < 0.02
