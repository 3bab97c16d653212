"""docs/compatibility.md is what its table and the router say; the table knows every field that a request is read into.

That each fate is true is shown against an engine by tests/integration/containers/test_fates.py.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from holdfast.wire import containers as wire
from holdfast.wire.exec import ExecCreate, ExecStart

PROJECT = Path(__file__).resolve().parents[2]
FATES = {"honoured", "accepted", "discarded", "refused"}
SHAPES: dict[str, type[msgspec.Struct]] = {
    "ContainerConfig": wire.ContainerConfig,
    "HostConfig": wire.HostConfig,
    "EndpointSettings": wire.EndpointSettings,
    "EndpointIPAMConfig": wire.IPAMConfig,
    "ExecConfig": ExecCreate,
    "ExecStartConfig": ExecStart,
}
OLDER = {"HostConfig": {"KernelMemory"}}
"""Fields that older versions of the API have."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/compatibility.py."""
    spec = importlib.util.spec_from_file_location("compatibility", PROJECT / "scripts" / "compatibility.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script: ModuleType) -> None:
    text = script.page(script.load(), script.endpoints()).rstrip("\n") + "\n"
    page = (PROJECT / "docs" / "compatibility.md").read_text()
    assert page == text, "run scripts/compatibility.py, after a new endpoint has its parameters in compatibility.toml"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_field_that_is_read_has_a_fate(script: ModuleType, shape: str) -> None:
    table = script.load()[shape]
    read = {field.encode_name for field in msgspec.structs.fields(SHAPES[shape])} - OLDER.get(shape, set())
    assert sorted(read - table.keys()) == []
    unread = {name for name in table.keys() - read if table[name]["fate"] != "accepted"}
    assert sorted(unread) == [], "what is not read can have no effect"


def test_entries_say_what_they_have_to(script: ModuleType) -> None:
    table = script.load()
    for shape in SHAPES:
        for name, entry in table[shape].items():
            assert entry["fate"] in FATES, name
            if entry["fate"] in ("discarded", "refused"):
                assert entry["cases"], f"{name}: say with what"
            for _, status, text in entry.get("cases", ()):
                assert status in (201, 400, 409, 501), name
                assert text or status == 201 or shape != "HostConfig" or "Realtime" in name, name


def test_query_parameters_belong_to_endpoints_and_are_read(script: ModuleType) -> None:
    table, served = script.load(), script.endpoints()
    assert sorted(table["query"].keys() - set(served)) == []
    assert sorted(table["endpoint"].keys() - set(served)) == []
    source = "\n".join(
        path.read_text() for room in ("api", "wire") for path in (PROJECT / "src" / "holdfast" / room).glob("*.py")
    )
    words = set(re.findall(r'"([A-Za-z0-9_-]+)"', source))
    for endpoint, parameters in table["query"].items():
        for name, entry in parameters.items():
            assert entry["fate"] in FATES, (endpoint, name)
            if entry["fate"] != "accepted":
                assert name in words, f"{endpoint}: nothing reads {name}"
