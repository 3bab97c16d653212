"""The steps that made an image. Pure. Source: OCI image specification, `config.md`; Docker Engine API, ImageHistory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.images.model import Image, parse_time


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step. `id` is the image's own for the newest, `<missing>` for the rest; `created` in Unix seconds."""

    id: str
    created: int
    created_by: str
    comment: str
    size_bytes: int
    tags: tuple[str, ...]


def of(image: Image, layer_sizes_bytes: Sequence[int]) -> list[HistoryEntry]:
    """Give the steps, newest first, each with the size of its layer; sizes are given lowest first."""
    steps = image.config.get("history")
    sizes = list(layer_sizes_bytes)
    entries: list[HistoryEntry] = []
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict):
            size = 0 if step.get("empty_layer") is True or not sizes else sizes.pop(0)
            entries.append(
                HistoryEntry(
                    "<missing>",
                    int(parse_time(step.get("created")).timestamp()),
                    _text(step.get("created_by")),
                    _text(step.get("comment")),
                    size,
                    (),
                )
            )
    entries += [HistoryEntry("<missing>", int(image.created_at.timestamp()), "", "", size, ()) for size in sizes]
    entries.reverse()
    if entries:
        newest = entries[0]
        entries[0] = HistoryEntry(
            image.id, newest.created, newest.created_by, newest.comment, newest.size_bytes, image.tags
        )
    return entries


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
