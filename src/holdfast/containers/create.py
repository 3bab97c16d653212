"""Making a container: what was asked for is checked, its volumes are taken and filled, and it is recorded.

    intent "container.create"  →  folders  →  volumes.attach  →  volumes.fill  →  one transaction: row, intent ended

An exception undoes these in reverse; after a death `restore` finds the intent and does the same. Named volumes that
were made stay, as with Docker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import faults, log
from holdfast.containers import merge, names
from holdfast.containers.bindsource import check_bind
from holdfast.containers.checks import check_request
from holdfast.containers.container import Container
from holdfast.containers.folders import Folders
from holdfast.containers.model import ContainerConfig, ContainerRecord, CreateRequest, State, encode_row, now
from holdfast.containers.networking import settle_endpoints
from holdfast.containers.rooms import Rooms
from holdfast.containers.settle import settle
from holdfast.errors import InvalidParameter, NotFound
from holdfast.images.platforms import foreign_to_host
from holdfast.kernel.path import make_dirs_beneath, open_in_root, owned_fd
from holdfast.volumes import mounts
from holdfast.volumes.mounts import MountPoint

if TYPE_CHECKING:
    from holdfast.images.model import Image

logger = log.get(__name__)

INTENT = "container.create"
_ALL_DIGITS = re.compile(r"[0-9]{12}")


class Creator:
    """Makes containers."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def create(self, request: CreateRequest) -> tuple[Container, tuple[str, ...]]:
        """Make a container; gives it with warnings for the user.

        Raises NotFound only for a missing image (a client would pull it), InvalidParameter, Conflict for a taken name,
        System. Source: Docker Engine API, operationId ContainerCreate.
        """
        name = names.check(request.name) if request.name else ""
        warnings = check_request(request)
        host, limits = settle(
            request.host_config, self._rooms.runtime.host_facts(), self._rooms.runtime.facts.name, self._id_of
        )
        settled = dataclasses.replace(request, host_config=host)
        if request.platform:
            self._rooms.images.resolve_for(request.config.image, request.platform)
        with contextlib.ExitStack() as held:
            image = held.enter_context(self._rooms.images.held(request.config.image, request.platform))
            foreign = () if request.platform else foreign_to_host(image.config)
            return self._create(settled, name, image, held), (*foreign, *warnings, *limits)

    def _create(self, request: CreateRequest, name: str, image: Image, held: contextlib.ExitStack) -> Container:
        container_id = _new_id()
        config = merge.merge(_on_host(request), image.config, container_id)
        points = mounts.parse(
            mounts.MountRequest(
                binds=request.host_config.binds or (),
                mounts=request.mounts,
                volumes=request.config.volumes or {},
                image_volumes=merge.image_volumes(image.config),
                volumes_from=[self._inherited(spec) for spec in request.host_config.volumes_from or ()],
                tmpfs=request.host_config.tmpfs or {},
                volume_driver=request.host_config.volume_driver,
                api_version=request.api_version,
                daemon_root=str(self._rooms.config.state_root),
            )
        )
        points = tuple(self._with_image(point, held) if point.type == "image" else point for point in points)
        for point in points:
            if point.type == "bind" and point.must_exist:
                check_bind(point, self._rooms.volumes.hands_at(point.source))
        endpoints = settle_endpoints(self._rooms, request.host_config.network_mode, request.endpoints)
        name = name or names.make(self._rooms.registry.has_name)
        self._rooms.registry.reserve(name, container_id)
        record = ContainerRecord(
            id=container_id,
            name=name,
            created_at=now(),
            image_id=image.id,
            layers=tuple(image.layers),
            config=config,
            host_config=request.host_config,
            endpoints=endpoints,
            mounts=points,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self._rooms.registry.free, name, container_id)
            container = self._make(record, undo)
            undo.pop_all()
        self._rooms.tell(container, "create")
        return container

    def _make(self, record: ContainerRecord, undo: contextlib.ExitStack) -> Container:
        rooms = self._rooms
        intent = rooms.store.intents.begin(INTENT, record.id)
        undo.callback(rooms.store.intents.end, intent)
        undo.callback(Folders(rooms).discard, record.id)
        rooms.files_of(record.id).mkdir(parents=True, mode=0o710)
        rooms.rootfs.prepare(record.id, record.layers)
        faults.point("container-folders-made")
        points = self._rooms.volumes.attach(record.id, record.mounts)
        undo.callback(rooms.volumes.release, record.id, remove_anonymous=True)
        faults.point("container-volumes-attached")
        record = dataclasses.replace(record, mounts=points)
        self._fill(record)
        faults.point("container-created-not-recorded")
        container = Container(record, State())
        rooms.store.containers.add(encode_row(record, container.state), intent=intent)
        undo.pop_all()
        rooms.registry.add(container)
        return container

    def _fill(self, record: ContainerRecord) -> None:
        """Copy what the image has at the volumes' destinations into those that are empty."""
        points = [point for point in record.mounts if point.type == "volume" and point.copy_data]
        if not points:
            return
        rooms, working_dir = self._rooms, record.config.working_dir
        if working_dir and working_dir != "/":
            with rooms.rootfs.viewed(record.id, record.layers) as (rootfs, _):
                missing = not _has_directory(rootfs, working_dir)
            if missing:
                try:
                    _make_working_dir(rooms.rootfs.mount(record.id, record.layers), working_dir)
                finally:
                    rooms.rootfs.unmount(record.id)
        with rooms.rootfs.viewed(record.id, record.layers) as (rootfs, layers):
            for point in points:
                try:
                    rooms.volumes.fill(point, rootfs, layers)
                except NotFound as error:
                    logger.info("volume not filled", extra={"volume": point.name, "why": error})

    def _with_image(self, point: MountPoint, held: contextlib.ExitStack) -> MountPoint:
        """Find the image that a mount point names and keep it until the container is recorded. Raises NotFound."""
        image = held.enter_context(self._rooms.images.held(point.name))
        layers = self._rooms.images.layers_of(image)
        return dataclasses.replace(point, image_id=image.id, source=str(layers[0]) if layers else "")

    def _id_of(self, reference: str) -> str:
        return self._rooms.registry.get(reference).id

    def _inherited(self, spec: str) -> tuple[str, tuple[MountPoint, ...]]:
        """Look up an entry of `VolumesFrom`; a missing container is a bad parameter, as 404 would mean the image."""
        reference, mode = mounts.parse_volumes_from(spec)
        try:
            return mode, self._rooms.registry.get(reference).record.mounts
        except NotFound as error:
            raise InvalidParameter(str(error)) from None


def _has_directory(rootfs: Path, path: str) -> bool:
    with owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        try:
            os.close(open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
    return True


def _make_working_dir(rootfs: Path, path: str) -> None:
    """Make the working directory, as a volume there would be filled from it; the runtime tells better why it cannot."""
    with contextlib.suppress(OSError), owned_fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        os.close(make_dirs_beneath(root, path, in_root=True))


def _on_host(request: CreateRequest) -> ContainerConfig:
    """A container on the host's network has the host's name, unless it has one of its own."""
    if request.host_config.network_mode != "host" or request.config.hostname:
        return request.config
    return dataclasses.replace(request.config, hostname=os.uname().nodename)


def _new_id() -> str:
    """Give 64 random hexadecimal digits; the first twelve are not all decimal, as that would not do for a host name."""
    while True:
        candidate = secrets.token_hex(32)
        if not _ALL_DIGITS.match(candidate):
            return candidate
