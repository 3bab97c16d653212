"""`docker commit`: an image of what a container is now."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import images as make
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

CONFIG = {
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3_600_000_000_000, "StartPeriod": 1_000_000},
    "Labels": {"of": "image"},
    "OnBuild": ["RUN true"],
    "Shell": ["/bin/ash", "-c"],
    "User": "root",
    "Env": ["PATH=/bin", "A=image"],
    "StopSignal": "SIGINT",
    "Volumes": {"/volume": {}},
}
CHANGES = r"""
echo new > /new; rm /etc/group; chmod 711 /tmp; ln /new /same; ln -s new /link; mkfifo /fifo
rm -r /old; mkdir /old; echo mine > /old/mine; echo volume > /volume/kept-out; chown 7:8 /same; chmod 4755 /same
mkdir -p "/od d/'x"; touch -d @1000000000 "/od d/'x/é"; touch /ready; sleep 1000
"""


def events_of(engine: Engine, since: int) -> list[tuple[str, str]]:
    until = int(time.time()) + 1
    time.sleep(max(0.0, until - time.time()))
    body = engine.request("GET", f"/events?since={since}&until={until}").body
    told = [(event["Type"], event["Action"]) for event in map(json.loads, body.splitlines())]
    return [each for each in told if each[1] in ("pause", "unpause", "create", "tag", "commit")]


@pytest.fixture(scope="module")
def worked(engine: Engine) -> str:
    """A container that runs and has changed things."""
    entries = [*make.busybox_entries(), make.dir_entry("old"), make.file_entry("old/theirs", b"theirs")]
    image = make.image([make.layer(entries)], tags=["base:1"], config=CONFIG)
    engine.call("POST", "/images/load?quiet=1", raw=make.docker_archive([image]))
    body = {"Image": "base:1", "Cmd": ["sh", "-c", CHANGES], "Labels": {"of": "container", "x": "y"}, "Env": ["B=c"]}
    container: str = engine.call("POST", "/containers/create?name=worked", body)["Id"]
    engine.call("POST", "/containers/worked/start")
    while engine.request("HEAD", "/containers/worked/archive?path=/ready").status != 200:
        time.sleep(0.02)
    return container


def test_everything_that_changed_is_in_the_image(engine: Engine, worked: str) -> None:
    since = int(time.time())
    changes = "&".join(f"changes={quote(text)}" for text in ('CMD ["cat", "/new"]', "ENV D=e\nLABEL z=1"))
    answer = engine.request("POST", f"/commit?container=worked&repo=made&tag=1&comment=note&author=me&{changes}")
    assert answer.status == 201, answer.body
    shown = engine.call("GET", "/images/made:1/json")
    assert (shown["Id"], shown["Comment"], shown["Author"]) == (answer.json()["Id"], "note", "me")
    assert shown["Parent"] == engine.call("GET", "/images/base:1/json")["Id"]
    assert len(shown["RootFS"]["Layers"]) == 2
    config = {key: value for key, value in shown["Config"].items() if value}
    assert config == {
        "Cmd": ["cat", "/new"],
        "Env": ["B=c", "PATH=/bin", "A=image", "D=e"],
        "Healthcheck": CONFIG["Healthcheck"],
        "Labels": {"of": "container", "x": "y", "z": "1"},
        "StopSignal": "SIGINT",
        "User": "root",
        "Volumes": {"/volume": {}},
    }
    old = engine.call("GET", "/v1.44/images/made:1/json")
    assert (old["Container"], old["ContainerConfig"]["Image"]) == (worked, "base:1")
    newest, *_ = engine.call("GET", "/images/made:1/history")
    assert (newest["Comment"], newest["CreatedBy"]) == ("note", f"sh -c {CHANGES}")
    assert events_of(engine, since)[-5:] == [
        ("container", "pause"), ("container", "unpause"), ("image", "create"), ("image", "tag"),
        ("container", "commit"),
    ]  # fmt: skip
    assert engine.call("GET", "/containers/worked/json")["State"]["Status"] == "running"

    assert engine.docker("run", "--rm", "made:1").stdout == "new\n"
    look = (
        "ls /old; ls /volume; stat -c '%a %u:%g %h' /tmp /same; stat -c %F /fifo; readlink /link;"
        " stat -c %Y \"/od d/'x/é\"; ls /etc/group; ls /etc/hostname; wc -c </etc/hostname"
    )
    seen = engine.docker("run", "--rm", "made:1", "sh", "-c", look, check=False)
    assert seen.stdout.splitlines() == [
        "mine", "711 0:0 1", "4755 7:8 2", "fifo", "new", "1000000000", "/etc/hostname", "13",
    ]  # fmt: skip
    assert "/etc/group: No such file" in seen.stderr


def test_a_configuration_in_the_request_wins(engine: Engine, worked: str) -> None:
    body = {"Cmd": ["other"], "Env": ["B=d"], "Labels": {"of": "request"}}
    image = engine.call("POST", f"/commit?container={worked[:12]}&pause=0", body)["Id"]
    shown = engine.call("GET", f"/images/{image}/json")
    assert (shown["RepoTags"], shown["Config"]["Cmd"]) == ([], ["other"])
    assert shown["Config"]["Env"] == ["B=d", "PATH=/bin", "A=image"]
    assert shown["Config"]["Labels"] == {"of": "request", "x": "y"}
    engine.call("DELETE", f"/images/{image}")


def test_clients(engine: Engine, worked: str) -> None:
    image = engine.docker("commit", "-m", "by docker", "worked", "by-docker").stdout.strip()
    assert engine.call("GET", "/images/by-docker:latest/json")["Id"] == image
    changes = ("-c", 'ENTRYPOINT ["cat"]', "-c", 'CMD ["/old/mine"]')
    image = engine.holdfast("commit", *changes, "worked", "ours:1").stdout
    assert engine.call("GET", "/images/ours:1/json")["Id"] == image.strip()
    assert engine.docker("run", "--rm", "ours:1").stdout == "mine\n"


def test_a_stopped_container_that_changed_nothing_adds_no_layer(engine: Engine) -> None:
    container = engine.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    image = engine.call("POST", f"/commit?container={container}")["Id"]
    shown = engine.call("GET", f"/images/{image}/json")
    assert shown["RootFS"] == engine.call("GET", "/images/busybox/json")["RootFS"]
    assert engine.call("GET", f"/images/{image}/history")[0]["Size"] == 0
    engine.call("DELETE", f"/containers/{container}")
    engine.call("DELETE", f"/images/{image}")


@pytest.mark.parametrize(
    ("query", "body", "status", "message"),
    [
        ("", None, 400, 'invalid name or ID supplied: ""'),
        ("container=nope", None, 404, "No such container: nope"),
        ("container=worked&repo=UP", None, 400,
         "invalid reference format: repository name (library/UP) must be lowercase"),
        ("container=worked&repo=x&tag=a/b", None, 400, "invalid tag format"),
        (f"container=worked&repo=x@sha256:{'a' * 64}", None, 400, "cannot import digest reference"),
        ("container=worked&changes=BAD", None, 400, "BAD is not a valid change command"),
        ("container=worked&changes=RUN%20x", None, 400, "RUN is not a valid change command"),
        ("container=worked", b"{bad", 400,
         "invalid JSON: invalid character 'b' looking for beginning of object key string"),
    ],
)  # fmt: skip
def test_refused(engine: Engine, worked: str, query: str, body: Any, status: int, message: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = engine.request("POST", f"/commit?{query}", raw=body, headers=headers if body else None)
    assert (answer.status, answer.json()["message"]) == (status, message)
    assert engine.call("GET", f"/containers/{worked}/json")["State"]["Status"] == "running"
