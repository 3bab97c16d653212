"""What a registry says of an image, without getting it: `docker manifest inspect` and Compose's image digests ask.

Source: Docker Engine API, operationId DistributionInspect.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from holdfast.errors import InvalidParameter, NotFound, System
from holdfast.images import reference
from holdfast.images.downloading import Downloader
from holdfast.images.files import ImageFiles
from holdfast.images.manifests import INDEX_TYPE, MANIFEST_TYPE
from holdfast.images.model import digest_of
from holdfast.images.platforms import Platform, platform_of
from holdfast.images.progress import nowhere
from holdfast.images.pulling import parse_manifest
from holdfast.images.skopeo import Credentials, fetch_manifest
from holdfast.store.images import ImageTable

_CONFIG_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Distribution:
    """The manifest or index that a name leads to, and what it is for."""

    media_type: str
    digest: str
    size_bytes: int
    platforms: tuple[Platform, ...]


def look_up(files: ImageFiles, table: ImageTable, name: str, credentials: Credentials) -> Distribution:
    """Ask the registry of `name`. Raises InvalidParameter, NotFound, Unauthorized, System in Docker's words."""
    if reference.is_image_id(f"sha256:{name}"):
        raise System("no manifest found for full image ID")
    wanted = reference.parse(name).tagged()
    try:
        text = fetch_manifest(wanted, credentials)
    except NotFound as error:
        if "manifest unknown" in error.message:
            raise NotFound("manifest unknown: manifest unknown") from None
        raise
    digest = digest_of(text)
    if wanted.digest and digest != wanted.digest:
        raise System(f"manifest verification failed for digest {wanted.digest}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise System(f"invalid manifest: {error}") from error
    if isinstance(document, dict) and isinstance(document.get("manifests"), list):
        entries = [entry for entry in document["manifests"] if isinstance(entry, dict)]
        named = [entry.get("platform") for entry in entries]
        platforms = tuple(platform_of(platform) for platform in named if isinstance(platform, dict))
        return Distribution(_type(document, INDEX_TYPE), digest, len(text), platforms)
    manifest = parse_manifest(text)
    if manifest.config.size_bytes > _CONFIG_MAX_BYTES:
        raise InvalidParameter(f"invalid image JSON: more than {_CONFIG_MAX_BYTES} bytes")
    with files.workspace() as workspace:
        downloader = Downloader(files, table, wanted.with_digest(digest), credentials, workspace, nowhere)
        try:
            config = json.loads(downloader.small(manifest.config))
        except (ValueError, RecursionError):
            config = None
    platforms = (platform_of(config),) if isinstance(config, dict) and config.get("os") else ()
    return Distribution(_type(document, MANIFEST_TYPE), digest, len(text), platforms)


def _type(document: object, otherwise: str) -> str:
    found = document.get("mediaType") if isinstance(document, dict) else None
    return found if isinstance(found, str) else otherwise
