"""What a build is asked for in its query and headers, and the build cache as the API shows it.

Source: Docker Engine API 1.51, operations ImageBuild and BuildPrune; moby, daemon/server/router/build; recordings.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from holdfast.builder.cache import CacheRecord
from holdfast.builder.model import DEFAULT_DOCKERFILE, BuildRequest, Limits
from holdfast.errors import InvalidParameter, System, Unsupported
from holdfast.images.model import format_time
from holdfast.images.skopeo import Credentials
from holdfast.wire.syntax import syntax_error

Text = Callable[[str], str]

_NO_BUILDKIT: Final = "this engine has no BuildKit; build with DOCKER_BUILDKIT=0"
_NO_REMOTE: Final = "a build context from a URL or a git repository is not fetched by this engine; send it as the body"
_GO_KINDS: Final = {bool: "bool", int: "number", float: "number", list: "array", dict: "object", str: "string"}
_VERSION_1: Final = ("", "1")


def decode_build(query: Text, every: Callable[[str], Sequence[str]], flag: Callable[[str], bool]) -> BuildRequest:
    """Read the query of a build; the three functions give a value, all values and a boolean by name.

    Raises InvalidParameter, Unsupported for what only other builders do.
    """
    if query("version") == "2":
        raise Unsupported(_NO_BUILDKIT)
    if query("version") not in _VERSION_1:
        raise InvalidParameter(f'invalid version "{query("version")}"')
    if query("remote"):
        raise Unsupported(_NO_REMOTE, hint="docker build URL fetches it itself; docker-py takes fileobj or path")
    if flag("squash"):
        raise InvalidParameter("squash is only supported with experimental mode")
    if every("securityopt"):
        raise InvalidParameter("The daemon on this platform does not support setting security options on build")
    if query("outputs"):
        raise Unsupported(f"outputs need BuildKit: {_NO_BUILDKIT}")
    _decode_list(query("cachefrom"), "cache-from")
    return BuildRequest(
        dockerfile=query("dockerfile") or DEFAULT_DOCKERFILE,
        tags=tuple(tag for tag in every("t") if tag),
        target=query("target"),
        arguments=_decode_map(query("buildargs"), "build args", nullable=True),
        labels={name: value or "" for name, value in _decode_map(query("labels"), "labels").items()},
        use_cache=not flag("nocache"),
        pull=flag("pull"),
        quiet=flag("q"),
        network=query("networkmode"),
        extra_hosts=tuple(entry for text in every("extrahosts") for entry in text.split(",") if entry),
        platform=query("platform"),
        limits=_decode_limits(query),
        build_id=query("buildid"),
    )


def decode_registries(header: str) -> Mapping[str, Credentials]:
    """Read `X-Registry-Config`: credentials by registry. One that cannot be read counts as none, as in Docker."""
    try:
        padded = header + "=" * (-len(header) % 4)
        document = json.loads(base64.urlsafe_b64decode(padded.encode("ascii"))) if header else {}
    except (ValueError, binascii.Error, RecursionError):
        return {}
    entries = document.items() if isinstance(document, dict) else ()
    return {
        name: Credentials(
            username=_word(entry, "username"),
            password=_word(entry, "password"),
            identity_token=_word(entry, "identitytoken"),
        )
        for name, entry in entries
        if isinstance(entry, dict)
    }


def encode_cache(records: Sequence[CacheRecord]) -> list[dict[str, Any]]:
    """Give the BuildCache list of a SystemDataUsage."""
    return [
        {
            "ID": record.id,
            "Type": "regular",
            "Description": "layer of a build or of an image that builds started from",
            "InUse": record.in_use,
            "Shared": False,
            "Size": record.size_bytes,
            "CreatedAt": format_time(record.created_at),
            "LastUsedAt": None,
            "UsageCount": 1,
        }
        for record in records
    ]


def encode_pruned(ids: Sequence[str], freed_bytes: int) -> dict[str, Any]:
    """Give a BuildPruneResponse."""
    return {"CachesDeleted": list(ids) or None, "SpaceReclaimed": freed_bytes}


def _decode_limits(query: Text) -> Limits:
    try:
        shm_size_bytes = int(query("shmsize") or 0)
    except ValueError:
        raise System(f'strconv.ParseInt: parsing "{query("shmsize")}": invalid syntax') from None
    listed = [entry for entry in _decode_list(query("ulimits"), "ulimit settings") if isinstance(entry, dict)]
    return Limits(
        memory_bytes=_number(query("memory")),
        memory_swap_bytes=_number(query("memswap")),
        cpu_shares=_number(query("cpushares")),
        cpu_quota_us=_number(query("cpuquota")),
        cpu_period_us=_number(query("cpuperiod")),
        cpuset_cpus=query("cpusetcpus"),
        cpuset_mems=query("cpusetmems"),
        shm_size_bytes=max(0, shm_size_bytes),
        ulimits=tuple(map(_ulimit, listed)),
    )


def _ulimit(entry: Mapping[str, Any]) -> str:
    """One limit as buildah takes it. Raises InvalidParameter."""
    name, soft, hard = entry.get("Name"), entry.get("Soft") or 0, entry.get("Hard") or 0
    if not (isinstance(name, str) and name.isalpha() and isinstance(soft, int) and isinstance(hard, int)):
        raise InvalidParameter(f"error reading ulimit settings: invalid ulimit: {name}")
    return f"{name}={soft}:{hard}"


def _decode_map(text: str, what: str, *, nullable: bool = False) -> dict[str, str | None]:
    found = _decode(text, what)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidParameter(f"error reading {what}: json: cannot unmarshal {_kind(found)} into Go value of type map")
    for name, value in found.items():
        if not (isinstance(value, str) or (nullable and value is None)):
            why = f"cannot unmarshal {_kind(value)} into Go struct field .{name} of type string"
            raise InvalidParameter(f"error reading {what}: json: {why}")
    return found


def _decode_list(text: str, what: str) -> list[Any]:
    found = _decode(text, what)
    if found is None:
        return []
    if not isinstance(found, list):
        why = f"cannot unmarshal {_kind(found)} into Go value of type list"
        raise InvalidParameter(f"error reading {what}: json: {why}")
    return found


def _decode(text: str, what: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = syntax_error(text.encode("utf-8", "surrogatepass")) or str(error)
        raise InvalidParameter(f"error reading {what}: {said}") from error


def _kind(value: object) -> str:
    return "null" if value is None else _GO_KINDS.get(type(value), "value")


def _number(text: str) -> int:
    """Read a number; anything else counts as 0. Source: moby, httputils.Int64ValueOrZero."""
    try:
        return int(text) if text.isascii() else 0
    except ValueError:
        return 0


def _word(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
