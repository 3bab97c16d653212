"""Rules for every test: order, what may be skipped, and the fixtures that several folders use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.engine import PATH, Engine, engine_below

os.environ["PATH"] = PATH
ON_CI = os.environ.get("CI") == "true"
CHEAP_FIRST = ("unit", "conformance", "integration", "fault", "vm")

# What a machine may lack without fault of ours. Any other skip on CI is a failure: set-up promises the tools.
ALLOWED_SKIPS = ("this kernel", "this machine", "recorded", "only on")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    parser.addoption("--soak", type=int, default=0, metavar="SECONDS", help="time for the random kill test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cheap tests first; tests that need root are skipped without it; a soak gets the time it asks for."""

    def folder(item: pytest.Item) -> int:
        parts = item.path.parts
        names = [name for name in CHEAP_FIRST if name in parts]
        return CHEAP_FIRST.index(names[0]) if names else len(CHEAP_FIRST)

    items.sort(key=folder)
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(300 + 2 * int(config.getoption("--soak"))))
    if os.geteuid() != 0:
        for item in items:
            if any(item.get_closest_marker(name) for name in ("kernel", "vm", "fault", "transcript")):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI, a skip counts as a failure unless its reason starts with one of ALLOWED_SKIPS."""
    report = yield
    if ON_CI and report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.lower().startswith(ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped on CI, where it must not be: {reason}"
    return report


@pytest.fixture(scope="session")
def tool() -> Callable[[str], Path]:
    """Find a program, or skip: `tool("crun")`. Looks among the private programs of build/peers as well."""

    def find(name: str) -> Path:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"needs {name}: scripts/setup.sh test")
        return Path(found)

    return find


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A running engine with busybox:latest, shared by the tests of a module."""
    with engine_below(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture
def fresh_engine(tmp_path: Path) -> Iterator[Engine]:
    """A running engine with busybox:latest for one test, which may kill and restart it."""
    with engine_below(tmp_path) as running:
        yield running
