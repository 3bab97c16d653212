"""The fate of every field of the API, shown: what docs/compatibility.toml calls honoured is seen at work.

Most fields are set on a few containers that show many of them at once; others have a test of their own, or one that is
named here.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import PROJECT, Engine
from tests.support.fates import Proof, cgroup, check, main_proofs, output
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
    "EndpointSettings.Links": "tests/conformance/compose/features/compose.yaml",
    "ExecConfig.AttachStdin": "tests/integration/containers/test_streams.py",
    "ExecConfig.DetachKeys": "tests/integration/containers/test_streams.py",
}
"""Fields at work in tests about them."""

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
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done"]}
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
    while output(engine, key) != "ready\n":
        time.sleep(0.02)
    began = time.monotonic()
    engine.call("POST", f"/containers/{key}/stop")
    assert 0.9 < time.monotonic() - began < 8
    assert output(engine, key) == "ready\nusr1\n"
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
