"""The Docker SDK for Python drives images, builds and a registry; `drives` names the endpoints that a test calls."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, BuildError, ImageNotFound, NotFound

from tests.support.engine import Engine
from tests.support.registry import Registry, registry_for
from tests.support.sdk import drives, sdk_for

pytestmark = pytest.mark.kernel

DOCKERFILE = b"""\
FROM busybox
ARG WORD=none
LABEL made=here
RUN echo $WORD >/word
CMD ["cat", "/word"]
"""


@pytest.fixture
def sdk(clean_engine: Engine) -> Iterator[Any]:
    """The SDK's client; a test must call what it is said to drive."""
    with sdk_for(clean_engine) as client:
        yield client


@pytest.fixture
def registry(clean_engine: Engine, tmp_path: Path) -> Iterator[Registry]:
    """A registry with busybox:latest."""
    with registry_for(clean_engine, tmp_path / "registry") as running:
        running.push_busybox()
        yield running


@drives("GET /images/json", "GET /images/{name}/json", "GET /images/{name}/history", "POST /images/{name}/tag",
        "DELETE /images/{name}")  # fmt: skip
def test_look_tag_and_remove(sdk: Any) -> None:
    image = sdk.images.get("busybox")
    assert image.tags == ["busybox:latest"]
    assert (image.attrs["Os"], image.attrs["RootFS"]["Type"]) == ("linux", "layers")
    assert image.short_id == image.id[:19]
    assert [step["CreatedBy"] for step in image.history()] == ["layer 0"]
    assert image.tag("other/name", tag="1.0") is True
    assert sdk.images.list(name="other/name")[0].id == image.id
    assert sdk.images.list(filters={"dangling": True}) == []
    assert sdk.api.images(quiet=True) == [image.id]
    sdk.images.remove("other/name:1.0")
    with pytest.raises(ImageNotFound):
        sdk.images.get("other/name:1.0")


@drives("GET /images/{name}/get", "POST /images/load", "GET /images/get")
def test_save_and_load(sdk: Any) -> None:
    image = sdk.images.get("busybox")
    image.tag("saved:1")
    archive = b"".join(sdk.images.get("saved:1").save(named="saved:1"))
    sdk.images.remove("saved:1")
    assert [loaded.tags for loaded in sdk.images.load(archive)] == [["busybox:latest", "saved:1"]]
    many = sdk.api.get(sdk.api._url("/images/get"), params={"names": ["saved:1", "busybox"]})
    assert many.status_code == 200 and len(many.content) > 1 << 16


@drives("POST /images/create", "POST /images/prune")
def test_import_and_prune(sdk: Any) -> None:
    box = sdk.containers.create("busybox", "true")
    parts, _ = box.get_archive("/bin")
    sdk.api.import_image_from_data(b"".join(parts), repository="flat", tag="1", changes=["CMD [\"/bin/true\"]"])
    assert sdk.images.get("flat:1").attrs["Config"]["Cmd"] == ["/bin/true"]
    flat = sdk.images.get("flat:1").id
    pruned = sdk.images.prune(filters={"dangling": False})
    assert flat in [entry.get("Deleted") for entry in pruned["ImagesDeleted"]]
    assert pruned["SpaceReclaimed"] > 0
    assert sdk.images.get("busybox")


@drives("POST /images/create", "POST /images/{name}/push", "GET /distribution/{name}/json")
def test_pull_and_push(sdk: Any, registry: Registry) -> None:
    pulled = sdk.images.pull(f"{registry.address}/busybox", tag="latest")
    assert f"{registry.address}/busybox:latest" in pulled.tags
    steps = list(sdk.api.pull(f"{registry.address}/busybox", tag="latest", stream=True, decode=True))
    assert steps[-1]["status"].startswith("Status: Image is up to date")
    pulled.tag(f"{registry.address}/mine", tag="2")
    steps = list(sdk.images.push(f"{registry.address}/mine", tag="2", stream=True, decode=True))
    assert [step["aux"]["Tag"] for step in steps if "aux" in step] == ["2"]
    assert not any("error" in step for step in steps)
    data = sdk.images.get_registry_data(f"{registry.address}/mine:2")
    assert data.id == next(step["aux"]["Digest"] for step in steps if "aux" in step)
    assert data.has_platform("linux")
    with pytest.raises(NotFound):
        sdk.images.pull(f"{registry.address}/nosuch", tag="1")


@drives("POST /auth")
def test_login(sdk: Any, registry: Registry) -> None:
    """The registry asks for no password, so any will do."""
    answer = sdk.login("me", password="secret", registry=registry.address, reauth=True)
    assert answer["Status"] == "Login Succeeded"


@drives("POST /build", "POST /build/prune", "POST /build/cancel")
def test_build(sdk: Any) -> None:
    image, log = sdk.images.build(fileobj=io.BytesIO(DOCKERFILE), tag="built:1", buildargs={"WORD": "given"}, rm=True)
    assert image.tags == ["built:1"]
    assert image.labels["made"] == "here"
    assert any("Successfully tagged built:1" in step.get("stream", "") for step in log)
    assert sdk.containers.run("built:1", remove=True) == b"given\n"
    with pytest.raises(BuildError) as failed:
        sdk.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 5\n"))
    assert "returned a non-zero code: 5" in str(failed.value)
    assert sdk.images.prune_builds()["SpaceReclaimed"] >= 0
    assert sdk.api.post(sdk.api._url("/build/cancel"), params={"id": "nosuch"}).status_code == 200


@drives("GET /images/search", "POST /session", "POST /grpc")
def test_what_is_not_offered(sdk: Any) -> None:
    """Search asks Docker Hub, sessions are BuildKit's: the SDK learns that it cannot have them."""
    with pytest.raises(APIError) as refused:
        sdk.images.search("busybox")
    assert refused.value.status_code in (500, 501)
    for path in ("/session", "/grpc"):
        answer = sdk.api.post(sdk.api._url(path))
        assert answer.status_code in (400, 500, 501)
