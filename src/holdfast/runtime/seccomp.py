"""The seccomp profile: from the conditional form that engines ship to the flat form of the OCI spec.

The profile is Debian's, package golang-github-containers-common. A rule in it may depend on the container's
capabilities, the architecture and the kernel; the OCI spec knows no such conditions, so they are decided here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from holdfast.errors import InvalidParameter

PROFILE_PATHS: Final = (Path("/etc/containers/seccomp.json"), Path("/usr/share/containers/seccomp.json"))
"""Where the profile is looked for; an administrator's own comes first."""

_ARCHITECTURES: Final[Mapping[str, tuple[str, str]]] = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i386": ("x86", "SCMP_ARCH_X86"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "armv6l": ("arm", "SCMP_ARCH_ARM"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
    "mips64": ("mips64", "SCMP_ARCH_MIPS64"),
}
"""uname(2) machine → (the name in the profile's conditions, libseccomp's constant)."""


class Profile:
    """One parsed profile. Immutable by convention; conversions are cached by capability set."""

    def __init__(self, text: str | bytes) -> None:
        """Parse a profile in JSON. Raises InvalidParameter if it is none."""
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidParameter(f"Decoding seccomp profile failed: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("defaultAction"), str):
            raise InvalidParameter("Decoding seccomp profile failed: defaultAction is missing")
        if document.get("architectures") and document.get("archMap"):
            raise InvalidParameter("both 'architectures' and 'archMap' are specified in the seccomp profile, "
                                   "use either 'architectures' or 'archMap'")
        for rule in map(_mapping, _list(document.get("syscalls"))):
            if rule.get("name") and rule.get("names"):
                raise InvalidParameter("both 'name' and 'names' are specified in the seccomp profile, "
                                       "use either 'name' or 'names'")
            if not (rule.get("name") or rule.get("names")) or not rule.get("action"):
                raise InvalidParameter("Decoding seccomp profile failed: a rule lacks its names or its action")
        self._document: Mapping[str, object] = document
        self._cached = functools.lru_cache(maxsize=64)(self._convert)

    def for_container(
        self, capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
    ) -> Mapping[str, object]:
        """Give the OCI `linux.seccomp` object for a container with these capabilities. Do not change it.

        `machine` as uname(2) says it; on one that is not known, only rules without an architecture condition
        apply and the runtime takes its native architecture.
        """
        return self._cached(capabilities, machine, kernel)

    def _convert(self, capabilities: frozenset[str], machine: str, kernel: tuple[int, int]) -> Mapping[str, object]:
        name, constant = _ARCHITECTURES.get(machine, (machine, ""))
        document = self._document
        result: dict[str, object] = {"defaultAction": document["defaultAction"]}
        if document.get("defaultErrnoRet") is not None:
            result["defaultErrnoRet"] = document["defaultErrnoRet"]
        architectures = [str(entry) for entry in _list(document.get("architectures"))]
        for entry in map(_mapping, _list(document.get("archMap"))):
            if entry.get("architecture") == constant:
                architectures = [constant, *(str(sub) for sub in _list(entry.get("subArchitectures")))]
        if architectures:
            result["architectures"] = architectures
        if document.get("flags"):
            result["flags"] = document["flags"]
        result["syscalls"] = [
            _oci_rule(rule)
            for rule in map(_mapping, _list(document.get("syscalls")))
            if _applies(rule, capabilities, name, kernel)
        ]
        return result


@functools.cache
def default_profile() -> Profile | None:
    """Load the machine's profile, once; None if none is installed."""
    for path in PROFILE_PATHS:
        try:
            return Profile(path.read_bytes())
        except FileNotFoundError:
            continue
    return None


def _applies(
    rule: Mapping[str, object], capabilities: frozenset[str], architecture: str, kernel: tuple[int, int]
) -> bool:
    includes, excludes = _mapping(rule.get("includes")), _mapping(rule.get("excludes"))
    if architecture in _list(excludes.get("arches")):
        return False
    if capabilities.intersection(map(str, _list(excludes.get("caps")))):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    if includes.get("arches") and architecture not in _list(includes["arches"]):
        return False
    if not capabilities.issuperset(map(str, _list(includes.get("caps")))):
        return False
    return not includes.get("minKernel") or kernel >= _version(includes["minKernel"])


def _oci_rule(rule: Mapping[str, object]) -> dict[str, object]:
    result: dict[str, object] = {
        "names": _list(rule.get("names")) or [rule["name"]],
        "action": rule["action"],
    }
    if rule.get("errnoRet") is not None:
        result["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        result["args"] = rule["args"]
    return result


def _version(value: object) -> tuple[int, int]:
    major, _, minor = str(value).partition(".")
    return int(major), int(minor or 0)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
