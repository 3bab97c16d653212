"""Sizes, durations, ports and names as people read them, in Docker's spelling.

Source: the output of docker 28; github.com/docker/go-units for the rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from holdfast.client.document import Document

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp])?i?b?", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DIGITS = re.compile(r"(\d+)", re.ASCII)


def size(size_bytes: float, digits: int = 4) -> str:
    """A size in decimal units with so many significant digits: `4.26MB`."""
    return _scaled(size_bytes, digits, 1000, ("B", "kB", "MB", "GB", "TB", "PB", "EB"))


def binary_size(size_bytes: float, digits: int = 4) -> str:
    """A size in binary units: `23.54GiB`."""
    return _scaled(size_bytes, digits, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))


def _scaled(value: float, digits: int, base: int, units: tuple[str, ...]) -> str:
    unit = 0
    while value >= base and unit < len(units) - 1:
        value /= base
        unit += 1
    return f"{value:.{digits}g}{units[unit]}"


def parse_size(text: str) -> int:
    """Bytes of `512m`, `1.5g`, `64KiB`, `100`; every unit is binary, as Docker's memory flags take them.

    Raises ValueError in Docker's words.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"invalid size: '{text}'")
    power = " kmgtp".index((match[2] or " ").lower())
    return int(float(match[1]) * 1024**power)


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a Go duration such as `1h30m` or `500ms`; None for something else."""
    rest, total_s = text, 0.0
    while match := _DURATION_PART.match(rest):
        total_s += float(match[1]) * _SECONDS[match[2]]
        rest = rest[match.end() :]
    return None if rest or not text else round(total_s * 1e9)


def duration(seconds: float) -> str:
    """A span of time in one rounded word or two: `About a minute`, `3 weeks`."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(unix_time: float) -> str:
    """How long since: `2 minutes ago`."""
    return f"{duration(age(unix_time))} ago"


def age(unix_time: float) -> float:
    """Seconds since; negative for a time to come."""
    return datetime.now(UTC).timestamp() - unix_time


def local_time(unix_time: float) -> str:
    """A time in the local zone as Go prints it: `2026-11-23 14:33:12 +0000 UTC`."""
    moment = datetime.fromtimestamp(unix_time, UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %z %Z")


def ellipsis(text: str, width: int) -> str:
    """The text cut to so many characters, the last of them `…`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(identifier: str) -> str:
    """Twelve hexadecimal digits, without the algorithm before the colon."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which `v2` precedes `v10`. Numbers precede letters; of equal numbers the one with fewer zeros.

    Source: github.com/fvbommel/sortorder, as docker sorts volumes.
    """
    key: list[tuple[int, int, str]] = []
    for part in _DIGITS.split(text):
        if part.isascii() and part.isdigit():
            digits = part.lstrip("0")
            key += [(0, len(digits), digits), (0, len(part), "")]
        elif part:
            key.append((1, 0, part))
    return key


def ports(published: Iterable[Document]) -> str:
    """The ports of a container: `0.0.0.0:8080->80/tcp, 443/tcp`, neighbours joined to ranges.

    Source: docker/cli, formatter.DisplayablePorts.
    """
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    finished: list[str] = []
    mapped: list[str] = []
    for port in sorted(published, key=_port_order):
        private, public = port.number("PrivatePort"), port.number("PublicPort")
        address, protocol = port.text("IP"), port.text("Type")
        if address and public != private:
            mapped.append(f"{_joined(address, str(public))}->{private}/{protocol}")
            continue
        group = (address, protocol)
        first, last = groups.get(group, (private, private - 1))
        if private != last + 1:
            finished.append(_port_group(group, first, last))
            first = private
        groups[group] = (first, private)
    finished += [_port_group(group, *span) for group, span in groups.items()]
    return ", ".join(finished + mapped)


def _port_order(port: Document) -> tuple[int, str, int, str]:
    return port.number("PrivatePort"), port.text("IP"), port.number("PublicPort"), port.text("Type")


def _port_group(group: tuple[str, str], first: int, last: int) -> str:
    address, protocol = group
    span = str(first) if first == last else f"{first}-{last}"
    return (f"{_joined(address, span)}->" if address else "") + f"{span}/{protocol}"


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
