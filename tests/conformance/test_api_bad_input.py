"""Requests that no client should send. Whatever they are, the engine says what is wrong and goes on."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.hijack import RawConnection

pytestmark = pytest.mark.kernel

JSON = {"Content-Type": "application/json"}


def refusal(engine: Engine, method: str, path: str, body: object = None, **more: Any) -> tuple[int, str]:
    answer = engine.request(method, path, body, **more)
    return answer.status, str(json.loads(answer.body)["message"]) if answer.body else ""


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b'{"Name": "x', JSON, "invalid JSON: unexpected EOF"),
        (b"{", JSON, "invalid JSON: unexpected EOF"),
        (b" ", JSON, "invalid JSON: got EOF while reading request body"),
        (b'{"Name": "x1"} {"Name": "x2"}', JSON, "unexpected content after JSON"),
        (b'{"Name": "x1"}', {"Content-Type": "text/plain"},
         "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b'{"Name": 3}', JSON, None),
        (b'{"Name": ["x"]}', JSON, None),
        (b'{"Labels": "x"}', JSON, None),
        (b'{"Labels": {"a": 1}}', JSON, None),
        (b'{"DriverOpts": [1]}', JSON, None),
        (b"[]", JSON, None),
        (b'"text"', JSON, None),
        (b'{"Name": "\xff\xfe"', JSON, None),
        (b"\x00\x01\x02", JSON, None),
    ],
)
def test_bodies(clean_engine: Engine, body: bytes, headers: dict[str, str], message: str | None) -> None:
    status, said = refusal(clean_engine, "POST", "/volumes/create", raw=body, headers=headers)
    assert status == 400
    if message is not None:
        assert said == message
    else:
        assert said.startswith("invalid JSON: ")
    assert clean_engine.call("GET", "/volumes")["Volumes"] == []


def test_unknown_and_oddly_written_members(clean_engine: Engine) -> None:
    body = {"name": "odd", "LABELS": {"a": "b"}, "Nonsense": {"x": [1]}, "DriverOpts": None}
    made = clean_engine.call("POST", "/volumes/create", body)
    assert (made["Name"], made["Labels"], made["Options"]) == ("odd", {"a": "b"}, None)
    assert clean_engine.call("POST", "/volumes/create", {"Name": "odd"})["Labels"] == {"a": "b"}


def test_an_empty_body_makes_an_anonymous_volume(clean_engine: Engine) -> None:
    answer = clean_engine.request("POST", "/volumes/create")
    assert answer.status == 201
    assert len(answer.json()["Name"]) == 64
    assert answer.json()["Labels"] == {"com.docker.volume.anonymous": ""}


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc", "../../etc", "a\0b", "a\nb", "é", "-a", ".a", "a b", "a:b"])
def test_names_of_volumes(clean_engine: Engine, name: str) -> None:
    status, said = refusal(clean_engine, "POST", "/volumes/create", {"Name": name})
    assert status == 400
    assert said.startswith(f"create {name}: ")
    assert "volume name" in said
    escaped = urllib.parse.quote(name, safe="")
    assert clean_engine.request("DELETE", f"/volumes/{escaped}").status in (301, 404)
    assert clean_engine.request("GET", f"/volumes/{escaped}").status in (301, 404)
    assert clean_engine.call("GET", "/volumes")["Volumes"] == []


def test_long_names(clean_engine: Engine) -> None:
    assert clean_engine.request("POST", "/volumes/create", {"Name": "v" * 255}).status == 201
    status, said = refusal(clean_engine, "POST", "/volumes/create", {"Name": "v" * 300})
    assert status in (400, 500)
    assert "too long" in said
    assert [len(volume["Name"]) for volume in clean_engine.call("GET", "/volumes")["Volumes"]] == [255]
    assert clean_engine.request("GET", "/volumes/" + "v" * 300).status in (404, 500)


@pytest.mark.parametrize("name", ["..", "a/b", "_n1", "-n", "a", "a\0b", "é1", "a b"])
def test_names_of_containers(clean_engine: Engine, name: str) -> None:
    path = f"/containers/create?name={urllib.parse.quote(name, safe='')}"
    status, said = refusal(clean_engine, "POST", path, {"Image": "busybox"})
    assert status == 400
    assert said == f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"


def test_a_long_name_for_a_container(clean_engine: Engine) -> None:
    made = clean_engine.call("POST", f"/containers/create?name={'c' * 300}", {"Image": "busybox", "Cmd": ["true"]})
    clean_engine.call("POST", f"/containers/{made['Id']}/start")
    assert clean_engine.call("POST", f"/containers/{'c' * 300}/wait") == {"StatusCode": 0}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Image": "nope"}, 404, "No such image: nope:latest"),
        ({"Image": "nope:1"}, 404, "No such image: nope:1"),
        ({"Image": "sha256:" + "0" * 64}, 404, "No such image: sha256:" + "0" * 64),
        ({"Image": "UPPER"}, 400,
         "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ({"Image": "busybox", "Cmd": [], "Entrypoint": [""]}, 400, "no command specified"),
        ({"Image": "busybox", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}, 400,
         "can't create 'AutoRemove' container with restart policy"),
        ({"Image": "busybox", "HostConfig": {"Binds": ["relative:path"]}}, None, None),
        ({"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "nonsense", "Target": "/x"}]}}, 400, None),
        ({"Image": "busybox", "HostConfig": {"VolumesFrom": ["nope"]}}, 400, None),
        ({"Image": "busybox", "WorkingDir": "relative"}, 400,
         "the working directory 'relative' is invalid, it needs to be an absolute path"),
        ({"Image": "busybox", "HostConfig": {"NetworkMode": "nope"}}, 201, None),
        ({"Image": "busybox", "StopSignal": "NOSUCH"}, 400, "invalid signal: NOSUCH"),
        ({"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}, 400, None),
        ({"Image": "busybox", "HostConfig": {"Memory": 1}}, 400, "Minimum memory limit allowed is 6MB"),
        ({"Image": "busybox", "Env": ["=x"]}, 400, "invalid environment variable: =x"),
        ({"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}}, 400,
         'invalid port specification: "x"'),
    ],
)  # fmt: skip
def test_containers_that_cannot_be(
    clean_engine: Engine, body: dict[str, Any], status: int | None, message: str | None
) -> None:
    answer = clean_engine.request("POST", "/containers/create", body)
    said = answer.json().get("message", "")
    assert answer.status == status if status else answer.status in (400, 500), said  # 500 is what Docker says
    if message is not None:
        assert said == message
    if status != 201:
        assert clean_engine.call("GET", "/containers/json?all=1") == []


def test_create_without_a_body(clean_engine: Engine) -> None:
    status, said = refusal(clean_engine, "POST", "/containers/create")
    assert status == 400
    assert said == "invalid JSON: got EOF while reading request body"
    status, said = refusal(clean_engine, "POST", "/containers/create", raw=b"null", headers=JSON)
    assert (status, said) == (400, "config cannot be empty in order to create a container")
    status, said = refusal(clean_engine, "POST", "/containers/create", {"Image": "busybox", "Cmd": 5})
    assert status == 400
    assert said.startswith("invalid JSON: ")


@pytest.mark.parametrize(
    ("program", "exit_code", "text"),
    [
        ("nosuchcmd", 127, 'exec: "nosuchcmd": executable file not found in $PATH'),
        ("/nosuch", 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_commands_that_do_not_exist(clean_engine: Engine, program: str, exit_code: int, text: str) -> None:
    made = clean_engine.call("POST", "/containers/create", {"Image": "busybox", "Cmd": [program]})
    status, said = refusal(clean_engine, "POST", f"/containers/{made['Id']}/start")
    assert status == 400
    assert said.startswith("failed to create task for container: ")
    assert "OCI runtime create failed: " in said
    assert text in said
    shown = clean_engine.call("GET", f"/containers/{made['Id']}/json")["State"]
    assert (shown["Status"], shown["ExitCode"]) == ("created", exit_code)
    assert text in shown["Error"]


def test_start_with_a_body(clean_engine: Engine) -> None:
    made = clean_engine.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    assert refusal(clean_engine, "POST", f"/containers/{made['Id']}/start", {"Binds": ["/:/host"]}) == (
        400,
        "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
    )


@pytest.mark.parametrize(
    ("filters", "status", "message"),
    [
        ('{"foo":["x"]}', 400, "invalid filter 'foo'"),
        ("{", 400, "invalid filter"),
        ("[]", 400, "invalid filter"),
        ('{"status":["bad"]}', 400, "invalid filter 'status=bad': invalid value for state (bad): must be one of "
                                   "created, running, paused, restarting, removing, exited, dead"),
        ('{"exited":["x"]}', 400, None),
        ('{"before":["nope"]}', 404, "No such container: nope"),
    ],
)  # fmt: skip
def test_filters_of_containers(clean_engine: Engine, filters: str, status: int, message: str | None) -> None:
    got, said = refusal(clean_engine, "GET", f"/containers/json?filters={urllib.parse.quote(filters)}")
    assert got == status
    if message is not None:
        assert said == message


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ('{"foo":["x"]}', "invalid filter 'foo'"),
        ("{", "error reading volume filters: invalid filter"),
        ('{"dangling":["maybe"]}', "invalid filter 'dangling=[maybe]'"),
    ],
)
def test_filters_of_volumes(clean_engine: Engine, query: str, message: str) -> None:
    assert refusal(clean_engine, "GET", f"/volumes?filters={urllib.parse.quote(query)}") == (400, message)


def test_containers_by_part_of_their_id(clean_engine: Engine) -> None:
    made = [clean_engine.call("POST", "/containers/create", {"Image": "busybox"})["Id"] for _ in range(20)]
    letter = max("0123456789abcdef", key=lambda first: sum(key.startswith(first) for key in made))
    assert refusal(clean_engine, "GET", f"/containers/{letter}/json") == (
        400, f"multiple IDs found with provided prefix: {letter}",
    )  # fmt: skip
    assert clean_engine.call("GET", f"/containers/{made[0][:20]}/json")["Id"] == made[0]
    assert clean_engine.call("GET", f"/containers/{made[0].upper()[:20].lower()}/json")["Id"] == made[0]


def test_rename_refusals(clean_engine: Engine) -> None:
    for name in ("k1", "k2"):
        clean_engine.call("POST", f"/containers/create?name={name}", {"Image": "busybox"})
    assert refusal(clean_engine, "POST", "/containers/k1/rename?name=")[0] == 400
    status, said = refusal(clean_engine, "POST", "/containers/k1/rename?name=k2")
    assert status == 409
    assert said.startswith('Error when allocating new name: Conflict. The container name "/k2" is already in use by')
    assert refusal(clean_engine, "POST", "/containers/nope/rename?name=k3") == (404, "No such container: nope")


# --- versions ---------------------------------------------------------------------------------------------------------


def test_versions(clean_engine: Engine) -> None:
    assert refusal(clean_engine, "GET", "/v1.99/version") == (
        400, "client version 1.99 is too new. Maximum supported API version is 1.51",
    )  # fmt: skip
    answer = clean_engine.request("GET", "/v1.23/version")
    assert answer.status == 400
    said = (
        "client version 1.23 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )
    assert said.encode() in answer.body
    for path in ("/version", "/v1.24/version", "/v1.51/version"):
        answer = clean_engine.request("GET", path)
        assert (answer.status, answer.json()["ApiVersion"], answer.json()["MinAPIVersion"]) == (200, "1.51", "1.24")
        assert {name: answer.headers[name] for name in ("Api-Version", "Docker-Experimental", "Ostype")} == {
            "Api-Version": "1.51", "Docker-Experimental": "false", "Ostype": "linux",
        }  # fmt: skip
        assert answer.headers["Server"]


def test_ping(clean_engine: Engine) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        answer = clean_engine.request(method, "/_ping")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Api-Version"] == "1.51"
        assert answer.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
        assert answer.headers["Pragma"] == "no-cache"
        assert answer.headers["Swarm"] == "inactive"
        assert answer.headers["Builder-Version"] in ("1", "2")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(("method", "path"), [("GET", "/nope"), ("PUT", "/containers/json"), ("GET", "/v1.51/nope"),
                                              ("POST", "/version"), ("GET", "/containers/x/start"), ("GET", "/")])
def test_unknown_routes(clean_engine: Engine, method: str, path: str) -> None:
    answer = clean_engine.request(method, path)
    assert (answer.status, answer.body) == (404, b'{"message":"page not found"}\n')
    assert answer.headers["Content-Type"] == "application/json"


def test_errors_are_json_with_a_line_end(clean_engine: Engine) -> None:
    answer = clean_engine.request("GET", "/containers/<nope>&/json")
    assert (answer.status, answer.body) == (404, b'{"message":"No such container: <nope>&"}\n')
    assert answer.headers["Content-Type"] == "application/json"


def test_prune_of_named_volumes_by_version(clean_engine: Engine) -> None:
    clean_engine.call("POST", "/volumes/create", {"Name": "named"})
    assert clean_engine.call("POST", "/v1.42/volumes/prune")["VolumesDeleted"] == []
    assert clean_engine.call("POST", "/v1.41/volumes/prune")["VolumesDeleted"] == ["named"]


def test_a_named_volume_outlives_a_failed_create(clean_engine: Engine) -> None:
    body = {"Image": "busybox", "Volumes": {"/anonymous": {}}, "HostConfig": {
        "Binds": ["kept:/data"], "Mounts": [{"Type": "volume", "Source": "bad/name", "Target": "/x"}]}}
    assert clean_engine.request("POST", "/containers/create", body).status == 400
    names = [volume["Name"] for volume in clean_engine.call("GET", "/volumes")["Volumes"]]
    assert names in ([], ["kept"])


# --- connections ------------------------------------------------------------------------------------------------------


def post(path: str, kind: str, length: int) -> bytes:
    """The head of a request whose body follows, or does not."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /_ping HTTP/9.9\r\n\r\n",
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2000000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http(clean_engine: Engine, data: bytes) -> None:
    with RawConnection(clean_engine.socket_path) as connection:
        try:
            connection.write(data)
            connection.half_close()
            answer = connection.read_all()
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.")
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert clean_engine.request("GET", "/_ping").status == 200


