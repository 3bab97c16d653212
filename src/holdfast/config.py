"""Configuration: flag > environment > file > default, read once into a frozen record."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from holdfast.errors import InvalidParameter

DEFAULT_FILE = Path("/etc/holdfast/holdfast.toml")
ENVIRONMENT_PREFIX = "HOLDFAST_"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set. Two engines with different roots, socket, bridge and table do not meet."""

    state_root: Path = Path("/var/lib/holdfast")
    """What must outlive a reboot: catalogue, volumes, images, container records and logs."""
    run_root: Path = Path("/run/holdfast")
    """What must not: sockets, bundles, pinned namespaces."""
    socket_path: Path = Path("/run/holdfast/holdfast.sock")
    socket_mode: int = 0o660
    socket_group: str = ""
    """Group that owns the socket; empty: `holdfast`, else `docker`, else root."""
    tcp_address: str = ""
    """`host:port` to listen on as well; only with the three files below (mutual TLS)."""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    log_level: str = "info"
    runtime: str = "auto"
    """`auto`, `crun` or `runc`."""
    cgroup_parent: str = "/holdfast"
    bridge_name: str = "holdfast0"
    bridge_subnet: str = ""
    """Subnet of the default bridge; empty: one that is clear of the host's routes."""
    nft_table: str = "holdfast"
    stop_timeout_s: int = 10
    mount_timeout_s: int = 30
    """How long the server or device of a volume may take to answer."""
    plugin_timeout_s: int = 60
    """How long a volume plugin may take to answer a question, to remove a volume or to unmount it."""
    plugin_mount_timeout_s: int = 120
    """How long it may take to create or mount one."""
    trash_keep_s: int = 7 * 24 * 3600
    """How long a removed volume can be had back."""
    trash_limit_bytes: int = 0
    """How much the trash may take before the oldest goes early; 0: a tenth of the file system."""
    trash_grace_s: int = 3600
    """How long a removed volume stays whatever the trash takes."""
    trash_keep_anonymous: bool = False
    """Whether anonymous volumes of containers run with `--rm` go to the trash too."""
    labels: tuple[str, ...] = field(default=())
    """Labels of the engine, shown by `info`."""

    @property
    def database_path(self) -> Path:
        """The catalogue: one SQLite file."""
        return self.state_root / "holdfast.db"


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, file: Path | None = None) -> Config:
    """Read the configuration. `flags` holds only what was given on the command line.

    Environment variables are `HOLDFAST_` and the field's name in capitals. The file is TOML with the fields' names at
    the top level; the default file may be missing, a named one may not. Raises InvalidParameter, naming the source.
    """
    environment = os.environ if environment is None else environment
    named = file or (Path(environment["HOLDFAST_CONFIG"]) if environment.get("HOLDFAST_CONFIG") else None)
    values = _from_file(named or DEFAULT_FILE, required=named is not None)
    sources = dict.fromkeys(values, f"file {named or DEFAULT_FILE}")
    known = {entry.name: entry for entry in fields(Config)}
    for name in known:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment:
            values[name], sources[name] = environment[variable], f"environment variable {variable}"
    if "HOLDFAST_SOCKET" in environment:
        values["socket_path"], sources["socket_path"] = (
            environment["HOLDFAST_SOCKET"],
            "environment variable HOLDFAST_SOCKET",
        )
    for name, value in flags.items():
        values[name], sources[name] = value, "flag --" + name.replace("_", "-")
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InvalidParameter(f"configuration: unknown setting {name!r} in {sources[name]}")
        converted[name] = _convert(name, value, sources[name])
    if "run_root" in converted and "socket_path" not in converted:
        converted["socket_path"] = converted["run_root"] / "holdfast.sock"
    return Config(**converted)


def _from_file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if required:
            raise InvalidParameter(f"configuration: file {path} does not exist") from None
        return {}
    except OSError as error:
        raise InvalidParameter(f"configuration: cannot read {path}: {error.strerror}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidParameter(f"configuration: {path} is not valid TOML: {error}") from error


def _convert(name: str, value: Any, source: str) -> Any:
    """Bring `value` to the type of the field's default."""
    default = getattr(Config(), name)
    try:
        if isinstance(default, Path):
            path = Path(value)
            if not path.is_absolute():
                raise ValueError("must be an absolute path")
            return path
        if isinstance(default, bool):
            return _boolean(value)
        if isinstance(default, int):
            if isinstance(value, str):
                return int(value, 8 if name == "socket_mode" else 10)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            raise ValueError("must be a number")
        if isinstance(default, tuple):
            return tuple(value.split(",")) if isinstance(value, str) else tuple(str(item) for item in value)
        if not isinstance(value, str):
            raise ValueError("must be a text")
        return value
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"configuration: {name} from {source}: {value!r}: {error}") from error


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("must be yes or no")
    return words[value.lower()]
