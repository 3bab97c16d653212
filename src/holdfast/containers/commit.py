"""`docker commit`: what a container changed, as a layer on top of its image.

    intent "container.commit"  →  paused  →  upper directory → tar in a workspace  →  goes on, intent ended
                               →  layer unpacked, image and name in one transaction (images/intake.py)

The intent is there for the pause alone: a restart lets a container that was frozen for a commit go on. Nothing else of
it outlives a death, for workspaces are swept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from holdfast import __version__, faults, log
from holdfast.containers import merge
from holdfast.containers.archive_walk import Emit, write_layer
from holdfast.containers.container import Container
from holdfast.containers.model import ContainerConfig, Healthcheck
from holdfast.containers.rooms import Rooms
from holdfast.containers.stop import Stopper
from holdfast.errors import Conflict, EngineError, NotFound, System
from holdfast.images.changes import apply_changes
from holdfast.images.importing import Description
from holdfast.kernel.path import owned_fd

logger = log.get(__name__)

INTENT = "container.commit"

_NAMES = {
    "user": "User",
    "exposed_ports": "ExposedPorts",
    "env": "Env",
    "entrypoint": "Entrypoint",
    "cmd": "Cmd",
    "healthcheck": "Healthcheck",
    "args_escaped": "ArgsEscaped",
    "volumes": "Volumes",
    "working_dir": "WorkingDir",
    "on_build": "OnBuild",
    "labels": "Labels",
    "stop_signal": "StopSignal",
    "shell": "Shell",
}
_FOR_BUILDS = ("on_build", "shell")
_OF_A_CONTAINER = {"hostname": "Hostname", "domainname": "Domainname", "image": "Image", "tty": "Tty"}
_HEALTHCHECK = {
    "test": "Test",
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
    "retries": "Retries",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """What POST /commit asks for. `config` is None where only `changes` tell how the image differs."""

    container: str
    repository: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: ContainerConfig | None = None


class Committer:
    """Makes images of containers."""

    def __init__(self, rooms: Rooms, stopper: Stopper) -> None:
        self._rooms = rooms
        self._stopper = stopper

    def commit(self, request: CommitRequest) -> str:
        """Make an image of what a container is now; gives its id.

        A container that runs is paused while its files are read, unless `pause` is off. Volumes are not part of it.
        Raises NotFound, Conflict while it is being removed, InvalidParameter for a bad name or change, System.
        Source: Docker Engine API, operationId ImageCommit.
        """
        rooms = self._rooms
        container = rooms.registry.get(request.container)
        record = container.record
        name = rooms.images.check_name(request.repository, request.tag) if request.repository else ""
        document = _config_after(request, record.config)
        description = Description(
            message=request.comment,
            author=request.author,
            created_by=" ".join(record.config.cmd or ()),
            config=document,
            more={
                "container": record.id,
                "container_config": encode_config(record.config) | _encode(record.config, _OF_A_CONTAINER),
                "docker_version": __version__,
            },
        )
        image_id = rooms.images.commit(
            record.image_id,
            lambda emit: self._write(container, request, emit),
            request.repository,
            request.tag,
            description,
        )
        rooms.tell(container, "commit", {"comment": "", "imageID": image_id, "imageRef": name})  # empty in Docker, too
        return image_id

    def restore(self) -> None:
        """Let the containers go on whose commit died with its engine."""
        rooms = self._rooms
        for intent in rooms.store.intents.open():
            if intent.kind == INTENT:
                try:
                    container = rooms.registry.get(intent.subject)
                    if container.state.status == "paused":
                        self._stopper.unpause(container)
                    elif container.state.task is not None:  # frozen perhaps, and not noted yet
                        rooms.runtime.resume(container.id)
                except EngineError as error:
                    logger.debug("nothing to resume after a commit", extra={"error": error})
                rooms.store.intents.end(intent.id)

    def _write(self, container: Container, request: CommitRequest, emit: Emit) -> None:
        with self._still(container, pause=request.pause):
            try:
                upper = os.open(self._rooms.rootfs.upper(container.id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise _is_going(container) from None
            with owned_fd(upper):
                write_layer(upper, emit)
        # What is removed meanwhile disappears file by file: such a layer would lack some.
        if container.removing or not self._is_there(container):
            raise _is_going(container)

    @contextlib.contextmanager
    def _still(self, container: Container, *, pause: bool) -> Iterator[None]:
        """Keep a running container frozen for the length of the block."""
        if not pause or container.state.status != "running":
            yield
            return
        intents = self._rooms.store.intents
        intent = intents.begin(INTENT, container.id)
        with contextlib.ExitStack() as undo:
            undo.callback(intents.end, intent)
            try:
                self._stopper.pause(container)
            except Conflict:
                logger.debug("ended or paused just before its commit", extra={"container": container.id})
            else:
                undo.callback(self._go_on, container)
            faults.point("commit-paused")
            yield
            faults.point("commit-read-not-resumed")

    def _go_on(self, container: Container) -> None:
        try:
            self._stopper.unpause(container)
        except (System, NotFound):  # killed or resumed by somebody else meanwhile
            logger.debug("not paused any more after its commit", extra={"container": container.id})

    def _is_there(self, container: Container) -> bool:
        try:
            return self._rooms.registry.get(container.id) is container
        except NotFound:
            return False


def _is_going(container: Container) -> Conflict:
    return Conflict(f"You cannot commit container {container.id} which is being removed")


def encode_config(config: ContainerConfig) -> dict[str, Any]:
    """Give the part of a container's configuration that images have, as JSON spells it. Pure."""
    return _encode(config, _NAMES)


def _config_after(request: CommitRequest, own: ContainerConfig) -> Mapping[str, Any]:
    """Put the container's configuration, that of the request and the changes together, as Docker does. Pure.

    What the request leaves open is the container's. Triggers and the shell were for builds from the container's image
    and are not passed on. Source: Docker Engine, `CreateImageFromContainer`.
    """
    inherited = _encode(own, {field: name for field, name in _NAMES.items() if field not in _FOR_BUILDS})
    given = inherited if request.config is None else encode_config(request.config)
    document = apply_changes(given, request.changes)
    return encode_config(merge.merge(_decode(document), {"config": inherited}, ""))


def _encode(config: ContainerConfig, names: Mapping[str, str]) -> dict[str, Any]:
    """Give the fields that are set, under their names in JSON."""
    document = {}
    for field, name in names.items():
        value = getattr(config, field)
        if isinstance(value, Healthcheck):
            value = {key: getattr(value, own) for own, key in _HEALTHCHECK.items() if getattr(value, own)}
        if value:
            document[name] = list(value) if isinstance(value, tuple) else value
    return document


def _decode(document: Mapping[str, Any]) -> ContainerConfig:
    """Read what `encode_config` wrote, after changes."""
    fields = {field: document[name] for field, name in _NAMES.items() if name in document}
    if "healthcheck" in fields:
        check = fields["healthcheck"]
        fields["healthcheck"] = {field: check[name] for field, name in _HEALTHCHECK.items() if name in check}
    return msgspec.convert(fields, type=ContainerConfig)
