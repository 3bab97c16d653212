"""Counters as kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.kernel import usage
from holdfast.kernel.cgroup import CgroupLayout, Hierarchy
from holdfast.kernel.usage import UNLIMITED, CpuUsage, InterfaceUsage, IoEntry

_TICK_NS = 10_000_000  # at 100 a second, which is what Linux shows to programs everywhere


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_v1(tmp_path: Path) -> None:
    write(tmp_path / "cpuacct/box", cpuacct__usage="42\n", cpuacct__usage_percpu="40 2 \n",
          cpuacct__stat="user 3\nsystem 1\n")  # fmt: skip
    write(tmp_path / "cpu/box", cpu__stat="nr_periods 5\nnr_throttled 2\nthrottled_time 700\n")
    write(tmp_path / "memory/box", memory__usage_in_bytes="100\n", memory__limit_in_bytes="9223372036854771712\n",
          memory__max_usage_in_bytes="300\n", memory__failcnt="1\n", memory__stat="cache 7\nrss 8\n")  # fmt: skip
    write(tmp_path / "pids/box", pids__current="3\n", pids__max="max\n")
    write(tmp_path / "blkio/box", blkio__throttle__io_service_bytes="8:0 Read 10\n8:0 Total 10\nTotal 10\n")
    layout = CgroupLayout(
        "hybrid", frozenset(), tuple(Hierarchy(path, frozenset({path.name})) for path in sorted(tmp_path.iterdir())),
        tmp_path / "unified", frozenset(),
    )  # fmt: skip
    found = usage.usage(layout, "/box")
    assert found.cpu == CpuUsage(42, 3 * _TICK_NS, _TICK_NS, (40, 2), 5, 2, 700)
    assert found.memory is not None
    assert (found.memory.usage_bytes, found.memory.limit_bytes, found.memory.max_usage_bytes) == (
        100, 9223372036854771712, 300,
    )  # fmt: skip
    assert found.memory.stats == {"cache": 7, "rss": 8}
    assert (found.pids, found.pids_limit, found.v2) == (3, 0, False)
    assert found.io == {
        "io_service_bytes": (IoEntry(8, 0, "Read", 10), IoEntry(8, 0, "Total", 10)), "io_serviced": (),
    }  # fmt: skip


def test_v2(tmp_path: Path) -> None:
    write(tmp_path / "box", cpu__stat="usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nthrottled_usec 4\n",
          memory__current="100\n", memory__max="max\n", memory__stat="anon 7\nfile 8\n", pids__current="3\n",
          pids__max="17\n", io__stat="8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n")  # fmt: skip
    layout = CgroupLayout("v2", frozenset(), (), tmp_path, frozenset())
    found = usage.usage(layout, "/box")
    assert found.cpu == CpuUsage(5000, 3000, 2000, None, 1, 0, 4000)
    assert found.memory is not None
    assert (found.memory.usage_bytes, found.memory.limit_bytes) == (100, UNLIMITED)
    assert (found.pids, found.pids_limit, found.v2) == (3, 17, True)
    assert found.io == {"io_service_bytes": (IoEntry(8, 0, "read", 1), IoEntry(8, 0, "write", 2))}


def test_v2_without_controllers(tmp_path: Path) -> None:
    write(tmp_path / "box", cpu__stat="usage_usec 5\nuser_usec 3\nsystem_usec 2\n")
    found = usage.usage(CgroupLayout("v2", frozenset(), (), tmp_path, frozenset()), "/box")
    assert (found.memory, found.pids, found.pids_limit, found.io) == (None, 0, 0, {"io_service_bytes": ()})


def test_a_group_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        usage.usage(CgroupLayout("v2", frozenset(), (), tmp_path, frozenset()), "/box")


def test_stat() -> None:
    text = "cpu  1 2 3 4 5 6 7 100 100 100\ncpu0 1 1 1 1 1 1 1 0 0 0\ncpu1 0 1 2 3 4 5 6 0 0 0\nintr 5\n"
    assert usage.parse_stat(text) == (28 * _TICK_NS, 2)


def test_net_dev() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls ...\n"
        "    lo:       1       1    0    0    0     0          0         0        1       1    0    0    0     0  0 0\n"
        "  eth0:    1042      11    1    2    0     0          0         0      126       3    4    5    0     0  0 0\n"
    )
    assert usage.parse_net_dev(text) == {"eth0": InterfaceUsage(1042, 11, 1, 2, 126, 3, 4, 5)}


@pytest.mark.parametrize("text", ["", "8:0 Read\n", "x:0 Read 1\n", "8:0 Read -1\n", "Total 1\n"])
def test_blkio_lines_that_say_nothing(text: str) -> None:
    assert usage.parse_blkio(text) == ()
