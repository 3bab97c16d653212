"""The mechanics below every call: requests byte by byte, how things are named, and clients that stall or vanish."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.dockerd import DockerEngine
from tests.support.engine import Engine
from tests.support.hijack import RawConnection, split_frames

pytestmark = pytest.mark.kernel

CREATE = b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"Name":"made"}'


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return CREATE + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + end


# What is sent, the status that must come back, and whether the request was carried out.
REQUESTS = [
    ("chunks", chunked(b"5\r\n" + BODY[:5] + b"\r\n", b"a\r\n" + BODY[5:] + b"\r\n"), 201),
    ("chunk sizes in capitals and with zeros", chunked(b"00F\r\n" + BODY + b"\r\n"), 201),
    ("chunk extension", chunked(b"f;name=value\r\n" + BODY + b"\r\n"), 201),
    ("trailer", chunked(b"f\r\n" + BODY + b"\r\n", end=b"0\r\nX-Sum: 1\r\n\r\n"), 201),
    ("no size", chunked(b"\r\n" + BODY + b"\r\n"), 400),
    ("size that is none", chunked(b"xyz\r\n" + BODY + b"\r\n"), 400),
    ("negative size", chunked(b"-1\r\n" + BODY + b"\r\n"), 400),
    ("size without end", chunked(b"fffffffffffffffff\r\n" + BODY + b"\r\n"), 400),
    ("chunk longer than its size", chunked(b"5\r\n" + BODY + b"\r\n"), 400),
    ("length and chunks",
     CREATE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n" + BODY + b"\r\n0\r\n\r\n", (201, 400)),
    ("unknown coding", CREATE + b"Transfer-Encoding: gzip\r\n\r\n" + BODY, (400, 501)),
    ("two lengths", CREATE + b"Content-Length: 15\r\nContent-Length: 14\r\n\r\n" + BODY, 400),
    ("the same length twice", CREATE + b"Content-Length: 15\r\nContent-Length: 15\r\n\r\n" + BODY, (201, 400)),
    ("length that is none", CREATE + b"Content-Length: 1x\r\n\r\n" + BODY, 400),
    ("length below zero", CREATE + b"Content-Length: -1\r\n\r\n" + BODY, 400),
    ("length beyond all", CREATE + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY, 400),
    ("plus before the length", CREATE + b"Content-Length: +15\r\n\r\n" + BODY, 400),
    ("expects to be told to go on", CREATE + b"Expect: 100-continue\r\nContent-Length: 15\r\n\r\n" + BODY, 201),
    ("no host", b"GET /_ping HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("HTTP/1.0", b"GET /_ping HTTP/1.0\r\n\r\n", 200),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (301, 400, 404, 505)),
    ("version of the future", b"GET /_ping HTTP/3.0\r\nHost: x\r\n\r\n", (400, 505)),
    ("method that nobody has", b"BREW /_ping HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
    ("small letters", b"get /_ping HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
    ("whole address", b"GET http://x/_ping HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("bad escape", b"GET /containers/%zz/json HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("zero byte", b"GET /containers/%00/json HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404)),
    ("header without a colon", PING + b"nonsense\r\n\r\n", 400),
    ("space before the colon", PING + b"X : y\r\n\r\n", 400),
    ("empty name", PING + b": y\r\n\r\n", 400),
    ("control character in a value", PING + b"X: a\x01b\r\n\r\n", 400),
    ("zero byte in a value", PING + b"X: a\x00b\r\n\r\n", 400),
    ("one header of half a megabyte", PING + b"X: " + b"a" * 500_000 + b"\r\n\r\n", (200, 431)),
    ("five thousand headers", PING + b"".join(b"X%d: y\r\n" % number for number in range(5000)) + b"\r\n", (200, 431)),
    ("headers of two megabytes", PING + b"".join(b"X%d: " % number + b"a" * 1000 + b"\r\n" for number in range(2000)),
     431),
    ("address of half a megabyte", b"GET /_ping?x=" + b"a" * 500_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
     (200, 400, 414, 431)),
    ("not HTTP at all", b"\x00\x01\x02\x03\r\n\r\n", 400),
    ("a greeting of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
]


@pytest.mark.parametrize(("data", "status"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
def test_requests(clean_engine: Engine, data: bytes, status: int | tuple[int, ...]) -> None:
    """Nothing is carried out that was not understood, and the next client is served as ever."""
    with RawConnection(clean_engine.socket_path, timeout_s=10) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.write(data)  # the answer may come, and the connection end, before all is said
        answered = connection.head().status
        if answered == 100:
            answered = connection.head().status
    assert answered in (status if isinstance(status, tuple) else (status,))
    made = [volume["Name"] for volume in clean_engine.call("GET", "/volumes")["Volumes"]]
    assert made == (["made"] if answered == 201 else [])


def test_a_connection_is_kept_or_closed_as_asked(clean_engine: Engine) -> None:
    rows = (("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", True))
    for version, asked, kept in rows:
        header = f"Connection: {asked}\r\n" if asked else ""
        with RawConnection(clean_engine.socket_path, timeout_s=10) as connection:
            connection.write(f"GET /_ping HTTP/{version}\r\nHost: x\r\n{header}\r\n".encode())
            assert connection.head().status == 200
            assert connection.read(2) == b"OK"
            connection.sock.settimeout(0.3)
            try:
                ended = connection.read_some() == b""
            except TimeoutError:
                ended = False
            assert ended is not kept, (version, asked)


def test_one_who_is_told_to_go_on(clean_engine: Engine) -> None:
    with RawConnection(clean_engine.socket_path, timeout_s=10) as connection:
        connection.write(CREATE + b"Expect: 100-continue\r\nContent-Length: 15\r\n\r\n")
        assert connection.head().status == 100
        connection.write(BODY)
        assert connection.head().status == 201


# --- how containers are found -----------------------------------------------------------------------------------------


def test_names_and_ids(clean_engine: Engine) -> None:
    """A whole id counts before a name, a name before the beginning of an id."""
    first = clean_engine.call("POST", "/containers/create?name=first", {"Image": "busybox"})["Id"]
    by_prefix = clean_engine.call("POST", f"/containers/create?name={first[:12]}", {"Image": "busybox"})["Id"]
    by_id = clean_engine.call("POST", f"/containers/create?name={first}", {"Image": "busybox"})["Id"]

    def found(reference: str) -> str:
        return str(clean_engine.call("GET", f"/containers/{reference}/json")["Id"])

    assert found("first") == found(first) == found(first[:11]) == first
    assert found(first[:12]) == by_prefix
    assert found(by_id) == by_id
    names = clean_engine.call("GET", "/containers/json?all=1")
    assert sorted(entry["Names"][0] for entry in names) == sorted(["/first", f"/{first[:12]}", f"/{first}"])


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/containers/nope/logs?stdout=1", 404, "No such container: nope"),
        ("/containers/k1/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("/containers/k1/logs?stdout=0&stderr=false", 400, "Bad parameters: you must choose at least one stream"),
        ("/containers/k1/logs?stdout=1&tail=x", 200, None),
        ("/containers/k1/logs?stdout=1&since=x", 500, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("/containers/nope/top", 404, "No such container: nope"),
        ("/containers/nope/changes", 404, "No such container: nope"),
        ("/containers/nope/export", 404, "No such container: nope"),
        ("/containers/nope/stats?stream=0", 404, "No such container: nope"),
        ("/containers/nope/archive?path=/", 404, "No such container: nope"),
        ("/containers/json?limit=x", 500, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("/images/nope/json", 404, "No such image: nope:latest"),
        ("/images/nope/history", 404, "No such image: nope:latest"),
        ("/images/nope/get", 404, "No such image: nope"),
        ("/networks/nope", 404, "network nope not found"),
        ("/volumes/nope", 404, "get nope: no such volume"),
        ("/exec/nope/json", 404, "No such exec instance: nope"),
        ("/system/df?type=nope", 400, "unknown object type: nope"),
        ("/v1.24/networks/nope", 404, "network nope not found"),
    ],
)
def test_what_is_said_of_what_cannot_be_shown(
    clean_engine: Engine, path: str, status: int, message: str | None
) -> None:
    clean_engine.call("POST", "/containers/create?name=k1", {"Image": "busybox"})
    answer = clean_engine.request("GET", path)
    assert answer.status == status, answer.body
    if message is not None:
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.body == json.dumps({"message": message}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", []),
        ("?all=1", ["c3", "c2", "c1"]),
        ("?all=true&limit=2", ["c3", "c2"]),
        ("?limit=1", ["c3"]),
        ("?limit=0", []),
        ("?limit=-1&all=1", ["c3", "c2", "c1"]),
        ("?all=1&filters=" + urllib.parse.quote('{"before":["c3"]}'), ["c2", "c1"]),
        ("?all=1&filters=" + urllib.parse.quote('{"since":["c1"]}'), ["c3", "c2"]),
        ("?all=1&before=c3&since=c1", ["c3", "c2", "c1"]),
        ("?all=False", []),
        ("?all=no", []),
        ("?all=yes", ["c3", "c2", "c1"]),
        ("?filters=" + urllib.parse.quote('{"name":["c1","c2"]}'), []),
        ("?all=1&filters=" + urllib.parse.quote('{"name":["c1","c2"]}'), ["c2", "c1"]),
        ("?all=1&filters=" + urllib.parse.quote('{"name":{"c1":true}}'), ["c1"]),
        ("?all=1&filters=" + urllib.parse.quote('{"status":["created"],"label":["odd"]}'), ["c3", "c1"]),
        ("?all=1&filters=" + urllib.parse.quote('{"label":["odd","odd=yes"]}'), ["c3", "c1"]),
        ("?all=1&filters=" + urllib.parse.quote('{"label":["odd=no"]}'), []),
        ("?filters=" + urllib.parse.quote('{"status":["created","exited"]}'), ["c3", "c2", "c1"]),
        ("?all=1&filters=", ["c3", "c2", "c1"]),
        ("?all=1&filters=%7B%7D", ["c3", "c2", "c1"]),
    ],
)
def test_which_containers_are_listed(clean_engine: Engine, query: str, names: list[str]) -> None:
    for number in (1, 2, 3):
        body = {"Image": "busybox", "Labels": {"odd": "yes"} if number % 2 else {}}
        clean_engine.call("POST", f"/containers/create?name=c{number}", body)
    assert [entry["Names"][0][1:] for entry in clean_engine.call("GET", f"/containers/json{query}")] == names


# --- clients that stall or vanish -------------------------------------------------------------------------------------


@pytest.fixture
def noisy(clean_engine: Engine) -> str:
    """A container that has written, and goes on writing, more than any buffer takes."""
    script = "yes 0123456789012345678901234567890123456789 | head -c 8000000; while :; do echo more; sleep 0.05; done"
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}}
    identity = str(clean_engine.call("POST", "/containers/create", body)["Id"])
    clean_engine.call("POST", f"/containers/{identity}/start")
    return identity


def logs(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.send("GET", f"/containers/{container}/logs?stdout=1&follow=1")


def attach(engine: Engine, container: str, connection: RawConnection) -> None:
    target = f"/containers/{container}/attach?stream=1&logs=1&stdout=1&stdin=1"
    connection.send("POST", target, Connection="Upgrade", Upgrade="tcp")


def execute(engine: Engine, container: str, connection: RawConnection) -> None:
    body = {"AttachStdout": True, "AttachStdin": True, "Cmd": ["sh", "-c", "yes | head -c 8000000"]}
    made = engine.call("POST", f"/containers/{container}/exec", body)["Id"]
    connection.send("POST", f"/exec/{made}/start", body=b"{}", Connection="Upgrade", Upgrade="tcp",
                    Content_Type="application/json")  # fmt: skip


def events(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.send("GET", "/events?since=1")


def stats(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.send("GET", f"/containers/{container}/stats")


def archive(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.send("GET", f"/containers/{container}/archive?path=/bin")


def export(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.send("GET", f"/containers/{container}/export")


def save(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.send("GET", "/images/busybox/get")


def upload(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.sock.sendall(
        f"PUT /containers/{container}/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode()
        + bytes(3000)
    )


def load(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.sock.sendall(b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(3000))


def build(engine: Engine, container: str, connection: RawConnection) -> None:
    kind = b"Content-Type: application/x-tar\r\n"
    connection.sock.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\n" + kind + b"Content-Length: 9999\r\n\r\n")


def wait(engine: Engine, container: str, connection: RawConnection) -> None:
    connection.send("POST", f"/containers/{container}/wait")


Start = Callable[[Engine, str, RawConnection], None]
STREAMS: list[Start] = [logs, attach, execute, events, stats, archive, export, save, upload, load, build, wait]


@pytest.mark.parametrize("start", STREAMS, ids=lambda start: start.__name__)
def test_clients_that_stall_and_vanish(clean_engine: Engine, noisy: str, start: Start) -> None:
    """Eight clients begin and never read on; then they go. Others are served meanwhile, and nothing of it stays."""
    clean_engine.docker("exec", noisy, "true")  # what is opened for the first exec stays open
    before = open_files(clean_engine)
    stalled = [RawConnection(clean_engine.socket_path) for _ in range(8)]
    for connection in stalled:
        start(clean_engine, noisy, connection)
    time.sleep(0.3)
    for path in ("/_ping", "/containers/json", f"/containers/{noisy}/json", "/info"):
        assert clean_engine.request("GET", path, timeout_s=10).status == 200
    logged = clean_engine.request("GET", f"/containers/{noisy}/logs?stdout=1&tail=1", timeout_s=10)
    assert split_frames(logged.body)
    for connection in stalled:
        connection.sock.close()
    for _ in range(4):  # some that go at once
        connection = RawConnection(clean_engine.socket_path)
        start(clean_engine, noisy, connection)
        connection.sock.close()
    assert clean_engine.request("DELETE", f"/containers/{noisy}?force=1", timeout_s=20).status == 204
    deadline = time.monotonic() + 10
    while (left := open_files(clean_engine)) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left <= before
    assert clean_engine.request("GET", "/_ping").status == 200


def open_files(engine: Engine) -> int:
    """How many descriptors the engine has, but for those that its threads keep on the catalogue."""
    if isinstance(engine, DockerEngine):
        return 0
    assert engine.process is not None
    found = 0
    for entry in Path(f"/proc/{engine.process.pid}/fd").iterdir():
        try:
            found += "/holdfast.db" not in os.readlink(entry)
        except FileNotFoundError:
            continue
    return found


def test_uploads_that_end_too_early_change_nothing(clean_engine: Engine) -> None:
    """A tar that breaks off within a file, by its length and by the connection."""
    container = clean_engine.call("POST", "/containers/create", {"Image": "busybox"})["Id"]
    images: Any = clean_engine.call("GET", "/images/json?all=1")
    upload = f"/containers/{container}/archive?path=/tmp"
    for target in (upload, "/images/load", "/images/create?fromSrc=-&repo=cut&tag=1"):
        method = "PUT" if target == upload else "POST"
        answer = clean_engine.request(method, target, raw=b"\x01" * 700)
        assert answer.status >= 400 or b'"error"' in answer.body, (target, answer)
        with RawConnection(clean_engine.socket_path) as connection:
            head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
            connection.write(head.encode() + bytes(100))
    time.sleep(0.3)
    assert clean_engine.call("GET", "/images/json?all=1") == images
    assert clean_engine.call("GET", f"/containers/{container}/json?size=1")["SizeRw"] == 0
