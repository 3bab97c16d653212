"""What may be done to a container in which state, row by row; waiting; and two clients at once."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.engine import Answer, Engine
from tests.support.hijack import RawConnection

pytestmark = pytest.mark.kernel

ID = "<id>"
NOT_RUNNING = f"container {ID} is not running"
CANNOT_KILL = f"cannot kill container: k1: container {ID} is not running"
STATES = ("created", "running", "paused", "exited")

# call, then for each state: status, and the message where there is one. None: anything may be said.
TABLE: list[tuple[str, str, list[tuple[int, str | None]]]] = [
    ("POST", "start", [(204, ""), (304, ""), (409, "cannot start a paused container, try unpause instead"), (204, "")]),
    ("POST", "stop?t=0", [(304, ""), (204, ""), (204, ""), (304, "")]),
    ("POST", "kill", [(409, CANNOT_KILL), (204, ""), (204, ""), (409, CANNOT_KILL)]),
    ("POST", "pause", [(409, NOT_RUNNING), (204, ""), (409, f"Container {ID} is already paused"), (409, NOT_RUNNING)]),
    ("POST", "unpause", [(500, f"Container {ID} is not paused"), (500, f"Container {ID} is not paused"), (204, ""),
                         (500, f"Container {ID} is not paused")]),
    ("POST", "restart?t=0", [(204, ""), (204, ""), (204, ""), (204, "")]),
    ("DELETE", "", [
        (204, ""),
        (409, 'cannot remove container "k1": container is running: stop the container before removing or force remove'),
        (409, 'cannot remove container "k1": container is paused and must be unpaused first'),
        (204, ""),
    ]),
]  # fmt: skip


def message(answer: Answer) -> str:
    return str(json.loads(answer.body)["message"]) if answer.body else ""


def create(engine: Engine, *, name: str = "", **config: Any) -> str:
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], **config}
    return str(engine.call("POST", f"/containers/create?name={name}", body)["Id"])


def bring(engine: Engine, state: str) -> str:
    """A container called k1 in that state."""
    container = create(engine, name="k1")
    if state != "created":
        engine.call("POST", f"/containers/{container}/start")
    if state == "paused":
        engine.call("POST", f"/containers/{container}/pause")
    if state == "exited":
        engine.call("POST", f"/containers/{container}/kill")
        engine.call("POST", f"/containers/{container}/wait")
    assert engine.call("GET", f"/containers/{container}/json")["State"]["Status"] == state
    return container


@pytest.mark.parametrize("state", STATES)
def test_calls_in_each_state(clean_engine: Engine, state: str) -> None:
    wrong = []
    for method, call, rows in TABLE:
        status, text = rows[STATES.index(state)]
        container = bring(clean_engine, state)
        target = f"/containers/k1/{call}" if call else "/containers/k1"
        answer = clean_engine.request(method, target)
        said = message(answer).replace(container, ID)
        if answer.status != status or (text is not None and said != text):
            wrong.append(f"{call or 'remove'}: {answer.status} {said!r}, not {status} {text!r}")
        clean_engine.request("DELETE", f"/containers/{container}?force=1")
    assert wrong == []


def test_what_inspect_says_in_each_state(clean_engine: Engine) -> None:
    zero = "0001-01-01T00:00:00Z"
    seen = {}
    for state in STATES:
        container = bring(clean_engine, state)
        shown = clean_engine.call("GET", f"/containers/{container}/json")["State"]
        assert set(shown) == {"Status", "Running", "Paused", "Restarting", "OOMKilled", "Dead", "Pid", "ExitCode",
                              "Error", "StartedAt", "FinishedAt"}  # fmt: skip
        seen[state] = (shown["Running"], shown["Paused"], shown["Pid"] != 0, shown["ExitCode"],
                       shown["StartedAt"] != zero, shown["FinishedAt"] != zero)  # fmt: skip
        clean_engine.request("DELETE", f"/containers/{container}?force=1")
    assert seen == {
        "created": (False, False, False, 0, False, False),
        "running": (True, False, True, 0, True, False),
        "paused": (True, True, True, 0, True, False),
        "exited": (False, False, False, 137, True, True),
    }


def test_start_twice_stop_twice(clean_engine: Engine) -> None:
    create(clean_engine, name="k1")
    calls = ("start", "start", "stop?t=0", "stop?t=0", "start", "kill?signal=TERM", "kill?signal=9")
    assert [clean_engine.request("POST", f"/containers/k1/{call}").status for call in calls] == [
        204, 304, 204, 304, 204, 204, 204,
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "status"), [("BAD", 400), ("SIGBAD", 400), ("0", 400), ("x9", 400),
                                              ("sigterm", 204), ("USR1", 204), ("34", 204), ("RTMIN+3", 204)])
def test_names_of_signals(clean_engine: Engine, text: str, status: int) -> None:
    bring(clean_engine, "running")
    answer = clean_engine.request("POST", f"/containers/k1/kill?signal={text.replace('+', '%2B')}")
    assert answer.status == status
    if status == 400:
        assert message(answer) == f"cannot kill container: k1: invalid signal: {text}"


@pytest.mark.parametrize("number", ["999", "-1"])
def test_numbers_that_are_no_signals(clean_engine: Engine, number: str) -> None:
    bring(clean_engine, "running")
    answer = clean_engine.request("POST", f"/containers/k1/kill?signal={number}")
    said = f"cannot kill container: k1: the linux daemon does not support signal {number}"
    assert (answer.status, message(answer)) == (400, said)


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_wait_answers_at_once_and_tells_later(clean_engine: Engine) -> None:
    container = bring(clean_engine, "running")
    with RawConnection(clean_engine.socket_path) as connection:
        connection.send("POST", f"/containers/{container}/wait?condition=not-running")
        head = connection.head()
        assert (head.status, head.headers["Content-Type"]) == (200, "application/json")
        assert head.headers["Transfer-Encoding"] == "chunked"
        clean_engine.call("POST", f"/containers/{container}/kill")
        assert connection.read_some().split(b"\r\n")[1].strip() == b'{"StatusCode":137}'


def test_wait_not_running_of_what_does_not_run(clean_engine: Engine) -> None:
    container = bring(clean_engine, "created")
    assert clean_engine.call("POST", f"/containers/{container}/wait") == {"StatusCode": 0}
    clean_engine.call("POST", f"/containers/{container}/start")
    clean_engine.call("POST", f"/containers/{container}/kill")
    for condition in ("", "?condition=", "?condition=not-running"):
        assert clean_engine.call("POST", f"/containers/{container}/wait{condition}") == {"StatusCode": 137}


def test_wait_next_exit_is_the_next_one(clean_engine: Engine) -> None:
    container = create(clean_engine, Cmd=["sh", "-c", "exit $(cat /code 2>/dev/null || { echo 9 >/code; echo 8; })"])
    for expected in (8, 9):
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(clean_engine.call, "POST", f"/containers/{container}/wait?condition=next-exit")
            time.sleep(0.2)
            assert not waiting.done()
            clean_engine.call("POST", f"/containers/{container}/start")
            assert waiting.result(20) == {"StatusCode": expected}


def test_wait_removed(clean_engine: Engine) -> None:
    container = create(clean_engine, Cmd=["sh", "-c", "exit 6"], HostConfig={"AutoRemove": True})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(clean_engine.call, "POST", f"/containers/{container}/wait?condition=removed")
        time.sleep(0.1)
        clean_engine.call("POST", f"/containers/{container}/start")
        assert waiting.result(20) == {"StatusCode": 6}
    assert clean_engine.request("GET", f"/containers/{container}/json").status == 404


def test_removal_wakes_everyone(clean_engine: Engine) -> None:
    container = create(clean_engine)
    with ThreadPoolExecutor() as pool:
        waiting = [
            pool.submit(clean_engine.call, "POST", f"/containers/{container}/wait?condition={condition}")
            for condition in ("next-exit", "removed")
        ]
        time.sleep(0.3)
        clean_engine.call("DELETE", f"/containers/{container}")
        assert [each.result(20)["StatusCode"] for each in waiting] == [0, 0]


def test_wait_refusals(clean_engine: Engine) -> None:
    container = create(clean_engine)
    answer = clean_engine.request("POST", f"/containers/{container}/wait?condition=foo")
    assert (answer.status, message(answer)) == (400, 'invalid condition: "foo"')
    answer = clean_engine.request("POST", "/containers/nope/wait")
    assert (answer.status, message(answer)) == (404, "No such container: nope")


def test_a_waiter_that_goes_away(clean_engine: Engine) -> None:
    container = bring(clean_engine, "running")
    for _ in range(20):
        connection = RawConnection(clean_engine.socket_path)
        connection.send("POST", f"/containers/{container}/wait?condition=next-exit")
        connection.head()
        connection.sock.close()
    clean_engine.call("POST", f"/containers/{container}/kill")
    assert clean_engine.call("POST", f"/containers/{container}/wait") == {"StatusCode": 137}


# --- two at once ------------------------------------------------------------------------------------------------------


def race(*works: Any) -> list[Answer]:
    """Do everything at the same time."""
    barrier = threading.Barrier(len(works))

    def run(work: Any) -> Answer:
        barrier.wait(10)
        answer: Answer = work()
        return answer

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def test_one_name_for_two(clean_engine: Engine) -> None:
    body = {"Image": "busybox", "Cmd": ["true"]}
    for _ in range(10):
        answers = race(*[lambda: clean_engine.request("POST", "/containers/create?name=both", body)] * 4)
        assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
        winner = next(answer.json()["Id"] for answer in answers if answer.status == 201)
        for answer in answers:
            if answer.status == 409:
                assert message(answer) == (
                    f'Conflict. The container name "/both" is already in use by container "{winner}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                )
        removed = race(*[lambda: clean_engine.request("DELETE", "/containers/both")] * 2)
        statuses = sorted(answer.status for answer in removed)
        assert statuses in ([204, 404], [204, 409])
        if statuses[1] == 409:
            assert any("is already in progress" in message(answer) for answer in removed)


def test_one_volume_created_and_removed_by_two(clean_engine: Engine) -> None:
    def create_volume() -> Answer:
        return clean_engine.request("POST", "/volumes/create", {"Name": "shared"})

    def remove_volume() -> Answer:
        return clean_engine.request("DELETE", "/volumes/shared")

    for _ in range(20):
        answers = race(create_volume, create_volume, remove_volume, remove_volume)
        assert [answer.status for answer in answers[:2]] == [201, 201]
        assert {answer.status for answer in answers[2:]} <= {204, 404}
        there = clean_engine.request("GET", "/volumes/shared").status
        assert there in (200, 404)
        listed = [volume["Name"] for volume in clean_engine.call("GET", "/volumes")["Volumes"]]
        assert listed == (["shared"] if there == 200 else [])
    clean_engine.request("DELETE", "/volumes/shared")


def test_started_and_removed_at_once(clean_engine: Engine) -> None:
    for _ in range(5):
        container = create(clean_engine)
        start, remove = race(
            lambda key=container: clean_engine.request("POST", f"/containers/{key}/start"),
            lambda key=container: clean_engine.request("DELETE", f"/containers/{key}?force=1"),
        )
        assert start.status in (204, 404, 409)
        assert remove.status in (204, 409)
        if remove.status == 409:
            clean_engine.request("DELETE", f"/containers/{container}?force=1")
        assert clean_engine.request("GET", f"/containers/{container}/json").status == 404
