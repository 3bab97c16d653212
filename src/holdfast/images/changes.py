"""Dockerfile instructions applied to an image's configuration, for import and commit. Pure.

Source: Docker Engine API, `changes` of ImageCreate and ImageCommit; the Dockerfile reference.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from holdfast.errors import InvalidParameter

Config = dict[str, Any]

_SHELL: Final = ("/bin/sh", "-c")
_PORT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_UNITS_NS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> Config:
    """Give `config` (the part that containers start from) with the instructions applied, one or more a text.

    Raises InvalidParameter for an instruction that is unknown, not allowed here or wrong.
    """
    result: Config = json.loads(json.dumps(config))
    is_cmd_ours = False
    for text in changes:
        for line in re.sub(r"\\\n", "", text).splitlines():
            words = line.strip().split(None, 1)
            if not words or words[0].startswith("#"):
                continue
            name, rest = words[0].upper(), words[1].strip() if len(words) > 1 else ""
            apply = _INSTRUCTIONS.get(name)
            if apply is None:
                raise InvalidParameter(f"{name} is not a valid change command")
            if not rest:
                raise InvalidParameter(f"{name} requires at least one argument")
            apply(result, rest)
            is_cmd_ours = is_cmd_ours or name == "CMD"
            if name == "ENTRYPOINT" and not is_cmd_ours:
                result.pop("Cmd", None)  # those were the arguments of another entrypoint
    return result


def _command(config: Config, rest: str) -> list[str]:
    """Read the JSON form of a command, else the shell form."""
    words = _json_words(rest)
    return [*(config.get("Shell") or _SHELL), rest] if words is None else words


def _json_words(rest: str) -> list[str] | None:
    if not rest.startswith("["):
        return None
    try:
        words = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _pairs(name: str, rest: str) -> list[tuple[str, str]]:
    """Read `KEY=VALUE ...` with quotes, or the old form `KEY VALUE`."""
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InvalidParameter(f"{name}: {error}") from error
    if words and "=" not in words[0]:
        key, _, value = rest.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{name} must have two arguments")
        return [(key, value.strip())]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidParameter(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs.append((key, value))
    return pairs


def _cmd(config: Config, rest: str) -> None:
    config["Cmd"] = _command(config, rest)


def _entrypoint(config: Config, rest: str) -> None:
    config["Entrypoint"] = _command(config, rest)


def _env(config: Config, rest: str) -> None:
    entries = list(config.get("Env") or [])
    for key, value in _pairs("ENV", rest):
        entry = f"{key}={value}"
        place = next((n for n, old in enumerate(entries) if old.partition("=")[0] == key), None)
        if place is None:
            entries.append(entry)
        else:
            entries[place] = entry
    config["Env"] = entries


def _label(config: Config, rest: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs("LABEL", rest))}


def _expose(config: Config, rest: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in rest.split():
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if match is None or not 0 < first <= last < 65536:
            raise InvalidParameter(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Config, rest: str) -> None:
    paths = _json_words(rest)
    volumes = dict(config.get("Volumes") or {})
    for path in rest.split() if paths is None else paths:
        if not path.strip():
            raise InvalidParameter("VOLUME specified can not be an empty string")
        volumes[path.strip()] = {}
    config["Volumes"] = volumes


def _workdir(config: Config, rest: str) -> None:
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "", rest.strip('"')))


def _user(config: Config, rest: str) -> None:
    config["User"] = rest


def _stop_signal(config: Config, rest: str) -> None:
    config["StopSignal"] = rest


def _onbuild(config: Config, rest: str) -> None:
    if rest.split(None, 1)[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidParameter(f"{rest.split(None, 1)[0].upper()} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or []), rest]


def _shell(config: Config, rest: str) -> None:
    words = _json_words(rest)
    if not words:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    config["Shell"] = words


def _healthcheck(config: Config, rest: str) -> None:
    check: Config = {}
    options = {"--interval": "Interval", "--timeout": "Timeout", "--start-period": "StartPeriod",
               "--start-interval": "StartInterval"}
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        rest = rest.strip()
        key, _, value = word.partition("=")
        if key == "--retries" and value.isdecimal():
            check["Retries"] = int(value)
        elif key in options:
            check[options[key]] = _nanoseconds(value)
        else:
            raise InvalidParameter(f"unknown flag: {key}")
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE":
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not command.strip():
        raise InvalidParameter(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
    words = _json_words(command.strip())
    config["Healthcheck"] = {"Test": ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words], **check}


def _nanoseconds(text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise InvalidParameter(f'time: invalid duration "{text}"')
    return int(sum(float(amount) * _UNITS_NS[unit] for amount, unit in parts))


_INSTRUCTIONS: Final[Mapping[str, Callable[[Config, str], None]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
