"""What the engine says about itself: `/version`, `/info`, `/events`, `/system/df`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from holdfast.client.document import Document
from holdfast.client.transport import Transport, segment

Filters = Mapping[str, list[str]]


class Engine:
    """Calls about the engine. Source: Docker Engine API, tag System."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def version(self) -> Document:
        """Its version and those of its parts."""
        return self._get("/version")

    def info(self) -> Document:
        """Its state and settings."""
        return self._get("/info")

    def disk_usage(self) -> Document:
        """Images, containers and volumes with their sizes in bytes."""
        return self._get("/system/df")

    def events(self, filters: Filters | None = None, *, since: str = "", until: str = "") -> Iterator[Document]:
        """What happens, as it happens; ends at `until`."""
        return self._transport.stream("GET", "/events", {"since": since, "until": until, "filters": filters})

    def log_in(self, auth: Mapping[str, object]) -> Document:
        """Present credentials to a registry: `Status`, and `IdentityToken` where it issues one."""
        return self._transport.post("/auth", None, auth)

    def plugin(self, name: str) -> Document:
        """Inspect a managed plugin."""
        return self._get(f"/plugins/{segment(name)}/json")

    def _get(self, path: str) -> Document:
        return self._transport.get(path)
