"""Flags of `run` and `create` about devices: limits of block devices, and devices that a driver would choose.

Formats and messages are Docker's. Source: docker/cli, opts/weightdevice.go, opts/throttledevice.go, opts/gpus.go.
"""

from __future__ import annotations

from holdfast.cli.human import parse_size
from holdfast.cli.mount_flag import split_csv


def weight_device(text: str) -> dict[str, object]:
    """Read `/dev/sda:500`. Raises ValueError."""
    path, value = _path(text)
    if not value.isdecimal() or (int(value) and not 10 <= int(value) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(value)}


def byte_rate(text: str) -> dict[str, object]:
    """Read `/dev/sda:1mb`, in bytes a second. Raises ValueError."""
    path, value = _path(text)
    try:
        return {"Path": path, "Rate": parse_size(value)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a "
            "positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def operation_rate(text: str) -> dict[str, object]:
    """Read `/dev/sda:1000`, in operations a second. Raises ValueError."""
    path, value = _path(text)
    if not value.isdecimal():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive "
            "integer"
        )
    return {"Path": path, "Rate": int(value)}


def gpus(text: str) -> dict[str, object]:
    """Read `all`, a number, or `count=2,driver=...,device=...,capabilities=...,options=...`. Raises ValueError."""
    request: dict[str, object] = {"Driver": "", "Count": 0, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
    for field in split_csv(text):
        key, given, value = field.partition("=")
        match key if given else "count":
            case "count":
                request["Count"] = _count(value if given else key)
            case "driver":
                request["Driver"] = value
            case "device":
                request["DeviceIDs"] = value.split(",")
            case "capabilities":
                request["Capabilities"] = [list(dict.fromkeys([*value.split(","), "gpu"]))]
            case "options":
                request["Options"] = dict(_pair(option) for option in split_csv(value))
            case _:
                raise ValueError(f"unexpected key '{key}' in '{field}'")
    if not request["Count"] and not request["DeviceIDs"]:
        request["Count"] = 1
    return request


def _count(text: str) -> int:
    if text == "all":
        return -1
    if not text.isdecimal():
        raise ValueError(f'invalid count ({text}): value must be either "all" or an integer')
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _path(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not path or not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value