def test_a_slow_client(clean_engine: Engine) -> None:
    with RawConnection(clean_engine.socket_path) as connection:
        for byte in b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n":
            connection.write(bytes([byte]))
            time.sleep(0.005)
        assert connection.head().status == 200
    with RawConnection(clean_engine.socket_path) as connection:
        connection.write(post("/volumes/create", "application/json", 14))
        for byte in b'{"Name":"slo"}':
            connection.write(bytes([byte]))
            time.sleep(0.005)
        assert connection.head().status == 201


def test_clients_that_leave_within_a_request(clean_engine: Engine) -> None:
    for data in (post("/volumes/create", "application/json", 100) + b"{",
                 post("/images/load", "application/x-tar", 100000) + b"abc",
                 b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /ev"):  # fmt: skip
        for _ in range(5):
            connection = RawConnection(clean_engine.socket_path)
            connection.write(data)
            connection.sock.close()
    assert clean_engine.request("GET", "/_ping").status == 200
    assert clean_engine.call("GET", "/volumes")["Volumes"] == []


def test_two_requests_at_once_on_one_connection(clean_engine: Engine) -> None:
    with RawConnection(clean_engine.socket_path) as connection:
        connection.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        for _ in range(3):
            assert connection.head().status == 200
            assert connection.read(2) == b"OK"


def test_many_connections(clean_engine: Engine) -> None:
    connections = [RawConnection(clean_engine.socket_path) for _ in range(200)]
    for connection in connections:
        connection.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    for connection in connections:
        assert connection.head().status == 200
        connection.sock.close()
