"""kill -9 of the engine with containers running: the next engine takes all of them over."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.engine import PATH, PROGRAM, Engine
from tests.support.state import assert_consistent, assert_empty

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

SHORT_LIVED = {"exits-0": 0, "exits-3": 3, "exits-137": 137}


def test_ten_containers_are_taken_over(fresh_engine: Engine) -> None:
    engine = fresh_engine
    for number in range(7):
        script = f"i=0; while :; do echo line-{number}-$i; i=$((i+1)); sleep 0.2; done"
        engine.docker(
            "run", "-d", "--name", f"runs-{number}", "-v", f"data-{number}:/data", "busybox", "sh", "-c", script
        )
    for name, code in SHORT_LIVED.items():
        ending = "kill -9 $$" if code == 137 else f"exit {code}"
        # PID 1 ignores its own SIGKILL, so the one that is to be killed kills a child and passes its code on.
        script = f"sleep 2; sh -c '{ending}'; exit $?"
        engine.docker("run", "-d", "--name", name, "--network", "none", "busybox", "sh", "-c", script)
    pids = {name: pid_of(engine, name) for name in (f"runs-{number}" for number in range(7))}

    engine.kill()
    time.sleep(3)
    engine.start()

    for name, pid in pids.items():
        assert pid_of(engine, name) == pid, "the same process runs on"
    for name, code in SHORT_LIVED.items():
        state = engine.call("GET", f"/containers/{name}/json")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", code)
    assert engine.docker("exec", "runs-1", "echo", "still here").stdout == "still here\n"
    assert_consistent(engine)

    before = engine.docker("logs", "runs-2").stdout.splitlines()
    assert before == [f"line-2-{number}" for number in range(len(before))], "no line is lost or doubled"
    follow = subprocess.Popen(
        ["docker", "logs", "-f", "--tail", "0", "runs-2"],
        env={"PATH": PATH, "DOCKER_HOST": f"unix://{engine.socket_path}", "HOME": str(engine.folder)},
        stdout=subprocess.PIPE,
    )
    assert follow.stdout is not None
    assert follow.stdout.readline().startswith(b"line-2-")

    waited: list[int] = []
    waiter = threading.Thread(
        target=lambda: waited.append(
            int(json.loads(engine.request("POST", "/containers/runs-2/wait").body)["StatusCode"])
        )
    )
    waiter.start()
    engine.docker("kill", "-s", "KILL", "runs-2")
    waiter.join(10)
    assert waited == [137]
    assert follow.wait(10) == 0, "logs -f ends with the container"
    follow.stdout.close()

    for entry in engine.call("GET", "/containers/json?all=1"):
        engine.call("DELETE", f"/containers/{entry['Id']}?force=1")
    engine.docker("volume", "prune", "-af")
    assert_empty(engine)


def test_restart_policies_after_a_crash(fresh_engine: Engine) -> None:
    """What ended while no engine looked is started again as its policy says, and one failure holds up nobody."""
    engine = fresh_engine
    for name, policy in (("always", "always"), ("never", "no"), ("failed", "on-failure")):
        engine.docker("run", "-d", "--name", name, "--restart", policy, "busybox", "sh", "-c", "sleep 1.5; exit 1")
    engine.docker("run", "-d", "--name", "broken", "--restart", "always", "-v", f"{engine.folder}/gone:/x", "busybox",
                  "sh", "-c", "sleep 1.5")  # fmt: skip
    engine.kill()
    time.sleep(2.5)
    gone = engine.folder / "gone"
    gone.rmdir()
    gone.symlink_to("/nonexistent/place")
    engine.start()
    deadline = time.monotonic() + 10
    states: dict[str, str] = {}
    while time.monotonic() < deadline:
        states = {e["Names"][0][1:]: e["State"] for e in engine.call("GET", "/containers/json?all=1")}
        if states["always"] == "running" and states["failed"] == "running":
            break
        time.sleep(0.1)
    assert states["always"] == "running"
    assert states["failed"] == "running"
    assert states["never"] == "exited"


def test_a_second_engine_on_one_root_is_refused(fresh_engine: Engine) -> None:
    engine = fresh_engine
    second = engine.inside(
        "env", f"HOLDFAST_STATE_ROOT={engine.state_root}", f"HOLDFAST_RUN_ROOT={engine.folder}/other",
        str(PROGRAM), "daemon", check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert f"another engine (process {engine.process.pid}) uses the state root {engine.state_root}" in second.stderr  # type: ignore[union-attr]
    assert engine.answers()


def test_a_full_disk_while_creating(tmp_path: Path) -> None:
    """ENOSPC is a clear error and leaves nothing half-made; with room again everything works."""
    engine = Engine(tmp_path)
    try:
        engine.inside("mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(engine.state_root))
        engine.start()
        engine.load_busybox()
        engine.docker("volume", "create", "before")
        root = Path(f"/proc/{engine.process.pid}/root{engine.state_root}")  # type: ignore[union-attr]
        filler = root / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 65536)
            except OSError:
                pass
        refused = engine.request("POST", "/volumes/create", {"Name": "during", "Labels": {"k": "x" * 100_000}})
        created = engine.request("POST", "/containers/create?name=during", {"Image": "busybox", "Cmd": ["true"]})
        assert refused.status in (201, 500)
        assert created.status in (201, 500)
        if refused.status == 500:
            assert b"no space left on device" in refused.body.lower() or b"full" in refused.body.lower()
        filler.unlink()
        names = {volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"]}
        assert names == {"before"} | ({"during"} if refused.status == 201 else set())
        engine.docker("run", "--rm", "-v", "before:/data", "busybox", "sh", "-c", "echo x > /data/f")
        engine.restart()
        assert {volume["Name"] for volume in engine.call("GET", "/volumes")["Volumes"]} == names
    finally:
        engine.close()


def pid_of(engine: Engine, name: str) -> int:
    """The process of a running container."""
    state = engine.call("GET", f"/containers/{name}/json")["State"]
    assert state["Running"], state
    return int(state["Pid"])
