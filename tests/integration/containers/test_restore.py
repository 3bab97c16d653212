"""An engine that is killed and started again: what runs goes on, what ended is known, what was begun is settled."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.containers.test_streams import Stream, wait_for
from tests.support.engine import Engine
from tests.support.state import assert_consistent

pytestmark = [pytest.mark.kernel, pytest.mark.fault]


def make(engine: Engine, name: str, *cmd: str, start: bool = True, **host: Any) -> str:
    body = {"Image": "busybox", "Cmd": list(cmd), "HostConfig": {"NetworkMode": "none", **host}, "OpenStdin": True}
    key: str = engine.call("POST", f"/containers/create?name={name}", body)["Id"]
    if start:
        engine.call("POST", f"/containers/{key}/start")
    return key


def inspect(engine: Engine, name: str) -> Any:
    return engine.call("GET", f"/containers/{name}/json")


def at_rest(engine: Engine) -> None:
    """Look again for a moment: removals end in the background."""
    deadline = time.monotonic() + 5
    while True:
        try:
            assert_consistent(engine)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_kill_9(fresh_engine: Engine) -> None:
    engine = fresh_engine
    make(engine, "on", "sh", "-c", "while read x; do echo got $x; done; exit 9", Binds=["onvol:/data"])
    make(engine, "ends", "sh", "-c", "sleep 0.5; exit 42", Binds=["endvol:/data"])
    make(engine, "rm", "sh", "-c", "sleep 0.5", AutoRemove=True, Binds=["/anonymous"])
    make(engine, "again", "sh", "-c", "sleep 0.5; exit 3", RestartPolicy={"Name": "always"})
    make(engine, "held", "sleep", "100")
    engine.call("POST", "/containers/held/pause")
    make(engine, "idle", "true", start=False)
    before = inspect(engine, "on")
    engine.kill()
    time.sleep(1)
    engine.start()
    on = inspect(engine, "on")
    assert (on["State"], on["Id"]) == (before["State"], before["Id"])
    ended = inspect(engine, "ends")["State"]
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 42)
    assert engine.request("GET", "/containers/rm/json").status == 404
    assert {volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"]} == {"onvol", "endvol"}
    deadline = time.monotonic() + 5
    while inspect(engine, "again")["RestartCount"] < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert inspect(engine, "again")["RestartCount"] >= 1
    assert inspect(engine, "held")["State"]["Paused"]
    assert inspect(engine, "idle")["State"]["Status"] == "created"
    assert engine.request("DELETE", "/volumes/onvol").status == 409
    stream = Stream(engine, "/containers/on/attach?stream=1&stdin=1&stdout=1")
    stream.socket.sendall(b"word\n")
    stream.read_until(b"got word\n")
    stream.socket.close()
    engine.call("POST", "/containers/again/stop?t=0")
    engine.call("POST", "/containers/on/kill")
    wait_for(engine, "on", "exited")
    assert inspect(engine, "on")["State"]["ExitCode"] == 137
    at_rest(engine)


def test_a_manual_stop_outlives_the_engine(fresh_engine: Engine) -> None:
    engine = fresh_engine
    make(engine, "always", "sleep", "100", RestartPolicy={"Name": "always"})
    make(engine, "unless", "sleep", "100", RestartPolicy={"Name": "unless-stopped"})
    for name in ("always", "unless"):
        engine.call("POST", f"/containers/{name}/stop?t=0")
    engine.restart()
    wait_for(engine, "always", "running")
    assert inspect(engine, "unless")["State"]["Status"] == "exited"


def test_one_that_cannot_start_holds_up_nobody(fresh_engine: Engine) -> None:
    engine = fresh_engine
    policy = {"Name": "always"}
    (engine.folder / "source").mkdir()
    mount = {"Type": "bind", "Source": str(engine.folder / "source"), "Target": "/x"}
    make(engine, "broken", "sleep", "100", RestartPolicy=policy, Mounts=[mount])
    make(engine, "good", "sleep", "100", RestartPolicy=policy)
    for name in ("broken", "good"):
        engine.call("POST", f"/containers/{name}/stop?t=0")
    (engine.folder / "source").rmdir()
    engine.restart()
    wait_for(engine, "good", "running")
    deadline = time.monotonic() + 10
    while not inspect(engine, "broken")["State"]["Error"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "bind source path does not exist" in inspect(engine, "broken")["State"]["Error"]


def test_processes_of_an_earlier_boot_are_not_mistaken(fresh_engine: Engine) -> None:
    engine = fresh_engine
    make(engine, "gone", "sleep", "100", Binds=["vol1:/data"])
    state = inspect(engine, "gone")["State"]
    engine.kill()
    engine.inside("kill", "-9", str(state["Pid"]))
    time.sleep(0.2)
    (engine.run_root / "boot_id").write_text("00000000-0000-0000-0000-000000000000")
    for path in (engine.run_root / "exits").iterdir():
        path.unlink()
    engine.start()
    state = inspect(engine, "gone")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 255, 0)
    engine.call("POST", "/containers/gone/start")
    assert inspect(engine, "gone")["State"]["Status"] == "running"
    at_rest(engine)


@pytest.mark.parametrize(
    "point", ["container-task-created", "runtime-started", "container-started-not-recorded"]
)
def test_a_start_that_was_not_acknowledged_is_taken_down(fresh_engine: Engine, point: str) -> None:
    engine = fresh_engine
    make(engine, "half", "sleep", "100", start=False, Binds=["vol1:/data"])
    engine.stop()
    engine.start(faults=point)
    with pytest.raises((OSError, AssertionError, ValueError, EOFError)):
        engine.call("POST", "/containers/half/start")
    assert engine.wait_dead() == -9
    engine.start()
    assert inspect(engine, "half")["State"]["Status"] == "created"
    at_rest(engine)
    engine.call("POST", "/containers/half/start")
    assert inspect(engine, "half")["State"]["Running"]
