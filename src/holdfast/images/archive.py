"""Archives of images: what `docker save` writes, new and old, and OCI image layouts.

    manifest.json                    [{"Config", "RepoTags", "Layers"}]: names of members
    HEX.json, HEX/layer.tar          configs and layers before Docker 25
    blobs/sha256/HEX                 configs, layers and manifests since
    index.json, oci-layout           the same as an OCI image layout

An archive is read in one pass into files numbered by us; what it calls its members is only ever compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from holdfast.errors import InvalidParameter
from holdfast.images import reference
from holdfast.images.model import is_digest
from holdfast.images.platforms import Platform, choose
from holdfast.images.tarstream import CHUNK, Readable, TarStream, normal_name
from holdfast.images.unpack import Room, compression_of, decompressed

METADATA_MAX_BYTES: Final = 8 << 20
_LINKS_MAX: Final = 16
_INDEX_DEPTH_MAX: Final = 4
_INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


@dataclass(frozen=True, slots=True)
class StoredMember:
    """A member's data in a file of ours, and its digest."""

    path: Path
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image in an archive: names of its members, lowest layer first, and the tags it shall get."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


class Archive:
    """The members of an archive that was read to its end."""

    def __init__(self, files: Mapping[str, StoredMember], links: Mapping[str, str]) -> None:
        self._files = files
        self._links = links

    def find(self, name: str) -> StoredMember:
        """Give a member by name; links are followed among the members. Raises InvalidParameter if there is none."""
        wanted = normal_name(name)
        for _ in range(_LINKS_MAX):
            if wanted in self._files:
                return self._files[wanted]
            if wanted not in self._links:
                break
            wanted = self._links[wanted]
        raise InvalidParameter(f"invalid archive: {name} is missing")

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._files or name in self._links

    def metadata(self, name: str) -> bytes:
        """Read a small member whole. Raises InvalidParameter if it is missing or not small."""
        member = self.find(name)
        if member.size_bytes > METADATA_MAX_BYTES:
            size, most = member.size_bytes, METADATA_MAX_BYTES
            raise InvalidParameter(f"invalid archive: {name} has {size} bytes, at most {most}")
        return member.path.read_bytes()

    def images(self, platform: Platform) -> list[ArchivedImage]:
        """List the images. Raises InvalidParameter if this is no archive of images."""
        if self.has("manifest.json"):
            return parse_manifest(self.metadata("manifest.json"))
        if self.has("index.json"):
            return self._index(_json(self.metadata("index.json"), "index.json"), platform, "", 0)
        raise InvalidParameter("invalid archive: neither manifest.json nor index.json found")

    def _index(self, index: Any, platform: Platform, name: str, depth: int) -> list[ArchivedImage]:
        manifests = index.get("manifests") if isinstance(index, dict) else None
        if not isinstance(manifests, list) or depth == _INDEX_DEPTH_MAX:
            raise InvalidParameter("invalid archive: index.json lists no manifests")
        if depth:
            chosen = choose(manifests, platform)
            if chosen is None:
                raise InvalidParameter(f"no image for platform {platform} in the archive")
            manifests = [chosen]
        found: list[ArchivedImage] = []
        for descriptor in manifests:
            path = _blob_name(descriptor)
            tag = name or _annotated_name(descriptor)
            content = _json(self.metadata(path), path)
            if descriptor.get("mediaType") in _INDEX_TYPES or (isinstance(content, dict) and "manifests" in content):
                found += self._index(content, platform, tag, depth + 1)
            else:
                found.append(_parse_oci_manifest(content, tag))
        return found


def read_archive(stream: Readable, workspace: Path, received: Callable[[int], None]) -> Archive:
    """Read an archive, plain or compressed, to its end; members go into files in `workspace`.

    `received` is told the number of bytes of each piece. Raises InvalidParameter, and OSError of the disk.
    """
    head = b""
    while len(head) < 8 and (more := stream.read(8 - len(head))):
        head += more
    compression = compression_of(head)
    replay = _Replay(head, stream)
    if not compression:
        return _read_members(replay, workspace, received)
    packed, room = workspace / "archive", Room(workspace)
    with packed.open("wb") as out:
        while data := replay.read(CHUNK):
            room.take(len(data))
            out.write(data)
    with decompressed(packed, compression) as plain:
        archive = _read_members(plain, workspace, received)
    packed.unlink()
    return archive


def parse_manifest(text: bytes) -> list[ArchivedImage]:
    """Parse manifest.json. Raises InvalidParameter."""
    entries = _json(text, "manifest.json")
    if not isinstance(entries, list):
        raise InvalidParameter("invalid archive: manifest.json is not a list")
    images = []
    for entry in entries:
        config = entry.get("Config") if isinstance(entry, dict) else None
        tags = entry.get("RepoTags") or [] if isinstance(entry, dict) else None
        layers = entry.get("Layers") or [] if isinstance(entry, dict) else None
        if not isinstance(config, str) or not _are_texts(tags) or not _are_texts(layers):
            raise InvalidParameter("invalid archive: manifest.json does not name a config and layers")
        images.append(ArchivedImage(config, tuple(layers or ()), tuple(tags or ())))
    return images


def _parse_oci_manifest(manifest: Any, tag: str) -> ArchivedImage:
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list):
        raise InvalidParameter("invalid archive: a manifest without layers")
    return ArchivedImage(
        _blob_name(manifest.get("config")), tuple(_blob_name(layer) for layer in layers), (tag,) if tag else ()
    )


def _blob_name(descriptor: Any) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not is_digest(digest):
        raise InvalidParameter("invalid archive: a descriptor without a sha256 digest")
    return "blobs/" + str(digest).replace(":", "/")


def _annotated_name(descriptor: Any) -> str:
    """The name that a layout gives an image: containerd's whole one, else the plain one if it is more than a tag."""
    notes = descriptor.get("annotations")
    if not isinstance(notes, dict):
        return ""
    whole = notes.get("io.containerd.image.name")
    if isinstance(whole, str):
        return whole
    plain = notes.get("org.opencontainers.image.ref.name")
    if isinstance(plain, str) and (":" in plain or "/" in plain):
        return plain
    return ""


def tag_of(text: str) -> reference.Reference:
    """Parse a tag from an archive; `latest` if it has none. Raises InvalidParameter."""
    parsed = reference.parse(text).tagged()
    if parsed.digest:
        raise InvalidParameter(f"invalid tag {text!r}")
    return parsed


def _read_members(stream: Readable, workspace: Path, received: Callable[[int], None]) -> Archive:
    files: dict[str, StoredMember] = {}
    links: dict[str, str] = {}
    tar, room = TarStream(stream), Room(workspace)
    for member in tar:
        if member.kind == "link":
            links[member.name] = member.target
        elif member.kind == "file":
            path = workspace / f"member-{len(files)}"
            digest = hashlib.sha256()
            with path.open("wb") as out:

                def keep(data: bytes, digest: Any = digest, write: Callable[[bytes], object] = out.write) -> None:
                    digest.update(data)
                    room.take(len(data))
                    write(data)
                    received(len(data))

                tar.copy(keep)
            files[member.name] = StoredMember(path, f"sha256:{digest.hexdigest()}", member.size_bytes)
    return Archive(files, links)


class _Replay:
    """A stream whose first bytes have been read already."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Read as from the stream itself."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)


def _json(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"invalid archive: {name}: {error}") from error


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
