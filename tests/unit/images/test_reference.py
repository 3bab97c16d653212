"""Names of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidParameter
from holdfast.images import reference

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "normal", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("team/app", "docker.io/team/app", "team/app"),
        ("library/team/app", "docker.io/library/team/app", "library/team/app"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("Registry/app", "Registry/app", "Registry/app"),
        ("quay.io/a/b/c:x", "quay.io/a/b/c:x", "quay.io/a/b/c:x"),
        ("a__b", "docker.io/library/a__b", "a__b"),
        ("a--b.c_d", "docker.io/library/a--b.c_d", "a--b.c_d"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}", f"busybox:1@{DIGEST}"),
        ("a" * 128, f"docker.io/library/{'a' * 128}", "a" * 128),
    ],
)
def test_parse(text: str, normal: str, familiar: str) -> None:
    parsed = reference.parse(text)
    assert (str(parsed), parsed.familiar) == (normal, familiar)
    assert reference.parse_stored(normal) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("../etc", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("ä", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:123", "invalid reference format"),
        ("UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
        ("team/Upper", "invalid reference format: repository name (team/Upper) must be lowercase"),
        ("a" * 256, "repository name must not be more than 255 characters"),
        ("a1" * 32, f"invalid repository name ({'a1' * 32}), cannot specify 64-byte hexadecimal strings"),
        ("a@md5:" + "a" * 32, "unsupported digest algorithm"),
        ("a@sha256:" + "a" * 63, "invalid checksum digest length"),
        ("a@sha256:" + "A" * 64, "invalid checksum digest format"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        reference.parse(text)
    assert str(refused.value) == message


_component = st.from_regex(r"[a-z0-9]+((\.|_|__|-{1,3})[a-z0-9]+){0,2}", fullmatch=True)
_domain = st.one_of(
    st.just("docker.io"),
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){1,2}(:[0-9]{1,5})?", fullmatch=True),
    st.just("localhost"),
    st.just("[2001:db8::1]:5000"),
)
_tag = st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
_digest = st.one_of(st.none(), st.just(DIGEST))


@given(_domain, st.lists(_component, min_size=1, max_size=3), _tag, _digest)
def test_every_form_leads_back(domain: str, path: list[str], tag: str | None, digest: str | None) -> None:
    if domain == "docker.io" and len(path) == 1:
        path = ["library", *path]
    # A first component of Docker Hub that looks like a registry can only be written with the registry before it.
    made = reference.Reference(domain, "/".join(path), tag, digest)
    assert reference.parse(str(made)) == made
    assert reference.parse_stored(str(made)) == made
    first = made.familiar_name.partition("/")[0]
    if domain != "docker.io" or ("." not in first and first != "localhost") or "/" not in made.familiar_name:
        assert reference.parse(made.familiar) == made


@given(st.text(max_size=80))
def test_parse_gives_a_reference_or_invalid_parameter(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except InvalidParameter:
        return
    assert reference.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "digits"),
    [("abc", "abc"), ("sha256:abc", "abc"), ("a1" * 32, "a1" * 32), ("abcg", None), ("", None), ("ABC", None),
     ("sha256:", None), ("a1" * 33, None)],
)  # fmt: skip
def test_id_prefix(text: str, digits: str | None) -> None:
    assert reference.id_prefix(text) == digits


def test_tags_and_digests_replace_each_other() -> None:
    parsed = reference.parse("app:1")
    assert parsed.with_digest(DIGEST).familiar == f"app@{DIGEST}"
    assert parsed.with_digest(DIGEST).with_tag("2").familiar == "app:2"
    assert reference.parse("app").tagged().familiar == "app:latest"
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        parsed.with_tag("a/b")
