"""`/volumes` of the engine's API."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.client.document import Document
from holdfast.client.transport import Transport, segment

Filters = Mapping[str, list[str]]


class Volumes:
    """Calls about volumes. Source: Docker Engine API, tag Volume."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Document:
        """Create a volume, or get the one of that name; an empty name makes an anonymous one."""
        body: dict[str, object] = {"Driver": driver}
        if name:
            body["Name"] = name
        if options:
            body["DriverOpts"] = dict(options)
        if labels:
            body["Labels"] = dict(labels)
        return self._transport.post("/volumes/create", document=body)

    def get(self, name: str) -> Document:
        """Inspect one volume. Raises NotFound."""
        return self._transport.get(f"/volumes/{segment(name)}")

    def find(self, filters: Filters | None = None) -> Document:
        """`Volumes`, in no order, and the drivers' `Warnings`."""
        return self._transport.get("/volumes", {"filters": filters})

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; `force` accepts one that is not there. Raises Conflict when it is in use."""
        self._transport.delete(f"/volumes/{segment(name)}", {"force": force})

    def prune(self, filters: Filters | None = None) -> Document:
        """Remove unused volumes: `VolumesDeleted` and `SpaceReclaimed` in bytes."""
        return self._transport.post("/volumes/prune", {"filters": filters})
