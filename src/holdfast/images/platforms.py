"""Platforms: what this machine is, and which image of several fits. Pure but for asking the kernel its name.

Source: OCI image specification, `image-index.md`; architecture names are those of Go (GOARCH).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast.errors import InvalidParameter

_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
_SYSTEMS: Final = ("linux", "windows", "darwin", "freebsd")
_OS: Final = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$"
_COMPONENT: Final = r"^[A-Za-z0-9_.-]+$"
_ALIASES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
_KNOWN_ARCHITECTURES: Final = frozenset({name for name, _ in _ARCHITECTURES.values()} | {"wasm", "ppc64"})
_ARM_VARIANTS: Final = {"v8": ("v8", "v7", "v6", "v5"), "v7": ("v7", "v6", "v5"), "v6": ("v6", "v5"), "v5": ("v5",)}


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system, architecture and, for ARM, variant."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def accepts(self, offered: Platform) -> bool:
        """Whether an image for `offered` runs here: the same system and architecture, a variant not beyond ours."""
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return False
        return not offered.variant or offered.variant in self._variants()

    def rank(self, offered: Platform) -> int:
        """How far an accepted image is from the best there could be; 0 is best."""
        variants = self._variants()
        return variants.index(offered.variant) if offered.variant in variants else len(variants)

    def _variants(self) -> tuple[str, ...]:
        if self.architecture == "arm":
            return _ARM_VARIANTS.get(self.variant or "v7", (self.variant,))
        if self.architecture == "arm64":
            return (self.variant or "v8", "v8")
        if self.architecture == "amd64":
            return (self.variant or "v1", "v1")
        return (self.variant,)


def host_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """Parse `os[/arch[/variant]]`, or an architecture alone; "" is the host. Raises InvalidParameter."""
    host = host_platform()
    if not text:
        return host
    parts = text.split("/")
    if len(parts) > 3:
        raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
    for place, part in enumerate(parts):
        pattern = _OS if place == 0 else _COMPONENT
        if not re.fullmatch(pattern, part, re.ASCII):
            kind, which = ("OS component", "OSAndVersion specifier") if place == 0 else ("component", "specifier")
            shown = pattern.replace("\\", "\\\\")
            raise InvalidParameter(
                f'"{part}" is an invalid {kind} of "{text}": {which} component must match "{shown}": invalid argument'
            )
    parts = [part.lower() for part in parts]
    parts[0] = parts[0].partition("(")[0]
    if len(parts) == 1:
        if parts[0] in _SYSTEMS:
            return Platform(parts[0], host.architecture, host.variant)
        if _ALIASES.get(parts[0], parts[0]) not in _KNOWN_ARCHITECTURES:
            raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
        parts.insert(0, "linux")
    architecture = _ALIASES.get(parts[1], parts[1])
    variant = parts[2] if len(parts) == 3 else ""
    if not variant and architecture == host.architecture:
        variant = host.variant
    return Platform(parts[0], architecture, variant)


def mismatch_of(name: str, found: Platform, wanted: Platform) -> str:
    """Say in Docker's words that an image is for another platform than the one that was asked for."""
    return (
        f"image with reference {name} was found but its platform ({found}) does not match the specified platform"
        f" ({wanted})"
    )


def foreign_to_host(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Give Docker's warning about an image that is not for this machine, where nobody asked for its platform."""
    host, found = host_platform(), platform_of(document)
    if not found.architecture or host.accepts(found):
        return ()
    what = f"The requested image's platform ({found}) does not match the detected host platform ({host})"
    return (f"{what} and no specific platform was requested",)


def platform_of(document: Mapping[str, Any]) -> Platform:
    """The platform that a descriptor's `platform` or an image's configuration names."""

    def text(key: str) -> str:
        value = document.get(key)
        return value if isinstance(value, str) else ""

    return Platform(text("os") or "linux", text("architecture"), text("variant"))


def choose(manifests: Sequence[Any], wanted: Platform) -> Mapping[str, Any] | None:
    """Pick the descriptor of an index that fits best; a single one that names no platform fits. None: none does."""
    offers: list[tuple[int, int, Mapping[str, Any]]] = []
    for descriptor in manifests:
        if not isinstance(descriptor, dict):
            continue
        named = descriptor.get("platform")
        if not isinstance(named, dict):
            if len(manifests) == 1:
                return descriptor
            continue
        offered = platform_of(named)
        if wanted.accepts(offered):
            offers.append((wanted.rank(offered), len(offers), descriptor))
    return min(offers, key=lambda offer: offer[:2])[2] if offers else None
