"""The value of `--mount`: comma-separated `key=value` fields, quoted as in CSV, to a Mount of the API.

Source: docs.docker.com, "Bind mounts", "Volumes", "tmpfs mounts"; the messages are those of docker 28.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from holdfast.cli.human import parse_size

Fields = dict[str, object]

_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}
_OPTIONS = {"volume": "VolumeOptions", "bind": "BindOptions", "tmpfs": "TmpfsOptions", "image": "ImageOptions"}
_RECURSIVE = {
    "enabled": "",
    "disabled": "NonRecursive",
    "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}


def parse_mount(text: str) -> Fields:
    """Parse one `--mount`. A source that begins with `./` becomes absolute. Raises ValueError."""
    if not text.strip():
        raise ValueError("value is empty")
    mount: Fields = {"Type": "volume"}
    for field in split_csv(text.strip()):
        key, given, value = field.partition("=")
        key = key.lower()
        if not given:
            if key not in {"readonly", "ro", "volume-nocopy", "bind-nonrecursive"}:
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _set(mount, key, value, field)
    _check(mount)
    return mount


def split_csv(text: str) -> list[str]:
    """Split one line of CSV: a field in double quotes may hold commas, and quotes written twice. Raises ValueError.

    Python's csv module forgives a quote in the middle of a field; docker does not, as it hides a mistake.
    """
    fields: list[str] = []
    position = 0
    while True:
        if text[position : position + 1] == '"':
            field = ""
            while True:
                end = text.find('"', position + 1)
                if end < 0:
                    raise _unbalanced(len(text) + 1)
                field += text[position + 1 : end]
                position = end + 1
                if text[position : position + 1] != '"':
                    break
                field += '"'
            if text[position : position + 1] not in {"", ","}:
                raise _unbalanced(position)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            field = text[position:end]
            if '"' in field:
                column = position + field.index('"') + 1
                raise ValueError(f'parse error on line 1, column {column}: bare " in non-quoted-field')
            position = end
        fields.append(field)
        if position >= len(text):
            return fields
        position += 1


def _unbalanced(column: int) -> ValueError:
    return ValueError(f'parse error on line 1, column {column}: extraneous or missing " in quoted-field')


def _set(mount: Fields, key: str, value: str, field: str) -> None:
    match key:
        case "type":
            mount["Type"] = value.lower()
        case "source" | "src":
            mount["Source"] = os.path.abspath(value) if value == "." or value.startswith("./") else value
        case "target" | "dst" | "destination":
            mount["Target"] = value
        case "readonly" | "ro":
            mount["ReadOnly"] = _boolean(key, value)
        case "consistency":
            mount["Consistency"] = value.lower()
        case "bind-propagation":
            _options(mount, "bind")["Propagation"] = value.lower()
        case "bind-nonrecursive":
            _options(mount, "bind")["NonRecursive"] = _boolean(key, value)
        case "bind-recursive":
            _set_recursive(mount, value)
        case "bind-create-src":
            _options(mount, "bind")["CreateMountpoint"] = _boolean(key, value)
        case "volume-subpath" | "image-subpath":
            _options(mount, key.partition("-")[0])["Subpath"] = value
        case "volume-nocopy":
            _options(mount, "volume")["NoCopy"] = _boolean(key, value)
        case "volume-label":
            _put(_options(mount, "volume"), "Labels", value)
        case "volume-driver":
            _within(_options(mount, "volume"), "DriverConfig")["Name"] = value
        case "volume-opt":
            _put(_within(_options(mount, "volume"), "DriverConfig"), "Options", value)
        case "tmpfs-size":
            _options(mount, "tmpfs")["SizeBytes"] = _converted(parse_size, key, value)
        case "tmpfs-mode":
            _options(mount, "tmpfs")["Mode"] = _converted(lambda text: int(text, 8), key, value)
        case _:
            raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_recursive(mount: Fields, value: str) -> None:
    if value not in _RECURSIVE:
        choices = '(must be "enabled", "disabled", "writable", or "readonly")'
        raise ValueError(f"invalid value for bind-recursive: {value} {choices}")
    if _RECURSIVE[value]:
        _options(mount, "bind")[_RECURSIVE[value]] = True


def _options(mount: Fields, kind: str) -> Fields:
    options = _within(mount, _OPTIONS[kind])
    if kind == "volume":
        _within(options, "DriverConfig")  # docker's client sends it with any option, so inspect shows it
    return options


def _within(fields: Fields, name: str) -> Fields:
    inner = fields.setdefault(name, {})
    assert isinstance(inner, dict)
    return inner


def _put(fields: Fields, name: str, pair: str) -> None:
    key, _, value = pair.partition("=")
    if key:
        _within(fields, name)[key] = value


def _boolean(key: str, value: str) -> bool:
    if value not in _TRUE | _FALSE:
        raise ValueError(f"invalid value for {key}: {value}")
    return value in _TRUE


def _converted(convert: Callable[[str], int], key: str, value: str) -> int:
    try:
        return convert(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _check(mount: Fields) -> None:
    """Refuse what docker's client refuses; the rest is the engine's to judge."""
    if not mount["Type"]:
        raise ValueError("type is required")
    for kind, name in _OPTIONS.items():
        if name in mount and mount["Type"] != kind:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")
    bind = mount.get("BindOptions", {})
    assert isinstance(bind, dict)
    for word in ("writable", "readonly"):
        if bind.get(_RECURSIVE[word]) and not mount.get("ReadOnly"):
            raise ValueError(f"option 'bind-recursive={word}' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise ValueError(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )
