"""Pure functions of several files: numbers, tables, event records, option strings."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from holdfast.kernel import identity, inotify, pidfd
from holdfast.kernel.libc import ioctl_number
from holdfast.kernel.mount import overlay_option_string
from holdfast.kernel.nft import NftError


@pytest.mark.parametrize(("machine", "kind", "expected"), [
    ("x86_64", "RW", 0xC040FF0B), ("aarch64", "RW", 0xC040FF0B),
    ("ppc64le", "RW", 0xC040FF0B), ("mips64", "RW", 0xC040FF0B),
    ("x86_64", "R", 0x8040FF0B), ("ppc64le", "R", 0x4040FF0B), ("x86_64", "", 0x0040FF0B), ("ppc64le", "", 0x2040FF0B),
])
def test_ioctl_numbers(machine: str, kind: str, expected: int) -> None:
    assert ioctl_number(kind, 0xFF, 11, 64, machine=machine) == expected


def test_stat_of_a_program_with_brackets_in_its_name() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    assert pidfd.parse_stat(f"17 (a) S (b) Z {fields}\n") == ("Z", 22)
    with pytest.raises(ValueError, match="not a line"):
        pidfd.parse_stat("17 (a) S 1")


def test_own_process_is_the_same_and_a_zombie_is_not() -> None:
    start = pidfd.process_start_time(os.getpid())
    assert start is not None
    assert pidfd.is_same_process(os.getpid(), start)
    assert not pidfd.is_same_process(os.getpid(), start + 1)
    child = subprocess.Popen(["true"])
    started = pidfd.process_start_time(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started is not None
    assert not pidfd.is_same_process(child.pid, started)
    child.wait()
    assert pidfd.process_start_time(child.pid) is None


@pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)])
def test_exit_code_by_descriptor(command: str, code: int) -> None:
    child = subprocess.Popen(["sh", "-c", f"read line; {command}"], stdin=subprocess.PIPE)
    handle = pidfd.pidfd_open(child.pid)
    assert not os.get_inheritable(handle)
    assert pidfd.exit_code_of(handle) is None
    child.communicate(b"\n")
    found = pidfd.exit_code_of(handle)
    os.close(handle)
    if found is None:
        pytest.skip("this kernel cannot tell an exit code by descriptor (before 6.15)")
    assert found == code


def test_inotify_records() -> None:
    data = struct.pack("=iIII", 1, 0x100, 0, 16) + b"n\xff".ljust(16, b"\0") + struct.pack("=iIII", 2, 0x400, 0, 0)
    assert inotify.parse_events(data) == [(1, 0x100, "n\udcff"), (2, 0x400, "")]


def test_inotify_tells_what_happens(tmp_path: Path) -> None:
    with inotify.Inotify() as news:
        assert news.read_events() == []
        watch = news.add_watch(tmp_path, inotify.IN_CREATE | inotify.IN_MOVED_TO)
        (tmp_path / "file").touch()
        assert news.read_events() == [(watch, inotify.IN_CREATE, "file")]
        news.rm_watch(watch)
        news.rm_watch(watch)
        with pytest.raises(FileNotFoundError, match="inotify_add_watch"):
            news.add_watch(tmp_path / "missing", inotify.IN_CREATE)


def test_capabilities_are_those_permitted_and_bounded() -> None:
    status = "Name:\tx\nCapPrm:\t000001fffeffffff\nCapEff:\t0\nCapBnd:\t0000000001000403\n"
    assert identity.parse_capabilities(status) == {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE"}
    with pytest.raises(ValueError, match="CapPrm"):
        identity.parse_capabilities("Name:\tx\n")


def test_what_the_machine_is() -> None:
    assert len(identity.boot_id()) == 36
    assert identity.boot_id() == identity.boot_id()
    soft, hard = identity.rlimits()["RLIMIT_NOFILE"]
    assert hard == -1 or soft <= hard
    assert identity.total_memory_bytes() > 1 << 24
    assert 1 <= identity.cpu_count() <= (os.cpu_count() or 1)
    assert identity.own_oom_score_adj() in range(-1000, 1001)
    assert identity.kernel_release()
    assert identity.machine()


@pytest.mark.parametrize("path", ["/a:b", "/a,b", "/a\\b"])
def test_paths_that_would_need_escapes_give_no_option_string(path: str) -> None:
    assert overlay_option_string([path], [], []) is None
    assert overlay_option_string(["/a"], [("upperdir", path)], []) is None


def test_option_string() -> None:
    text = overlay_option_string(["/b", "/a"], [("upperdir", "/u"), ("workdir", "/w")], ["volatile"])
    assert text == "lowerdir=/b:/a,upperdir=/u,workdir=/w,volatile"
    assert overlay_option_string(["/" + "x" * 90] * 60, [], []) is None


def test_nft_errors_carry_the_kernels_reason() -> None:
    assert NftError("Error: Could not process rule: No such file or directory\nx\n^").errno == 2
    assert NftError("Error: syntax error, unexpected string").errno == 22
    assert NftError("").strerror == "nft: no reason given"
