"""The steps that made an image. Pure. Source: OCI image specification, `config.md`; Docker Engine API, ImageHistory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


def of(image: Image, layer_sizes_bytes: Sequence[int], ancestors: Sequence[Image] = ()) -> list[HistoryEntry]:
    """Give the steps, newest first, each with the size of its layer; sizes are given lowest first.

    `ancestors` are what the image was made from here, the nearest first: their ids stand beside their newest steps.
    """
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
    for named in (image, *ancestors):
        place = len(entries) - max(1, _steps(named))
        if 0 <= place < len(entries):
            entries[place] = replace(entries[place], id=named.id, tags=named.tags)
    if entries and entries[0].id != image.id:
        entries[0] = replace(entries[0], id=image.id, tags=image.tags)
    return entries


def _steps(image: Image) -> int:
    steps = image.config.get("history")
    return len(steps) if isinstance(steps, list) else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
