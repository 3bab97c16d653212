"""What skopeo says, in Docker's words."""

from __future__ import annotations

import pytest

from holdfast.errors import NotFound, System, Unauthorized
from holdfast.images.pulling import parse_manifest, wanted_reference
from holdfast.images.reference import parse
from holdfast.images.skopeo import Credentials, failure, is_loopback

DIGEST = "sha256:" + "a1" * 32
FATAL = 'time="2024-01-01T00:00:00Z" level=fatal msg="Error parsing image name \\"docker://x\\": {}"'


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            "reading manifest 1 in r/x: manifest unknown: manifest unknown",
            NotFound,
            "manifest for x:1 not found: manifest unknown: manifest unknown",
        ),
        (
            "reading manifest 1 in docker.io/library/x: errors:\\ndenied: requested access to the resource is denied",
            NotFound,
            "pull access denied for x, repository does not exist or may require 'docker login': denied: requested"
            " access to the resource is denied",
        ),
        (
            "unable to retrieve auth token: invalid username/password: unauthorized: incorrect username or password",
            Unauthorized,
            "unauthorized: incorrect username or password",
        ),
        (
            'pinging container registry r: Get \\"https://r/v2/\\": dial tcp: lookup r: no such host',
            System,
            'Get "https://r/v2/": dial tcp: lookup r: no such host',
        ),
    ],
)
def test_failure(said: str, kind: type[Exception], message: str) -> None:
    error = failure(FATAL.format(said), parse("x:1"))
    assert (type(error), str(error)) == (kind, message)


@pytest.mark.parametrize(
    ("domain", "loopback"),
    [("localhost:5000", True), ("127.0.0.1", True), ("127.8.9.1:1", True), ("[::1]:5000", True), ("10.0.0.1", False),
     ("docker.io", False), ("127.0.0.1.example.com", False), ("localhost.example.com", False)],
)  # fmt: skip
def test_loopback(domain: str, loopback: bool) -> None:
    assert is_loopback(domain) is loopback


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("me", "secret", "secret"))


@pytest.mark.parametrize(
    ("name", "tag", "wanted"),
    [
        ("x", "", "x:latest"),
        ("x", "1", "x:1"),
        ("x:2", "1", "x:1"),
        ("x:2", "", "x:2"),
        ("x", DIGEST, f"x@{DIGEST}"),
        (f"x:1@{DIGEST}", "", f"x@{DIGEST}"),
    ],
)
def test_wanted_reference(name: str, tag: str, wanted: str) -> None:
    assert wanted_reference(name, tag).familiar == wanted


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"config": {"digest": "sha256:x"}, "layers": []}',
     b'{"config": {"digest": "%s"}, "layers": [{"digest": "../x", "size": 1}]}' % DIGEST.encode()],
)  # fmt: skip
def test_bad_manifests(text: bytes) -> None:
    with pytest.raises(System, match="invalid manifest"):
        parse_manifest(text)
