"""What must be true of an engine's disk, mounts, control groups and catalogue whenever it is at rest."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

from tests.support.engine import Engine


def assert_consistent(engine: Engine, within_s: float = 5) -> None:
    """Compare what the running engine says with what is really there; whatever is half-made is named.

    Clean-up that follows an answer gets `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            _compare(engine)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _compare(engine: Engine) -> None:
    assert engine.process is not None
    listed = engine.call("GET", "/volumes")["Volumes"]
    volumes = {volume["Name"] for volume in listed if volume["Driver"] == "local"}
    containers = {entry["Id"]: entry for entry in engine.call("GET", "/containers/json?all=1")}
    running = {key for key, entry in containers.items() if entry["State"] in ("running", "paused")}
    state, run = engine.state_root, engine.run_root

    assert {name for name in os.listdir(state / "volumes") if not name.startswith(".")} == volumes
    half_made = list((state / "volumes").glob(".new-*"))
    half_made += [path for pattern in (".fill-*", ".move-*") for path in (state / "volumes").glob(f"*/{pattern}")]
    assert half_made == []
    for volume in volumes:
        assert (state / "volumes" / volume / "_data").is_dir()

    assert _listing(state / "containers") == set(containers), "folders of containers"
    assert _listing(run / "containers") == running, "bundles"
    for key in running:
        pid = engine.call("GET", f"/containers/{key}/json")["State"]["Pid"]
        assert key in Path(f"/proc/{pid}/cgroup").read_text(), "a container shown as running is"

    assert _listing(state / "builds") == set(), "builds"

    mounts = _mounts_below(engine)
    allowed = {str(state), str(run)}
    unexpected = [
        mount
        for mount in mounts
        if mount not in allowed
        and not any(key in mount for key in running)
        and not mount.startswith(str(run / "runtime-mounts"))
        and mount != str(run)
    ]
    assert unexpected == [], "mounts left"
    assert sorted(_cgroups(engine) - running - {f"conmon-{key}" for key in running}) == [], "control groups left"

    with sqlite3.connect(f"file:{state / 'holdfast.db'}?mode=ro", uri=True) as catalogue:
        # A fill that was not flushed when its volume was removed waits for it to come back; one that is known to be
        # damaged stays to say so.
        intents = catalogue.execute(
            "SELECT kind, subject FROM intents WHERE kind != 'volume.fill'"
            " OR (subject IN (SELECT id FROM volumes WHERE removed_at IS NULL) AND details NOT LIKE '%\"verdict\"%')"
        ).fetchall()
        assert intents == []
        held = {row[0] for row in catalogue.execute("SELECT container_id FROM volume_refs")}
    catalogue.close()
    assert held <= set(containers), "references of containers that are not there"
    _compare_networks(engine, running)


def _compare_networks(engine: Engine, running: set[str]) -> None:
    """Compare devices with networks, and what a network says of its containers with what they say."""
    networks = [engine.call("GET", f"/networks/{entry['Id']}") for entry in engine.call("GET", "/networks")]
    inspected = {key: engine.call("GET", f"/containers/{key}/json")["NetworkSettings"]["Networks"] for key in running}
    said = {(key, network["Id"]) for network in networks for key in network["Containers"]}
    assert said == {(key, place["NetworkID"]) for key, places in inspected.items() for place in places.values()}
    devices = {line.split("@")[0].split()[0] for line in engine.inside("ip", "-br", "link").stdout.splitlines()}
    bridges = {name for name in devices if name.startswith("br-")}
    assert bridges <= {f"br-{network['Id'][:12]}" for network in networks}, "bridges of networks that are not there"
    joined = [place for places in inspected.values() for place in places.values() if place["MacAddress"]]
    assert sum(name.startswith("hf") for name in devices) == len(joined), "pairs of cards left"


def assert_empty(engine: Engine) -> None:
    """Nothing of any container or volume is left."""
    assert engine.call("GET", "/containers/json?all=1") == []
    assert engine.call("GET", "/volumes")["Volumes"] == []
    assert_consistent(engine)


def _listing(path: Path) -> set[str]:
    return set(os.listdir(path)) if path.is_dir() else set()


def _mounts_below(engine: Engine) -> list[str]:
    assert engine.process is not None
    lines = Path(f"/proc/{engine.process.pid}/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if point.startswith(str(engine.folder))]


def _cgroups(engine: Engine) -> set[str]:
    found: set[str] = set()
    root = Path("/sys/fs/cgroup")
    for parent in [*root.glob(f"*{engine.cgroup_parent}"), Path(f"{root}{engine.cgroup_parent}")]:
        found |= {path.name for path in parent.iterdir() if path.is_dir()} if parent.is_dir() else set()
    return found


def describe(engine: Engine) -> str:
    """What the engine shows, for a failure's text."""
    return json.dumps(engine.call("GET", "/containers/json?all=1"), indent=1) + engine.log_tail()
