"""Images as JSON."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import InvalidParameter
from holdfast.images.model import Image
from holdfast.images.service import ListedImage
from holdfast.images.skopeo import Credentials
from holdfast.wire.images import decode_credentials, decode_platform, encode_inspect, encode_summary

ID = "sha256:" + "ab" * 32
DIFF = "sha256:" + "cd" * 32
CONFIG: dict[str, Any] = {
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "created": "2024-01-01T00:00:00.5Z",
    "config": {"Cmd": ["sh"], "Env": [], "Labels": {"a": "b"}, "Hostname": "old", "Healthcheck": {"Test": ["NONE"]}},
    "rootfs": {"type": "layers", "diff_ids": [DIFF]},
}


def image(*tags: str, config: dict[str, Any] | None = None) -> Image:
    at = datetime(2024, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    return Image(ID, tags, (), at, None, CONFIG if config is None else config, (DIFF,), 42)


def test_summary() -> None:
    assert encode_summary(ListedImage(image("a:1"), ("a:1",), ()), (1, 51)) == {
        "Containers": -1,
        "Created": 1704067200,
        "Id": ID,
        "Labels": {"a": "b"},
        "ParentId": "",
        "RepoDigests": [],
        "RepoTags": ["a:1"],
        "SharedSize": -1,
        "Size": 42,
    }


def test_summary_of_old_versions() -> None:
    unnamed = ListedImage(image(), (), ())
    assert encode_summary(unnamed, (1, 44))["RepoTags"] == []
    assert "VirtualSize" not in encode_summary(unnamed, (1, 44))
    assert encode_summary(unnamed, (1, 43))["VirtualSize"] == 42
    assert encode_summary(unnamed, (1, 42))["RepoTags"] == ["<none>:<none>"]
    assert encode_summary(unnamed, (1, 42))["RepoDigests"] == ["<none>@<none>"]
    named = ListedImage(image("a:1"), ("a:1",), ())
    assert encode_summary(named, (1, 42))["RepoDigests"] is None
    assert encode_summary(named, (1, 51), disk_usage=True)["RepoDigests"] is None


def test_inspect() -> None:
    assert encode_inspect(image("a:1"), [Path("/top"), Path("/low"), Path("/base")], (1, 51)) == {
        "Id": ID,
        "RepoTags": ["a:1"],
        "RepoDigests": [],
        "Parent": "",
        "Comment": "",
        "Created": "2024-01-01T00:00:00.5Z",
        "DockerVersion": "",
        "Author": "",
        "Config": {
            "Cmd": ["sh"], "Entrypoint": None, "Env": None, "Labels": {"a": "b"}, "OnBuild": None, "User": "",
            "Volumes": None, "WorkingDir": "", "Healthcheck": {"Test": ["NONE"]},
        },
        "Architecture": "arm64",
        "Variant": "v8",
        "Os": "linux",
        "Size": 42,
        "GraphDriver": {"Data": {"LowerDir": "/low:/base", "UpperDir": "/top"}, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": [DIFF]},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def test_inspect_of_old_versions() -> None:
    assert encode_inspect(image(), [], (1, 49))["Config"]["AttachStdin"] is False
    assert encode_inspect(image(), [], (1, 49))["Config"]["Cmd"] == ["sh"]
    assert "ContainerConfig" in encode_inspect(image(), [], (1, 44))
    assert encode_inspect(image(), [], (1, 43))["VirtualSize"] == 42


def test_inspect_of_a_bare_image() -> None:
    shape = encode_inspect(image(config={"rootfs": {}}), [], (1, 51))
    assert (shape["Config"]["Cmd"], shape["Architecture"], shape["RootFS"]["Layers"]) == (None, "", [])
    assert "Created" not in shape


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        ("", Credentials()),
        ("e30=", Credentials()),
        ("e30", Credentials()),
        (encoded({"username": "me", "password": "?>ä"}), Credentials("me", "?>ä")),
        (encoded({"identitytoken": "t"}), Credentials(identity_token="t")),
        ("%%%", Credentials()),
        ("ä", Credentials()),
        (encoded({"registrytoken": "t"}), Credentials(registry_token="t")),
        (encoded([1]), Credentials()),
    ],
)
def test_credentials(header: str, credentials: Credentials) -> None:
    assert decode_credentials(header) == credentials


def test_platform() -> None:
    assert decode_platform("") == ""
    assert decode_platform('{"os": "linux", "architecture": "arm", "variant": "v7"}') == "linux/arm/v7"
    for text in ("linux/arm", "{}", "[]"):
        with pytest.raises(InvalidParameter, match="failed to parse platform"):
            decode_platform(text)
