"""A container that exchanges a directory and a link out of its volume, while others start on a path through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = [pytest.mark.kernel, pytest.mark.soak]

STARTS = 40
STARTS_IN_SOAK = 500
SWAP = "while :; do mv -T /v/way /v/spare; mv -T /v/link /v/way; mv -T /v/way /v/link; mv -T /v/spare /v/way; done"


def test_no_start_reaches_what_is_outside(fresh_engine: Engine, pytestconfig: pytest.Config) -> None:
    engine = fresh_engine
    rounds = STARTS_IN_SOAK if pytestconfig.getoption("--soak") else STARTS
    engine.docker("volume", "create", "race")
    data = Path(engine.call("GET", "/volumes/race")["Mountpoint"])
    (data / "way/in").mkdir(parents=True)
    (data / "way/in/who").write_text("inside")
    (engine.state_root / "in").mkdir()
    (engine.state_root / "in/who").write_text("OUTSIDE")
    (data / "link").symlink_to("../../..")
    engine.docker("run", "-d", "--name", "swapper", "--network", "none", "-v", "race:/v", "busybox", "sh", "-c", SWAP)
    outcomes = {"inside": 0, "refused": 0}
    mount = {"Type": "volume", "Source": "race", "Target": "/m", "VolumeOptions": {"Subpath": "way/in"}}
    host = {"Mounts": [mount], "NetworkMode": "none"}
    body = {"Image": "busybox", "Cmd": ["grep", "-q", "inside", "/m/who"], "HostConfig": host}
    for number in range(rounds):
        created = engine.request("POST", f"/containers/create?name=try{number}", body)
        if created.status != 201:
            assert created.status == 400, created.body
            outcomes["refused"] += 1
            continue
        started = engine.request("POST", f"/containers/try{number}/start")
        if started.status == 204:
            assert engine.call("POST", f"/containers/try{number}/wait")["StatusCode"] == 0, "it saw what is outside"
            outcomes["inside"] += 1
        else:
            assert started.status in (400, 404), started.body
            outcomes["refused"] += 1
        engine.call("DELETE", f"/containers/try{number}?force=1")
    assert engine.call("GET", "/containers/swapper/json")["State"]["Running"]
    assert all(outcomes.values()), outcomes
    assert (engine.state_root / "in/who").read_text() == "OUTSIDE"
