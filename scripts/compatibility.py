#!/usr/bin/env python3
"""Write docs/compatibility.md: what of Docker Engine API 1.51 this engine serves, and what becomes of each field.

usage: compatibility.py [--check]

The fates come from docs/compatibility.toml, the endpoints from the router. With --check nothing is written; the exit
code is 1 if the page is out of date.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
TABLE = PROJECT / "docs" / "compatibility.toml"
PAGE = PROJECT / "docs" / "compatibility.md"

SHAPES = {
    "ContainerConfig": "`ContainerConfig`, the body of `POST /containers/create`",
    "HostConfig": "`HostConfig`, with `Resources`",
    "EndpointSettings": "`EndpointSettings`, an entry of `NetworkingConfig.EndpointsConfig`",
    "EndpointIPAMConfig": "`EndpointIPAMConfig`",
    "ExecConfig": "`ExecConfig`, the body of `POST /containers/{id}/exec`",
    "ExecStartConfig": "`ExecStartConfig`, the body of `POST /exec/{id}/start`",
}
NOT_SERVED = (
    ("swarm, nodes, services, tasks, secrets, configs", "there is no swarm"),
    ("managed plugins", "volume plugins are found by their sockets: see volume-plugins.md"),
)
HEAD = """# Compatibility with the Docker Engine API

Made by `scripts/compatibility.py` from [compatibility.toml](compatibility.toml) and the router; a test shows that each
line is so. Versions 1.24 to 1.51 are served; fields and endpoints are those of 1.51.

Nothing that a request asks for is left out in silence:

| Fate | Meaning |
|---|---|
| honoured | has the effect that the API describes |
| accepted | shown again by inspect at most, as in Docker Engine on Linux |
| discarded | not in force, and said so in `Warnings` |
| refused | answered with an error |

What a request got wrong is answered with 400, also where Docker Engine says 500 with the same text, and when the
container is made rather than when it starts, if that can be known by then. A key that the API does not have is not
looked at, as with Docker Engine. What is more or other than there: [changes of the API](api-changes.md).
"""


def load() -> Mapping[str, Any]:
    """Read the table of fates."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def endpoints() -> list[str]:
    """Give every endpoint that the router has, as `METHOD /path/{name}`, in the order of the paths."""
    from holdfast.daemon.main import router

    found = {(re.sub(r":\.\*\}", "}", route.pattern), route.method) for route in router().routes}
    return [f"{method} {path}" for path, method in sorted(found)]


def page(table: Mapping[str, Any], served: list[str]) -> str:
    """Give the text of the page. Pure."""
    return "\n".join((HEAD, *_endpoints(table["query"], table["endpoint"], served), *_shapes(table)))


def _endpoints(query: Mapping[str, Mapping[str, Any]], notes: Mapping[str, str], served: list[str]) -> Iterator[str]:
    yield "## Endpoints\n"
    yield "| Endpoint | State | Query parameters |"
    yield "|---|---|---|"
    for endpoint in served:
        if "/holdfast/" not in endpoint:
            shown = "; ".join(_parameter(name, entry) for name, entry in query.get(endpoint, {}).items())
            yield f"| `{endpoint}` | {notes.get(endpoint, 'served')} | {shown} |"
    yield ""
    yield "Not served, 404:\n"
    for nouns, why in NOT_SERVED:
        yield f"- {nouns}: {why}"
    yield ""


def _parameter(name: str, entry: Mapping[str, Any]) -> str:
    said = [] if entry["fate"] == "honoured" else [entry["fate"]]
    said += [entry["note"]] if entry.get("note") else []
    return f"`{name}`" + (f" ({', '.join(said)})" if said else "")


def _shapes(table: Mapping[str, Any]) -> Iterator[str]:
    for shape, title in SHAPES.items():
        yield f"## {title}\n"
        yield "| Field | Fate | |"
        yield "|---|---|---|"
        for field, entry in table[shape].items():
            yield f"| `{field}` | {entry['fate']} | {_remark(entry)} |"
        yield ""


def _remark(entry: Mapping[str, Any]) -> str:
    said = [entry["note"]] if entry.get("note") else []
    said += [f"{status}: `{text}`" for _, status, text in entry.get("cases", ()) if status >= 400 and text]
    return "; ".join(said).replace("|", "\\|")


def main() -> int:
    """Write the page, or compare it."""
    text = page(load(), endpoints()).rstrip("\n") + "\n"
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
