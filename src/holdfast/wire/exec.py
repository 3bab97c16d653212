"""JSON shapes of execs. Source: Docker Engine API 1.51, operations ContainerExec, ExecStart, ExecInspect."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import field

Texts = tuple[str, ...]
Uint = Annotated[int, "uint"]


class ExecCreate(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of POST /containers/{id}/exec."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[Uint, ...] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach_keys: str = ""
    env: Texts | None = None
    working_dir: str = ""
    cmd: Texts | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.cmd, str):
            self.cmd = (self.cmd,)


class ExecStart(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[Uint, ...] | None = None


class ProcessConfig(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`ProcessConfig`; lower-case, as Docker has it."""

    tty: bool | None = None
    entrypoint: str | None = None
    arguments: list[str] | None = None
    privileged: bool | None = None
    user: str = ""


class ExecInspect(msgspec.Struct, rename="pascal", kw_only=True):
    """`ExecInspectResponse`; `exit_code` is null until the process has ended."""

    id: str = field(name="ID")
    running: bool
    exit_code: int | None
    process_config: ProcessConfig
    open_stdin: bool
    open_stderr: bool
    open_stdout: bool
    can_remove: bool
    container_id: str = field(name="ContainerID")
    detach_keys: str
    pid: int


def encode_id(id_: str) -> dict[str, Any]:
    """Give `IDResponse`."""
    return {"Id": id_}
