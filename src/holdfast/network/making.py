"""Making and removing user-defined networks.

    create   intent "network.create" → bridge and rules → one transaction: row, intent ended
    remove   intent "network.remove" → bridge and rules gone → one transaction: row gone, intent ended

A death in between is finished by `restore`: what was not recorded as made goes, what was to go goes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from ipaddress import ip_network

from holdfast import faults, log
from holdfast.errors import Conflict, EngineError, Forbidden, NotFound, System
from holdfast.network import settings
from holdfast.network.addresses import choose_subnet6
from holdfast.network.bridge import Bridge
from holdfast.network.bridges import Bridges
from holdfast.network.model import NetworkRequest
from holdfast.network.networks import BUILT_IN, HOST, NetworkCatalogue
from holdfast.network.segment import BRIDGE_NAME, bridge_name, new_network_id, segment_of
from holdfast.store import Store
from holdfast.store.networks import NetworkRecord

logger = log.get(__name__)

CREATE = "network.create"
REMOVE = "network.remove"


class NetworkMaker:
    """Makes and removes networks, one at a time. Safe from any thread."""

    def __init__(self, store: Store, networks: NetworkCatalogue, bridges: Bridges) -> None:
        self._store = store
        self._networks = networks
        self._bridges = bridges

    def create(self, request: NetworkRequest) -> NetworkRecord:
        """Make a network; it is there when this returns.

        Raises InvalidParameter, Forbidden, NotFound and Unsupported for what cannot be, Conflict for a taken name,
        Unavailable where no subnet is left, System where the kernel refuses; then nothing of it stays.
        """
        settings.check(request)
        with self._networks.guard:
            if any(record.name == request.name for record in self._networks.all()):
                raise Conflict(f"network with name {request.name} already exists")
            request = self._with_configuration(request)
            record = self._settled(request)
            self._make(record)
        return record

    def remove(self, record: NetworkRecord, active: Callable[[], Collection[tuple[str, str]]]) -> None:
        """Remove a network that nobody uses; `active` gives the names and ids of its endpoints.

        Raises Forbidden in Docker's words for a built-in network or one in use, NotFound if it is gone, System.
        """
        if record.name in BUILT_IN:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        with self._networks.guard:
            if all(known.id != record.id for known in self._networks.all()):
                raise NotFound(f"network {record.name} not found")
            users = [known.name for known in self._networks.own() if known.settings.config_from == record.name]
            if record.settings.config_only and users:
                raise Forbidden(f"configuration network {record.name!r} is in use")
            if endpoints := active():
                listed = ", ".join(f'name:"{name}" id:"{endpoint[:12]}"' for name, endpoint in endpoints)
                raise Forbidden(f"error while removing network: network {record.name} has active endpoints ({listed})")
            intent = self._store.intents.begin(REMOVE, record.id)
            faults.point("network-removing")
            if not record.settings.config_only:
                try:
                    self._bridges.discard(segment_of(record))
                except System:
                    self._store.intents.end(intent)
                    raise
            faults.point("network-discarded-still-recorded")
            self._networks.remove(record, intent=intent)

    def restore(self) -> None:
        """Finish or undo what was under way when an engine died. What fails is logged and stays for the next one."""
        known = {record.id: record for record in self._networks.all()}
        for intent in self._store.intents.open():
            if intent.kind not in (CREATE, REMOVE):
                continue
            record = known.get(intent.subject)
            try:
                if intent.kind == CREATE and record is None:
                    logger.info("undoing a network that was not finished", extra={"network": intent.subject})
                    if bridge := intent.details.get("bridge"):
                        Bridge(bridge).delete()
                elif intent.kind == REMOVE and record is not None:
                    logger.info("finishing a removal", extra={"network": record.name})
                    if record.settings.owns_bridge and record.settings.bridge:
                        Bridge(record.settings.bridge).delete()
                    self._networks.remove(record, intent=intent.id)
                    continue
                self._store.intents.end(intent.id)
            except (EngineError, OSError) as error:
                logger.error("unfinished work stays", extra={"network": intent.subject, "error": str(error)})

    # --- inside

    def _make(self, record: NetworkRecord) -> None:
        own = record.settings.bridge if record.settings.owns_bridge and not record.settings.config_only else ""
        with contextlib.ExitStack() as undo:
            intent = self._store.intents.begin(CREATE, record.id, bridge=own)
            undo.callback(self._store.intents.end, intent)
            faults.point("network-creating")
            if not record.settings.config_only:
                undo.callback(self._bridges.discard, segment_of(record))
                self._bridges.make(record)
            faults.point("network-made-not-recorded")
            self._networks.add(record, intent=intent)
            undo.pop_all()
        faults.point("network-recorded-not-told")

    def _settled(self, request: NetworkRequest) -> NetworkRecord:
        """Choose what was left to the engine. Raises Forbidden for what is taken."""
        network_id = new_network_id()
        if not request.config_only:
            self._bridges.check_free([ip_network(pool.subnet) for pool in request.pools])
        settled = settings.settle(
            request,
            "" if request.config_only else bridge_name(network_id),
            self._bridges.free_subnet,
            lambda: choose_subnet6(self._networks.find(HOST).id, self._networks.subnets6()),
        )
        if request.options.get(BRIDGE_NAME):
            self._check_bridge_name(request, network_id)
            settled = replace(settled, owns_bridge=not self._bridges.exists(settled.bridge))
        driver = "null" if request.config_only else "bridge"
        return NetworkRecord(network_id, request.name, driver, "", time.time(), settled)

    def _with_configuration(self, request: NetworkRequest) -> NetworkRequest:
        """Take over what a configuration network says. Raises NotFound, Forbidden. Source: moby, ConfigFrom."""
        if not request.config_from:
            return request
        source = self._networks.find(request.config_from)
        if not source.settings.config_only:
            raise Forbidden(f"{request.config_from} is not a configuration network")
        if request.options or request.labels or request.pools:
            raise Forbidden(
                "user-specified configurations are not supported if the network depends on a configuration network"
            )
        return NetworkRequest(
            name=request.name,
            config_from=source.name,
            pools=source.settings.pools,
            enable_ipv4=source.settings.enable_ipv4,
            enable_ipv6=source.settings.enable_ipv6,
            internal=source.settings.internal,
            attachable=request.attachable,
            options=source.settings.options,
            labels=source.settings.labels,
            ipam_options=source.settings.ipam_options,
        )

    def _check_bridge_name(self, request: NetworkRequest, network_id: str) -> None:
        """Raise Forbidden where another network has the bridge that was asked for."""
        wanted = request.options[BRIDGE_NAME]
        for record in self._networks.bridges():
            own = record.settings.bridge or self._bridges.default_name
            if own == wanted:
                raise Forbidden(
                    f"cannot create network {network_id} ({wanted}): conflicts with network {record.id} ({wanted}): "
                    "networks have same bridge name"
                )
