"""From method and path to a handler, by dictionaries on path segments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from holdfast.api.query import percent_decode
from holdfast.api.response import API_VERSION, MIN_API_VERSION, Response, StreamResponse, empty, text_response
from holdfast.api.status import message_response
from holdfast.errors import InvalidParameter

if TYPE_CHECKING:
    from holdfast.api.engine import Engine
    from holdfast.api.request import Request

Answer: TypeAlias = "Response | StreamResponse | None"
"""None only after `request.hijack()`."""
Handler: TypeAlias = "Callable[[Request, Engine], Awaitable[Answer]]"
ImmediateHandler: TypeAlias = "Callable[[Request, Engine], Response]"

Version: TypeAlias = tuple[int, ...]


def _version(text: str) -> Version:
    """Read `1.24` as Go's versions.Compare does: parts that are no numbers count 0."""
    parts = [int(part) if part and len(part) < 10 else 0 for part in text.split(".")]
    while len(parts) > 2 and not parts[-1]:
        parts.pop()
    return tuple(parts) if len(parts) > 1 else (parts[0], 0)


_NEWEST = _version(API_VERSION)
_OLDEST = _version(MIN_API_VERSION)
_JSON_ERRORS_SINCE = (1, 24)
_VERSION_CHARACTERS = frozenset("0123456789.")


@dataclass(frozen=True, slots=True)
class Route:
    """One handler with the pattern it was registered under."""

    method: str
    pattern: str
    handler: Handler
    since: Version


@dataclass(frozen=True, slots=True)
class ImmediateRoute:
    """A route whose handler waits for nothing and reads no body."""

    method: str
    pattern: str
    handler: ImmediateHandler
    since: Version


AnyRoute: TypeAlias = "Route | ImmediateRoute"


@dataclass(frozen=True, slots=True)
class Match:
    """What a request asked for."""

    route: AnyRoute
    params: dict[str, str]
    api_version: tuple[int, int]


@dataclass(slots=True)
class _Greedy:
    """A `{name:.*}` and the literal segments behind it."""

    name: str
    tail: tuple[str, ...]
    routes: dict[str, AnyRoute] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    param: _Node | None = None
    param_name: str = ""
    greedy: list[_Greedy] = field(default_factory=list)
    routes: dict[str, AnyRoute] = field(default_factory=dict)


