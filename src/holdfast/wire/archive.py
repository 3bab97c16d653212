"""The header that describes a path in a container. Source: Docker Engine API, `X-Docker-Container-Path-Stat`."""

from __future__ import annotations

import base64
import json
import stat
import time

_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
_ESCAPES = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"))


def encode_path_stat(name: str, size_bytes: int, mode: int, mtime_ns: int, link_target: str) -> str:
    """Give the header's value: base64 of JSON, as Go writes it. `mode` is as stat(2) gives it."""
    shape = {
        "name": name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "size": size_bytes,
        "mode": encode_mode(mode),
        "mtime": encode_time(mtime_ns),
        "linkTarget": link_target.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
    }
    text = json.dumps(shape, ensure_ascii=False, separators=(",", ":"))
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return base64.b64encode(text.encode()).decode()


def decode_path_stat(value: str) -> dict[str, object]:
    """Read the header's value back, keys as they stand there. Raises ValueError."""
    decoded = json.loads(base64.b64decode(value, validate=True))
    if not isinstance(decoded, dict):
        raise ValueError("not an object")
    return decoded


def encode_mode(mode: int) -> int:
    """Give a mode of stat(2) as Go's FileMode."""
    return stat.S_IMODE(mode) & 0o777 | _TYPES.get(stat.S_IFMT(mode), 0) | sum(go for bit, go in _BITS if mode & bit)


def encode_time(ns: int) -> str:
    """Give nanoseconds since 1970 as RFC 3339 in UTC, fractions without zeros at their end, as Go does."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    moment = time.gmtime(seconds)
    date = f"{moment.tm_year:04}-{moment.tm_mon:02}-{moment.tm_mday:02}"
    text = f"{date}T{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"
    return text + (f".{fraction:09}".rstrip("0") if fraction else "") + "Z"
