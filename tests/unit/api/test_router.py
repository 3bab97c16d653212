"""Which handler a method and path reach, and the answers to those that reach none."""

from __future__ import annotations

import json

import pytest

from holdfast.api.engine import Engine
from holdfast.api.request import Request
from holdfast.api.response import Response, empty
from holdfast.api.router import Match, Router

PATTERNS = (
    ("GET", "/volumes"),
    ("POST", "/volumes/create"),
    ("GET", "/volumes/{name:.*}"),
    ("DELETE", "/volumes/{name:.*}"),
    ("GET", "/containers/json"),
    ("GET", "/containers/{id}/json"),
    ("POST", "/containers/{id}/start"),
    ("GET", "/images/json"),
    ("GET", "/images/get"),
    ("GET", "/images/{name:.*}/json"),
    ("GET", "/images/{name:.*}/get"),
    ("DELETE", "/images/{name:.*}"),
    ("GET", "/_ping"),
)


def table() -> Router:
    """A router with PATTERNS, split in two and joined."""
    parts = (Router(), Router())

    async def handler(request: Request, engine: Engine) -> Response:
        return empty(204)

    for index, (method, pattern) in enumerate(PATTERNS):
        parts[index % 2].add(method, pattern)(handler)
    parts[0].add("PUT", "/volumes/{name:.*}", since=(1, 42))(handler)
    joined = Router()
    joined.include(*parts)
    return joined


ROUTES = table()


@pytest.mark.parametrize(
    ("method", "path", "pattern", "params"),
    [
        ("GET", "/volumes", "/volumes", {}),
        ("GET", "/v1.44/volumes", "/volumes", {}),
        ("POST", "/volumes/create", "/volumes/create", {}),
        ("GET", "/volumes/create", "/volumes/{name:.*}", {"name": "create"}),
        ("GET", "/volumes/", "/volumes/{name:.*}", {"name": ""}),
        ("GET", "/volumes/a/b", "/volumes/{name:.*}", {"name": "a/b"}),
        ("GET", "/volumes/a%2Fb%20c", "/volumes/{name:.*}", {"name": "a/b c"}),
        ("GET", "/volumes/%ff", "/volumes/{name:.*}", {"name": "\udcff"}),
        ("GET", "/containers/json", "/containers/json", {}),
        ("GET", "/containers/json/json", "/containers/{id}/json", {"id": "json"}),
        ("POST", "/v1.51/containers/abc/start", "/containers/{id}/start", {"id": "abc"}),
        ("GET", "/images/json", "/images/json", {}),
        ("GET", "/images/a/b:c/json", "/images/{name:.*}/json", {"name": "a/b:c"}),
        ("GET", "/images/json/json", "/images/{name:.*}/json", {"name": "json"}),
        ("DELETE", "/images/json", "/images/{name:.*}", {"name": "json"}),
        ("DELETE", "/images/a/json", "/images/{name:.*}", {"name": "a/json"}),
        ("GET", "/v1.24/_ping", "/_ping", {}),
    ],
)
def test_found(method: str, path: str, pattern: str, params: dict[str, str]) -> None:
    match = ROUTES.resolve(method, path)
    assert isinstance(match, Match)
    assert (match.route.pattern, match.params) == (pattern, params)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/volumes"),
        ("POST", "/volumes"),
        ("HEAD", "/_ping"),
        ("GET", "/nope"),
        ("GET", "/"),
        ("GET", "/volumess"),
        ("GET", "/containers/a"),
        ("GET", "/vx/volumes"),
        ("GET", "/v1.99/nope"),
        ("PUT", "/v1.41/volumes/a"),
    ],
)
def test_page_not_found(method: str, path: str) -> None:
    answer = ROUTES.resolve(method, path)
    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (404, b'{"message":"page not found"}\n')


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("//volumes", "/volumes"),
        ("/volumes//a", "/volumes/a"),
        ("/volumes/../../a", "/a"),
        ("/volumes/%2f..%2f..%2fetc", "/etc"),
        ("/volumes/./", "/volumes/"),
        ("/a/..", "/"),
        ("/containers//start", "/containers/start"),
        ("*", "/%2A"),
        ("/volumes//a%20b?x=1&y", "/volumes/a%20b?x=1&y"),
    ],
)
def test_unclean_paths_are_redirected(path: str, location: str) -> None:
    bare, _, query = path.partition("?")
    answer = ROUTES.resolve("GET", bare, query)
    assert isinstance(answer, Response)
    assert (answer.status, answer.headers["Location"]) == (301, location)


def test_names_with_dots_are_clean() -> None:
    match = ROUTES.resolve("GET", "/volumes/.hidden")
    assert isinstance(match, Match)
    assert match.params == {"name": ".hidden"}


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.52", "client version 1.52 is too new. Maximum supported API version is 1.51"),
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("2", "client version 2 is too new. Maximum supported API version is 1.51"),
        ("1.51.1", "client version 1.51.1 is too new. Maximum supported API version is 1.51"),
        (
            "1.23",
            "client version 1.23 is too old. Minimum supported API version is 1.24,"
            " please upgrade your client to a newer version",
        ),
        (
            "1",
            "client version 1 is too old. Minimum supported API version is 1.24,"
            " please upgrade your client to a newer version",
        ),
    ],
)
def test_versions_outside_the_range(version: str, message: str) -> None:
    answer = ROUTES.resolve("GET", f"/v{version}/volumes")
    assert isinstance(answer, Response)
    assert answer.status == 400
    if "too old" in message:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.body.decode() == message + "\n"
    else:
        assert json.loads(answer.body) == {"message": message}


@pytest.mark.parametrize(
    ("path", "version"),
    [("/volumes", (1, 51)), ("/v1.24/volumes", (1, 24)), ("/v1.44.0/volumes", (1, 44)), ("/v1.041/volumes", (1, 41))],
)
def test_the_version_reaches_the_handler(path: str, version: tuple[int, int]) -> None:
    match = ROUTES.resolve("GET", path)
    assert isinstance(match, Match)
    assert match.api_version == version


def test_a_route_is_there_from_its_version_on() -> None:
    assert isinstance(ROUTES.resolve("PUT", "/v1.42/volumes/a"), Match)
    assert isinstance(ROUTES.resolve("PUT", "/volumes/a"), Match)


def test_two_handlers_for_one_route_are_a_mistake() -> None:
    for method, pattern in PATTERNS:
        again = Router()
        again.include(ROUTES)
        with pytest.raises(AssertionError):
            again.add_immediate(method, pattern)(lambda _request, _engine: empty(204))