class Router:
    """A table of routes. A literal segment wins over `{name}`, which wins over `{name:.*}`.

    The method counts: `GET /volumes/create` is not `POST /volumes/create` but a look at a volume named create.
    """

    def __init__(self) -> None:
        self._root = _Node()
        self._static: dict[tuple[str, str], AnyRoute] = {}
        self.routes: list[AnyRoute] = []

    def add(
        self, method: str, pattern: str, *, since: tuple[int, int] = (1, 24)
    ) -> Callable[[Handler], Handler]:
        """Register the decorated handler: `@routes.add("POST", "/containers/{id}/start")`.

        `{id}` stands for one segment, `{name:.*}` for anything, slashes included, with literal segments behind it.
        A client that speaks an API before `since` does not see the route.
        """

        def register(handler: Handler) -> Handler:
            self._insert(Route(method, pattern, handler, since))
            return handler

        return register

    def add_immediate(
        self, method: str, pattern: str, *, since: tuple[int, int] = (1, 24)
    ) -> Callable[[ImmediateHandler], ImmediateHandler]:
        """Register a handler that answers from memory: it runs on the event loop, must not block and gets no body."""

        def register(handler: ImmediateHandler) -> ImmediateHandler:
            self._insert(ImmediateRoute(method, pattern, handler, since))
            return handler

        return register

    def include(self, *others: Router) -> None:
        """Take over the routes of other tables, such as those of the API's nouns."""
        for other in others:
            for route in other.routes:
                self._insert(route)

    def _insert(self, route: AnyRoute) -> None:
        self.routes.append(route)
        if "{" not in route.pattern:
            assert (route.method, route.pattern) not in self._static, route.pattern
            self._static[route.method, route.pattern] = route
            return
        node = self._root
        segments = route.pattern.split("/")[1:]
        for index, segment in enumerate(segments):
            if segment.endswith(":.*}"):
                tail = tuple(segments[index + 1 :])
                entry = next((greedy for greedy in node.greedy if greedy.tail == tail), None)
                if entry is None:
                    entry = _Greedy(segment[1:-4], tail)
                    node.greedy.append(entry)
                    node.greedy.sort(key=lambda greedy: -len(greedy.tail))
                assert entry.name == segment[1:-4], route.pattern
                assert route.method not in entry.routes, route.pattern
                entry.routes[route.method] = route
                return
            if segment.startswith("{"):
                node.param = node.param or _Node()
                assert node.param_name in {"", segment[1:-1]}, route.pattern
                node.param_name = segment[1:-1]
                node = node.param
            else:
                node = node.literal.setdefault(segment, _Node())
        assert route.method not in node.routes, route.pattern
        node.routes[route.method] = route

    def resolve(self, method: str, target_path: str, query_text: str = "") -> Match | Response:
        """Find the handler for a path as it came (still percent-encoded), or give the answer that refuses it.

        Unknown path or method: 404 `page not found`. A path with `//`, `.` or `..`: 301 to the clean one. Outside
        of the API versions served: 400. Source: moby, daemon/server and its version middleware; gorilla/mux.
        """
        try:
            path = percent_decode(target_path)
        except InvalidParameter:
            return text_response(400, "400 Bad Request")
        if "//" in path or "/." in path or not path.startswith("/"):
            clean = _clean(path)
            if clean != path:
                location = quote(clean, errors="surrogateescape") + (f"?{query_text}" if query_text else "")
                return empty(301, {"Location": location})
        version = _NEWEST
        prefix = ""
        if path.startswith("/v"):
            end = path.find("/", 2)
            if end > 2 and _VERSION_CHARACTERS.issuperset(path[2:end]):
                prefix = path[2:end]
                path = path[end:]
                version = _version(prefix)
        route = self._static.get((method, path))
        params: dict[str, str] = {}
        if route is None:
            route = self._walk(self._root, path.split("/"), 1, method, params)
            if route is None:
                return not_found()
        if prefix and not _OLDEST <= version <= _NEWEST:
            return _refuse_version(prefix, version)
        if version < route.since:
            return not_found()
        return Match(route, params, (version[0], version[1]))

    def _walk(
        self, node: _Node, segments: list[str], index: int, method: str, params: dict[str, str]
    ) -> AnyRoute | None:
        if index == len(segments):
            return node.routes.get(method)
        segment = segments[index]
        below = node.literal.get(segment)
        if below is not None:
            route = self._walk(below, segments, index + 1, method, params)
            if route is not None:
                return route
        if node.param is not None and segment:
            route = self._walk(node.param, segments, index + 1, method, params)
            if route is not None:
                params[node.param_name] = segment
                return route
        for greedy in node.greedy:
            route = greedy.routes.get(method)
            end = len(segments) - len(greedy.tail)
            if route is not None and end > index and tuple(segments[end:]) == greedy.tail:
                params[greedy.name] = "/".join(segments[index:end])
                return route
        return None


def not_found() -> Response:
    """Give the answer to an unknown path or method."""
    return message_response(404, "page not found")


def _refuse_version(text: str, version: Version) -> Response:
    if version > _NEWEST:
        return message_response(
            400, f"client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )
    message = (
        f"client version {text} is too old. Minimum supported API version is {MIN_API_VERSION},"
        " please upgrade your client to a newer version"
    )
    if version < _JSON_ERRORS_SINCE:
        return text_response(400, message + "\n", {"X-Content-Type-Options": "nosniff"})
    return message_response(400, message)


def _clean(path: str) -> str:
    """Resolve empty, `.` and `..` segments; a slash at the end stays. Source: gorilla/mux, cleanPath."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in {"", "."}:
            kept.append(segment)
    clean = "/" + "/".join(kept)
    return clean + "/" if path.endswith("/") and clean != "/" else clean
