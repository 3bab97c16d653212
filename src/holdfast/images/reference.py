"""Names of images: parsing, normal and familiar forms. Pure.

    busybox                          docker.io/library/busybox:latest
    team/app:1.2                     docker.io/team/app:1.2
    localhost:5000/app@sha256:...    as it stands

Source of the rules: the grammar of the distribution project (`reference.go`), whose error texts Docker passes on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from holdfast.errors import InvalidParameter

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_OFFICIAL: Final = "library/"
_NAME_LENGTH_MAX: Final = 255

_ALNUM = r"[a-z0-9]+"
_SEPARATOR = r"(?:[._]|__|[-]+)"
_PATH = rf"{_ALNUM}(?:{_SEPARATOR}{_ALNUM})*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_DOMAIN = rf"{_HOST}(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE: Final = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_PATH}(?:/{_PATH})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?", re.ASCII
)
_TAG_ALONE: Final = re.compile(_TAG, re.ASCII)
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ID_PREFIX: Final = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})", re.ASCII)
_HEX_LENGTH: Final = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in normal form: `domain/path`, then a tag or a digest or both or neither."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The repository in normal form: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return rest if rest and "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: `busybox:latest`."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def tagged(self) -> Reference:
        """The same with tag `latest` if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The repository with this tag and no digest. Raises InvalidParameter for a bad tag."""
        if not _TAG_ALONE.fullmatch(tag):
            raise InvalidParameter("invalid tag format")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: str) -> Reference:
        """The repository with this digest and no tag. Raises InvalidParameter for a bad digest."""
        return replace(self, tag=None, digest=checked_digest(digest))


def parse(text: str) -> Reference:
    """Parse a name as people write it. Raises InvalidParameter in the words of Docker."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    path = remainder.partition(":")[0]
    if path.lower() != path:
        raise InvalidParameter(f"invalid reference format: repository name ({path}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None:
        raise InvalidParameter("invalid reference format")
    if len(match["path"]) > _NAME_LENGTH_MAX:
        raise InvalidParameter(f"repository name must not be more than {_NAME_LENGTH_MAX} characters")
    if match["digest"]:
        checked_digest(match["digest"])
    return Reference(match["domain"], match["path"], match["tag"], match["digest"])


def parse_stored(text: str) -> Reference:
    """Parse a reference that is in normal form already, as the catalogue keeps it."""
    match = _REFERENCE.fullmatch(text)
    assert match is not None, text
    return Reference(match["domain"], match["path"], match["tag"], match["digest"])


def checked_digest(digest: str) -> str:
    """Give `digest` back if it is one. Raises InvalidParameter, as the digest library that Docker uses does."""
    algorithm, _, encoded = digest.partition(":")
    length = _HEX_LENGTH.get(algorithm)
    if length is None:
        raise InvalidParameter("unsupported digest algorithm")
    if len(encoded) != length:
        raise InvalidParameter("invalid checksum digest length")
    if not re.fullmatch(r"[0-9a-f]+", encoded):
        raise InvalidParameter("invalid checksum digest format")
    return digest


def is_image_id(text: str) -> bool:
    """Whether `text` is a complete image id, `sha256:` and 64 hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def id_prefix(text: str) -> str | None:
    """Give the hexadecimal digits if `text` may be the beginning of an image id, with or without `sha256:`."""
    match = _ID_PREFIX.fullmatch(text)
    return match[1] if match else None


def short_id(image_id: str) -> str:
    """The first 12 digits of an id, as people see it."""
    return image_id.removeprefix("sha256:")[:12]


def _split_domain(text: str) -> tuple[str, str]:
    """Tell a registry's name from the first part of a path: it has a dot, a port or a capital, or is `localhost`."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == "index.docker.io":
        domain, path = DEFAULT_DOMAIN, rest
    elif first == "localhost" or any(mark in first for mark in ".:") or first.lower() != first:
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path
