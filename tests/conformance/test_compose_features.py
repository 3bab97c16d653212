"""What services, networks, volumes, secrets and configs of Docker Compose may ask for, seen from inside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import Project
from tests.support.engine import Engine

FILES = Path(__file__).parent / "compose" / "features"
SECRET = {"FEATURES_SECRET": "whispered", "PASSED_ON": "from the shell"}

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def features(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project, up: every service runs or has ended well."""
    project = Project(engine, tmp_path_factory.mktemp("projects") / "features")
    shutil.copytree(FILES, project.folder, dirs_exist_ok=True)
    for name in ("outside", "features_shared"):
        engine.call("POST", "/volumes/create", {"Name": name})
    engine.call("POST", "/networks/create", {"Name": "outer"})
    engine.docker("run", "--rm", "-v", "features_shared:/shared", "busybox", "mkdir", "/shared/sub")
    try:
        up(project)
        yield project
    finally:
        project.down()
        engine.request("DELETE", "/networks/outer")


def up(project: Project, *words: str) -> str:
    """Bring it up as the file and the words say; what Compose told."""
    return project.run("up", "-d", "--wait", *words, env=SECRET).stderr


def inside(project: Project, service: str, script: str, *words: str) -> list[str]:
    """The lines that a script in a service's container writes."""
    return project.run("exec", "-T", *words, service, "sh", "-c", script, env=SECRET).stdout.splitlines()


def container(engine: Engine, name: str) -> Any:
    """What the engine says of it."""
    return engine.call("GET", f"/containers/features-{name}/json")


def test_states_and_order(engine: Engine, features: Project) -> None:
    shown = features.run("ps", "-a", "--format", "json", env=SECRET).stdout.splitlines()
    states = {row["Name"].removeprefix("features-"): (row["State"], row["Health"]) for row in map(json.loads, shown)}
    running = ("running", "")
    assert states == {
        "prepare-1": ("exited", ""), "base-1": ("running", "healthy"), "follow-1": running, "follow-2": running,
        "shares-1": running, "alone-1": running, "on-host-1": running, "tty-1": running,
    }  # fmt: skip
    ended = container(engine, "prepare-1")["State"]["FinishedAt"]
    started = container(engine, "base-1")["State"]["StartedAt"]
    assert ended < started < container(engine, "follow-1")["State"]["StartedAt"]


def test_mounts(engine: Engine, features: Project) -> None:
    mounted = inside(
        features, "base", "grep -E ' /(anonymous|named|part|bound|scratch|quick|outside|run) ' /proc/mounts"
    )
    options = {line.split()[1]: (line.split()[2], set(line.split()[3].split(","))) for line in mounted}
    assert set(options) == {"/anonymous", "/named", "/part", "/bound", "/scratch", "/quick", "/outside", "/run"}
    assert {path for path, (_, words) in options.items() if "ro" in words} == {"/part"}
    assert {path: words & {"size=64k", "size=100k", "size=1024k", "mode=1770", "mode=755"}
            for path, (kind, words) in options.items() if kind == "tmpfs"} == {
        "/run": {"size=64k", "mode=755"}, "/scratch": {"size=1024k", "mode=1770"}, "/quick": {"size=100k"},
    }  # fmt: skip
    inside(features, "base", "echo by base >/named/file; echo by base >/bound/file; touch /outside/file")
    assert (features.folder / "bound" / "file").read_text() == "by base\n"
    assert inside(features, "follow", "cat /shared/ready; ls /shared") == ["prepared", "ready", "sub"]
    volumes = {volume["Name"]: volume["Labels"] or {} for volume in engine.call("GET", "/volumes")["Volumes"]}
    assert volumes["name-of-its-own"]["com.docker.compose.volume"] == "named"
    assert "com.docker.compose.project" not in volumes["outside"]


def test_secrets_configs_and_environment(features: Project) -> None:
    assert inside(features, "base", "cat /run/secrets/from_file /etc/from-file /etc/secret /etc/app.conf") == [
        "hidden", "hidden", "whisperedhome is here",
    ]  # fmt: skip
    assert inside(features, "base", "stat -c '%a %u %g' /etc/secret /etc/app.conf") == ["440 7 8", "400 0 0"]
    values = dict(line.split("=", 1) for line in inside(features, "base", "env"))
    assert values["FROM_FILE"] == "over" and values["OTHER"] == "a b"
    assert values["EMPTY"] == "" and values["PASSED_ON"] == "from the shell"


