"""Compiled seccomp filters, so that the runtime need not compile the same profile for every container.

Compiling Debian's profile costs crun some 20 ms a container; loading the result costs 2. crun leaves what it compiled
in its state directory and takes such bytes back by an annotation, in place of the spec's `seccomp` section. So the
first container with a profile and capability set teaches us the filter for all that follow in this boot. Whether the
installed crun honours the annotation is tried by the start-up probe; otherwise none of this is used.
Source: crun(1), annotation `run.oci.seccomp_bpf_data`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ANNOTATION: Final = "run.oci.seccomp_bpf_data"
COMPILED_FILE: Final = "seccomp.bpf"

_INSTRUCTION_BYTES: Final = 8
_LIMIT_BYTES: Final = 4096 * _INSTRUCTION_BYTES         # BPF_MAXINSNS
_ENTRIES: Final = 64


class FilterCache:
    """Filters by profile, in memory and in a directory of root's that lasts as long as the boot. Thread-safe."""

    def __init__(self, directory: Path, runtime_key: str) -> None:
        """`runtime_key` changes whenever the runtime does, so that another version's filters are not used."""
        self._directory = directory
        self._runtime_key = runtime_key
        self._guard = threading.Lock()
        self._known: dict[str, str] = {}

    def apply(self, spec: Mapping[str, object]) -> tuple[Mapping[str, object], str]:
        """Exchange the spec's `seccomp` section for its compiled form if that is known.

        Returns the spec to use, and the key under which to `learn` the filter, "" if there is nothing to learn.
        """
        linux = spec.get("linux")
        section = linux.get("seccomp") if isinstance(linux, dict) else None
        if not isinstance(linux, dict) or not section:
            return spec, ""
        key = hashlib.sha256(f"{self._runtime_key}\0{json.dumps(section)}".encode()).hexdigest()
        encoded = self._find(key)
        if not encoded:
            return spec, key
        return with_filter(spec, encoded), ""

    def learn(self, key: str, encoded: str) -> None:
        """Keep a filter as `read_filter` gave it; "" is ignored. Raises OSError."""
        if not encoded:
            return
        self._remember(key, encoded)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        temporary = self._directory / f"{key}.{threading.get_ident()}.new"
        temporary.write_text(encoded)
        temporary.replace(self._directory / key)

    def _find(self, key: str) -> str:
        with self._guard:
            if key in self._known:
                return self._known[key]
        try:
            encoded = (self._directory / key).read_text()
        except FileNotFoundError:
            return ""
        self._remember(key, encoded)
        return encoded

    def _remember(self, key: str, encoded: str) -> None:
        with self._guard:
            while len(self._known) >= _ENTRIES:
                del self._known[next(iter(self._known))]
            self._known[key] = encoded


def with_filter(spec: Mapping[str, object], encoded: str) -> dict[str, object]:
    """The spec with a compiled filter in place of its `seccomp` section. Pure."""
    linux, annotations = spec.get("linux"), spec.get("annotations")
    assert isinstance(linux, dict), "a spec for Linux"
    return {
        **spec,
        "linux": {key: value for key, value in linux.items() if key != "seccomp"},
        "annotations": {**(annotations if isinstance(annotations, dict) else {}), ANNOTATION: encoded},
    }


def read_filter(state: Path) -> str:
    """The filter that the runtime compiled for the container with this state directory, as the annotation wants it.

    "" if there is none or it makes no sense. Raises OSError.
    """
    try:
        data = (state / COMPILED_FILE).read_bytes()
    except FileNotFoundError:
        return ""
    if not data or len(data) % _INSTRUCTION_BYTES or len(data) > _LIMIT_BYTES:
        return ""
    return base64.b64encode(data).decode("ascii")
