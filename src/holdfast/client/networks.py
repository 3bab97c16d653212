"""`/networks` of the engine's API."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.client.document import Document
from holdfast.client.transport import Transport, segment

Filters = Mapping[str, list[str]]


class Networks:
    """Calls about networks. Source: Docker Engine API, tag Network."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, body: Mapping[str, object]) -> Document:
        """Make a network from the body of NetworkCreate: `Id` and `Warning`."""
        return self._transport.post("/networks/create", document=body)

    def get(self, name: str) -> Document:
        """Inspect one network. Raises NotFound."""
        return self._transport.get(f"/networks/{segment(name)}")

    def list(self, filters: Filters | None = None) -> list[Document]:
        """The networks that fit, in no order."""
        return self._transport.get_list("/networks", {"filters": filters})

    def remove(self, name: str) -> None:
        """Remove a network. Raises NotFound, Forbidden when it is in use."""
        self._transport.delete(f"/networks/{segment(name)}")

    def prune(self, filters: Filters | None = None) -> Document:
        """Remove unused networks: `NetworksDeleted`."""
        return self._transport.post("/networks/prune", {"filters": filters})

    def connect(self, name: str, container: str, endpoint: Mapping[str, object]) -> None:
        """Put a container into a network; `endpoint` is an EndpointSettings. Raises NotFound, Forbidden."""
        body = {"Container": container, "EndpointConfig": dict(endpoint)}
        self._transport.post(f"/networks/{segment(name)}/connect", document=body)

    def disconnect(self, name: str, container: str, *, force: bool = False) -> None:
        """Take a container out of a network. Raises NotFound."""
        body = {"Container": container, "Force": force}
        self._transport.post(f"/networks/{segment(name)}/disconnect", document=body)
