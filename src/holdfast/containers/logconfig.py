"""Where a container's output goes, how much of it is kept, and what is said about each line.

Output is kept in conmon's own format whichever driver is asked for: `json-file` and `local` differ in their defaults
alone. Names of drivers and options are checked when a container is made, values when it starts, as in Docker.
Source: Docker, "Configure logging drivers", pages json-file and local; texts as Docker Engine gives them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_plus

from holdfast.containers.model import ContainerRecord, LogConfig, Texts
from holdfast.errors import DeadlineExceeded, InvalidParameter, System
from holdfast.process import run
from holdfast.runtime.logfiles import Rotation

DEFAULT_DRIVER: Final = "json-file"
DRIVERS: Final = ("json-file", "local", "none")

_OPTIONS: Final = frozenset({"max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"})
_COMMON_OPTIONS: Final = frozenset({"mode", "max-buffer-size"})
_MODES: Final = ("", "blocking", "non-blocking")
_SIZE: Final = re.compile(r"([0-9]*\.?[0-9]+|[0-9]+\.) ?([kmgtp]?)(i?b)?", re.IGNORECASE)
_POWERS: Final = "kmgtp"
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_TAG_ACTION: Final = re.compile(r"\{\{-?\s*\.(\w+)\s*-?\}\}")
_LOCAL_SIZE_BYTES: Final = 20 << 20
_LOCAL_FILES: Final = 5
_GREP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class LogRules:
    """What becomes of a container's output."""

    is_kept: bool
    rotation: Rotation | None = None


def validate(asked: LogConfig) -> None:
    """Raise InvalidParameter, in Docker's words, for a driver or an option that is not known.

    `mode` and `max-buffer-size` are checked and have no effect: a container never waits for a reader of its log.
    """
    driver, options = asked.type or DEFAULT_DRIVER, asked.config or {}
    if driver == "none":
        return
    mode = options.get("mode", "")
    if mode not in _MODES:
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_size(options["max-buffer-size"], 1024)
        except ValueError as error:
            raise InvalidParameter(f"error parsing option max-buffer-size: {error}") from None
    if driver not in DRIVERS:
        raise InvalidParameter(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    for key in options:
        if key not in _OPTIONS | _COMMON_OPTIONS:
            where = "json-file log driver" if driver == "json-file" else f"log driver {driver}"
            raise InvalidParameter(f"unknown log opt '{key}' for {where}")


def settle(record: ContainerRecord) -> LogRules:
    """Give the rules for a container. Raises System, in Docker's words, for values that make no sense."""
    asked = record.host_config.log_config
    if asked.type == "none":
        return LogRules(is_kept=False)
    options = asked.config or {}
    try:
        return LogRules(is_kept=True, rotation=_local(options) if asked.type == "local" else _json_file(options))
    except ValueError as error:
        raise _refusal(error) from None


def details(record: ContainerRecord) -> str:
    """Give what `logs --details` puts before each line: `KEY=VALUE,...` by key, both encoded as in a URL.

    With regular expressions this runs grep: unlike `re` it cannot be made to hold up the engine. Raises System, in
    Docker's words, for values that make no sense.
    """
    asked = record.host_config.log_config
    options = (asked.config or {}) if asked.type != "none" else {}
    variables = dict(entry.partition("=")[::2] for entry in record.config.env or () if "=" in entry)
    found: dict[str, str] = {}
    try:
        for what, values in (("labels", record.labels), ("env", variables)):
            keys = {key for key in options.get(what, "").split(",") if key in values}
            if expression := options.get(f"{what}-regex"):
                keys |= _matching(expression, tuple(values))
            found.update((key, values[key]) for key in keys)
        if tag := _tag(record, options.get("tag", "")):
            found["tag"] = tag
    except ValueError as error:
        raise _refusal(error) from None
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(found.items()))


def rules_of(record: ContainerRecord) -> LogRules:
    """Give the rules, or for a container that could never start with its options those of one without any."""
    try:
        return settle(record)
    except System:
        return LogRules(is_kept=True)


