"""`docker pull`: from a reference to an image that is here, its manifest's digest remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import InvalidParameter, NotFound, System, Unsupported
from holdfast.images import reference
from holdfast.images.files import ImageFiles
from holdfast.images.intake import Intake, LayerBlob, Names
from holdfast.images.loading import Loaded, labels_of
from holdfast.images.model import digest_of, is_digest, parse_config
from holdfast.images.platforms import Platform, choose, parse_platform, platform_of
from holdfast.images.progress import Progress, Throttled, status
from holdfast.images.skopeo import Credentials, fetch_image, fetch_manifest
from holdfast.store.images import ImageTable

_CONFIG_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image's manifest: its text, and digests and sizes of its configuration and layers, lowest first."""

    text: bytes
    config_digest: str
    layers: tuple[tuple[str, int], ...]

    @property
    def digest(self) -> str:
        """The digest of the manifest itself."""
        return digest_of(self.text)


def wanted_reference(name: str, tag: str) -> reference.Reference:
    """Put `fromImage` and `tag` of the API together; `tag` may be a digest. Raises InvalidParameter."""
    parsed = reference.parse(name)
    if parsed.digest:
        return parsed.with_digest(parsed.digest)
    if ":" in tag:
        return parsed.with_digest(tag)
    return parsed.with_tag(tag) if tag else parsed.tagged()


def pull(
    files: ImageFiles,
    intake: Intake,
    table: ImageTable,
    wanted: reference.Reference,
    platform: str,
    credentials: Credentials,
    progress: Progress,
) -> Loaded:
    """Get `wanted` from its registry; what is here already is only named. Gives id and labels.

    Raises NotFound, Unauthorized, Unsupported (old formats), InvalidParameter, System.
    """
    target = parse_platform(platform)
    listed = _fetch(wanted, credentials)
    progress(status(f"Pulling from {_repository(wanted)}", id=wanted.tag or wanted.digest or ""))
    manifest = _choose(listed, wanted, target, credentials)
    top_digest = digest_of(listed)
    now = time.time()
    names = Names(
        tags={str(wanted): now} if wanted.tag else {},
        digests={str(wanted.with_digest(top_digest)): manifest.digest},
        manifests={manifest.digest: manifest.text},
    )
    known = table.find_tag(str(wanted)) if wanted.tag else table.find_digest(str(wanted))
    with files.workspace() as workspace:
        present = table.get(manifest.config_digest)
        if present is not None and not present.hidden:
            config = parse_config(present.config)
            if platform:
                _check_platform(config.json, target, wanted)
            blobs = [LayerBlob(files.blob(digest), digest, size) for digest, size in manifest.layers]
            intake.add(config, blobs, names, workspace)
        else:
            config = parse_config(_download(manifest, wanted, credentials, workspace, progress))
            if platform:
                _check_platform(config.json, target, wanted)
            blobs = [
                LayerBlob(workspace / "image" / reference_hex(digest), digest, size)
                for digest, size in manifest.layers
            ]
            intake.add(config, blobs, names, workspace, unpacked=_Announcer(manifest.layers, progress).unpacked)
    progress(status(f"Digest: {top_digest}"))
    outcome = "Image is up to date" if known == config.image_id else "Downloaded newer image"
    progress(status(f"Status: {outcome} for {wanted.familiar}"))
    return config.image_id, labels_of(config)


def parse_manifest(text: bytes) -> Manifest:
    """Parse the manifest of one image. Raises Unsupported for the formats before 2016, System for a broken one."""
    document = _json(text)
    if document.get("schemaVersion") == 1:
        raise Unsupported("Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported")
    config, layers = document.get("config"), document.get("layers")
    if not isinstance(config, dict) or not is_digest(config.get("digest")) or not isinstance(layers, list):
        raise System("invalid manifest: config or layers missing")
    found = []
    for layer in layers:
        size = layer.get("size") if isinstance(layer, dict) else None
        if not isinstance(size, int) or size < 0 or not is_digest(layer.get("digest")):
            raise System("invalid manifest: a layer without digest or size")
        found.append((str(layer["digest"]), size))
    return Manifest(text, str(config["digest"]), tuple(found))


