"""What the engine tells the attendant, in files that both find again after the other has died.

RUN_ROOT/attendant/
    control           a stream socket: one JSON object a line, one line back
    <container id>    a Document, written whole and renamed into place

{"do": "serve", "id": "…"}   read the file again and do what it says; answers when that is done
{"do": "drop", "id": "…"}    forget it
{"do": "hello"}              → {"version": …}: which attendant this is
{"do": "end"}                end
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

VERSION: Final = 2
"""Counts changes of what is said here; an attendant of another version is replaced."""
CONTROL: Final = "control"
LISTENING_ADDRESS: Final = "127.0.0.11"
PORT: Final = 53


@dataclass(frozen=True, slots=True)
class Membership:
    """A container's place in a network: `addresses` of both families answer to `names`, in any case of letters.

    `links` are names that this container alone has for others there: pairs of such a name and the other's own.
    """

    network_id: str
    network_name: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Proxy:
    """A port of the host that is passed on to a port of a container; `protocol` is tcp or udp."""

    protocol: str
    host_ip: str
    host_port: int
    target: str
    target_port: int


@dataclass(frozen=True, slots=True)
class Document:
    """A container whose questions are answered, where it has `memberships`, and whose `proxies` are served.

    No `servers` means those of the host's resolv.conf. `asks_outside` is false for one in internal networks alone: its
    questions for other names go nowhere.
    """

    id: str
    namespace: str
    memberships: tuple[Membership, ...]
    servers: tuple[str, ...] = ()
    asks_outside: bool = True
    proxies: tuple[Proxy, ...] = ()


def write(directory: Path, document: Document) -> None:
    """Put a document into place. Raises OSError."""
    temporary = directory / f".{document.id}"
    temporary.write_text(json.dumps(asdict(document)), encoding="utf-8")
    os.replace(temporary, directory / document.id)


def read(path: Path) -> Document:
    """Read a document. Raises OSError; ValueError, TypeError or KeyError for what is none."""
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    memberships = tuple(
        Membership(
            entry["network_id"],
            entry["network_name"],
            tuple(entry["names"]),
            tuple(entry["addresses"]),
            tuple((alias, name) for alias, name in entry.get("links", ())),
        )
        for entry in raw["memberships"]
    )
    proxies = tuple(Proxy(**entry) for entry in raw["proxies"])
    return Document(raw["id"], raw["namespace"], memberships, tuple(raw["servers"]), bool(raw["asks_outside"]), proxies)
