"""The members of what the API gives, with their kinds, as Docker Engine gives them: `shapes/*.txt`, a path a line.

A file that is missing is written when the tests run against Docker (see conftest.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

SHAPES = Path(__file__).parent / "shapes"

# Members whose own members are names of the machine's or the user's, or are about machinery that is not ours.
OPAQUE = {
    "GraphDriver.Data", "Plugins", "Runtimes", "Containerd", "RegistryConfig", "DriverStatus",
    "RuncCommit", "InitCommit", "ContainerdCommit", "Components[].Details", "CDISpecDirs",
    "SecurityOptions", "IPAM.Config", "Options",
}  # fmt: skip

# Where we differ, and may: each with its reason.
OURS = {
    "info": {
        "-Containerd: object": "there is none",
        "-KernelMemoryTCP: bool": "only shown where control groups of v1 count it",
    },
}

BODY = {
    "Image": "busybox",
    "Cmd": ["sleep", "1000"],
    "Labels": {"a": "b"},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/anonymous": {}},
    "HostConfig": {"Binds": ["data:/data"], "PortBindings": {"80/tcp": [{"HostPort": "18099"}]}},
}


def flatten(value: Any, path: str = "") -> Iterator[str]:
    """`path: kind` of a value and of all within it; a list has the members of all its elements."""
    if isinstance(value, dict) and path not in OPAQUE:
        yield f"{path}: object"
        for name, inner in value.items():
            name = "<id>" if re.fullmatch("[0-9a-f]{64}", name) else name
            yield from flatten(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and path not in OPAQUE:
        yield f"{path}: list"
        for element in value:
            yield from flatten(element, f"{path}[]")
    else:
        kinds = {dict: "object", list: "list", bool: "bool", int: "number", float: "number", str: "string"}
        yield f"{path}: {kinds.get(type(value), 'null')}"


def check(name: str, value: Any, engine: Engine) -> None:
    lines = list(dict.fromkeys(flatten(value)))
    recorded = SHAPES / f"{name}.txt"
    if isinstance(engine, DockerEngine) and not recorded.exists():
        recorded.write_text("\n".join(lines) + "\n")
    wanted = recorded.read_text().splitlines()
    allowed = OURS.get(name, {})
    missing = [line for line in wanted if line not in lines and f"-{line}" not in allowed]
    added = [line for line in lines if line not in wanted and f"+{line}" not in allowed]
    assert (missing, added) == ([], [])


def test_containers(clean_engine: Engine) -> None:
    engine = clean_engine
    for stage in ("created", "running", "exited"):
        if stage == "created":
            engine.call("POST", "/containers/create?name=web", BODY)
        elif stage == "running":
            engine.call("POST", "/containers/web/start")
        else:
            engine.call("POST", "/containers/web/kill")
            engine.call("POST", "/containers/web/wait")
        check(f"container-{stage}", engine.call("GET", "/containers/web/json"), engine)
        check(f"container-{stage}-listed", engine.call("GET", "/containers/json?all=1"), engine)
        if stage == "running":
            check("container-size", engine.call("GET", "/containers/web/json?size=1"), engine)
            check("container-top", engine.call("GET", "/containers/web/top"), engine)
            check("disk-usage", engine.call("GET", "/system/df"), engine)
            check("network-used", engine.call("GET", "/networks/bridge"), engine)


@pytest.mark.parametrize("config", [{"Tty": True, "OpenStdin": True}, {"HostConfig": {"NetworkMode": "host"}},
                                    {"HostConfig": {"NetworkMode": "none"}}])  # fmt: skip
def test_plain_containers(clean_engine: Engine, config: dict[str, Any]) -> None:
    name = "container-" + ("terminal" if "Tty" in config else config["HostConfig"]["NetworkMode"])
    made = clean_engine.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "1000"], **config})
    clean_engine.call("POST", f"/containers/{made['Id']}/start")
    check(name, clean_engine.call("GET", f"/containers/{made['Id']}/json"), clean_engine)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("image", "/images/busybox/json"),
        ("images", "/images/json"),
        ("image-history", "/images/busybox/history"),
        ("network", "/networks/bridge"),
        ("network-host", "/networks/host"),
        ("version", "/version"),
        ("info", "/info"),
    ],
)
def test_others(clean_engine: Engine, name: str, path: str) -> None:
    check(name, clean_engine.call("GET", path), clean_engine)


def test_volumes(clean_engine: Engine) -> None:
    made = clean_engine.call("POST", "/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    check("volume", made, clean_engine)
    check("volumes", clean_engine.call("GET", "/volumes"), clean_engine)
    check("volume-prune", clean_engine.call("POST", "/volumes/prune"), clean_engine)


def test_images_from_1_25_on(clean_engine: Engine) -> None:
    check("images-1.25", clean_engine.call("GET", "/v1.25/images/json"), clean_engine)
    check("image-1.25", clean_engine.call("GET", "/v1.25/images/busybox/json"), clean_engine)
    made = clean_engine.call("POST", "/v1.25/containers/create", {"Image": "busybox"})
    check("container-1.25", clean_engine.call("GET", f"/v1.25/containers/{made['Id']}/json"), clean_engine)


def test_statistics(clean_engine: Engine) -> None:
    clean_engine.call("POST", "/containers/create?name=web", BODY)
    check("container-stats-none", clean_engine.call("GET", "/containers/web/stats?stream=0"), clean_engine)
    clean_engine.call("POST", "/containers/web/start")
    shown = clean_engine.call("GET", "/containers/web/stats?stream=0")
    assert shown["memory_stats"].pop("stats")  # what the kernel counts
    for part, name in (("memory_stats", "max_usage"), ("memory_stats", "failcnt"), ("pids_stats", "limit")):
        shown[part].pop(name, None)  # not in every layout of control groups, or not where it is 0
    for part in ("cpu_stats", "precpu_stats"):
        shown[part]["cpu_usage"].pop("percpu_usage", None)
    check("container-stats", {**shown, "blkio_stats": list(shown["blkio_stats"])}, clean_engine)
