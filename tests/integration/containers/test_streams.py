"""Attach, exec and logs through a real engine: framing, standard input, clients that lag or vanish."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class Stream:
    """A connection that was taken over."""

    def __init__(self, engine: Engine, path: str, body: object = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        folder = os.open(engine.socket_path.parent, os.O_PATH)
        self.socket.connect(f"/proc/self/fd/{folder}/{engine.socket_path.name}")
        os.close(folder)
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"POST /v1.51{path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: tcp"]
        head += ["Content-Type: application/json", f"Content-Length: {len(data)}", "", ""]
        self.socket.sendall("\r\n".join(head).encode() + data)
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            piece = self.socket.recv(4096)
            assert piece, self._rest
            self._rest += piece
        self.head, _, self._rest = self._rest.partition(b"\r\n\r\n")

    def read_all(self) -> bytes:
        """Everything up to the end."""
        pieces = [self._rest]
        while piece := self.socket.recv(1 << 20):
            pieces.append(piece)
        self.socket.close()
        return b"".join(pieces)

    def read_until(self, text: bytes) -> bytes:
        """Everything up to and with `text`."""
        while text not in self._rest:
            piece = self.socket.recv(4096)
            assert piece, self._rest
            self._rest += piece
        return self._rest

    def frames(self) -> dict[int, bytes]:
        """Everything up to the end, by stream."""
        return unframe(self.read_all())


def unframe(data: bytes) -> dict[int, bytes]:
    """Take Docker's multiplexed format apart."""
    streams: dict[int, bytearray] = {}
    position = 0
    while position < len(data):
        number, length = struct.unpack_from(">BxxxI", data, position)
        streams.setdefault(number, bytearray()).extend(data[position + 8 : position + 8 + length])
        position += 8 + length
    assert position == len(data)
    return {number: bytes(found) for number, found in streams.items()}


@pytest.fixture
def make(engine: Engine) -> Iterator[Any]:
    """Make containers without network, removed after the test."""
    made: list[str] = []

    def create(*cmd: str, **body: Any) -> str:
        wanted = {"Image": "busybox", "Cmd": list(cmd), "HostConfig": {"NetworkMode": "none"}, **body}
        made.append(engine.call("POST", "/containers/create", wanted)["Id"])
        return made[-1]

    yield create
    for key in made:
        engine.request("DELETE", f"/containers/{key}?force=1&v=1")


def state_of(engine: Engine, key: str) -> Any:
    return engine.call("GET", f"/containers/{key}/json")["State"]


