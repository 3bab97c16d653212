"""Where things of the running containers lie below the run root; drawn in the room's `__init__`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Paths only; nothing is looked at."""

    run_root: Path

    @property
    def containers(self) -> Path:
        """Directory of the bundles."""
        return self.run_root / "containers"

    @property
    def exits(self) -> Path:
        """Directory in which conmon leaves exit codes."""
        return self.run_root / "exits"

    @property
    def facts_file(self) -> Path:
        """What the probe found."""
        return self.run_root / "runtime.json"

    @property
    def namespace(self) -> Path:
        """The pinned mount namespace, in a directory of its own."""
        return self.run_root / "runtime-mounts" / "mnt"

    @property
    def filters(self) -> Path:
        """Compiled seccomp filters by hash of profile and runtime."""
        return self.run_root / "seccomp"

    def runtime_root(self, runtime: str) -> Path:
        """State directory of the OCI runtime called `runtime`."""
        return self.run_root / runtime

    def bundle(self, container_id: str) -> Path:
        """A container's bundle."""
        return self.containers / container_id

    def exec_bundle(self, container_id: str, exec_id: str) -> Path:
        """The bundle of one exec."""
        return self.containers / container_id / f"exec-{exec_id}"

    def exit_file(self, container_id: str) -> Path:
        """A container's exit code."""
        return self.exits / container_id
