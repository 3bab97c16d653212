"""Images over the API of a running engine."""

from __future__ import annotations

import io
import json
import tarfile
from urllib.parse import quote

import pytest

from tests.support import images as make
from tests.support.engine import Engine

pytestmark = pytest.mark.kernel

SMALL = make.image([make.layer([make.file_entry("a", b"aaa")])], tags=["small:1"])


BAD = quote('{"bad":["x"]}')
ELSEWHERE = quote('{"os":"linux","architecture":"s390x"}')


def load(engine: Engine, data: bytes, query: str = "?quiet=1") -> list[dict[str, object]]:
    answer = engine.request("POST", f"/images/load{query}", raw=data)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    return [json.loads(line) for line in answer.body.split(b"\r\n") if line]


def test_life(engine: Engine) -> None:
    assert load(engine, make.docker_archive([SMALL])) == [{"stream": "Loaded image: small:1\n"}]
    shown = engine.call("GET", "/v1.51/images/small:1/json")
    assert (shown["Id"], shown["RepoTags"], shown["Size"]) == (SMALL.id, ["small:1"], 3)
    listed = engine.call("GET", f"/images/json?filters={quote(json.dumps({'reference': ['small']}))}")
    assert [entry["Id"] for entry in listed] == [SMALL.id]
    assert [step["Id"] for step in engine.call("GET", "/images/small:1/history")] == [SMALL.id]
    assert engine.request("POST", "/images/small:1/tag?repo=localhost:5000/team/x&tag=2").status == 201
    assert engine.call("GET", "/images/localhost:5000/team/x:2/json")["Id"] == SMALL.id
    archive = engine.request("GET", "/images/get?names=small:1&names=localhost:5000/team/x:2")
    assert archive.headers["Content-Type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(archive.body)) as members:
        manifest = members.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == ["small:1", "localhost:5000/team/x:2"]
    assert engine.call("DELETE", "/images/localhost:5000/team/x:2") == [{"Untagged": "localhost:5000/team/x:2"}]
    assert engine.call("DELETE", "/images/small:1")[1] == {"Deleted": SMALL.id}
    assert [message["stream"] for message in load(engine, archive.body)] == [
        "Loaded image: small:1\n", "Loaded image: localhost:5000/team/x:2\n",
    ]  # fmt: skip
    engine.call("DELETE", f"/images/{SMALL.id}?force=1")


@pytest.mark.skipif(make.architecture() == "s390x", reason="this machine is the other one")
@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/images/nope/json", 404, "No such image: nope:latest"),
        ("GET", "/images/team/nope/json", 404, "No such image: team/nope:latest"),
        ("DELETE", "/images/nope:1", 404, "No such image: nope:1"),
        ("GET", "/images/UPPER/json", 400, "repository name (library/UPPER) must be lowercase"),
        ("GET", "/images/nope/get", 404, "No such image: nope"),
        ("GET", "/images/nope/history", 404, "No such image: nope:latest"),
        ("POST", "/images/busybox/tag?repo=UPPER", 400, "must be lowercase"),
        ("POST", "/images/busybox/tag?repo=x&tag=a/b", 400, "invalid tag format"),
        ("GET", "/images/search?term=x", 501, "search is a service"),
        ("GET", "/images/search?term=x&limit=1000", 400, "limit 1000 is outside the range of [1, 100]"),
        ("GET", "/images/search?term=x&limit=a", 400,
         'invalid limit specified: strconv.Atoi: parsing "a": invalid syntax'),
        ("GET", f"/images/search?term=x&filters={BAD}", 400, "invalid filter 'bad'"),
        ("GET", f"/images/busybox/json?platform={ELSEWHERE}", 404,
         "image with reference busybox was found but its platform (linux/{here}) does not match the specified platform"
         " (linux/s390x)"),
        ("GET", f"/images/busybox/json?manifests=1&platform={ELSEWHERE}", 400,
         "conflicting options: manifests and platform options cannot both be set"),
        ("GET", "/images/busybox/json?platform=bad", 400,
         "failed to parse platform: invalid character 'b' looking for beginning of value"),
        ("GET", f"/images/busybox/history?platform={ELSEWHERE}", 404, "does not match the specified platform"),
        ("GET", f"/images/busybox/get?platform={ELSEWHERE}", 500,
         "no suitable export target found for platform linux/s390x"),
        ("POST", f"/images/prune?filters={BAD}", 400, "invalid filter 'bad'"),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1&platform=a/b/c/d", 400,
         '"a/b/c/d": cannot parse platform specifier: invalid argument'),
        ("POST", "/images/create?fromSrc=-&repo=x&changes=RUN%20x", 400, "RUN is not a valid change command"),
        ("GET", f"/distribution/{'a' * 64}/json", 500, "no manifest found for full image ID"),
        ("GET", "/distribution/127.0.0.1:1/x/json", 500, 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect'),
        ("GET", "/images/json?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", 400, "invalid filter 'x'"),
        ("POST", "/images/create?fromImage=UPPER", 400, "must be lowercase"),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1", 500, 'Get "http://127.0.0.1:1/v2/": dial tcp'),
        ("POST", "/images/create?fromSrc=http://127.0.0.1:1/x", 500, 'Get "http://127.0.0.1:1/x": dial tcp'),
        ("POST", "/images/create?fromSrc=ftp://x/y", 500, 'Get "ftp://x/y": unsupported protocol scheme "ftp"'),
        ("POST", "/images/create?fromSrc=file:///etc/passwd", 500, 'unsupported protocol scheme "file"'),
    ],
)  # fmt: skip
def test_errors(engine: Engine, method: str, path: str, status: int, message: str) -> None:
    answer = engine.request(method, path)
    expected = message.replace("{here}", make.architecture())
    assert (answer.status, expected in answer.json()["message"]) == (status, True), answer.body