def reference_hex(digest: str) -> str:
    """The digits of a digest."""
    return digest.removeprefix("sha256:")


def _fetch(wanted: reference.Reference, credentials: Credentials) -> bytes:
    text = fetch_manifest(wanted, credentials)
    if wanted.digest and digest_of(text) != wanted.digest:
        raise System(f"manifest verification failed for digest {wanted.digest}")
    return text


def _choose(
    text: bytes, wanted: reference.Reference, target: Platform, credentials: Credentials
) -> Manifest:
    """Go from an index, if it is one, to the manifest for the platform."""
    document = _json(text)
    if not isinstance(document.get("manifests"), list):
        return parse_manifest(text)
    chosen = choose(document["manifests"], target)
    if chosen is None or not is_digest(chosen.get("digest")):
        raise NotFound(f"no matching manifest for {target} in the manifest list entries")
    return parse_manifest(_fetch(wanted.with_digest(str(chosen["digest"])), credentials))


def _download(
    manifest: Manifest, wanted: reference.Reference, credentials: Credentials, workspace: Path, progress: Progress
) -> bytes:
    """Copy configuration and layers to `workspace`/image; gives the configuration."""
    announcer = _Announcer(manifest.layers, progress)
    announcer.begin()
    fetch_image(wanted.with_digest(manifest.digest), credentials, workspace / "image", announcer.received)
    announcer.end()
    path = workspace / "image" / reference_hex(manifest.config_digest)
    if path.stat().st_size > _CONFIG_MAX_BYTES:
        raise InvalidParameter(f"invalid image JSON: more than {_CONFIG_MAX_BYTES} bytes")
    text = path.read_bytes()
    if digest_of(text) != manifest.config_digest:
        raise System(f"image config verification failed for digest {manifest.config_digest}")
    return text


class _Announcer:
    """Tells how far each layer is.

    What is on its way has no names yet; its bytes are counted to the layers that are not complete, in order, which is
    the order in which they are asked for.
    """

    def __init__(self, layers: Sequence[tuple[str, int]], progress: Progress) -> None:
        self._layers = list(dict.fromkeys(layers))
        self._places = list(layers)
        self._progress = progress
        self._amounts = Throttled(progress)
        self._complete: set[str] = set()

    def begin(self) -> None:
        for digest, _ in self._layers:
            self._progress(status("Pulling fs layer", id=reference.short_id(digest)))

    def received(self, complete: Mapping[str, int], partial_bytes: int) -> None:
        for digest, size in self._layers:
            if digest in self._complete:
                continue
            if reference_hex(digest) in complete:
                self._finish(digest)
            elif partial_bytes > 0:
                share = min(partial_bytes, size)
                partial_bytes -= share
                self._amounts.amount("Downloading", reference.short_id(digest), share, size)

    def end(self) -> None:
        for digest, _ in self._layers:
            if digest not in self._complete:
                self._finish(digest)

    def unpacked(self, place: int) -> None:
        self._progress(status("Pull complete", id=reference.short_id(self._places[place][0])))

    def _finish(self, digest: str) -> None:
        self._complete.add(digest)
        self._progress(status("Download complete", id=reference.short_id(digest)))


def _check_platform(config: Mapping[str, Any], target: Platform, wanted: reference.Reference) -> None:
    """Refuse a single image of another architecture than the one that was asked for."""
    offered = platform_of(config)
    if offered.architecture and not target.accepts(offered):
        raise NotFound(
            f"image with reference {wanted.familiar} was found but does not provide the specified platform ({target}):"
            f" it is for {offered}"
        )


def _repository(wanted: reference.Reference) -> str:
    return wanted.path if wanted.domain == reference.DEFAULT_DOMAIN else wanted.name.partition("/")[2]


def _json(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise System(f"invalid manifest: {error}") from error
    if not isinstance(document, dict):
        raise System("invalid manifest: not an object")
    return document
