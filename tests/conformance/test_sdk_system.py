"""The Docker SDK for Python drives volumes, networks and the engine itself; `drives` names the endpoints called."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from docker.errors import APIError, NotFound
from docker.types import IPAMConfig, IPAMPool, Mount

from tests.support.engine import Engine
from tests.support.sdk import drives, sdk_for

pytestmark = pytest.mark.kernel


@pytest.fixture
def sdk(clean_engine: Engine) -> Iterator[Any]:
    """The SDK's client; a test must call what it is said to drive."""
    with sdk_for(clean_engine) as client:
        yield client


@drives("POST /volumes/create", "GET /volumes/{name}", "GET /volumes", "DELETE /volumes/{name}", "POST /volumes/prune")
def test_volumes(sdk: Any) -> None:
    data = sdk.volumes.create("data", labels={"a": "b"})
    scratch = sdk.volumes.create("scratch", driver="local", driver_opts={"type": "tmpfs", "device": "tmpfs"})
    assert sdk.volumes.get("data").attrs["Labels"] == {"a": "b"}
    assert scratch.attrs["Options"]["type"] == "tmpfs"
    write = ["sh", "-c", "echo kept >/d/file; cat /d/file"]
    assert sdk.containers.run("busybox", write, volumes=["data:/d"], remove=True) == b"kept\n"
    mount = Mount("/d", "data", read_only=True)
    assert sdk.containers.run("busybox", "cat /d/file", mounts=[mount], remove=True) == b"kept\n"
    holder = sdk.containers.create("busybox", "true", volumes={"data": {"bind": "/d", "mode": "ro"}})
    with pytest.raises(APIError) as refused:
        data.remove()
    assert refused.value.status_code == 409
    assert {volume.name for volume in sdk.volumes.list()} == {"data", "scratch"}
    assert [volume.name for volume in sdk.volumes.list(filters={"dangling": True})] == ["scratch"]
    holder.remove()
    assert sdk.volumes.prune(filters={"all": True})["VolumesDeleted"] == ["data"]
    scratch.remove(force=True)
    with pytest.raises(NotFound):
        sdk.volumes.get("scratch")


@drives("PUT /volumes/{name}")
def test_update_of_a_volume(sdk: Any) -> None:
    """Docker changes cluster volumes alone with this call; the SDK has no word for it."""
    sdk.volumes.create("data")
    answer = sdk.api.put(sdk.api._url("/volumes/data"), json={"Spec": {}}, params={"version": "1"})
    assert answer.status_code in (200, 400, 503)


@drives("GET /plugins", "GET /plugins/{name}/json")
def test_managed_plugins(sdk: Any) -> None:
    assert sdk.plugins.list() == []
    with pytest.raises(NotFound):
        sdk.plugins.get("nope")


@drives("POST /networks/create", "GET /networks/{id}", "GET /networks", "POST /networks/{id}/connect",
        "POST /networks/{id}/disconnect", "DELETE /networks/{id}", "POST /networks/prune")  # fmt: skip
def test_networks(sdk: Any) -> None:
    pool = IPAMPool(subnet="10.91.0.0/24", gateway="10.91.0.1")
    inner = sdk.networks.create("inner", driver="bridge", labels={"a": "b"}, ipam=IPAMConfig(pool_configs=[pool]))
    assert {network.name for network in sdk.networks.list()} == {"bridge", "host", "none", "inner"}
    assert sdk.networks.list(names=["inner"]) == sdk.networks.list(filters={"label": "a=b"}) == [inner]
    server = sdk.containers.run("busybox", "sleep 1000", name="server", network="inner", detach=True)
    server.reload()
    assert server.attrs["NetworkSettings"]["Networks"]["inner"]["IPAddress"] == "10.91.0.2"
    assert sdk.containers.run("busybox", "ping -c 1 server", network="inner", remove=True).startswith(b"PING server")
    client = sdk.containers.run("busybox", "sleep 1000", name="client", detach=True)
    inner.connect(client, aliases=["caller"], ipv4_address="10.91.0.77")
    client.reload()
    assert client.attrs["NetworkSettings"]["Networks"]["inner"]["IPAddress"] == "10.91.0.77"
    assert server.exec_run("ping -c 1 caller").exit_code == 0
    inner.reload()
    assert {container.name for container in inner.containers} == {"server", "client"}
    inner.disconnect(client)
    assert client.exec_run("ping -c 1 -W 1 10.91.0.2").exit_code != 0
    with pytest.raises(APIError) as refused:
        inner.remove()
    assert refused.value.status_code in (403, 409)
    server.remove(force=True)
    inner.remove()
    sdk.networks.create("idle")
    assert sdk.networks.prune()["NetworksDeleted"] == ["idle"]
    with pytest.raises(NotFound):
        sdk.networks.get("inner")


@drives("GET /events")
def test_events(sdk: Any) -> None:
    began = int(time.time())
    live = sdk.events(decode=True, filters={"type": "volume"})
    heard: list[str] = []

    def listen() -> None:
        heard.extend(next(live)["Action"] for _ in range(2))

    listener = threading.Thread(target=listen)
    listener.start()
    sdk.volumes.create("heard").remove()
    listener.join(20)
    live.close()
    assert heard == ["create", "destroy"]
    past = list(sdk.events(since=began, until=int(time.time()) + 1, decode=True, filters={"volume": "heard"}))
    assert [(event["Type"], event["Action"], event["Actor"]["ID"]) for event in past] == [
        ("volume", "create", "heard"), ("volume", "destroy", "heard"),
    ]  # fmt: skip


@drives("GET /_ping", "GET /version", "GET /info", "GET /system/df", "HEAD /_ping")
def test_the_engine(sdk: Any) -> None:
    assert sdk.ping() is True
    version = sdk.version()
    assert (version["ApiVersion"], version["Os"]) == ("1.51", "linux")
    sdk.volumes.create("data")
    sdk.containers.create("busybox", "true", volumes=["data:/d"])
    info = sdk.info()
    assert (info["Containers"], info["Images"], info["OSType"]) == (1, 1, "linux")
    used = sdk.df()
    assert [volume["Name"] for volume in used["Volumes"]] == ["data"]
    assert [len(used[key]) for key in ("Images", "Containers")] == [1, 1]
    assert sdk.api.head(sdk.api._url("/_ping", versioned_api=False)).status_code == 200
