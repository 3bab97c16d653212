"""JSON shapes of images. Source: Docker Engine API 1.51, tag Image."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.errors import InvalidParameter, System
from holdfast.images.distribution import Distribution
from holdfast.images.history import HistoryEntry
from holdfast.images.model import Image, format_time
from holdfast.images.service import ListedImage
from holdfast.images.skopeo import Credentials
from holdfast.wire.syntax import syntax_error

Version = tuple[int, int]

_NONE: Final = "<none>"
_VIRTUAL_SIZE_UNTIL: Final = (1, 43)
_NONE_NAMES_UNTIL: Final = (1, 42)
_CONTAINER_CONFIG_UNTIL: Final = (1, 44)
_FULL_CONFIG_UNTIL: Final = (1, 49)

_INSPECTED: Final = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
    "ArgsEscaped", "Healthcheck", "OnBuild", "Shell",
)
_FULL_CONFIG: Final[Mapping[str, Any]] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}
_ALWAYS_IN_CONFIG: Final[Mapping[str, Any]] = {
    "Cmd": None, "Entrypoint": None, "Env": None, "Labels": None, "OnBuild": None, "User": "", "Volumes": None,
    "WorkingDir": "",
}


_COUNTED_SINCE: Final = (1, 51)


def encode_summary(listed: ListedImage, version: Version, *, disk_usage: bool = False) -> dict[str, Any]:
    """Give an ImageSummary. Where there are no names, it has null before API 1.43 and in `disk_usage`, else a []."""
    image = listed.image
    tags: list[str] | None = list(listed.tags)
    digests: list[str] | None = list(listed.digests)
    if disk_usage or version <= _NONE_NAMES_UNTIL:
        if not tags and not digests and not disk_usage:
            tags, digests = [f"{_NONE}:{_NONE}"], [f"{_NONE}@{_NONE}"]
        tags, digests = tags or None, digests or None
    shape: dict[str, Any] = {
        "Containers": listed.containers if disk_usage or version >= _COUNTED_SINCE else -1,
        "Created": int(image.created_at.timestamp()),
        "Id": image.id,
        "Labels": image.labels,
        "ParentId": image.parent_id,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": listed.shared_size_bytes,
        "Size": image.size_bytes,
    }
    if version <= _VIRTUAL_SIZE_UNTIL:
        shape["VirtualSize"] = image.size_bytes
    return shape


def encode_inspect(image: Image, layers: Sequence[Path], version: Version) -> dict[str, Any]:
    """Give an ImageInspect; `layers` are the directories of its layers, topmost first."""
    document = image.config
    rootfs = document.get("rootfs") or {}
    shape: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": image.parent_id,
        "Comment": _text(document, "comment"),
        "Created": format_time(image.created_at) if image.created else None,
        "DockerVersion": _text(document, "docker_version"),
        "Author": _text(document, "author"),
        "Config": _encode_config(image.defaults, version),
        "Architecture": _text(document, "architecture"),
        "Variant": _text(document, "variant"),
        "Os": _text(document, "os"),
        "OsVersion": _text(document, "os.version"),
        "Size": image.size_bytes,
        "GraphDriver": _encode_graph_driver(layers),
        "RootFS": {"Type": "layers", "Layers": list(rootfs.get("diff_ids") or [])},
        "Metadata": {
            "LastTagTime": "0001-01-01T00:00:00Z" if image.tagged_at is None else format_time(image.tagged_at)
        },
    }
    for name in ("Variant", "OsVersion"):
        if not shape[name]:
            del shape[name]
    if shape["Created"] is None:
        del shape["Created"]
    if version <= _VIRTUAL_SIZE_UNTIL:
        shape["VirtualSize"] = image.size_bytes
    if version <= _CONTAINER_CONFIG_UNTIL:
        made_in = document.get("container_config")
        shape["ContainerConfig"] = {**_FULL_CONFIG, **(made_in if isinstance(made_in, dict) else {})}
        if container := _text(document, "container"):
            shape["Container"] = container
    return shape


def encode_history(entries: Sequence[HistoryEntry]) -> list[dict[str, Any]]:
    """Give the list of ImageHistoryResponseItem, newest first."""
    return [
        {
            "Comment": entry.comment,
            "Created": entry.created,
            "CreatedBy": entry.created_by,
            "Id": entry.id,
            "Size": entry.size_bytes,
            "Tags": list(entry.tags) or None,
        }
        for entry in entries
    ]


def encode_pruned(records: Sequence[Mapping[str, str]], reclaimed_bytes: int) -> dict[str, Any]:
    """Give an ImagePruneResponse."""
    return {"ImagesDeleted": list(records) or None, "SpaceReclaimed": reclaimed_bytes}


def decode_credentials(header: str) -> Credentials:
    """Read `X-Registry-Auth`: JSON in base64url. One that cannot be read counts as none, as in Docker.

    Source: Docker Engine API, section Authentication.
    """
    try:
        padded = header + "=" * (-len(header) % 4)
        document = json.loads(base64.urlsafe_b64decode(padded.encode("ascii"))) if header else {}
        if not isinstance(document, dict):
            raise ValueError("must be an object")
    except (ValueError, binascii.Error, RecursionError):
        document = {}
    return _credentials(document)


def decode_login(body: bytes) -> tuple[str, Credentials]:
    """Read the body of POST /auth, an AuthConfig; gives the server's address as well. Raises System as Docker does."""
    if not body.strip():
        raise System("EOF")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise System(syntax_error(body)) from None
    if not isinstance(document, dict):
        raise System("json: cannot unmarshal into Go value of type registry.AuthConfig")
    return _text(document, "serveraddress"), _credentials(document)


def encode_distribution(found: Distribution) -> dict[str, Any]:
    """Give a DistributionInspect."""
    return {
        "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size_bytes},
        "Platforms": [
            {"architecture": each.architecture, "os": each.os, **({"variant": each.variant} if each.variant else {})}
            for each in found.platforms
        ],
    }


def decode_platform(text: str) -> str:
    """Read a platform given as JSON, as load, save and inspect take it; gives `os/arch/variant`, "" for none.

    Raises InvalidParameter.
    """
    if not text:
        return ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidParameter(f"failed to parse platform: {syntax_error(text.encode())}") from None
    if not isinstance(document, dict) or not _text(document, "os") or not _text(document, "architecture"):
        raise InvalidParameter("failed to parse platform: both OS and Architecture must be provided")
    return "/".join(filter(None, (_text(document, key) for key in ("os", "architecture", "variant"))))


def _credentials(document: Mapping[str, Any]) -> Credentials:
    return Credentials(
        username=_text(document, "username"),
        password=_text(document, "password"),
        identity_token=_text(document, "identitytoken"),
        registry_token=_text(document, "registrytoken"),
    )


def _encode_config(defaults: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """Give an ImageConfig: what is set or was always there, and before API 1.50 every field of a container's."""
    present = {name: defaults[name] for name in _INSPECTED if defaults.get(name) not in (None, "", [], {}, False)}
    return {**(_FULL_CONFIG if version <= _FULL_CONFIG_UNTIL else _ALWAYS_IN_CONFIG), **present}


def _encode_graph_driver(layers: Sequence[Path]) -> dict[str, Any]:
    data: dict[str, str] = {}
    if len(layers) > 1:
        data["LowerDir"] = ":".join(str(layer) for layer in layers[1:])
    if layers:
        data["UpperDir"] = str(layers[0])
    return {"Data": data or None, "Name": "overlay2"}


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
