"""The Docker SDK for Python as a client of a test's engine, with an account of the endpoints that it really called."""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import docker

from holdfast.api.router import Match
from holdfast.daemon.main import router
from tests.support.engine import Engine

Test = TypeVar("Test", bound=Callable[..., object])

_ROUTER = router()


def drives(*endpoints: str) -> Callable[[Test], Test]:
    """Name the endpoints that a test calls, `POST /containers/{id}/start`; it fails if it does not call them."""

    def mark(test: Test) -> Test:
        @functools.wraps(test)
        def checked(sdk: Any, **fixtures: Any) -> None:
            test(sdk, **fixtures)
            assert set(endpoints) <= sdk.seen, f"not called: {sorted(set(endpoints) - sdk.seen)}"

        return checked  # type: ignore[return-value]

    return mark


def driven(*files: Path) -> set[str]:
    """Every endpoint that the tests of these files drive, by their decorators."""
    return {
        argument.value
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "drives"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def served() -> set[str]:
    """Every endpoint of Docker's API that the engine has; what lies below /holdfast is ours alone."""
    return {
        f"{route.method} {_plain(route.pattern)}"
        for route in _ROUTER.routes
        if not route.pattern.startswith("/holdfast/")
    }


@contextlib.contextmanager
def sdk_for(engine: Engine) -> Iterator[Any]:
    """A `docker.DockerClient` for the time of a `with`; its `seen` holds the endpoints that were called."""
    seen: set[str] = set()

    def note(response: Any, *_arguments: object, **_options: object) -> None:
        path, _, query = response.request.path_url.partition("?")
        match = _ROUTER.resolve(response.request.method, path, query)
        seen.add(f"{match.route.method} {_plain(match.route.pattern)}" if isinstance(match, Match) else path)

    client = docker.DockerClient(base_url=f"unix://{engine.socket_path}", version="auto", timeout=60)
    client.api.hooks["response"].append(note)
    client.seen = seen
    try:
        yield client
    finally:
        client.close()
        # It leaves what it took over to the garbage collector.
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()


def _plain(pattern: str) -> str:
    return pattern.replace(":.*}", "}")
