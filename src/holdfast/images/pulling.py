"""`docker pull`: from a reference to an image that is here, its manifest's digest remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InvalidParameter, NotFound, System, Unsupported
from holdfast.images import reference
from holdfast.images.downloading import Downloader, Wanted
from holdfast.images.files import ImageFiles
from holdfast.images.intake import Intake, LayerBlob, Names
from holdfast.images.loading import labels_of
from holdfast.images.model import digest_of, is_digest, parse_config
from holdfast.images.platforms import Platform, choose, mismatch_of, parse_platform, platform_of
from holdfast.images.progress import Progress, layer_status, nowhere, status
from holdfast.images.skopeo import Credentials, fetch_manifest
from holdfast.store.images import ImageTable

_CONFIG_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image's manifest: its text, its configuration and its layers, lowest first."""

    text: bytes
    config: Wanted
    layers: tuple[Wanted, ...]

    @property
    def digest(self) -> str:
        """The digest of the manifest itself."""
        return digest_of(self.text)


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image that was pulled; `mismatch` says so if its platform is not the one that was asked for."""

    id: str
    labels: Mapping[str, str] | None
    is_news: bool
    mismatch: str


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
) -> Pulled:
    """Get `wanted` from its registry; what is here already is only named.

    Raises NotFound, Unauthorized, Unsupported (old formats), InvalidParameter, System, and what `progress` raises.
    """
    target = parse_platform(platform)
    listed = _fetch(wanted, credentials)
    progress(status(f"Pulling from {_repository(wanted)}", id=wanted.tag or wanted.familiar))
    manifest = _choose(listed, wanted, target, credentials)
    top_digest = digest_of(listed)
    names = Names(
        tags={str(wanted): None} if wanted.tag else {},
        digests={str(wanted.with_digest(top_digest)): manifest.digest},
        manifests={manifest.digest: manifest.text},
    )
    known = table.find_tag(str(wanted)) if wanted.tag else table.find_digest(str(wanted))
    with files.workspace() as workspace:
        downloader = Downloader(
            files, table, wanted.with_digest(manifest.digest), credentials, workspace, progress
        )
        present = table.get(manifest.config.digest)
        config = parse_config(_download_config(manifest, downloader) if present is None else present.config)
        if len(manifest.layers) != len(config.diff_ids):
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {len(manifest.layers)}, got {len(config.diff_ids)}"
            )
        quiet = present is not None and not present.hidden
        told = nowhere if quiet else progress
        fresh: set[int] = set()
        if not quiet:
            fresh = set(intake.missing_layers(config))
            blobs = downloader.layers(manifest.layers, config.diff_ids)
        else:
            blobs = [LayerBlob(files.blob(layer.digest), layer.digest, layer.size_bytes) for layer in manifest.layers]

        def unpacked(place: int) -> None:
            if place in fresh:
                told(layer_status("Pull complete", manifest.layers[place].short_id))

        intake.add(config, blobs, names, workspace, unpacked=unpacked)
    progress(status(f"Digest: {top_digest}"))
    mismatch = ""
    if platform and not target.accepts(platform_of(config.json)):
        mismatch = mismatch_of(wanted.familiar, platform_of(config.json), target)
    return Pulled(config.image_id, labels_of(config), known != config.image_id, mismatch)


def finish(name: str, pulled: Sequence[Pulled], progress: Progress) -> None:
    """Say what the pull of `name` came to."""
    outcome = "Downloaded newer image" if any(each.is_news for each in pulled) else "Image is up to date"
    progress(status(f"Status: {outcome} for {name}"))
    for each in pulled:
        if each.mismatch:
            progress(status(f"WARNING: {each.mismatch}"))


def parse_manifest(text: bytes) -> Manifest:
    """Parse the manifest of one image. Raises Unsupported for the formats before 2016, System for a broken one."""
    document = _json(text)
    if document.get("schemaVersion") == 1:
        raise Unsupported("Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported")
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise System("invalid manifest: config or layers missing")
    return Manifest(text, _blob(document.get("config")), tuple(map(_blob, layers)))


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


def _download_config(manifest: Manifest, downloader: Downloader) -> bytes:
    if manifest.config.size_bytes > _CONFIG_MAX_BYTES:
        raise InvalidParameter(f"invalid image JSON: more than {_CONFIG_MAX_BYTES} bytes")
    return downloader.small(manifest.config)


def _blob(descriptor: Any) -> Wanted:
    size = descriptor.get("size") if isinstance(descriptor, dict) else None
    if not isinstance(size, int) or size < 0 or not is_digest(descriptor.get("digest")):
        raise System("invalid manifest: a configuration or layer without digest or size")
    return Wanted(str(descriptor["digest"]), size)


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
