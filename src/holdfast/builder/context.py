"""The context of a build: the files that a client sent in a tar. Nothing in it is trusted.

builds/<id>/body        the tar as it came, removed once it is unpacked
            context/    its files
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from pathlib import Path
from typing import Final

from holdfast.builder.dockerfile import SIZE_MAX_BYTES
from holdfast.errors import InvalidParameter, System
from holdfast.images.tarstream import CHUNK, Readable
from holdfast.images.unpack import unpack
from holdfast.kernel.path import open_in_root, owned_fd

_FREE_RESERVE_BYTES: Final = 64 << 20


def receive(body: Readable, folder: Path) -> Path:
    """Unpack the tar that `body` gives, plain or compressed, below `folder`; gives the directory with the files.

    It is unpacked where nothing but that directory can be reached. Raises InvalidParameter for what is no tar, System
    where the disk is full, OSError, ConnectionError if the client went away.
    """
    archive, context = folder / "body", folder / "context"
    context.mkdir(mode=0o755)
    with archive.open("wb") as file:
        while data := body.read(CHUNK):
            if shutil.disk_usage(folder).free < len(data) + _FREE_RESERVE_BYTES:
                raise System("receive build context: no space left on device")
            file.write(data)
    if archive.stat().st_size:
        try:
            unpack(archive, context, whiteouts=False)
        except InvalidParameter as error:
            raise InvalidParameter(f"build context: {error.message.removeprefix('invalid layer: ')}") from error
    archive.unlink()
    return context


def read_dockerfile(context: Path, name: str) -> bytes:
    """Read the Dockerfile `name` of a context; links are followed inside it only.

    Raises System in Docker's words, and with its status, if it is missing or lies outside.
    """
    missing = System(f"Cannot locate specified Dockerfile: {name}")
    if posixpath.normpath(name).startswith("../"):
        raise System(f"forbidden path outside the build context: {name} ()")
    try:
        with owned_fd(os.open(context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            opened = open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(opened, "rb") as file:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise missing
                return file.read(SIZE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise missing from error
