"""JSON in, as Go's encoding/json and Docker's httputils.ReadJSON read it."""

from __future__ import annotations

from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


def decode(shape: type[S], data: bytes) -> S:
    """Read `data` into `shape`."""
    return msgspec.json.decode(data, type=shape)


def require_json_content_type(content_type: str, *, has_body: bool) -> None:
    """Check a Content-Type."""
