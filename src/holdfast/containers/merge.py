"""What a request and its image come to. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec

from holdfast.containers.model import ContainerConfig, Healthcheck, Texts
from holdfast.errors import InvalidParameter, System

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _ImageHealthcheck(msgspec.Struct, rename="pascal"):
    """`Healthcheck` of an image's configuration; times in nanoseconds."""

    test: Texts | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class _ImageConfig(msgspec.Struct, rename="pascal"):
    """The `config` object of an image. Source: OCI image spec 1.1, config.md, and Docker's extensions of it."""

    user: str = ""
    exposed_ports: dict[str, dict[str, str]] | None = None
    env: Texts | None = None
    entrypoint: Texts | None = None
    cmd: Texts | None = None
    volumes: dict[str, dict[str, str]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: _ImageHealthcheck | None = None
    on_build: Texts | None = None
    shell: Texts | None = None


def merge(request: ContainerConfig, image_document: Mapping[str, object], container_id: str) -> ContainerConfig:
    """Fill what the request leaves open from the image's configuration document.

    An entrypoint in the request drops the image's command. Volumes, labels, ports and variables are united, the
    request's winning. Raises InvalidParameter if there is nothing to run. Source: `docker run` reference, "Override
    image defaults".
    """
    try:
        image = msgspec.convert(image_document.get("config") or {}, type=_ImageConfig)
    except msgspec.ValidationError as error:
        raise System(f"read the image's configuration: {error}") from error
    entrypoint, cmd = request.entrypoint, request.cmd
    if not entrypoint:
        if not cmd:
            cmd = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == ("",):
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidParameter("no command specified")
    return dataclasses.replace(
        request,
        hostname=request.hostname or container_id[:12],
        user=request.user or image.user,
        exposed_ports=_union(image.exposed_ports, request.exposed_ports),
        env=_environment(request.env or (), image.env or ()),
        entrypoint=entrypoint,
        cmd=cmd,
        volumes=_union(image.volumes, request.volumes),
        working_dir=request.working_dir or image.working_dir,
        labels={**(image.labels or {}), **(request.labels or {})},
        stop_signal=request.stop_signal or image.stop_signal,
        healthcheck=_healthcheck(request.healthcheck, image.healthcheck),
        on_build=request.on_build or image.on_build,
        shell=request.shell or image.shell,
    )


def image_volumes(image_document: Mapping[str, object]) -> tuple[str, ...]:
    """Give the destinations that the image declares as volumes."""
    config = image_document.get("config")
    volumes = config.get("Volumes") if isinstance(config, Mapping) else None
    return tuple(volumes) if isinstance(volumes, Mapping) else ()


def _union(
    image: dict[str, dict[str, str]] | None, request: dict[str, dict[str, str]] | None
) -> dict[str, dict[str, str]] | None:
    return {**(image or {}), **(request or {})} or None


def _environment(request: Texts, image: Texts) -> Texts:
    """The request's variables, then those of the image that it does not set; PATH is always there.

    An entry without `=` names a variable to leave out.
    """
    named = {entry.partition("=")[0] for entry in request}
    merged = (*request, *(entry for entry in image if entry.partition("=")[0] not in named))
    if not any(entry.partition("=")[0] == "PATH" for entry in merged):
        merged = (DEFAULT_PATH, *merged)
    return merged


def _healthcheck(request: Healthcheck | None, image: _ImageHealthcheck | None) -> Healthcheck | None:
    if image is None:
        return request
    inherited = msgspec.convert(image, type=Healthcheck, from_attributes=True)
    if request is None:
        return inherited
    return Healthcheck(
        test=request.test or inherited.test,
        interval=request.interval or inherited.interval,
        timeout=request.timeout or inherited.timeout,
        start_period=request.start_period or inherited.start_period,
        start_interval=request.start_interval or inherited.start_interval,
        retries=request.retries or inherited.retries,
    )