def wait_for(engine: Engine, key: str, status: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while state_of(engine, key)["Status"] != status:
        assert time.monotonic() < deadline, state_of(engine, key)
        time.sleep(0.02)


def test_attach_before_start_gets_the_first_byte(engine: Engine, make: Any) -> None:
    key = make("sh", "-c", "echo out; echo err >&2")
    stream = Stream(engine, f"/containers/{key}/attach?stream=1&stdout=1&stderr=1")
    assert stream.head.startswith(
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade"
    )
    other = Stream(engine, f"/containers/{key}/attach?stream=1&stderr=1")
    engine.call("POST", f"/containers/{key}/start")
    assert stream.frames() == {1: b"out\n", 2: b"err\n"}
    assert other.frames() == {2: b"err\n"}


def test_everybody_who_attaches_before_the_start_gets_everything(engine: Engine, make: Any) -> None:
    for _ in range(10):
        key = make("echo", "out")
        streams = [Stream(engine, f"/containers/{key}/attach?stream=1&stdout=1") for _ in range(4)]
        engine.call("POST", f"/containers/{key}/start")
        assert [stream.frames() for stream in streams] == [{1: b"out\n"}] * 4


def test_the_end_of_stdin_reaches_the_process_and_its_answer_comes_back(engine: Engine, make: Any) -> None:
    key = make("sh", "-c", "cat; echo end", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    stream = Stream(engine, f"/containers/{key}/attach?stream=1&stdin=1&stdout=1&stderr=1")
    data = os.urandom(3 << 20)
    engine.call("POST", f"/containers/{key}/start")
    stream.socket.settimeout(60)
    def send() -> None:
        stream.socket.sendall(data)
        stream.socket.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = stream.frames()
    sender.join()
    assert received == {1: data + b"end\n"}


def test_a_client_that_does_not_read_stops_nobody_and_loses_nothing(engine: Engine, make: Any) -> None:
    size = 20 << 20
    key = make("sh", "-c", f"head -c {size} /dev/zero")
    stream = Stream(engine, f"/containers/{key}/attach?stream=1&stdout=1")
    engine.call("POST", f"/containers/{key}/start")
    wait_for(engine, key, "exited")
    assert len(stream.frames()[1]) == size


def test_a_client_that_vanishes_stops_nobody(engine: Engine, make: Any) -> None:
    key = make("sh", "-c", "head -c 20000000 /dev/zero; echo done")
    stream = Stream(engine, f"/containers/{key}/attach?stream=1&stdout=1")
    engine.call("POST", f"/containers/{key}/start")
    stream.socket.close()
    wait_for(engine, key, "exited")
    assert state_of(engine, key)["ExitCode"] == 0


def test_a_terminal_and_its_detach_keys(engine: Engine, make: Any) -> None:
    key = make("sh", Tty=True, OpenStdin=True, StdinOnce=True)
    stream = Stream(engine, f"/containers/{key}/attach?stream=1&stdin=1&stdout=1&stderr=1")
    assert b"application/vnd.docker.raw-stream" in stream.head
    engine.call("POST", f"/containers/{key}/start")
    assert engine.request("POST", f"/containers/{key}/resize?h=33&w=99").status == 200
    stream.socket.sendall(b"stty size; echo x\x10y\n")
    stream.read_until(b"33 99\r\n")
    stream.socket.sendall(b"\x10\x11")
    stream.read_all()
    assert state_of(engine, key)["Running"]
    refused = engine.request("POST", f"/containers/{key}/resize?h=a&w=1")
    assert (refused.status, refused.json()) == (400, {"message": 'invalid resize height "a": invalid syntax'})


def test_a_terminal_takes_input_from_whoever_comes_after_a_detach_a_lost_client_and_an_end(
    engine: Engine, make: Any
) -> None:
    key = make("sh", Tty=True, OpenStdin=True, StdinOnce=True, AttachStdin=True)
    everything = f"/containers/{key}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    stream = Stream(engine, everything)
    engine.call("POST", f"/containers/{key}/start")
    stream.socket.sendall(b"echo first-$((1+1))\n")
    stream.read_until(b"first-2")
    stream.socket.sendall(b"echo typed-before-$((1+1)) >/typed\n\x10\x11")
    stream.read_all()
    stream = Stream(engine, everything)
    stream.socket.sendall(b"cat /typed; echo second-$((1+1))\n")
    assert b"typed-before-2" in stream.read_until(b"second-2")
    stream.socket.close()
    stream = Stream(engine, everything)
    stream.socket.sendall(b"echo third-$((1+1))\n")
    stream.read_until(b"third-2")
    stream.socket.shutdown(socket.SHUT_WR)
    stream.read_all()
    stream = Stream(engine, everything)
    stream.socket.sendall(b"exit 7\n")
    stream.read_all()
    wait_for(engine, key, "exited")
    assert state_of(engine, key)["ExitCode"] == 7


def test_input_without_stdin_once_outlives_its_clients(engine: Engine, make: Any) -> None:
    key = make("cat", OpenStdin=True)
    engine.call("POST", f"/containers/{key}/start")
    for word in (b"one", b"two"):
        stream = Stream(engine, f"/containers/{key}/attach?stream=1&stdin=1&stdout=1")
        stream.socket.sendall(word + b"\n")
        stream.read_until(word)
        stream.socket.shutdown(socket.SHUT_WR)
        stream.read_all()  # as Docker: the stream ends with the client's input
    assert state_of(engine, key)["Running"]


def test_only_a_client_with_input_ends_the_input_of_stdin_once(engine: Engine, make: Any) -> None:
    key = make("sh", "-c", "cat; echo end", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    stream = Stream(engine, f"/containers/{key}/attach?stream=1&stdin=1&stdout=1")
    engine.call("POST", f"/containers/{key}/start")
    stream.socket.sendall(b"one\n")
    stream.read_until(b"one\n")
    onlooker = Stream(engine, f"/containers/{key}/attach?stream=1&stdout=1")
    onlooker.socket.close()
    time.sleep(0.3)
    stream.socket.sendall(b"two\n")
    stream.read_until(b"two\n")
    stream.socket.close()
    wait_for(engine, key, "exited")
    assert state_of(engine, key)["ExitCode"] == 0


def test_errors_of_attach_are_plain_text(engine: Engine) -> None:
    answer = engine.request("POST", "/containers/nope/attach?stream=1&stdout=1", headers=UPGRADE)
    assert (answer.status, answer.body) == (404, b"No such container: nope\r\n")
    assert answer.headers["Content-Type"] == "application/vnd.docker.raw-stream"


def test_exec_streams_and_its_exit_code_is_final_at_the_end(engine: Engine, make: Any) -> None:
    key = make("sleep", "100")
    engine.call("POST", f"/containers/{key}/start")
    for code in range(5):
        made = engine.call(
            "POST", f"/containers/{key}/exec",
            {"Cmd": ["sh", "-c", f"cat; echo err >&2; exit {code}"], "AttachStdin": True, "AttachStdout": True,
             "AttachStderr": True},
        )["Id"]
        stream = Stream(engine, f"/exec/{made}/start", {"Detach": False, "Tty": False})
        assert b"Api-Version: 1.51" in stream.head
        stream.socket.sendall(b"in\n")
        stream.socket.shutdown(socket.SHUT_WR)
        assert stream.frames() == {1: b"in\n", 2: b"err\n"}
        shown = engine.call("GET", f"/exec/{made}/json")
        assert (shown["Running"], shown["ExitCode"], shown["ContainerID"]) == (False, code, key)
        again = engine.request("POST", f"/exec/{made}/start", {})
        assert (again.status, again.json()) == (409, {"message": f"exec command {made} has already run"})
    assert engine.request("GET", "/exec/nope/json").json() == {"message": "No such exec instance: nope"}
    empty = engine.request("POST", f"/containers/{key}/exec", {"Cmd": []})
    assert (empty.status, empty.json()) == (400, {"message": "No exec command specified"})


def test_exec_detached_and_one_that_cannot_run(engine: Engine, make: Any) -> None:
    key = make("sleep", "100")
    engine.call("POST", f"/containers/{key}/start")
    made = engine.call("POST", f"/containers/{key}/exec", {"Cmd": ["sh", "-c", "exit 4"]})["Id"]
    assert engine.request("POST", f"/exec/{made}/start", {"Detach": True}).status == 200
    deadline = time.monotonic() + 10
    while engine.call("GET", f"/exec/{made}/json")["Running"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert engine.call("GET", f"/exec/{made}/json")["ExitCode"] == 4
    made = engine.call("POST", f"/containers/{key}/exec", {"Cmd": ["nosuch"], "AttachStdout": True})["Id"]
    frames = Stream(engine, f"/exec/{made}/start", {}).frames()
    assert b"executable file not found" in frames[1]
    assert engine.call("GET", f"/exec/{made}/json")["ExitCode"] == 127


def test_an_exec_ends_with_its_container(engine: Engine, make: Any) -> None:
    key = make("sleep", "100")
    engine.call("POST", f"/containers/{key}/start")
    made = engine.call("POST", f"/containers/{key}/exec", {"Cmd": ["sleep", "50"], "AttachStdout": True})["Id"]
    stream = Stream(engine, f"/exec/{made}/start", {})
    deadline = time.monotonic() + 10
    while not engine.call("GET", f"/exec/{made}/json")["Running"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    engine.call("POST", f"/containers/{key}/kill")
    assert stream.read_all() == b""


def test_logs(engine: Engine, make: Any) -> None:
    key = make("sh", "-c", "for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.02; done; printf rest")
    engine.call("POST", f"/containers/{key}/start")
    wait_for(engine, key, "exited")

    def logs(query: str) -> dict[int, bytes]:
        return unframe(engine.request("GET", f"/containers/{key}/logs?{query}").body)

    assert logs("stdout=1&stderr=1&tail=all") == {1: b"out1\nout2\nout3\nrest", 2: b"err1\nerr2\nerr3\n"}
    assert logs("stdout=1&follow=1")[1].endswith(b"rest")
    assert logs("stderr=1&tail=0") == {}
    assert logs("stdout=1&tail=1") == {1: b"rest"}
    stamped = logs("stdout=1&timestamps=1")[1].splitlines()
    assert [line.split(b" ")[1] for line in stamped] == [b"out1", b"out2", b"out3", b"rest"]
    assert logs(f"stdout=1&since={int(time.time()) + 100}") == {}
    refused = engine.request("GET", f"/containers/{key}/logs")
    assert (refused.status, refused.json()) == (400, {"message": "Bad parameters: you must choose at least one stream"})


def test_logs_are_followed_to_the_end(engine: Engine, make: Any) -> None:
    key = make("sh", "-c", "echo first; sleep 0.5; head -c 3000000 /dev/zero; echo last")
    engine.call("POST", f"/containers/{key}/start")
    data = unframe(engine.request("GET", f"/containers/{key}/logs?stdout=1&follow=1").body)[1]
    assert data.startswith(b"first\n")
    assert data.endswith(b"last\n")
    assert len(data) == 3000000 + 11
