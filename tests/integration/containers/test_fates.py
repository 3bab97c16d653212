"""The fate of every field of the API, shown: what docs/compatibility.toml calls honoured is seen at work.

Most fields are set on a few containers that show many of them at once: each `Proof` is a value, a command that is run
inside, and what it has to say. Others have a test of their own, or one that is named here.
"""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import PROJECT, Engine
from tests.support.hijack import RawConnection, split_frames

pytestmark = pytest.mark.kernel

TABLE = tomllib.loads((PROJECT / "docs" / "compatibility.toml").read_text())
ACCEPTED = [
    ("ContainerConfig", name, value)
    for name, value in {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "ArgsEscaped": True,
        "OnBuild": ["RUN true"],
        "Shell": ["/bin/sh", "-c"],
    }.items()
] + [("HostConfig", "ContainerIDFile", "/tmp/id")]
ELSEWHERE = {
    "ContainerConfig.Healthcheck": "tests/conformance/transcripts/health.transcript",
    "ContainerConfig.OpenStdin": "tests/integration/containers/test_streams.py",
    "ContainerConfig.StdinOnce": "tests/integration/containers/test_streams.py",
    "HostConfig.AutoRemove": "tests/integration/containers/test_states.py",
    "HostConfig.LogConfig": "tests/conformance/transcripts/logging.transcript",
    "HostConfig.RestartPolicy": "tests/integration/containers/test_states.py",
    "ExecConfig.AttachStdin": "tests/integration/containers/test_streams.py",
    "ExecConfig.DetachKeys": "tests/integration/containers/test_streams.py",
}
"""Fields at work in tests about them."""

CGROUP = "cat /sys/fs/cgroup/{one} 2>/dev/null || cat /sys/fs/cgroup/{two}"
NO_MKDIR = json.dumps(
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
)


@dataclass(frozen=True)
class Proof:
    """A field with a value; `shows` runs inside, and what it says matches `like` as a whole.

    `echo` is what inspect shows, ... where that is not to be compared. A field that this kernel cannot give, which a
    warning with the text `without` says, is shown as `lost`.
    """

    field: str
    value: Any
    shows: str = ""
    like: str = ""
    echo: Any = None
    without: str = ""
    lost: Any = 0


def cgroup(one: str, two: str) -> str:
    """Read a file of version 1, else that of version 2."""
    return CGROUP.format(one=one, two=two)


def block_device() -> str:
    """A block device of this machine."""
    for entry in sorted(Path("/sys/block").iterdir(), reverse=True):
        if Path("/dev", entry.name).is_block_device():
            return f"/dev/{entry.name}"
    pytest.skip("this machine has no block device")


def rates(kind: str) -> str:
    return cgroup(f"blkio/blkio.throttle.{kind}_device", "io.max")


