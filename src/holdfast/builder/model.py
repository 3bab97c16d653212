"""What a build is asked to do. Source: Docker Engine API 1.51, operation ImageBuild."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.images.skopeo import Credentials

DEFAULT_DOCKERFILE = "Dockerfile"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the programs that a build runs; 0 or "" is none, sizes in bytes, times in microseconds."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size_bytes: int = 0
    ulimits: tuple[str, ...] = ()
    """`NAME=SOFT:HARD`."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A build. `arguments` without a value take that of the Dockerfile. `network` is Docker's mode, "" the default.

    `credentials` are by registry, as X-Registry-Config gives them.
    """

    dockerfile: str = DEFAULT_DOCKERFILE
    tags: tuple[str, ...] = ()
    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    use_cache: bool = True
    pull: bool = False
    quiet: bool = False
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    platform: str = ""
    limits: Limits = field(default_factory=Limits)
    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    build_id: str = ""
    """By which `cancel` finds it; the client chooses."""
