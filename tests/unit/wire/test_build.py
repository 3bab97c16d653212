"""The query of a build: what is taken, and what is refused in Docker's words."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from holdfast.api.query import Query
from holdfast.builder.model import BuildRequest
from holdfast.errors import EngineError
from holdfast.wire.build import decode_build, decode_registries


def decoded(text: str) -> BuildRequest:
    query = Query(text)
    return decode_build(query.get, query.all, query.flag)


def test_everything() -> None:
    ulimits = quote('[{"Name":"nofile","Soft":100,"Hard":200}]')
    arguments, labels, images = quote('{"A":"1","B":null}'), quote('{"l":"v"}'), quote('["x"]')
    asked = decoded(
        "t=a:1&t=&t=b&dockerfile=x/y&target=s&nocache=1&pull=true&q=1&networkmode=host&extrahosts=a:1.2.3.4,b:host-gateway"
        f"&buildargs={arguments}&labels={labels}&memory=100&memswap=-1&cpushares=2"
        f"&cpuquota=3&cpuperiod=4&cpusetcpus=0&cpusetmems=1&shmsize=5&ulimits={ulimits}&cachefrom={images}"
        "&rm=1&forcerm=1&version=1&buildid=me&platform=linux/amd64"
    )
    assert (asked.tags, asked.dockerfile, asked.target) == (("a:1", "b"), "x/y", "s")
    assert (asked.use_cache, asked.pull, asked.quiet, asked.network) == (False, True, True, "host")
    assert asked.extra_hosts == ("a:1.2.3.4", "b:host-gateway")
    assert (asked.arguments, asked.labels) == ({"A": "1", "B": None}, {"l": "v"})
    assert (asked.limits.memory_bytes, asked.limits.memory_swap_bytes, asked.limits.shm_size_bytes) == (100, -1, 5)
    assert (asked.limits.ulimits, asked.build_id, asked.platform) == (("nofile=100:200",), "me", "linux/amd64")
    assert decoded("memory=x") == BuildRequest()


@pytest.mark.parametrize(
    ("query", "kind", "refusal"),
    [
        (
            "buildargs=x",
            "InvalidParameter",
            "error reading build args: invalid character 'x' looking for beginning of value",
        ),
        (
            "buildargs=" + quote('{"a":1}'),
            "InvalidParameter",
            "error reading build args: json: cannot unmarshal number into Go struct field .a of type string",
        ),
        ("labels=x", "InvalidParameter", "error reading labels: invalid character 'x' looking for beginning of value"),
        (
            "ulimits=x",
            "InvalidParameter",
            "error reading ulimit settings: invalid character 'x' looking for beginning of value",
        ),
        (
            "cachefrom=x",
            "InvalidParameter",
            "error reading cache-from: invalid character 'x' looking for beginning of value",
        ),
        ("shmsize=x", "System", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("squash=1", "InvalidParameter", "squash is only supported with experimental mode"),
        ("version=3", "InvalidParameter", 'invalid version "3"'),
        ("version=2", "NotImplemented", "this engine has no BuildKit; build with DOCKER_BUILDKIT=0"),
        (
            "remote=https://x/y.git",
            "NotImplemented",
            "a build context from a URL or a git repository is not fetched by this engine; send it as the body",
        ),
        (
            "securityopt=x",
            "InvalidParameter",
            "The daemon on this platform does not support setting security options on build",
        ),
    ],
)
def test_refusals(query: str, kind: str, refusal: str) -> None:
    with pytest.raises(EngineError) as refused:
        decoded(query)
    assert (refused.value.kind, str(refused.value)) == (kind, refusal)


def test_credentials_by_registry() -> None:
    text = json.dumps({"r.example": {"username": "me", "password": "secret"}, "bad": 1})
    header = base64.urlsafe_b64encode(text.encode()).decode()
    assert decode_registries(header)["r.example"].username == "me"
    assert decode_registries("?") == decode_registries("") == {}