def main_proofs(folder: Path) -> list[Proof]:
    disk = block_device()
    limit, weight = [{"Path": disk, "Rate": 1048576}], [{"Path": disk, "Weight": 200}]
    many = r"(?s).*[ =]1048576.*"
    return [
        Proof("ContainerConfig.Image", "busybox"),
        Proof("ContainerConfig.Entrypoint", ["/bin/sh"], "tr '\\0' ' ' </proc/$PPID/cmdline", "(?s).*/bin/sh -c.*"),
        Proof("ContainerConfig.Hostname", "fates", "hostname", "fates"),
        Proof("ContainerConfig.Domainname", "example.org", "cat /proc/sys/kernel/domainname", "example.org"),
        Proof("ContainerConfig.Env", ["FATE=1"], "echo $FATE", "1", echo=...),
        Proof("ContainerConfig.Labels", {"a": "b"}),
        Proof("ContainerConfig.WorkingDir", "/made/here", "pwd", "/made/here"),
        Proof("ContainerConfig.Volumes", {"/anonymous": {}}, "grep -c ' /anonymous ' /proc/mounts", "1"),
        Proof("HostConfig.CpuShares", 512, cgroup("cpu/cpu.shares", "cpu.weight"), "512|20|59"),
        Proof("HostConfig.Memory", 64 << 20, cgroup("memory/memory.limit_in_bytes", "memory.max"), "67108864"),
        Proof(
            "HostConfig.MemoryReservation", 32 << 20, cgroup("memory/memory.soft_limit_in_bytes", "memory.low"),
            "33554432",
        ),
        Proof(
            "HostConfig.MemorySwap", 128 << 20, cgroup("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
            "134217728|67108864", without="support swap limit", lost=-1,
        ),
        Proof(
            "HostConfig.MemorySwappiness", 10, "cat /sys/fs/cgroup/memory/memory.swappiness", "10",
            without="memory swappiness", lost=None,
        ),
        Proof(
            "HostConfig.OomKillDisable", True, "head -1 /sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 1",
            without="OomKillDisable", lost=False,
        ),
        Proof("HostConfig.BlkioWeight", 300, without="Block I/O weight or", lost=0),
        Proof("HostConfig.BlkioWeightDevice", weight, without="Block I/O weight_device", lost=[]),
        Proof("HostConfig.BlkioDeviceReadBps", limit, rates("read_bps"), many),
        Proof("HostConfig.BlkioDeviceWriteBps", limit, rates("write_bps"), many),
        Proof("HostConfig.BlkioDeviceReadIOps", limit, rates("read_iops"), many),
        Proof("HostConfig.BlkioDeviceWriteIOps", limit, rates("write_iops"), many),
        Proof("HostConfig.CpuPeriod", 50000, cgroup("cpu/cpu.cfs_period_us", "cpu.max"), "50000|20000 50000"),
        Proof("HostConfig.CpuQuota", 20000, cgroup("cpu/cpu.cfs_quota_us", "cpu.max"), "20000|20000 50000"),
        Proof("HostConfig.CpusetCpus", "0", cgroup("cpuset/cpuset.cpus", "cpuset.cpus") + "; nproc", "0\n1"),
        Proof("HostConfig.CpusetMems", "0", cgroup("cpuset/cpuset.mems", "cpuset.mems"), "0"),
        Proof("HostConfig.PidsLimit", 64, cgroup("pids/pids.max", "pids.max"), "64"),
        Proof(
            "HostConfig.Devices",
            [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/fate", "CgroupPermissions": "r"}],
            "head -c 3 /dev/fate | wc -c", "3",
        ),
        Proof(
            "HostConfig.DeviceCgroupRules", ["c 4000:* rwm"], "mknod /odd c 4000 7; cat /odd 2>&1",
            ".*No such device.*",
        ),
        Proof("HostConfig.Init", True, "cat /proc/1/comm", "docker-init"),
        Proof(
            "HostConfig.Ulimits", [{"Name": "nofile", "Soft": 100, "Hard": 200}], "ulimit -Sn; ulimit -Hn", "100\n200"
        ),
        Proof(
            "HostConfig.Binds", [f"{folder}:/bound:ro"], "touch /bound/x 2>&1; cat /bound/file",
            "(?s).*Read-only file system.*bound",
        ),
        Proof("HostConfig.VolumeDriver", "local"),
        Proof(
            "HostConfig.Mounts", [{"Type": "tmpfs", "Target": "/m"}], "grep -c ' /m tmpfs' /proc/mounts", "1"
        ),
        Proof("HostConfig.CapAdd", ["NET_ADMIN"], "ip link set lo down && echo down", "down"),
        Proof("HostConfig.CapDrop", ["CHOWN"], "touch /own; chown 5 /own 2>&1", ".*Operation not permitted"),
        Proof("HostConfig.CgroupnsMode", "private", "head -1 /proc/self/cgroup", ".*:/"),
        Proof("HostConfig.Dns", ["192.0.2.53"], "grep nameserver /etc/resolv.conf", "nameserver 192.0.2.53"),
        Proof("HostConfig.DnsOptions", ["ndots:3"], "grep options /etc/resolv.conf", "options ndots:3"),
        Proof("HostConfig.DnsSearch", ["example.net"], "grep search /etc/resolv.conf", "search example.net"),
        Proof("HostConfig.ExtraHosts", ["peer:192.0.2.1"], "grep -w peer /etc/hosts", "192.0.2.1\\s+peer"),
        Proof("HostConfig.OomScoreAdj", 500, "cat /proc/self/oom_score_adj", "500"),
        Proof("HostConfig.Tmpfs", {"/t": "size=1m,mode=700"}, "grep ' /t ' /proc/mounts", ".*size=1024k,mode=700.*"),
        Proof("HostConfig.ShmSize", 8 << 20, "df -k /dev/shm | tail -1", ".* 8192 .*"),
        Proof(
            "HostConfig.Sysctls", {"net.ipv4.ip_forward": "1", "kernel.msgmax": "65537"},
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", "1\n65537",
        ),
        Proof("HostConfig.Isolation", "default"),
        Proof("HostConfig.UsernsMode", "host", "cat /proc/self/uid_map", " *0 +0 +4294967295"),
        Proof("HostConfig.MaskedPaths", ["/etc/passwd"], "cat /etc/passwd", ""),
        Proof("HostConfig.ReadonlyPaths", ["/home"], "touch /home/x 2>&1", ".*Read-only file system"),
        Proof(
            "HostConfig.SecurityOpt",
            ["no-new-privileges", "writable-cgroups", f"seccomp={NO_MKDIR}", "apparmor=unconfined"],
            "grep NoNewPrivs /proc/self/status; mkdir /no 2>&1; grep -c 'cgroup.* rw' /proc/mounts",
            r"NoNewPrivs:\s+1\nmkdir: .*Operation not permitted\n[1-9].*",
        ),
    ]  # fmt: skip


GROUPS: dict[str, list[Proof]] = {
    "users": [
        Proof("ContainerConfig.User", "1234:5", "id -u; id -g", "1234\n5"),
        Proof("HostConfig.GroupAdd", ["77"], "id -G", "5 77"),
        Proof("HostConfig.NanoCpus", 500_000_000, cgroup("cpu/cpu.cfs_quota_us", "cpu.max"), "50000.*"),
        Proof("HostConfig.ReadonlyRootfs", True, "touch /tmp/x 2>&1", ".*Read-only file system"),
        Proof("HostConfig.IpcMode", "none", "ls -d /dev/shm 2>&1", ".*No such file or directory"),
    ],
    "terminal": [
        Proof("ContainerConfig.Tty", True, "test -t 1 && echo terminal", "terminal"),
        Proof("HostConfig.ConsoleSize", [33, 77], "stty size", "33 77"),
        Proof("ContainerConfig.NetworkDisabled", True, "ls /sys/class/net", "lo"),
        Proof("HostConfig.NetworkMode", "bridge", "true", ""),
    ],
    "privileged": [
        Proof("HostConfig.Privileged", True, "mount -t tmpfs x /tmp && ls /dev | wc -l", "[2-9][0-9]|[0-9]{3,}"),
    ],
    "joined": [
        Proof("HostConfig.NetworkMode", "container:peer", "hostname", "peer-name", echo=...),
        Proof("HostConfig.PidMode", "container:peer", "ps | grep -c '[s]leep 4242'", "1", echo=...),
        Proof("HostConfig.IpcMode", "container:peer", "cat /dev/shm/from-peer", "shared", echo=...),
        Proof("HostConfig.VolumesFrom", ["peer"], "cat /of-peer/file", "volume"),
    ],
    "host": [
        Proof("HostConfig.UTSMode", "host", "readlink /proc/self/ns/uts", "host"),
        Proof("HostConfig.PidMode", "host", "readlink /proc/self/ns/pid", "host"),
        Proof("HostConfig.IpcMode", "host", "readlink /proc/self/ns/ipc", "host"),
        Proof("HostConfig.NetworkMode", "host", "readlink /proc/self/ns/net", "host"),
    ],
    "network": [
        Proof("HostConfig.NetworkMode", "bridge"),
        Proof(
            "ContainerConfig.MacAddress", "02:42:ac:11:00:99", "cat /sys/class/net/eth0/address", "02:42:ac:11:00:99"
        ),
    ],
}
SHOWN_BY_GROUPS = {proof.field for proofs in GROUPS.values() for proof in proofs}
SHOWN_BY_TESTS = {
    "ContainerConfig.Cmd", "ContainerConfig.ExposedPorts", "ContainerConfig.StopSignal", "ContainerConfig.StopTimeout",
    "HostConfig.PortBindings", "HostConfig.PublishAllPorts", "HostConfig.Annotations", "HostConfig.CgroupParent",
    "HostConfig.CpuRealtimePeriod", "HostConfig.CpuRealtimeRuntime", "HostConfig.Runtime",
    "EndpointSettings.IPAMConfig", "EndpointSettings.MacAddress", "EndpointSettings.GwPriority",
    "EndpointSettings.Aliases", "EndpointIPAMConfig.IPv4Address", "EndpointIPAMConfig.IPv6Address",
    "ExecConfig.AttachStdout", "ExecConfig.AttachStderr", "ExecConfig.ConsoleSize", "ExecConfig.Tty", "ExecConfig.Env",
    "ExecConfig.Cmd", "ExecConfig.Privileged", "ExecConfig.User", "ExecConfig.WorkingDir", "ExecStartConfig.Detach",
    "ExecStartConfig.ConsoleSize",
}  # fmt: skip


@pytest.fixture(scope="module")
def peer(engine: Engine) -> str:
    """A container that others may join."""
    script = "echo shared >/dev/shm/from-peer; echo volume >/of-peer/file; exec sleep 4242"
    body = {
        "Image": "busybox",
        "Hostname": "peer-name",
        "Cmd": ["sh", "-c", script],
        "Volumes": {"/of-peer": {}},
        "HostConfig": {"NetworkMode": "none", "IpcMode": "shareable"},
    }
    key: str = engine.call("POST", "/containers/create?name=peer", body)["Id"]
    engine.call("POST", f"/containers/{key}/start")
    deadline = time.monotonic() + 10
    while (
        b"sleep\x004242"
        not in Path(f"/proc/{engine.call('GET', '/containers/peer/json')['State']['Pid']}/cmdline").read_bytes()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return key


@pytest.fixture
def remove(engine: Engine) -> Iterator[list[str]]:
    """Containers to be removed after the test."""
    made: list[str] = []
    yield made
    for key in made:
        engine.request("DELETE", f"/containers/{key}?force=1&v=1")


def output(engine: Engine, key: str) -> str:
    """What a container has said, with a terminal or without."""
    raw = engine.request("GET", f"/containers/{key}/logs?stdout=1&stderr=1").body
    tty = engine.call("GET", f"/containers/{key}/json")["Config"]["Tty"]
    said = raw if tty else b"".join(data for _, data in split_frames(raw))
    return said.decode(errors="replace").replace("\r\n", "\n")


def set_fields(proofs: list[Proof]) -> dict[str, Any]:
    """The body that asks for all of them."""
    body: dict[str, Any] = {"Image": "busybox", "HostConfig": {"NetworkMode": "none"}}
    for proof in proofs:
        shape, _, name = proof.field.partition(".")
        (body if shape == "ContainerConfig" else body["HostConfig"])[name] = proof.value
    return body


def check(engine: Engine, remove: list[str], proofs: list[Proof], host: Callable[[str], str] | None = None) -> None:
    """Create, inspect, start, and compare what is shown inside; every difference is told."""
    parts = [f"echo '@@{number}'\n({proof.shows})" for number, proof in enumerate(proofs) if proof.shows]
    made = engine.call(
        "POST",
        "/containers/create",
        {**set_fields(proofs), "Cmd": ["-c", "\n".join(parts)]}
        | ({} if any(proof.field.endswith(".Entrypoint") for proof in proofs) else {"Entrypoint": ["/bin/sh"]}),
    )
    remove.append(made["Id"])
    shown = engine.call("GET", f"/containers/{made['Id']}/json")
    engine.call("POST", f"/containers/{made['Id']}/start")
    engine.call("POST", f"/containers/{made['Id']}/wait")
    said = dict(re.findall(r"@@(\d+)\n(.*?)(?=@@|\Z)", output(engine, made["Id"]), re.DOTALL))
    wrong = []
    for number, proof in enumerate(proofs):
        shape, _, name = proof.field.partition(".")
        echoed = shown["Config" if shape == "ContainerConfig" else shape][name]
        lost = proof.without and any(proof.without in warning for warning in made["Warnings"])
        if lost or proof.echo is not ...:
            wanted = proof.lost if lost else proof.value
            if echoed != wanted:
                wrong.append(f"{proof.field}: inspect shows {echoed!r}, not {wanted!r}")
        if proof.shows and not lost:
            found = said.get(str(number), "").strip()
            like = proof.like if host is None else re.escape(host(proof.shows))
            if not re.fullmatch(like, found):
                wrong.append(f"{proof.field}: {proof.shows} says {found!r}")
    assert wrong == []


def test_one_container_shows_many(engine: Engine, remove: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    check(engine, remove, main_proofs(tmp_path))


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("group", GROUPS)
def test_a_container_shows(engine: Engine, remove: list[str], group: str) -> None:
    def on_host(command: str) -> str:
        return engine.inside("sh", "-c", command).stdout.strip()

    check(engine, remove, GROUPS[group], on_host if group == "host" else None)


def test_what_the_host_sees(engine: Engine, remove: list[str]) -> None:
    parent = f"{engine.cgroup_parent}-inner"
    runtime = engine.call("GET", "/info")["DefaultRuntime"]
    host = {
        "NetworkMode": "none", "CgroupParent": parent, "Annotations": {"org.example.fate": "known"}, "Runtime": runtime,
    }  # fmt: skip
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "trap 'echo usr1' USR1; while :; do sleep 0.1; done"]}
    more = {"StopSignal": "SIGUSR1", "StopTimeout": 1, "HostConfig": host}
    key = engine.call("POST", "/containers/create", body | more)["Id"]
    remove.append(key)
    engine.call("POST", f"/containers/{key}/start")
    shown = engine.call("GET", f"/containers/{key}/json")
    assert (shown["Config"]["StopSignal"], shown["Config"]["StopTimeout"]) == ("SIGUSR1", 1)
    assert shown["HostConfig"]["Runtime"] == runtime
    assert f"{parent}/{key}" in Path(f"/proc/{shown['State']['Pid']}/cgroup").read_text()
    spec = json.loads((engine.run_root / "containers" / key / "config.json").read_text())
    assert spec["annotations"]["org.example.fate"] == "known"
    began = time.monotonic()
    engine.call("POST", f"/containers/{key}/stop")
    assert 0.9 < time.monotonic() - began < 8
    assert output(engine, key) == "usr1\n"
    assert engine.call("GET", f"/containers/{key}/json")["State"]["ExitCode"] == 137
    for place in Path("/sys/fs/cgroup").glob(f"*{parent}"):
        place.rmdir()
    if (only := Path("/sys/fs/cgroup" + parent)).is_dir():
        only.rmdir()


def test_published_ports_and_addresses(engine: Engine, remove: list[str]) -> None:
    for name, second, more in (("near", 1, {"EnableIPv6": True}), ("far", 2, {})):
        ranges = [{"Subnet": f"10.199.{second}.0/24"}, *([{"Subnet": "fd00:199::/64"}] if more else [])]
        engine.call("POST", "/networks/create", {"Name": name, "IPAM": {"Config": ranges}, **more})
    near = {
        "IPAMConfig": {"IPv4Address": "10.199.1.77", "IPv6Address": "fd00:199::77"},
        "MacAddress": "02:42:ac:11:00:98",
        "Aliases": ["known"],
    }
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "ip route | grep default; exec sleep 100"],
        "ExposedPorts": {"81/udp": {}},
        "HostConfig": {
            "NetworkMode": "near",
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
            "PublishAllPorts": True,
        },
        "NetworkingConfig": {"EndpointsConfig": {"near": near, "far": {"GwPriority": 7}}},
    }
    key = engine.call("POST", "/containers/create", body)["Id"]
    remove.append(key)
    engine.call("POST", f"/containers/{key}/start")
    shown = engine.call("GET", f"/containers/{key}/json")["NetworkSettings"]
    assert shown["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1"
    assert int(shown["Ports"]["81/udp"][0]["HostPort"]) > 0
    given = [shown["Networks"]["near"][field] for field in ("IPAddress", "GlobalIPv6Address", "MacAddress")]
    assert given == ["10.199.1.77", "fd00:199::77", "02:42:ac:11:00:98"]
    deadline = time.monotonic() + 10
    while not (said := output(engine, key)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert said.startswith("default via 10.199.2.1 ")
    assert "known" in shown["Networks"]["near"]["DNSNames"]


def test_real_time(engine: Engine, remove: list[str]) -> None:
    """Control groups of version 2 have none; a group of version 1 has what its parent gives, which may be nothing."""
    asked = {"NetworkMode": "none", "CpuRealtimePeriod": 500_000}
    script = "cat /sys/fs/cgroup/cpu/cpu.rt_period_us"
    answer = engine.request(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": asked}
    )
    if answer.status == 400:
        assert answer.json()["message"] == "kernel does not support CPU real-time scheduler"
        return
    remove.append(answer.json()["Id"])
    engine.call("POST", f"/containers/{remove[-1]}/start")
    engine.call("POST", f"/containers/{remove[-1]}/wait")
    assert output(engine, remove[-1]) == "500000\n"
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": asked | {"CpuRealtimeRuntime": 1000}}
    remove.append(engine.call("POST", "/containers/create", body)["Id"])
    started = engine.request("POST", f"/containers/{remove[-1]}/start")
    assert started.status == 204 or "cpu.rt_runtime_us" in started.json()["message"]


def test_execs(engine: Engine, peer: str) -> None:
    def run(begin: dict[str, Any] | None = None, **config: Any) -> tuple[str, int]:
        made = engine.call("POST", f"/containers/{peer}/exec", {"AttachStdout": True, "AttachStderr": True} | config)
        with RawConnection(engine.socket_path) as client:
            client.upgrade(f"/exec/{made['Id']}/start", body=json.dumps(begin or {}).encode())
            raw = client.read_all()
        said = raw if config.get("Tty") else b"".join(data for _, data in split_frames(raw))
        shown = engine.call("GET", f"/exec/{made['Id']}/json")
        return said.decode().replace("\r\n", "\n").strip(), shown["ExitCode"]

    script = "id -u; echo $FATE; pwd; echo error >&2; exit 3"
    asked: dict[str, Any] = {"User": "1234", "Env": ["FATE=known"], "WorkingDir": "/tmp"}
    assert run(Cmd=["sh", "-c", script], **asked) == ("1234\nknown\n/tmp\nerror", 3)
    assert run(Cmd=["sh", "-c", script], AttachStderr=False) == ("0\n\n/", 3)
    size = ["sh", "-c", "sleep 0.2; stty size"]  # crun sets it while the program begins
    assert run(Cmd=size, Tty=True, ConsoleSize=[33, 77]) == ("33 77", 0)
    assert run({"Tty": True, "ConsoleSize": [34, 78]}, Cmd=size, Tty=True, ConsoleSize=[33, 77]) == ("34 78", 0)
    assert run(Cmd=["ip", "link", "set", "lo", "mtu", "9000"])[1] != 0
    assert run(Cmd=["ip", "link", "set", "lo", "mtu", "9000"], Privileged=True) == ("", 0)
    made = engine.call("POST", f"/containers/{peer}/exec", {"Cmd": ["true"]})
    answer = engine.request("POST", f"/exec/{made['Id']}/start", {"Detach": True})
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(("shape", "name", "value"), ACCEPTED, ids=lambda value: str(value)[:20])
def test_accepted(engine: Engine, remove: list[str], shape: str, name: str, value: object) -> None:
    assert TABLE[shape][name]["fate"] == "accepted"
    body: dict[str, Any] = {"Image": "busybox", "HostConfig": {}}
    (body if shape == "ContainerConfig" else body["HostConfig"])[name] = value
    made = engine.call("POST", "/containers/create", body)
    remove.append(made["Id"])
    shown = engine.call("GET", f"/containers/{made['Id']}/json")
    assert shown["Config" if shape == "ContainerConfig" else "HostConfig"][name] == value


def asking(shape: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The body of a request with fields of one shape."""
    body: dict[str, Any] = {"Image": "busybox"}
    if shape.startswith("Endpoint"):
        endpoint = {"IPAMConfig": fields} if shape == "EndpointIPAMConfig" else fields
        return body | {"NetworkingConfig": {"EndpointsConfig": {"bridge": endpoint}}}
    body |= fields if shape == "ContainerConfig" else {"HostConfig": fields}
    body.setdefault("HostConfig", {}).setdefault("NetworkMode", "none")
    return body


@pytest.mark.parametrize("shape", TABLE.keys() - {"query", "endpoint"})
def test_what_is_refused_and_what_is_warned_about(engine: Engine, peer: str, remove: list[str], shape: str) -> None:
    wrong = []
    for name, entry in TABLE[shape].items():
        for text, status, words in entry.get("cases", ()):
            fields = json.loads(f'{{"{name}": {text}}}')
            if shape == "ExecConfig":
                answer = engine.request("POST", f"/containers/{peer}/exec", {"Cmd": ["true"]} | fields)
            else:
                answer = engine.request("POST", "/containers/create", asking(shape, fields))
            found = answer.json()
            if answer.status == 201:
                remove.append(found["Id"])
            said = " ".join(found.get("Warnings") or ()) or found.get("message", "")
            if answer.status != status or words not in said or not said:
                wrong.append(f"{shape}.{name} {text}: {answer.status} {said}")
    assert wrong == []


def test_no_field_without_a_proof(tmp_path: Path) -> None:
    shown = SHOWN_BY_GROUPS | SHOWN_BY_TESTS | ELSEWHERE.keys() | {proof.field for proof in main_proofs(tmp_path)}
    honoured = {
        f"{shape}.{name}"
        for shape in TABLE.keys() - {"query", "endpoint"}
        for name, entry in TABLE[shape].items()
        if entry["fate"] == "honoured"
    }
    assert sorted(honoured - shown) == []
    assert sorted(shown - honoured) == [], "the table says otherwise"
    for field, where in ELSEWHERE.items():
        assert field.partition(".")[2].lower() in (PROJECT / where).read_text().replace("_", "").lower(), field
