"""Proofs that a field of the API is at work: a value, a command that is run inside, and what it has to say.

Used on the machine that tests run on and in the guest, whose kernel is older and has control groups of version 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.engine import Engine
from tests.support.hijack import split_frames

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
    """A block device of this machine, "" if there is none."""
    names = (entry.name for entry in sorted(Path("/sys/block").iterdir(), reverse=True))
    return next((f"/dev/{name}" for name in names if Path("/dev", name).is_block_device()), "")


def rates(kind: str) -> str:
    """Read the limits of block devices."""
    return cgroup(f"blkio/blkio.throttle.{kind}_device", "io.max")


def main_proofs(folder: Path) -> list[Proof]:
    """What one container shows. `folder` is empty but for a file `file` that says `bound`."""
    disk = block_device()
    limit = [{"Path": disk, "Rate": 1048576}] if disk else []
    weight = [{"Path": disk, "Weight": 200}] if disk else []
    many = r"(?s).*[ =]1048576.*" if disk else "(?s).*"
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
        Proof(
            "HostConfig.CpusetCpus", "0", cgroup("cpuset/cpuset.cpus", "cpuset.cpus") + "; nproc", "0\n1",
            without="support cpuset", lost="",
        ),
        Proof(
            "HostConfig.CpusetMems", "0", cgroup("cpuset/cpuset.mems", "cpuset.mems"), "0",
            without="support cpuset", lost="",
        ),
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
    assert not wrong, "\n".join(wrong)
