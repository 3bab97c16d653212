"""Layouts and fixture trees of control groups; nothing here touches the machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.kernel import cgroup
from holdfast.kernel.mountinfo import MountInfo, parse_mountinfo

PURE_V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
SYSTEMD_HYBRID = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,size=4096k,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,memory
35 30 0:30 / /sys/fs/cgroup/memory2 rw shared:13 - cgroup cgroup rw,memory
"""
PURE_V1 = "".join(line + "\n" for line in SYSTEMD_HYBRID.splitlines() if "cgroup2" not in line)


def table(text: str) -> tuple[MountInfo, ...]:
    return parse_mountinfo(text)


def test_v2() -> None:
    found = cgroup.parse_layout(table(PURE_V2), "cpuset cpu io memory hugetlb pids\n")
    assert found.kind == "v2"
    assert found.controllers == {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}
    assert cgroup.paths(found, "/holdfast/x") == (Path("/sys/fs/cgroup/holdfast/x"),)
    assert cgroup.crun_needs_hiding(found) is None


def test_hybrid() -> None:
    found = cgroup.parse_layout(table(SYSTEMD_HYBRID), "hugetlb\n")
    assert found.kind == "hybrid"
    assert found.controllers == {"cpu", "cpuacct", "memory"}
    hierarchies = [path.parts[4] for path in cgroup.paths(found, "holdfast")]
    assert hierarchies == ["systemd", "cpu,cpuacct", "memory", "unified"]
    assert cgroup.crun_needs_hiding(found) == Path("/sys/fs/cgroup/unified/cgroup.controllers")


def test_hybrid_with_an_empty_v2_suits_crun() -> None:
    assert cgroup.crun_needs_hiding(cgroup.parse_layout(table(SYSTEMD_HYBRID), "\n")) is None


def test_v1() -> None:
    found = cgroup.parse_layout(table(PURE_V1), "")
    assert (found.kind, found.unified) == ("v1", None)
    assert cgroup.crun_needs_hiding(found) is None


def test_no_control_groups_at_all() -> None:
    with pytest.raises(ValueError, match="no control groups"):
        cgroup.parse_layout(table("22 1 254:0 / / rw - ext4 /dev/vda rw\n"), "")


@pytest.mark.parametrize("name", ["", "/", "../x", "/a/../../x", "./a"])
def test_names_stay_in_the_hierarchy(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a control group"):
        cgroup.paths(cgroup.parse_layout(table(PURE_V2), ""), name)


def v2_tree(root: Path) -> cgroup.CgroupLayout:
    """Ordinary files in the place of control files; they keep the last write, so each is checked as such."""
    offered = frozenset({"cpu", "memory", "pids"})
    return cgroup.CgroupLayout("v2", offered, (), root, offered)


def test_prepare_hands_controllers_down_from_every_ancestor(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").touch()
    assert cgroup.prepare(v2_tree(tmp_path), "/a/b")
    for directory in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        assert (directory / "cgroup.subtree_control").read_text().startswith("+")


def test_a_missing_control_file_is_never_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cgroup.join(v2_tree(tmp_path), "/a", os.getpid())
    assert list((tmp_path / "a").iterdir()) == []


def test_v1_cpusets_get_what_their_parents_have(tmp_path: Path) -> None:
    for directory, cpus in ((tmp_path, "0-3"), (tmp_path / "a", ""), (tmp_path / "a" / "b", "1")):
        directory.mkdir(exist_ok=True)
        (directory / "cpuset.cpu_exclusive").write_text("0\n")
        (directory / "cpuset.cpus").write_text(f"{cpus}\n")
        (directory / "cpuset.mems").write_text("0\n")
    layout = cgroup.CgroupLayout("v1", frozenset({"cpuset"}),
                                 (cgroup.Hierarchy(tmp_path, frozenset({"cpuset"})),), None, frozenset())
    assert cgroup.prepare(layout, "/a/b") == {"cpuset"}
    assert (tmp_path / "a" / "cpuset.cpus").read_text().strip() == "0-3"
    assert (tmp_path / "a" / "b" / "cpuset.cpus").read_text().strip() == "1"


def test_pids_of_all_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "cgroup.procs").write_text("12\n0\n")
    (tmp_path / "a" / "b" / "cgroup.procs").write_text("7\n")
    assert cgroup.pids(v2_tree(tmp_path), "/a") == (7, 12)
    assert cgroup.pids(v2_tree(tmp_path), "/gone") == ()


def test_oom_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 2\noom_kill 3\noom_group_kill 0\n")
    (tmp_path / "a" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    v1 = cgroup.CgroupLayout("v1", frozenset({"memory"}),
                             (cgroup.Hierarchy(tmp_path, frozenset({"memory"})),), None, frozenset())
    assert cgroup.oom_count(v2_tree(tmp_path), "/a") == 3
    assert cgroup.oom_count(v1, "/a") == 5
    assert cgroup.oom_count(v1, "/gone") == 0


def test_remove_takes_leaves_first(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    cgroup.remove(v2_tree(tmp_path), "/a")
    assert not (tmp_path / "a").exists()
    cgroup.remove(v2_tree(tmp_path), "/a")