def test_names_and_networks(engine: Engine, features: Project) -> None:
    base = container(engine, "base-1")
    networks = base["NetworkSettings"]["Networks"]
    assert set(networks) == {"features_front", "features_back", "features_sealed"}
    assert networks["features_back"]["IPAddress"] == "10.91.7.50"
    assert networks["features_back"]["MacAddress"] == "02:00:00:00:07:50"
    assert inside(features, "base", "hostname -f; cat /sys/class/net/*/address") > ["based.example.test"]
    resolver = inside(features, "base", "grep -E '^(nameserver|search|options)' /etc/resolv.conf; cat /etc/hosts")
    assert resolver[:3] == ["nameserver 127.0.0.11", "search search.test", "options ndots:3"]
    assert "192.0.2.9\telsewhere" in resolver
    address = networks["features_front"]["IPAddress"]
    names = "base alias-one alias-two linked"
    found = inside(features, "follow", f"for name in {names}; do ping -c 1 -w 5 $name | sed 1q; done")
    assert [line.split()[2] for line in found] == [f"({address}):"] * 4
    refused = "ping -c 1 -w 1 10.91.7.50 >/dev/null && echo reached; nslookup tty 2>&1 | grep -c Name; true"
    assert inside(features, "follow", refused) == ["0"]
    assert inside(features, "tty", "ping -c 1 -w 1 linked >/dev/null 2>&1 || echo unknown") == ["unknown"]
    back = engine.call("GET", "/networks/features_back")
    assert back["Options"] == {"com.docker.network.bridge.name": "features-back"}
    assert back["IPAM"]["Config"] == [{"Subnet": "10.91.7.0/24", "IPRange": "10.91.7.128/25", "Gateway": "10.91.7.1"}]
    assert "features-back" in engine.inside("ip", "-br", "link").stdout
    assert engine.call("GET", "/networks/features_sealed")["Internal"]
    assert set(container(engine, "tty-1")["NetworkSettings"]["Networks"]) == {"features_default", "outer"}


def test_what_is_shared_with_others(engine: Engine, features: Project) -> None:
    seen = "hostname; cat /sys/class/net/*/address | sort"
    assert inside(features, "shares", seen) == inside(features, "base", seen)
    assert inside(features, "alone", "ls /sys/class/net") == ["lo"]
    assert "features-back" in inside(features, "on-host", "ls /sys/class/net")
    programs = [line.split(maxsplit=2)[2] for line in inside(features, "shares", "ps")[1:]]
    assert programs.count("sleep 600") == 2 and not [line for line in programs if "docker-init" in line]
    assert container(engine, "tty-1")["Config"]["Tty"] and container(engine, "tty-1")["Config"]["OpenStdin"]


def test_limits_and_rights(engine: Engine, features: Project) -> None:
    script = """id; pwd; awk '/open files|processes/ {print $(NF-2), $(NF-1)}' /proc/1/limits
        cat /proc/sys/net/core/somaxconn; df /dev/shm | awk 'END {print $2}'
        grep NoNew /proc/self/status | tr '\\t' ' '; touch /x 2>&1
        cat /proc/1/oom_score_adj; cat /proc/1/comm"""
    assert inside(features, "follow", script, "--index", "2") == [
        "uid=1000 gid=1000 groups=1000,1234", "/tmp", "64 64", "100 200", "777", "8192", "NoNewPrivs: 1",
        "touch: /x: Read-only file system", "100", "docker-init",
    ]  # fmt: skip
    bounding = inside(features, "follow", "sed -n 's/^CapBnd:[^0-9a-f]*//p' /proc/self/status")
    assert int(bounding[0], 16) >> 12 & 1 and not int(bounding[0], 16) & 1, "net_admin, but not chown"
    host = container(engine, "follow-1")["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 64 << 20, 50)
    assert host["MemoryReservation"] == 16 << 20
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    base = container(engine, "base-1")
    assert base["Config"]["Labels"]["test.label"] == "value with = and $"
    assert base["HostConfig"]["Annotations"] == {"test.annotation": "noted"}
    assert base["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}}


def test_made_anew_with_its_anonymous_volume(engine: Engine, features: Project) -> None:
    inside(features, "base", "echo kept >/anonymous/file")
    before = container(engine, "base-1")
    told = features.run("up", "-d", "--wait", "base", env={**SECRET, "PASSED_ON": "again"}).stderr
    assert "features-base-1  Recreate" in told
    assert container(engine, "base-1")["Id"] != before["Id"]
    seen = inside(features, "base", "cat /anonymous/file /named/file; echo $PASSED_ON")
    assert seen == ["kept", "by base", "again"]
    features.run("up", "-d", "-V", "--force-recreate", "--no-deps", "base", env=SECRET)
    assert inside(features, "base", "ls /anonymous") == []


def test_scale_and_profiles(engine: Engine, features: Project) -> None:
    up(features, "--no-deps", "--scale", "follow=3", "follow")
    assert len(features.run("ps", "-q", "follow", env=SECRET).stdout.split()) == 3
    up(features, "--no-deps", "--scale", "follow=1", "follow")
    assert len(features.run("ps", "-q", "follow", env=SECRET).stdout.split()) == 1
    assert engine.request("GET", "/containers/features-hidden-1/json").status == 404
    features.run("--profile", "debug", "up", "-d", "hidden", env=SECRET)
    assert container(engine, "hidden-1")["State"]["Running"]


def test_down_leaves_what_is_external(engine: Engine, features: Project) -> None:
    features.run("--profile", "debug", "down", "-v", env=SECRET)
    assert engine.call("GET", "/containers/json?all=1") == []
    left = {volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"]}
    assert left >= {"outside"} and len(left) == 2, "and the anonymous one that `up -V` gave up"
    assert {network["Name"] for network in engine.call("GET", "/networks")} == {"bridge", "host", "none", "outer"}
