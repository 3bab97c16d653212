"""Connecting containers to networks and taking them out again, while they run or not.

    connect      checks → endpoint recorded, cards made → the container's document names the network → event
    disconnect   checks → the document names it no more → cards gone, endpoint forgotten → event

The document decides: an engine that dies in between leaves an endpoint of a network that the document does not name,
and the next one takes that away.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from holdfast import faults, log
from holdfast.containers.container import Container
from holdfast.containers.model import ContainerRecord, EndpointConfig, encode_document
from holdfast.containers.networking import (
    Networking,
    check_endpoint,
    endpoint_request,
    networks_of,
    port_requests,
    upstream,
)
from holdfast.containers.rooms import Rooms
from holdfast.errors import Conflict, Forbidden, InvalidParameter, NotFound, System
from holdfast.network.model import NetworkInfo

logger = log.get(__name__)


class Connector:
    """Changes which networks a container is in."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._networking = Networking(rooms)

    def connect(self, reference: str, network: str, config: EndpointConfig | None) -> None:
        """Put a container into a network; None asks for nothing in particular.

        Raises NotFound for either, InvalidParameter, Conflict and Forbidden in Docker's words, and what
        `Network.connect_all` raises. Source: Docker Engine API, operationId NetworkConnect.
        """
        config = config or EndpointConfig()
        found = self._rooms.network.get(network)
        container = self._rooms.registry.get(reference)
        with self._rooms.registry.hold(container):
            self._check_state(container)
            _check_mode(container.record, found)
            check_endpoint(self._rooms, found.name, config)
            if container.state.task is not None:
                self._connect_live(container, found, config)
            else:
                self._save(container, {**networks_of(container.record), found.name: config})
        self._rooms.network.tell_connected(container.id, found.id)

    def disconnect(self, reference: str, network: str, *, force: bool) -> None:
        """Take a container out of a network; with `force` a container that is gone is asked for among endpoints.

        Raises NotFound for either, System where it is not in it, InvalidParameter for the host's network. Source:
        Docker Engine API, operationId NetworkDisconnect.
        """
        found = self._rooms.network.get(network)
        try:
            container = self._rooms.registry.get(reference)
        except NotFound:
            if force:
                raise NotFound(f"endpoint {reference} not found") from None
            raise
        with self._rooms.registry.hold(container):
            self._check_state(container)
            record = container.record
            if record.host_config.network_mode == "host" and found.name == "host":
                raise InvalidParameter(
                    "cannot disconnect container from host network - container was created in host network mode"
                )
            networks = networks_of(record)
            if found.name not in networks:
                which = found.name if container.state.task is not None else f"the network {found.name}"
                where = "network " if container.state.task is not None else ""
                raise System(f"container {container.id} is not connected to {where}{which}")
            before = self._rooms.network.endpoints(container.id)
            del networks[found.name]
            self._save(container, networks)
            faults.point("container-network-forgotten")
            if container.state.task is None:
                self._rooms.network.tell_disconnected(container.id, found.id)
                return
            self._rooms.network.disconnect_from(container.id, found.id, self.namespace_of(container))
            self._networking.rewrite_files(record, before, self._rooms.network.endpoints(container.id))

    def namespace_of(self, container: Container) -> Path:
        """Give the network namespace of a container that runs."""
        pinned = self._rooms.config.run_root / "netns" / container.id
        return pinned if pinned.exists() else Path(f"/proc/{container.state.pid}/ns/net")

    # --- inside

    def _connect_live(self, container: Container, found: NetworkInfo, config: EndpointConfig) -> None:
        rooms, record = self._rooms, container.record
        networks = networks_of(record)
        if found.name in networks:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {found.name}")
        before = rooms.network.endpoints(container.id)
        rooms.network.connect_more(
            container.id,
            self.namespace_of(container),
            endpoint_request(record, found.name, config),
            name=container.name,
            ports=port_requests(record.host_config, record.config.exposed_ports or {}),
            upstream=upstream(record),
        )
        faults.point("container-connected-not-recorded")
        self._save(container, {**networks, found.name: config})
        self._networking.rewrite_files(record, before, rooms.network.endpoints(container.id))

    def _save(self, container: Container, networks: dict[str, EndpointConfig]) -> None:
        record = replace(container.record, endpoints=networks, bare=not networks)
        self._rooms.store.containers.save_document(container.id, encode_document(record))
        container.record = record

    def _check_state(self, container: Container) -> None:
        if container.state.status in ("removing", "dead") or container.removing:
            raise Conflict(
                f"container {container.id} is marked for removal and cannot be connected or disconnected to the network"
            )


def _check_mode(record: ContainerRecord, network: NetworkInfo) -> None:
    """Raise InvalidParameter, in Docker's words, for networks that do not go together."""
    mode, networks = record.host_config.network_mode, networks_of(record)
    if mode.startswith("container:") or mode == "host":
        raise InvalidParameter(
            "container sharing network namespace with another container or host cannot be connected to any other "
            "network"
        )
    if network.name == "host":
        raise InvalidParameter(
            "cannot connect container to host network - container must be created in host network mode"
        )
    if networks and ("none" in networks) != (network.name == "none"):
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if network.settings.config_only:
        raise Forbidden(f"cannot connect to a configuration network: {network.name}")
