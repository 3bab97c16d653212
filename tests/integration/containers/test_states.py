"""What each call answers in each state: the table of the API, through a real engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

Make = Callable[..., str]


@pytest.fixture
def make(engine: Engine) -> Iterator[Make]:
    """Make containers without network, removed after the test."""
    made: list[str] = []

    def create(*cmd: str, name: str = "", **body: Any) -> str:
        host = {"NetworkMode": "none", **body.pop("HostConfig", {})}
        query = f"?name={name}" if name else ""
        answer = engine.call(
            "POST",
            f"/containers/create{query}",
            {"Image": "busybox", "Cmd": list(cmd) or ["sleep", "100"], "HostConfig": host, **body},
        )
        made.append(answer["Id"])
        return made[-1]

    yield create
    for key in made:
        engine.request("DELETE", f"/containers/{key}?force=1&v=1")


def state_of(engine: Engine, key: str) -> dict[str, Any]:
    state: dict[str, Any] = engine.call("GET", f"/containers/{key}/json")["State"]
    return state


def message(engine: Engine, method: str, path: str, body: object = None) -> tuple[int, str]:
    answer = engine.request(method, path, body)
    return answer.status, answer.json()["message"] if answer.body else ""


def test_created(engine: Engine, make: Make) -> None:
    key = make(name="k1")
    assert state_of(engine, key)["Status"] == "created"
    assert message(engine, "POST", "/containers/k1/stop") == (304, "")
    assert message(engine, "POST", "/containers/k1/kill") == (
        409, f"cannot kill container: k1: container {key} is not running",
    )
    assert message(engine, "POST", "/containers/k1/pause") == (409, f"container {key} is not running")
    assert message(engine, "POST", "/containers/k1/unpause")[0] == 500
    assert message(engine, "POST", "/containers/k1/exec", {"Cmd": ["true"]}) == (409, f"container {key} is not running")
    assert message(engine, "DELETE", "/containers/k1") == (204, "")


def test_running_and_paused(engine: Engine, make: Make) -> None:
    key = make(name="k2")
    assert message(engine, "POST", "/containers/k2/start") == (204, "")
    assert message(engine, "POST", "/containers/k2/start") == (304, "")
    assert message(engine, "POST", "/containers/k2/unpause") == (500, f"Container {key} is not paused")
    running = "container is running: stop the container before removing or force remove"
    assert message(engine, "DELETE", "/containers/k2") == (409, f'cannot remove container "k2": {running}')
    assert message(engine, "POST", "/containers/k2/kill?signal=BAD") == (
        400, "cannot kill container: k2: invalid signal: BAD",
    )
    assert message(engine, "POST", "/containers/k2/pause") == (204, "")
    state = state_of(engine, key)
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    assert message(engine, "POST", "/containers/k2/pause") == (409, f"Container {key} is already paused")
    assert message(engine, "POST", "/containers/k2/start")[0] == 409
    assert message(engine, "POST", "/containers/k2/exec", {"Cmd": ["true"]}) == (
        409, "Container k2 is paused, unpause the container before exec",
    )
    assert message(engine, "DELETE", "/containers/k2")[1].endswith("container is paused and must be unpaused first")
    attach = engine.request("POST", "/containers/k2/attach?stream=1&stdout=1")
    assert (attach.status, attach.body) == (409, b"container k2 is paused, unpause the container before attach\r\n")
    assert message(engine, "POST", "/containers/k2/unpause") == (204, "")
    assert message(engine, "POST", "/containers/k2/restart?t=0") == (204, "")
    assert message(engine, "POST", "/containers/k2/kill") == (204, "")
    state = state_of(engine, key)
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)
    assert message(engine, "POST", "/containers/k2/stop") == (304, "")
    assert message(engine, "POST", "/containers/k2/start") == (204, "")
    assert message(engine, "DELETE", "/containers/k2?force=1") == (204, "")
    assert message(engine, "DELETE", "/containers/k2?force=1") == (404, "No such container: k2")


@pytest.mark.parametrize(
    ("body", "query", "status", "text"),
    [
        ({"Image": "nope", "Cmd": ["a"]}, "", 404, "No such image: nope:latest"),
        ({"Image": "busybox", "Cmd": []}, "?name=x!", 400, "Invalid container name (x!), only"),
        ({"Image": "busybox", "Cmd": ["a"], "HostConfig": {"VolumesFrom": ["no"]}}, "", 400, "No such container: no"),
        ({"Image": "busybox", "Cmd": ["a"], "HostConfig": {"Binds": ["/foo:ro"]}}, "", 400, "invalid volume spec"),
        ({"Image": "busybox", "Cmd": ["a"], "WorkingDir": "rel"}, "", 400, "the working directory 'rel' is invalid"),
        (
            {
                "Image": "busybox", "Cmd": ["a"],
                "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
            },
            "", 400, "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {
                "Image": "busybox", "Cmd": ["a"],
                "HostConfig": {"Mounts": [{"Type": "bind", "Source": "/nonexist", "Target": "/a"}]},
            },
            "", 400, 'invalid mount config for type "bind": bind source path does not exist: /nonexist',
        ),
    ],
)
def test_refused_creates_leave_nothing(engine: Engine, body: object, query: str, status: int, text: str) -> None:
    before = engine.call("GET", "/containers/json?all=1")
    refused = message(engine, "POST", f"/containers/create{query}", body)
    assert refused[0] == status
    assert refused[1].startswith(text)
    assert engine.call("GET", "/containers/json?all=1") == before
    assert not [path for path in (engine.state_root / "containers").iterdir() if path.name not in str(before)]


def test_names(engine: Engine, make: Make) -> None:
    first, second = make(name="n1"), make(name="n2")
    taken = f'Conflict. The container name "/n1" is already in use by container "{first}".'
    status, text = message(engine, "POST", "/containers/create?name=n1", {"Image": "busybox", "Cmd": ["a"]})
    assert status == 409
    assert text.startswith(taken)
    status, text = message(engine, "POST", "/containers/n2/rename?name=n1")
    assert (status, text.startswith(f"Error when allocating new name: {taken}")) == (409, True)
    assert message(engine, "POST", "/containers/n2/rename?name=") == (400, "Neither old nor new names may be empty")
    assert message(engine, "POST", "/containers/n2/rename?name=n3") == (204, "")
    assert engine.call("GET", f"/containers/{second[:12]}/json")["Name"] == "/n3"
    assert message(engine, "GET", "/containers/n2/json")[0] == 404


def test_a_start_that_fails(engine: Engine, make: Make) -> None:
    key = make("nosuchcmd")
    status, text = message(engine, "POST", f"/containers/{key}/start")
    assert status == 400
    assert text.endswith('exec: "nosuchcmd": executable file not found in $PATH')
    state = state_of(engine, key)
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 127, text)
    assert state["StartedAt"] == "0001-01-01T00:00:00Z"


def test_wait_answers_its_head_at_once(engine: Engine, make: Make) -> None:
    assert message(engine, "POST", "/containers/nope/wait")[0] == 404
    key = make("sh", "-c", "exit 5")
    assert message(engine, "POST", f"/containers/{key}/wait?condition=foo") == (400, 'invalid condition: "foo"')
    assert engine.call("POST", f"/containers/{key}/wait") == {"StatusCode": 0}
    codes: dict[str, Any] = {}

    def wait(condition: str) -> None:
        codes[condition] = engine.call("POST", f"/containers/{key}/wait?condition={condition}")

    waiters = [threading.Thread(target=wait, args=(condition,)) for condition in ("next-exit", "removed")]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.2)
    engine.call("POST", f"/containers/{key}/start")
    waiters[0].join(10)
    assert codes == {"next-exit": {"StatusCode": 5}}
    assert engine.call("POST", f"/containers/{key}/wait") == {"StatusCode": 5}
    engine.call("DELETE", f"/containers/{key}")
    waiters[1].join(10)
    assert codes["removed"] == {"StatusCode": 5}


def test_restart_policy(engine: Engine, make: Make) -> None:
    key = make("sh", "-c", "exit 3", HostConfig={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
    engine.call("POST", f"/containers/{key}/start")
    deadline = time.monotonic() + 10
    shown = engine.call("GET", f"/containers/{key}/json")
    while time.monotonic() < deadline:
        shown = engine.call("GET", f"/containers/{key}/json")
        if shown["RestartCount"] == 2 and shown["State"]["Status"] == "exited":
            break
        time.sleep(0.05)
    assert (shown["RestartCount"], shown["State"]["ExitCode"], shown["State"]["Status"]) == (2, 3, "exited")


def test_stop_ends_a_restart_loop(engine: Engine, make: Make) -> None:
    key = make("false", HostConfig={"RestartPolicy": {"Name": "always"}})
    engine.call("POST", f"/containers/{key}/start")
    deadline = time.monotonic() + 10
    while engine.call("GET", f"/containers/{key}/json")["RestartCount"] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    engine.call("POST", f"/containers/{key}/stop?t=0")
    count = engine.call("GET", f"/containers/{key}/json")["RestartCount"]
    time.sleep(1)
    shown = engine.call("GET", f"/containers/{key}/json")
    assert (shown["State"]["Status"], shown["RestartCount"]) == ("exited", count)


def test_lists(engine: Engine, make: Make) -> None:
    first = make("echo", "a b", name="l1", Labels={"x": "1"}, HostConfig={"Binds": ["listvol:/data"]})
    second = make(name="l2", Labels={"x": "2"})
    engine.call("POST", "/containers/l2/start")

    def ids(query: str) -> list[str]:
        return [entry["Id"] for entry in engine.call("GET", f"/containers/json?{query}")]

    assert ids("") == [second]
    assert ids("all=1") == ids("limit=5") == [second, first]
    assert ids('all=1&filters={"volume":{"listvol":true}}') == ids('all=1&filters={"volume":["/data"]}') == [first]
    assert ids('filters={"status":["created"]}') == [first]
    assert ids('all=1&filters={"label":["x=1"]}') == ids('all=1&filters={"name":["l1"]}') == [first]
    assert ids('all=1&filters={"before":["l2"]}') == [first]
    assert ids('all=1&filters={"ancestor":["busybox"],"id":["' + second[:5] + '"]}') == [second]
    assert message(engine, "GET", '/containers/json?filters={"foo":["x"]}') == (400, "invalid filter 'foo'")
    assert message(engine, "GET", '/containers/json?filters={"status":["bad"]}') == (
        400,
        "invalid filter 'status=bad': invalid value for state (bad): must be one of created, running, paused, "
        "restarting, removing, exited, dead",
    )
    shown = engine.call("GET", '/containers/json?all=1&size=1&filters={"name":["l1"]}')[0]
    assert (shown["Command"], shown["Status"], "SizeRw" in shown) == ("echo 'a b'", "Created", False)
    assert shown["Mounts"][0]["Name"] == "listvol"
