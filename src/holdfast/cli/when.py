"""Times on the command line: `--since 42m`, `--until 2026-11-23T14:33:12Z`.

Source: docs.docker.com, "docker container logs"; github.com/moby/moby, api/types/time.GetTimestamp.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from holdfast.cli.human import parse_duration
from holdfast.cli.session import Refused

_UNIX = re.compile(r"\d+(\.\d{1,9})?")
_FRACTION = re.compile(r"\.(\d+)")


def timestamp(text: str) -> str:
    """Unix seconds with nanoseconds, as the API takes them, of a time in RFC 3339 (any part from the hour may be
    missing, the zone too: then it is ours), Unix seconds, or how long ago. `""` stays. Raises Refused."""
    if not text or _UNIX.fullmatch(text):
        return text
    ago = parse_duration(text.removeprefix("-"))
    if ago is not None:
        ahead = text.startswith("-")
        seconds, nanoseconds = divmod(time.time_ns() + (ago if ahead else -ago), 10**9)
        return f"{seconds}.{nanoseconds:09d}"
    fraction = _FRACTION.search(text)
    plain = _FRACTION.sub("", text)
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d(Z|[+-]\d\d:\d\d)?", plain):
        plain = plain[:13] + ":00" + plain[13:]
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        raise Refused(f'failed to parse value as time or duration: "{text}"') from None
    nanoseconds = int((fraction[1] if fraction else "0").ljust(9, "0")[:9])
    return f"{int(moment.astimezone().timestamp())}.{nanoseconds:09d}"
