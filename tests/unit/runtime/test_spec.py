from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import InvalidParameter
from holdfast.runtime import capabilities
from holdfast.runtime.devices import DeviceNode
from holdfast.runtime.spec import (
    MASKED_PATHS,
    READONLY_PATHS,
    HostFacts,
    OciMount,
    Resources,
    SpecInput,
    Ulimit,
    build_environment,
    build_spec,
    check_cwd,
)
from holdfast.runtime.user import User

HOST = HostFacts(
    machine="x86_64", kernel=(6, 1), cgroup_v2=True, controllers=frozenset({"memory", "cpu", "pids", "io"}),
    capabilities=frozenset(capabilities.NAMES), hard_limits={"nofile": 20000, "core": -1},
)
POOR = dataclasses.replace(
    HOST, capabilities=HOST.capabilities - {"CAP_SYS_RESOURCE"}, cgroup_v2=False, controllers=frozenset(),
    swap_limit=False, blkio_weight=False, oom_score_adj=100,
)
PLAIN = SpecInput(id="c1", rootfs=Path("/root/fs"), args=("sh", "-c", "x"), cgroups_path="/holdfast/c1", hostname="h1")
NO_SECCOMP = "No seccomp profile is installed; the container runs without system call filtering."


def build(host: HostFacts = HOST, **changes: Any) -> tuple[Any, list[str]]:
    spec, warnings = build_spec(dataclasses.replace(PLAIN, **changes), host)
    return spec, [text for text in warnings if text != NO_SECCOMP]


def mounts(spec: Any) -> dict[str, Any]:
    return {entry["destination"]: entry for entry in spec["mounts"]}


