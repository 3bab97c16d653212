"""What the engine says about itself, with services that only count."""

from __future__ import annotations

import asyncio
import inspect
import json
import urllib.parse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.api import system
from holdfast.api.engine import Engine
from holdfast.api.request import Request
from holdfast.api.response import StreamResponse
from holdfast.api.router import Match
from holdfast.config import Config
from holdfast.errors import InvalidParameter
from holdfast.events import EventBus

PRINTED_BY_DOCKER_INFO = """
    ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus Plugins MemoryLimit
    SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit IPv4Forwarding Debug NFd NGoroutines SystemTime
    LoggingDriver CgroupDriver CgroupVersion NEventsListener KernelVersion OperatingSystem OSVersion OSType
    Architecture IndexServerAddress RegistryConfig NCPU MemTotal DockerRootDir HttpProxy HttpsProxy NoProxy Name
    Labels ExperimentalBuild ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled InitBinary
    ContainerdCommit RuncCommit InitCommit SecurityOptions CDISpecDirs Warnings
"""


def engine(tmp_path: Path) -> Engine:
    """Services that only say what is asked here."""
    statuses = ("running", "restarting", "paused", "exited", "created")
    host = SimpleNamespace(
        cgroup_v2=False, controllers=frozenset({"memory", "cpu", "cpuset"}), swap_limit=True, seccomp=object()
    )
    return cast(
        Engine,
        SimpleNamespace(
            config=Config(state_root=tmp_path, labels=("a=b",)),
            events=EventBus(),
            images=SimpleNamespace(count=lambda: 3, disk_usage=list, layers_size=lambda: 7),
            containers=SimpleNamespace(all=lambda: [_with_status(status) for status in statuses]),
            builds=SimpleNamespace(usage=list),
            volumes=SimpleNamespace(disk_usage=list, driver_names=["local", "other"]),
            runtime=SimpleNamespace(
                facts=SimpleNamespace(name="crun", version="1.8.1", path=Path("/usr/bin/crun")), host_facts=lambda: host
            ),
        ),
    )


def _with_status(status: str) -> object:
    return SimpleNamespace(state=SimpleNamespace(status=status))


def ask(engine: Engine, method: str, target: str) -> Any:
    """Give the decoded answer to a request without a body; raises what the handler raises."""

    async def run() -> Any:
        path, _, query = target.partition("?")
        match = system.routes.resolve(method, path)
        assert isinstance(match, Match)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = Request(cast(Any, None), method, path, query, {}, disconnected=future, has_body=False)
        request.api_version = match.api_version
        answer: Any = match.route.handler(request, engine)
        answer = await answer if inspect.isawaitable(answer) else answer
        assert answer is not None
        if isinstance(answer, StreamResponse):
            lines = [json.loads(line) async for line in answer.items]
            await answer.close()
            return lines
        return answer.body.decode() if path == "/_ping" else json.loads(answer.body)

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_ping(tmp_path: Path) -> None:
    assert ask(engine(tmp_path), "GET", "/_ping") == "OK"
    assert ask(engine(tmp_path), "HEAD", "/_ping") == ""


def test_version(tmp_path: Path) -> None:
    answer = ask(engine(tmp_path), "GET", "/version")
    assert (answer["ApiVersion"], answer["MinAPIVersion"], answer["Os"]) == ("1.51", "1.24", "linux")
    assert [part["Name"] for part in answer["Components"]] == ["Engine", "crun"]
    assert answer["Components"][1]["Version"] == "1.8.1"
    assert answer["Components"][0]["Details"]["KernelVersion"] == answer["KernelVersion"]


def test_info(tmp_path: Path) -> None:
    answer = ask(engine(tmp_path), "GET", "/info")
    assert [name for name in PRINTED_BY_DOCKER_INFO.split() if name not in answer] == []
    counts = [answer[f"Containers{name}"] for name in ("", "Running", "Paused", "Stopped")]
    assert counts == [5, 2, 1, 2]
    assert (answer["Images"], answer["DefaultRuntime"], answer["Labels"]) == (3, "crun", ["a=b"])
    assert (answer["CgroupVersion"], answer["PidsLimit"], answer["MemoryLimit"]) == ("1", False, True)
    assert "WARNING: No pids limit support" in answer["Warnings"]
    assert answer["DockerRootDir"] == str(tmp_path)
    assert answer["MemTotal"] > 1 << 20
    again = ask(engine(tmp_path), "GET", "/info")
    assert again["ID"] == answer["ID"]


def test_disk_usage_gives_what_is_asked(tmp_path: Path) -> None:
    full = engine(tmp_path)
    answer = ask(full, "GET", "/system/df?type=volume&type=image")
    assert answer == {"LayersSize": 7, "Images": [], "Containers": None, "Volumes": [], "BuildCache": None}
    answer = ask(full, "GET", "/system/df?type=build-cache")
    assert answer == {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None, "BuildCache": []}
    with pytest.raises(InvalidParameter, match=r"^unknown object type: foo$"):
        ask(full, "GET", "/system/df?type=foo")
    # Before API 1.42 the argument does not count.
    full.containers.select = lambda _filters, **_: []  # type: ignore[method-assign]
    answer = ask(full, "GET", "/v1.41/system/df?type=foo")
    assert answer == {"LayersSize": 7, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []}


def test_events(tmp_path: Path) -> None:
    full = engine(tmp_path)
    full.events.publish("volume", "create", "data", {"driver": "local"})
    full.events.publish("container", "create", "c", {"image": "busybox", "name": "web"})
    filters = urllib.parse.quote('{"type":{"volume":true}}')
    events = ask(full, "GET", f"/events?since=0&until=1111111111&filters={filters}")
    assert events == []
    until = str(full.events.publish("network", "create", "n").time_ns // 1_000_000_000 + 1)
    events = ask(full, "GET", f"/events?since=0&until={until}&filters={filters}")
    assert [event["Actor"]["ID"] for event in events] == ["data"]
    with pytest.raises(InvalidParameter, match=r"^`since` time \(5\) cannot be after `until` time \(2\)$"):
        ask(full, "GET", "/events?since=5&until=2")


def test_info_names_drivers_and_counts_listeners(tmp_path: Path) -> None:
    served = engine(tmp_path)
    _, unsubscribe = served.events.subscribe(lambda _: None)
    shown = ask(served, "GET", "/info")
    assert (shown["Plugins"]["Volume"], shown["NEventsListener"]) == (["local", "other"], 1)
    unsubscribe()
    assert ask(served, "GET", "/info")["NEventsListener"] == 0


@pytest.mark.parametrize(
    ("bridge", "setting", "forwards"), [(True, "0", False), (True, "1", True), (False, "0", True), (False, "1", True)]
)
def test_forwarding_is_missed_only_where_there_is_a_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bridge: bool, setting: str, forwards: bool
) -> None:
    (tmp_path / "conf" / ("holdfast0" if bridge else "eth0")).mkdir(parents=True)
    (tmp_path / "ip_forward").write_text(setting)
    monkeypatch.setattr(system, "_IPV4_SETTINGS", tmp_path)
    shown = ask(engine(tmp_path), "GET", "/info")
    assert shown["IPv4Forwarding"] is forwards
    assert ("WARNING: IPv4 forwarding is disabled" in shown["Warnings"]) is not forwards
