"""`/volumes` of the engine's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.client.document import Document, documents
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

    def relabel(self, name: str, labels: Mapping[str, str]) -> None:
        """Replace a volume's labels. Raises NotFound. Our own extension."""
        self._transport.call("PUT", f"/volumes/{segment(name)}", document={"Labels": dict(labels)})

    def protect(self, name: str) -> None:
        """Have every removal of a volume refused. Raises NotFound. Our own extension."""
        self._transport.post(f"/holdfast/volumes/{segment(name)}/protect")

    def unprotect(self, name: str) -> None:
        """Let a volume be removed again. Raises NotFound. Our own extension."""
        self._transport.post(f"/holdfast/volumes/{segment(name)}/unprotect")

    def check(self, name: str) -> Document:
        """See whether a volume's storage can be reached: `OK` and `Steps`. Raises NotFound. Our own extension."""
        return self._transport.post(f"/holdfast/volumes/{segment(name)}/check")

    def trash(self) -> list[Document]:
        """The removed volumes that can be had back, the last removed first. Our own extension."""
        return self._transport.get_list("/holdfast/trash")

    def restore(self, reference: str, name: str = "") -> Document:
        """Take back a removed volume, under another name if one is given. Raises NotFound, Conflict."""
        return self._transport.post(f"/holdfast/trash/{segment(reference)}/restore", document={"Name": name})

    def undo(self) -> list[Document]:
        """Take back what the last removal took. Raises NotFound, Conflict."""
        return documents(self._transport.call("POST", "/holdfast/undo"))

    def empty_trash(self, references: Sequence[str] = ()) -> list[Document]:
        """Delete removed volumes for good: those named, else all; gives them. Raises NotFound."""
        return documents(self._transport.call("DELETE", "/holdfast/trash", {"volume": list(references)}))