def test_defaults_are_those_of_docker() -> None:
    spec, warnings = build()
    process, linux = spec["process"], spec["linux"]
    assert warnings == []
    assert spec["root"] == {"path": "/root/fs", "readonly": False}
    assert spec["hostname"] == "h1"
    assert process["args"] == ["sh", "-c", "x"]
    assert process["cwd"] == "/"
    assert process["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=h1", "HOME=/",
    ]
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert process["capabilities"]["bounding"] == list(capabilities.DEFAULT)
    assert len(capabilities.DEFAULT) == 14
    assert set(process["capabilities"]) == {"bounding", "effective", "permitted"}
    assert "rlimits" not in process
    assert "oomScoreAdj" not in process
    assert list(mounts(spec)) == [
        "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm",
    ]
    assert "ro" in mounts(spec)["/sys"]["options"]
    assert "ro" in mounts(spec)["/sys/fs/cgroup"]["options"]
    assert "size=67108864" in mounts(spec)["/dev/shm"]["options"]
    assert linux["maskedPaths"] == list(MASKED_PATHS)
    assert linux["readonlyPaths"] == list(READONLY_PATHS)
    assert {entry["type"] for entry in linux["namespaces"]} == {"mount", "network", "pid", "ipc", "uts", "cgroup"}
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert linux["cgroupsPath"] == "/holdfast/c1"
    assert linux["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert "seccomp" not in linux


def test_nothing_is_warned_about_only_without_a_profile() -> None:
    assert build_spec(PLAIN, HOST)[1] == (NO_SECCOMP,)
    assert build_spec(dataclasses.replace(PLAIN, seccomp="unconfined"), HOST)[1] == ()


def test_environment() -> None:
    given = dataclasses.replace(PLAIN, terminal=True, env=("A=1", "PATH=/x", "HOSTNAME", "A=2", "B=x=y"),
                                user=User(home="/home/u"))
    assert build_environment(given) == ["PATH=/x", "TERM=xterm", "A=2", "B=x=y", "HOME=/home/u"]


def test_user_other_than_root_has_only_a_bounding_set() -> None:
    spec, _ = build(user=User(1000, 1000, (1000, 5)))
    assert set(spec["process"]["capabilities"]) == {"bounding"}
    assert spec["process"]["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 5]}


def test_namespaces_of_others() -> None:
    spec, _ = build(network_namespace="/run/ns/1", pid_namespace="host", ipc_namespace="host", uts_namespace="host",
                    cgroup_namespace="host")
    assert spec["linux"]["namespaces"] == [{"type": "mount"}, {"type": "network", "path": "/run/ns/1"}]
    assert "hostname" not in spec
    assert mounts(spec)["/dev/shm"]["source"] == "/dev/shm"
    assert mounts(spec)["/dev/mqueue"]["type"] == "mqueue"
    assert "/dev/shm" not in mounts(build(shm_size_bytes=-1)[0])
    spec, _ = build(POOR)
    assert "cgroup" not in {entry["type"] for entry in spec["linux"]["namespaces"]}


def test_host_network_has_no_network_sysctls() -> None:
    spec, _ = build(network_namespace="host")
    assert spec["linux"]["sysctl"] == {}
    with pytest.raises(InvalidParameter, match=r'sysctl "net\.core\.somaxconn" not allowed in host network namespace'):
        build(network_namespace="host", sysctls={"net.core.somaxconn": "1"})
    spec, _ = build(domainname="example.org", sysctls={"net.ipv4.ping_group_range": "1 0"})
    assert spec["linux"]["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "1 0",
        "kernel.domainname": "example.org",
    }


def test_own_mounts_replace_defaults_and_follow_them() -> None:
    shm = OciMount("/dev/shm", "/run/shm/1", "bind", ("rbind", "rprivate"))
    data = OciMount("/data", "/staged/1", "bind", ("rbind", "ro"))
    spec, _ = build(mounts=(shm, data))
    assert [entry["destination"] for entry in spec["mounts"]][-2:] == ["/dev/shm", "/data"]
    assert [entry["destination"] for entry in spec["mounts"]].count("/dev/shm") == 1
    spec, _ = build(mounts=(OciMount("/dev", "/dev"),))
    assert list(mounts(spec)) == ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]


def test_readonly_root_leaves_the_kernel_file_systems_writable() -> None:
    spec, _ = build(readonly_rootfs=True, mounts=(OciMount("/data", "/d"),))
    assert spec["root"]["readonly"] is True
    assert "ro" not in mounts(spec)["/dev"]["options"]
    assert "ro" not in mounts(spec)["/data"]["options"]


def test_privileged() -> None:
    host = dataclasses.replace(HOST, devices=(DeviceNode("/dev/fuse", "c", 10, 229, 0o666),))
    spec, warnings = build(host, privileged=True)
    assert warnings == []
    assert spec["process"]["capabilities"]["effective"] == list(capabilities.NAMES)
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert spec["linux"]["devices"][0]["path"] == "/dev/fuse"
    assert not {"maskedPaths", "readonlyPaths", "seccomp"} & set(spec["linux"])
    assert "rw" in mounts(spec)["/sys"]["options"]
    assert "rw" in mounts(spec)["/sys/fs/cgroup"]["options"]
    spec, warnings = build(POOR, privileged=True)
    assert "CAP_SYS_RESOURCE" not in spec["process"]["capabilities"]["effective"]
    assert warnings == ["The engine itself lacks CAP_SYS_RESOURCE; the container runs without."]


def test_limits_within_those_of_the_engine() -> None:
    wanted = (Ulimit("nofile", 30000, -1), Ulimit("core", -1, -1))
    spec, warnings = build(ulimits=wanted, oom_score_adj=-500)
    unlimited = (1 << 64) - 1
    assert spec["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 30000, "hard": unlimited},
        {"type": "RLIMIT_CORE", "soft": unlimited, "hard": unlimited},
    ]
    assert (spec["process"]["oomScoreAdj"], warnings) == (-500, [])
    spec, warnings = build(POOR, ulimits=wanted, oom_score_adj=-500)
    assert spec["process"]["rlimits"][0] == {"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}
    assert "oomScoreAdj" not in spec["process"]
    assert len(warnings) == 2
    spec, warnings = build(POOR, oom_score_adj=500)
    assert (spec["process"]["oomScoreAdj"], warnings) == (500, [])
    with pytest.raises(InvalidParameter, match="invalid ulimit type: files"):
        build(ulimits=(Ulimit("files", 1, 1),))


def test_resources() -> None:
    limits = Resources(memory_bytes=100, memory_reservation_bytes=50, nano_cpus=1_500_000_000, cpu_shares=512,
                       cpuset_cpus="0-1", pids_limit=10, blkio_weight=300, memory_swappiness=10)
    found = build(resources=limits)[0]["linux"]["resources"]
    assert found["memory"] == {"limit": 100, "swap": 200, "reservation": 50}
    assert found["cpu"] == {"period": 100000, "quota": 150000, "shares": 512, "cpus": "0-1"}
    assert found["pids"] == {"limit": 10}
    assert found["blockIO"] == {"weight": 300}
    assert build(resources=Resources(memory_bytes=100, memory_swap_bytes=-1))[0]["linux"]["resources"]["memory"] == {
        "limit": 100, "swap": -1,
    }
    assert "pids" not in build(resources=Resources(pids_limit=-1))[0]["linux"]["resources"]
    spec, warnings = build(POOR, resources=limits)
    assert set(spec["linux"]["resources"]) == {"cpu", "devices"}
    assert len(warnings) == 3
    spec, warnings = build(dataclasses.replace(HOST, swap_limit=False), resources=Resources(memory_bytes=100))
    assert spec["linux"]["resources"]["memory"] == {"limit": 100}
    assert warnings == ["Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
                        "Memory limited without swap."]


def test_devices_and_their_rules() -> None:
    node = DeviceNode("/dev/fuse", "c", 10, 229, 0o660, 0, 5, "rw")
    spec, _ = build(devices=(node,), resources=Resources(device_cgroup_rules=("c 1:* r", "b *:* m")))
    assert spec["linux"]["devices"] == [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o660, "uid": 0, "gid": 5},
    ]
    assert spec["linux"]["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "c", "major": 1, "access": "r"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    with pytest.raises(InvalidParameter, match="invalid device cgroup rule format: 'c 1 r'"):
        build(resources=Resources(device_cgroup_rules=("c 1 r",)))


def test_init_runs_in_front() -> None:
    spec, _ = build(init=Path("/usr/bin/catatonit"))
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "sh", "-c", "x"]
    assert mounts(spec)["/sbin/docker-init"] == {
        "destination": "/sbin/docker-init", "source": "/usr/bin/catatonit", "type": "bind", "options": ["bind", "ro"],
    }


@pytest.mark.parametrize(("cwd", "expected"), [("", "/"), ("/", "/"), ("//a/./b/../c/", "/a/c"), ("/proc", "/proc")])
def test_working_directory(cwd: str, expected: str) -> None:
    assert check_cwd(cwd) == expected


@pytest.mark.parametrize(
    "cwd", ["a", "./a", "/proc/self/fd/7", "/proc/1/fd/", "/proc/self/fd/7/../8", "//proc/thread-self/fd/3",
            "/proc/self/task/1/cwd", "/x/../proc/self/root"],
)
def test_working_directory_that_is_refused(cwd: str) -> None:
    with pytest.raises(InvalidParameter, match="working directory"):
        check_cwd(cwd)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), capabilities.DEFAULT),
        (("net_admin",), (), (*capabilities.DEFAULT, "CAP_NET_ADMIN")),
        (("CAP_CHOWN",), (), capabilities.DEFAULT),
        ((), ("Chown", "CAP_KILL"), tuple(c for c in capabilities.DEFAULT if c not in ("CAP_CHOWN", "CAP_KILL"))),
        (("all",), (), capabilities.NAMES),
        (("ALL",), ("SYS_ADMIN",), tuple(c for c in capabilities.NAMES if c != "CAP_SYS_ADMIN")),
        ((), ("ALL",), ()),
        (("SYS_TIME",), ("ALL",), ("CAP_SYS_TIME",)),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert capabilities.effective(add, drop, privileged=False) == expected


def test_unknown_capability() -> None:
    with pytest.raises(InvalidParameter, match='invalid CapAdd: unknown capability: "CAP_CHWOWN"'):
        capabilities.effective(("chwown",), (), privileged=False)
    with pytest.raises(InvalidParameter, match="invalid CapDrop"):
        capabilities.effective((), ("x",), privileged=True)
