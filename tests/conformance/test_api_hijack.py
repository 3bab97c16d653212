"""Attach and exec take connections over: both ways of asking, framing, half-close, order of attach and start."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.hijack import RawConnection

pytestmark = pytest.mark.kernel

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
ATTACH = "stream=1&stdin=1&stdout=1&stderr=1"
BOTH = "echo out; sleep 0.1; echo err >&2; sleep 0.1; cat"


def create(engine: Engine, script: str, **config: Any) -> str:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], **config}
    return str(engine.call("POST", "/containers/create", body)["Id"])


def with_stdin(engine: Engine, script: str, **config: Any) -> str:
    return create(engine, script, OpenStdin=True, StdinOnce=True, AttachStdin=True, **config)


def start(engine: Engine, container: str) -> None:
    engine.call("POST", f"/containers/{container}/start")


def test_upgraded_stream_is_multiplexed(clean_engine: Engine) -> None:
    container = with_stdin(clean_engine, BOTH)
    with RawConnection(clean_engine.socket_path) as connection:
        head = connection.upgrade(f"/v1.51/containers/{container}/attach?{ATTACH}")
        assert (head.status, head.reason) == (101, "UPGRADED")
        assert head.headers == {"Content-Type": MULTIPLEXED, "Connection": "Upgrade", "Upgrade": "tcp"}
        start(clean_engine, container)
        connection.write(b"typed\n")
        connection.half_close()
        assert connection.frames() == [(1, b"out\n"), (2, b"err\n"), (1, b"typed\n")]
    assert clean_engine.call("POST", f"/containers/{container}/wait") == {"StatusCode": 0}


def test_before_1_42_the_type_is_raw_and_the_frames_are_the_same(clean_engine: Engine) -> None:
    container = with_stdin(clean_engine, BOTH)
    with RawConnection(clean_engine.socket_path) as connection:
        assert connection.upgrade(f"/v1.41/containers/{container}/attach?{ATTACH}").headers["Content-Type"] == RAW
        start(clean_engine, container)
        connection.half_close()
        assert connection.frames() == [(1, b"out\n"), (2, b"err\n")]


def test_without_upgrade_it_is_200_and_framed(clean_engine: Engine) -> None:
    container = with_stdin(clean_engine, BOTH)
    with RawConnection(clean_engine.socket_path) as connection:
        connection.send("POST", f"/v1.51/containers/{container}/attach?{ATTACH}")
        head = connection.head()
        assert (head.status, head.reason) == (200, "OK")
        assert head.headers == {"Content-Type": RAW}
        start(clean_engine, container)
        connection.write(b"typed\n")
        connection.half_close()
        assert connection.frames() == [(1, b"out\n"), (2, b"err\n"), (1, b"typed\n")]


def test_a_terminal_is_not_framed(clean_engine: Engine) -> None:
    container = with_stdin(clean_engine, "read line; echo got $line; exit 3", Tty=True)
    with RawConnection(clean_engine.socket_path) as connection:
        assert connection.upgrade(f"/containers/{container}/attach?{ATTACH}").headers["Content-Type"] == RAW
        start(clean_engine, container)
        connection.write(b"hello\r")
        assert connection.read_all() == b"hello\r\ngot hello\r\n"
    assert clean_engine.call("POST", f"/containers/{container}/wait") == {"StatusCode": 3}


def test_only_the_streams_asked_for(clean_engine: Engine) -> None:
    container = create(clean_engine, BOTH)
    with RawConnection(clean_engine.socket_path) as connection:
        connection.upgrade(f"/containers/{container}/attach?stream=1&stderr=1")
        start(clean_engine, container)
        assert connection.frames() == [(2, b"err\n")]


def test_two_clients_see_the_same(clean_engine: Engine) -> None:
    container = create(clean_engine, BOTH)
    with RawConnection(clean_engine.socket_path) as one, RawConnection(clean_engine.socket_path) as other:
        for connection in (one, other):
            connection.upgrade(f"/containers/{container}/attach?stream=1&stdout=1&stderr=1")
        start(clean_engine, container)
        assert one.frames() == other.frames() == [(1, b"out\n"), (2, b"err\n")]


def test_a_second_client_may_leave(clean_engine: Engine) -> None:
    container = create(clean_engine, "cat", OpenStdin=True)
    with RawConnection(clean_engine.socket_path) as first:
        first.upgrade(f"/containers/{container}/attach?{ATTACH}")
        start(clean_engine, container)
        with RawConnection(clean_engine.socket_path) as second:
            second.upgrade(f"/containers/{container}/attach?stream=1&stdout=1")
        first.write(b"still here\n")
        assert first.read(8 + 11)[8:] == b"still here\n"


def test_logs_first_then_nothing_more(clean_engine: Engine) -> None:
    container = create(clean_engine, BOTH)
    start(clean_engine, container)
    clean_engine.call("POST", f"/containers/{container}/wait")
    with RawConnection(clean_engine.socket_path) as connection:
        connection.upgrade(f"/containers/{container}/attach?logs=1&stdout=1&stderr=1")
        assert connection.frames() == [(1, b"out\n"), (2, b"err\n")]


def test_a_lot_of_output_in_order(clean_engine: Engine) -> None:
    container = create(clean_engine, "seq 200000")
    with RawConnection(clean_engine.socket_path) as connection:
        connection.upgrade(f"/containers/{container}/attach?stream=1&stdout=1&stderr=1")
        start(clean_engine, container)
        ((number, data),) = connection.frames()
    assert (number, data) == (1, b"".join(b"%d\n" % line for line in range(1, 200001)))


def test_a_lot_of_input(clean_engine: Engine) -> None:
    container = with_stdin(clean_engine, "md5sum")
    with RawConnection(clean_engine.socket_path) as connection:
        connection.upgrade(f"/containers/{container}/attach?{ATTACH}")
        start(clean_engine, container)
        for _ in range(64):
            connection.write(bytes(65536))
        connection.half_close()
        assert connection.frames() == [(1, b"b5cfa9d6c8febd618f91ac2843d50a1c  -\n")]


def test_detach_keys(clean_engine: Engine) -> None:
    container = with_stdin(clean_engine, "stty -echo; echo ready; while read line; do echo got $line; done", Tty=True)
    with RawConnection(clean_engine.socket_path) as connection:
        connection.upgrade(f"/containers/{container}/attach?{ATTACH}&detachKeys=ctrl-a,x")
        start(clean_engine, container)
        assert connection.read(7) == b"ready\r\n"
        connection.write(b"\x01y\r")
        assert connection.read(8) == b"got \x01y\r\n", "the first key alone is the program's"
        connection.write(b"\x01")
        connection.write(b"x")
        assert connection.read_all() in (b"", b"read escape sequence")
    assert clean_engine.call("GET", f"/containers/{container}/json")["State"]["Running"]
    with RawConnection(clean_engine.socket_path) as connection:
        connection.upgrade(f"/containers/{container}/attach?{ATTACH}")
        connection.write(b"again\r")
        assert connection.read(11) == b"got again\r\n"
    answer = clean_engine.request("POST", f"/containers/{container}/attach?{ATTACH}&detachKeys=ctrl-nonsense")
    assert answer.status == 400
    assert b"Invalid detach keys" in answer.body


def test_errors_of_attach_are_plain_text(clean_engine: Engine) -> None:
    with RawConnection(clean_engine.socket_path) as connection:
        head = connection.upgrade(f"/containers/nope/attach?{ATTACH}")
        assert (head.status, head.headers["Content-Type"]) == (404, RAW)
        said = b"No such container: nope\r\n"
        assert connection.read(len(said)) == said


def test_attach_to_a_paused_container(clean_engine: Engine) -> None:
    container = create(clean_engine, "sleep 1000")
    start(clean_engine, container)
    clean_engine.call("POST", f"/containers/{container}/rename?name=paused1")
    clean_engine.call("POST", f"/containers/{container}/pause")
    with RawConnection(clean_engine.socket_path) as connection:
        head = connection.upgrade(f"/containers/paused1/attach?{ATTACH}")
        assert head.status == 409
        said = b"container paused1 is paused, unpause the container before attach\r\n"
        assert connection.read(len(said)) == said


# --- exec -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(clean_engine: Engine) -> str:
    container = create(clean_engine, "sleep 1000")
    start(clean_engine, container)
    return container


def make_exec(engine: Engine, container: str, script: str, **config: Any) -> str:
    body = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Cmd": ["sh", "-c", script], **config}
    return str(engine.call("POST", f"/containers/{container}/exec", body)["Id"])


def test_exec_upgraded(clean_engine: Engine, running: str) -> None:
    execution = make_exec(clean_engine, running, f"{BOTH}; exit 5")
    shown = clean_engine.call("GET", f"/exec/{execution}/json")
    assert (shown["Running"], shown["ExitCode"], shown["Pid"]) == (False, None, 0)
    with RawConnection(clean_engine.socket_path) as connection:
        head = connection.upgrade(f"/v1.51/exec/{execution}/start", body=b'{"Detach":false,"Tty":false}')
        assert (head.status, head.reason) == (101, "UPGRADED")
        assert head.headers["Content-Type"] == MULTIPLEXED
        assert (head.headers["Connection"], head.headers["Upgrade"]) == ("Upgrade", "tcp")
        assert {"Api-Version", "Docker-Experimental", "Ostype", "Server"} <= head.headers.keys()
        assert connection.read(8 + 4)[8:] == b"out\n"
        assert clean_engine.call("GET", f"/exec/{execution}/json")["Running"] is True
        connection.write(b"typed\n")
        connection.half_close()
        assert connection.frames() == [(2, b"err\n"), (1, b"typed\n")]
    shown = clean_engine.call("GET", f"/exec/{execution}/json")
    assert (shown["Running"], shown["ExitCode"]) == (False, 5), "final as soon as the stream ends"
    assert shown["ContainerID"] == running
    assert shown["ProcessConfig"] == {
        "tty": False, "entrypoint": "sh", "arguments": ["-c", f"{BOTH}; exit 5"], "privileged": False,
    }  # fmt: skip
    assert set(shown) == {
        "ID", "Running", "ExitCode", "ProcessConfig", "OpenStdin", "OpenStderr", "OpenStdout", "CanRemove",
        "ContainerID", "DetachKeys", "Pid",
    }  # fmt: skip


def test_exec_without_upgrade(clean_engine: Engine, running: str) -> None:
    execution = make_exec(clean_engine, running, BOTH)
    with RawConnection(clean_engine.socket_path) as connection:
        connection.send("POST", f"/exec/{execution}/start", body=b"{}", Content_Type="application/json")
        head = connection.head()
        assert (head.status, head.headers["Content-Type"]) == (200, RAW)
        connection.half_close()
        assert connection.frames() == [(1, b"out\n"), (2, b"err\n")]


def test_exec_on_a_terminal(clean_engine: Engine, running: str) -> None:
    execution = make_exec(clean_engine, running, "sleep 0.1; stty size; exit 2", Tty=True, ConsoleSize=[30, 100])
    with RawConnection(clean_engine.socket_path) as connection:
        head = connection.upgrade(f"/exec/{execution}/start", body=b'{"Tty":true,"ConsoleSize":[30,100]}')
        assert head.headers["Content-Type"] == RAW
        assert connection.read_all() == b"30 100\r\n"
    assert clean_engine.call("GET", f"/exec/{execution}/json")["ExitCode"] == 2


def test_exec_detached(clean_engine: Engine, running: str) -> None:
    execution = make_exec(clean_engine, running, "touch /made; exit 6")
    answer = clean_engine.request("POST", f"/exec/{execution}/start", {"Detach": True, "Tty": False})
    assert (answer.status, answer.body) == (200, b"")
    deadline = time.monotonic() + 10
    while clean_engine.call("GET", f"/exec/{execution}/json")["Running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert clean_engine.call("GET", f"/exec/{execution}/json")["ExitCode"] == 6


@pytest.mark.parametrize(("program", "exit_code"), [("nosuchcmd", 127), ("/etc", 126)])
def test_exec_of_what_cannot_run(clean_engine: Engine, running: str, program: str, exit_code: int) -> None:
    execution = make_exec(clean_engine, running, "", Cmd=[program])
    with RawConnection(clean_engine.socket_path) as connection:
        assert connection.upgrade(f"/exec/{execution}/start", body=b"{}").status == 101
        said = connection.read_all()
    assert b"OCI runtime exec failed: exec failed: unable to start container process" in said
    assert clean_engine.call("GET", f"/exec/{execution}/json")["ExitCode"] == exit_code


def test_exec_errors(clean_engine: Engine, running: str) -> None:
    def refusal(path: str, body: object) -> tuple[int, str]:
        answer = clean_engine.request("POST", path, body)
        return answer.status, answer.json()["message"]

    assert refusal(f"/containers/{running}/exec", {"Cmd": []}) == (400, "No exec command specified")
    assert refusal("/containers/nope/exec", {"Cmd": ["true"]}) == (404, "No such container: nope")
    assert refusal("/exec/nope/start", {}) == (404, "No such exec instance: nope")
    assert clean_engine.request("GET", "/exec/nope/json").status == 404
    execution = make_exec(clean_engine, running, "true")
    clean_engine.request("POST", f"/exec/{execution}/start", {"Detach": True})
    status, message = refusal(f"/exec/{execution}/start", {"Detach": True})
    assert status == 409
    assert message in (f"Error: Exec command {execution} has already run",
                       f"exec command {execution} has already run", f"exec command {execution} is already running")
    clean_engine.call("POST", f"/containers/{running}/kill")
    clean_engine.call("POST", f"/containers/{running}/wait")
    assert refusal(f"/containers/{running}/exec", {"Cmd": ["true"]}) == (409, f"container {running} is not running")


def test_resize(clean_engine: Engine, running: str) -> None:
    def resized(path: str) -> tuple[int, str]:
        answer = clean_engine.request("POST", path)
        return answer.status, json.loads(answer.body)["message"] if answer.body else ""

    assert resized(f"/containers/{running}/resize?h=a&w=3") == (400, 'invalid resize height "a": invalid syntax')
    assert resized("/containers/nope/resize?h=2&w=3")[0] == 404
    assert resized("/exec/nope/resize?h=2&w=3")[0] == 404
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    container = with_stdin(clean_engine, script, Tty=True)
    assert resized(f"/containers/{container}/resize?h=2&w=3")[0] == 409
    with RawConnection(clean_engine.socket_path) as connection:
        connection.upgrade(f"/containers/{container}/attach?{ATTACH}")
        start(clean_engine, container)
        assert connection.read(7) == b"ready\r\n"
        assert resized(f"/containers/{container}/resize?h=33&w=101") == (200, "")
        assert connection.read_all() == b"33 101\r\n"


# --- clients that behave badly ----------------------------------------------------------------------------------------


def test_a_client_that_vanishes_leaves_the_container_alone(clean_engine: Engine) -> None:
    container = create(clean_engine, "i=0; while [ $i -lt 50 ]; do echo line; i=$((i+1)); done; sleep 0.3; exit 4")
    connection = RawConnection(clean_engine.socket_path)
    connection.upgrade(f"/containers/{container}/attach?stream=1&stdout=1")
    start(clean_engine, container)
    connection.sock.close()
    assert clean_engine.call("POST", f"/containers/{container}/wait") == {"StatusCode": 4}


def test_a_client_that_vanishes_closes_stdin(clean_engine: Engine) -> None:
    container = with_stdin(clean_engine, "cat >/dev/null; exit 4")
    connection = RawConnection(clean_engine.socket_path)
    connection.upgrade(f"/containers/{container}/attach?{ATTACH}")
    start(clean_engine, container)
    connection.write(b"half a line")
    connection.sock.close()
    assert clean_engine.call("POST", f"/containers/{container}/wait") == {"StatusCode": 4}


def test_a_client_that_does_not_read_stops_nobody_else(clean_engine: Engine) -> None:
    container = create(clean_engine, "seq 100000; echo done >&2")
    with RawConnection(clean_engine.socket_path) as slow, RawConnection(clean_engine.socket_path) as quick:
        slow.upgrade(f"/containers/{container}/attach?stream=1&stdout=1")
        quick.upgrade(f"/containers/{container}/attach?stream=1&stderr=1")
        start(clean_engine, container)
        assert clean_engine.request("GET", "/_ping", timeout_s=5).status == 200
        assert quick.frames() == [(2, b"done\n")]
        assert slow.frames()[0][1].endswith(b"\n100000\n"), "and it gets everything when it reads at last"
