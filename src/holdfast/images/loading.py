"""`docker load`: the images of an archive, one after the other, each whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from holdfast.images import reference
from holdfast.images.archive import Archive, ArchivedImage, read_archive, tag_of
from holdfast.images.files import ImageFiles
from holdfast.images.intake import Intake, LayerBlob, Names
from holdfast.images.model import ImageConfig, parse_config
from holdfast.images.platforms import parse_platform, platform_of
from holdfast.images.progress import Progress, amount, nowhere, stream
from holdfast.images.tarstream import Readable

Loaded = tuple[str, Mapping[str, str] | None]
"""Id and labels of an image that is now here."""


def load(
    files: ImageFiles, intake: Intake, archive: Readable, progress: Progress, *, quiet: bool, platform: str
) -> Iterator[Loaded]:
    """Load every image of an archive, yielding each once it is recorded; with `platform`, those that are for it.

    Raises InvalidParameter for a bad archive, System, OSError. Source: Docker Engine, `tarexport`.
    """
    wanted = parse_platform(platform)
    with files.workspace() as workspace:
        members = read_archive(archive, workspace, lambda _: None)
        found = members.images(wanted)
        # All is checked before the first image goes in.
        plans = [(each, list(map(tag_of, each.tags)), parse_config(members.metadata(each.config))) for each in found]
        for each, tags, config in plans:
            if platform and not wanted.accepts(platform_of(config.json)):
                continue
            with files.workspace() as own:
                yield _load_one(intake, members, each, tags, config, own, nowhere if quiet else progress, progress)


def _load_one(
    intake: Intake,
    members: Archive,
    each: ArchivedImage,
    tags: list[reference.Reference],
    config: ImageConfig,
    workspace: Path,
    layer_progress: Progress,
    progress: Progress,
) -> Loaded:
    layers = [
        LayerBlob(member.path, member.digest, member.size_bytes) for member in map(members.find, each.layers)
    ]

    def unpacked(place: int) -> None:
        size = layers[place].size_bytes
        layer_progress(amount("Loading layer", reference.short_id(config.diff_ids[place]), size, size))

    names = Names(tags={str(tag): None for tag in tags}, digests={}, manifests={})
    moved = intake.add(config, layers, names, workspace, unpacked=unpacked)
    for tag in tags:
        previous = moved.get(str(tag))
        if previous:
            what = f"The image {tag.familiar} already exists"
            progress(stream(f"{what}, renaming the old one with ID {previous} to empty string\n"))
        progress(stream(f"Loaded image: {tag.familiar}\n"))
    if not tags:
        progress(stream(f"Loaded image ID: {config.image_id}\n"))
    return config.image_id, labels_of(config)


def labels_of(config: ImageConfig) -> Mapping[str, str] | None:
    """The labels that a configuration gives."""
    inner = config.json.get("config")
    found = inner.get("Labels") if isinstance(inner, dict) else None
    return found if isinstance(found, dict) and found else None
