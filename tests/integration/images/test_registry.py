"""Pull and push against a registry on this machine."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import EngineError, NotFound, System, Unauthorized, Unsupported
from holdfast.images.skopeo import Credentials
from tests.integration.images.conftest import Shelf
from tests.support import images as make

pytestmark = pytest.mark.kernel

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
SECRET = "me:$2b$05$3gKmlMcPLPB5XZZMeg4eiesSmvZXm28Ug2xgGEkiR577Roh8561ZC"
EXTENSIONS = {
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    "OnBuild": ["RUN true"],
    "Shell": ["/bin/bash", "-c"],
}


@contextlib.contextmanager
def registry_below(program: Path, folder: Path, *, secret: str = "") -> Iterator[str]:
    """Run a registry; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    auth = ""
    if secret:
        (folder / "htpasswd").write_text(secret + "\n")
        auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f'http: {{addr: "127.0.0.1:{port}"}}\n{auth}'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def registry(tool: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that asks nobody who they are."""
    tool("skopeo")
    with registry_below(tool("docker-registry"), tmp_path_factory.mktemp("registry")) as address:
        yield address


def load(shelf: Shelf, *images: make.TestImage) -> None:
    shelf.images.load(io.BytesIO(make.docker_archive(images)), quiet=True)


def statuses(said: list[dict[str, object]]) -> list[str]:
    return [str(message["status"]) for message in said if "status" in message]


def put_manifest(address: str, repository: str, tag: str, document: dict[str, Any], media_type: str) -> None:
    connection = http.client.HTTPConnection(address)
    connection.request(
        "PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(document), {"Content-Type": media_type}
    )
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()


def get_manifest(address: str, repository: str, tag: str) -> bytes:
    connection = http.client.HTTPConnection(address)
    connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST})
    data = connection.getresponse().read()
    connection.close()
    return data


def test_there_and_back(shelf: Shelf, registry: str) -> None:
    name = f"{registry}/team/app"
    each = make.image(
        [make.layer(make.busybox_entries()), make.layer([make.file_entry("noise", os.urandom(300_000))])],
        tags=[f"{name}:1"],
        config=EXTENSIONS,
    )
    load(shelf, each)
    said: list[dict[str, object]] = []
    shelf.images.registries.push(name, "1", progress=said.append)
    text = get_manifest(registry, "team/app", "1")
    assert f"1: digest: {make.digest(text)} size: {len(text)}" in statuses(said)
    assert shelf.images.resolve(each.id).digests == (f"{name}@{make.digest(text)}",)
    shelf.images.remove(each.id)
    assert shelf.images.count() == 0

    said = []
    assert shelf.images.registries.pull(name, "1", progress=said.append) == each.id
    told = statuses(said)
    assert told[0] == "Pulling from team/app"
    assert told[-2:] == [f"Digest: {make.digest(text)}", f"Status: Downloaded newer image for {name}:1"]
    assert told.count("Download complete") == told.count("Pull complete") == 2
    image = shelf.images.resolve(f"{name}:1")
    assert image.digests == (f"{name}@{make.digest(text)}",)
    assert shelf.images.resolve(image.digests[0]).id == each.id
    assert image.defaults["Healthcheck"] == EXTENSIONS["Healthcheck"]
    assert [(event.action, event.actor_id) for event in shelf.events if event.action in ("push", "pull")] == [
        ("push", f"{name}:1"), ("pull", f"{name}:1"),
    ]  # fmt: skip

    said = []
    shelf.images.registries.pull(name, "1", progress=said.append)
    assert statuses(said)[-1] == f"Status: Image is up to date for {name}:1"
    shelf.images.registries.push(name, "1")
    assert get_manifest(registry, "team/app", "1") == text
    assert shelf.on_disk() == (4, 2, 0)


def test_a_client_that_goes_away_while_pushing(shelf: Shelf, registry: str) -> None:
    name = f"{registry}/gone"
    each = make.image([make.layer([make.file_entry("noise", os.urandom(40_000_000))])], tags=[f"{name}:1"])
    load(shelf, each)

    def leave(message: dict[str, object]) -> None:
        if message["status"] == "Pushing":
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        shelf.images.registries.push(name, "1", progress=leave)
    assert (shelf.on_disk(), shelf.images.resolve(each.id).digests) == ((2, 1, 0), ())
    with pytest.raises(NotFound):
        shelf.images.registries.pull(name, "1")


def test_a_blob_that_is_here_below_another_layer_is_not_fetched(shelf: Shelf, registry: str) -> None:
    name = f"{registry}/stacked"
    first, second = (make.layer([make.file_entry("f", text)], compress=True) for text in (b"1", b"2"))
    base = make.image([first], tags=[f"{name}:base"])
    top = make.image([second, first, second], tags=[f"{name}:top"])
    load(shelf, base, top)
    shelf.images.registries.push(name, "top")
    shelf.images.remove(f"{name}:top")
    said: list[dict[str, object]] = []
    assert shelf.images.registries.pull(name, "top", progress=said.append) == top.id
    told = [(message["status"], message.get("id")) for message in said]
    one, two = make.digest(first)[7:19], make.digest(second)[7:19]
    assert (told.count(("Already exists", one)), told.count(("Download complete", two))) == (1, 1)
    assert ("Downloading", one) not in told
    deadline = time.monotonic() + 10
    while shelf.on_disk()[2] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (shelf.on_disk(), shelf.is_consistent()) == ((5, 4, 0), True)


def test_by_digest(shelf: Shelf, registry: str) -> None:
    name = f"{registry}/by-digest"
    each = make.image([make.layer([make.file_entry("a")])], tags=[f"{name}:1"])
    load(shelf, each)
    shelf.images.registries.push(name, "1")
    digest = make.digest(get_manifest(registry, "by-digest", "1"))
    shelf.images.remove(each.id)
    assert shelf.images.registries.pull(name, digest) == each.id
    assert [(listed.tags, listed.digests) for listed in shelf.images.list()] == [((), (f"{name}@{digest}",))]


def test_the_image_for_this_machine_is_chosen(shelf: Shelf, registry: str) -> None:
    name = f"{registry}/many"
    other = "s390x" if make.architecture() != "s390x" else "amd64"
    mine = make.image([make.layer([make.file_entry("mine")])], tags=[f"{name}:mine"])
    theirs = make.image([make.layer([make.file_entry("theirs")])], tags=[f"{name}:theirs"], architecture=other)
    load(shelf, mine, theirs)
    entries = []
    for tag, architecture in (("theirs", other), ("mine", make.architecture())):
        shelf.images.registries.push(name, tag)
        text = get_manifest(registry, "many", tag)
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": MANIFEST, "digest": make.digest(text), "size": len(text), "platform": platform})
    put_manifest(registry, "many", "all", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX)
    put_manifest(registry, "many", "none", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries[:1]}, INDEX)
    for each in (mine, theirs):
        shelf.images.remove(each.id)
    assert shelf.images.registries.pull(name, "all") == mine.id
    assert shelf.images.registries.pull(name, "all", platform=f"linux/{other}") == theirs.id
    with pytest.raises(NotFound, match="no matching manifest for linux/"):
        shelf.images.registries.pull(name, "none")
    said: list[dict[str, object]] = []
    shelf.images.registries.pull(name, "theirs", platform=f"linux/{make.architecture()}", progress=said.append)
    assert "does not match the specified platform" in statuses(said)[-1]
    assert shelf.images.registries.pull(name, "theirs") == theirs.id  # Docker takes a single image as it is


def test_what_is_not_there(shelf: Shelf, registry: str) -> None:
    with pytest.raises(NotFound) as missing:
        shelf.images.registries.pull(f"{registry}/nope", "1")
    assert str(missing.value) == f"manifest for {registry}/nope:1 not found: manifest unknown: manifest unknown"
    with pytest.raises(System, match=r'Get "http://127\.0\.0\.1:1/v2/": dial tcp .*: connection refused'):
        shelf.images.registries.pull("127.0.0.1:1/x", "1")
    with pytest.raises(NotFound, match="An image does not exist locally with the tag"):
        shelf.images.registries.push(f"{registry}/nope")
    assert shelf.on_disk() == (0, 0, 0)


def test_a_layer_that_is_not_what_the_configuration_says(shelf: Shelf, registry: str) -> None:
    name = f"{registry}/lies"
    good = make.image([make.layer([make.file_entry("good")])], tags=[f"{name}:1"])
    bad = make.image([make.layer([make.file_entry("bad")])], tags=[f"{name}:2"])
    load(shelf, good, bad)
    manifests = []
    for tag in ("1", "2"):
        shelf.images.registries.push(name, tag)
        manifests.append(json.loads(get_manifest(registry, "lies", tag)))
    manifests[0]["layers"] = manifests[1]["layers"]
    put_manifest(registry, "lies", "3", manifests[0], MANIFEST)
    for each in (good, bad):
        shelf.images.remove(each.id)
    with pytest.raises(EngineError, match="invalid diffID for layer 0"):
        shelf.images.registries.pull(name, "3")
    assert (shelf.images.count(), shelf.on_disk()) == (0, (0, 0, 0))


def test_credentials(shelf: Shelf, tool: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    tool("skopeo")
    folder = tmp_path_factory.mktemp("closed")
    with registry_below(tool("docker-registry"), folder, secret=SECRET) as address:
        each = make.image([make.layer([make.file_entry("a")])], tags=[f"{address}/a:1"])
        load(shelf, each)
        me = Credentials("me", "secret")
        with pytest.raises(System, match=r"^no basic auth credentials$"):
            shelf.images.registries.push(f"{address}/a", "1")
        shelf.images.registries.push(f"{address}/a", "1", credentials=me)
        shelf.images.remove(each.id)
        with pytest.raises(System, match=rf'^Head "http://{address}/v2/a/manifests/1": no basic auth credentials$'):
            shelf.images.registries.pull(f"{address}/a", "1")
        with pytest.raises(Unauthorized, match=r"^unauthorized: authentication required$"):
            shelf.images.registries.pull(f"{address}/a", "1", credentials=Credentials("me", "wrong"))
        with pytest.raises(Unsupported, match="registry token"):
            shelf.images.registries.pull(f"{address}/a", "1", credentials=Credentials(registry_token="t"))
        assert shelf.images.registries.pull(f"{address}/a", "1", credentials=me) == each.id