def test_platforms_of_containers(engine: Engine) -> None:
    foreign = make.image([make.layer([make.file_entry("x")])], tags=["foreign:1"], architecture="mips64le")
    load(engine, make.docker_archive([foreign]))
    body = {"Image": "foreign:1", "Cmd": ["x"]}
    made = engine.call("POST", "/containers/create", body)
    assert made["Warnings"][0].startswith(
        "The requested image's platform (linux/mips64le) does not match the detected host platform (linux/"
    )
    asked = engine.call("POST", "/containers/create?platform=linux/mips64le", body)
    assert asked["Warnings"] == []
    refused = engine.request("POST", f"/containers/create?platform=linux/{make.architecture()}", body)
    assert (refused.status, refused.json()["message"]) == (
        404,
        "image with reference foreign:1 was found but its platform (linux/mips64le) does not match the specified"
        f" platform (linux/{make.architecture()})",
    )
    assert engine.request("POST", "/containers/create?platform=b!d", body).status == 400
    for each in (made, asked):
        engine.call("DELETE", f"/containers/{each['Id']}")
    engine.call("DELETE", "/images/foreign:1")


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"x" * 4000, "archive/tar: invalid tar header"),
        (b"", "invalid archive: neither manifest.json nor index.json found"),
        (make.docker_archive([SMALL])[:3000], "unexpected EOF"),
        (make.docker_archive([SMALL], manifest=[{"Config": f"{SMALL.id[7:]}.json", "Layers": [], "RepoTags": None}]),
         "invalid manifest, layers length mismatch: expected 0, got 1"),
        (make.docker_archive([SMALL], manifest=[{"Config": "../../etc/passwd", "Layers": [], "RepoTags": ["x:1"]}]),
         "invalid archive: ../../etc/passwd is missing"),
    ],
)  # fmt: skip
def test_a_bad_archive_is_an_error_in_the_stream(engine: Engine, archive: bytes, message: str) -> None:
    answer = engine.request("POST", "/images/load", raw=archive)
    assert (answer.status, answer.json()) == (200, {"errorDetail": {"message": message}, "error": message})


def test_what_was_said_before_an_error_stays(engine: Engine) -> None:
    bad = make.image([make.layer([make.file_entry("b")])], rootfs={"diff_ids": [make.digest(b"other")]})
    said = load(engine, make.docker_archive([SMALL, bad]))
    assert said[0] == {"stream": "Loaded image: small:1\n"}
    assert str(said[1]["error"]).startswith("invalid diffID for layer 0")
    assert said[1]["errorDetail"] == {"message": said[1]["error"]}
    engine.call("DELETE", "/images/small:1")


def test_import(engine: Engine) -> None:
    tar = make.layer([make.file_entry("x", b"1")])
    query = f"fromSrc=-&repo=imported&tag=1&message=note&changes={quote('CMD /x')}&changes={quote('ENV A=1')}"
    answer = engine.request("POST", f"/images/create?{query}", raw=tar)
    image_id = json.loads(answer.body)["status"]
    shown = engine.call("GET", "/images/imported:1/json")
    given = {key: value for key, value in shown["Config"].items() if value}
    assert (shown["Id"], shown["Comment"], given) == (
        image_id, "note", {"Cmd": ["/bin/sh", "-c", "/x"], "Env": ["A=1"]},
    )  # fmt: skip
    engine.call("DELETE", "/images/imported:1")


def test_disk_usage_and_prune(engine: Engine) -> None:
    load(engine, make.docker_archive([make.image([make.layer([make.file_entry("dangling", b"12345")])])]))
    usage = engine.call("GET", "/system/df?type=image")
    assert {entry["SharedSize"] for entry in usage["Images"]} == {0}
    assert usage["LayersSize"] == sum(entry["Size"] for entry in usage["Images"])
    pruned = engine.call("POST", "/images/prune")
    assert (len(pruned["ImagesDeleted"]), pruned["SpaceReclaimed"]) == (2, 5)


def test_stock_client(engine: Engine) -> None:
    archive = make.docker_archive([SMALL])
    assert engine.docker("load", stdin=archive).stdout.endswith("Loaded image: small:1\n")
    assert engine.docker("images", "-q", "--no-trunc", "small").stdout.strip() == SMALL.id
    refused = engine.docker("rmi", "nope", check=False)
    assert (refused.returncode, refused.stderr) == (1, "Error response from daemon: No such image: nope:latest\n")
    removed = engine.docker("rmi", "small:1").stdout.splitlines()
    assert removed[:2] == ["Untagged: small:1", f"Deleted: {SMALL.id}"]


def test_an_image_of_a_container_is_kept(engine: Engine) -> None:
    load(engine, make.docker_archive([make.busybox_image(tags=["kept:1"], config={"Labels": {"kept": "1"}})]))
    container = engine.call("POST", "/containers/create", {"Image": "kept:1", "Cmd": ["echo", "still here"]})["Id"]
    refused = engine.request("DELETE", "/images/kept:1")
    assert refused.status == 409
    assert "(must force) - container" in refused.json()["message"]
    engine.call("DELETE", "/images/kept:1?force=1")
    assert engine.docker("start", "--attach", container).stdout == "still here\n"
    engine.call("DELETE", f"/containers/{container}")