def parse_size(text: str, base: int) -> int:
    """Read a size such as `10m` or `1.5 GB`; its letters are powers of `base`. Raises ValueError, in Docker's words."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    power = _POWERS.index(match[2].lower()) + 1 if match[2] else 0
    return int(float(match[1]) * base**power)


def _json_file(options: Mapping[str, str]) -> Rotation | None:
    size_bytes = -1
    if "max-size" in options:
        size_bytes = parse_size(options["max-size"], 1000)
        if size_bytes <= 0:
            raise ValueError("max-size must be a positive number")
    files = _number(options.get("max-file", "1"))
    if files < 1:
        raise ValueError("max-file cannot be less than 1")
    compress = _flag(options.get("compress", "false"))
    if compress and (files == 1 or size_bytes < 0):
        raise ValueError("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Rotation(size_bytes, files, compress) if size_bytes > 0 else None


def _local(options: Mapping[str, str]) -> Rotation:
    size_bytes, files, compress = _LOCAL_SIZE_BYTES, _LOCAL_FILES, True
    if "max-size" in options:
        try:
            size_bytes = parse_size(options["max-size"], 1024)
        except ValueError as error:
            raise ValueError(f"invalid value for max-size: {options['max-size']}: {error}") from None
    if "max-file" in options:
        try:
            files = _number(options["max-file"])
        except ValueError as error:
            raise ValueError(f"invalid value for max-file: {options['max-file']}: {error}") from None
    if "compress" in options:
        try:
            compress = _flag(options["compress"])
        except ValueError as error:
            raise ValueError(f"error reading compress log option: {error}") from None
    if files < 0:
        raise ValueError("max-file must be a positive number")
    if compress and files <= 1:
        raise ValueError("compression cannot be enabled when max file count is 1")
    return Rotation(size_bytes or _LOCAL_SIZE_BYTES, max(files, 1), compress)


def _number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _flag(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


def _refusal(why: ValueError) -> System:
    return System(f"failed to create task for container: failed to initialize logging driver: {why}")


@functools.lru_cache(maxsize=256)
def _matching(expression: str, keys: Texts) -> frozenset[str]:
    """Give those of `keys` in which an extended regular expression matches. Raises ValueError."""
    text = "".join(f"{key}\0" for key in keys if "\0" not in key)
    try:
        done = run(["grep", "-zE", "-e", expression], stdin=text.encode(), timeout_s=_GREP_S, check=False)
    except (DeadlineExceeded, ValueError) as error:
        raise ValueError(f"error parsing regexp: {error}: `{expression}`") from None
    if done.returncode > 1:
        why = done.stderr.decode(errors="replace").strip().removeprefix("grep: ")
        raise ValueError(f"error parsing regexp: {why}: `{expression}`")
    return frozenset(filter(None, done.stdout.decode().split("\0")))


def _tag(record: ContainerRecord, template: str) -> str:
    """Fill in a tag: `{{.Field}}` is what it may hold of Go's templates. Raises ValueError."""
    fields = {
        "ID": record.short_id,
        "FullID": record.id,
        "Name": record.name,
        "ImageID": record.image_id[:12],
        "ImageFullID": record.image_id,
        "ImageName": record.config.image,
        "ContainerID": record.id,
        "ContainerName": f"/{record.name}",
        "ContainerImageID": record.image_id,
        "ContainerImageName": record.config.image,
        "Command": " ".join(record.argv),
        "DaemonName": "docker",
    }

    def fill(match: re.Match[str]) -> str:
        if match[1] not in fields:
            raise ValueError(
                f'template: log-tag:1:{match.start() + 2}: executing "log-tag" at <.{match[1]}>: '
                f"can't evaluate field {match[1]} in type *logger.Info"
            )
        return fields[match[1]]

    for piece in _TAG_ACTION.split(template)[::2]:
        if "{{" in piece:
            why = "only fields are supported, as in {{.Name}}" if "}}" in piece else "unclosed action"
            raise ValueError(f"template: log-tag:1: {why}")
    return _TAG_ACTION.sub(fill, template)
