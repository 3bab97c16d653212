"""The sources of binds: paths of the host, which may lie on a server that does not answer.

The functions that take descriptors first may be done by a process that can be given up (`drivers.base.Hands`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from holdfast.errors import EngineError, InvalidParameter, System
from holdfast.kernel.storage_worker import Answer
from holdfast.volumes.drivers.base import Hands, MountFailed, Opened
from holdfast.volumes.mounts import MountPoint


def open_bind(point: MountPoint, hands: Hands) -> Opened:
    """Open a bind's source, which `hands` may touch.

    A missing one is made as a directory if the request lets it be. Links in the path are followed, as the path is the
    user's own word. Raises InvalidParameter if it is missing, MountFailed, System.
    """
    with _naming(point):
        mode, (fd,) = hands.do(open_source, (), point.source, point.create_source)
    assert isinstance(mode, int)
    return Opened(fd, mode, hands)


def check_bind(point: MountPoint, hands: Hands) -> None:
    """See that a bind's source is there. Raises InvalidParameter, MountFailed."""
    with _naming(point):
        hands.do(look_for_source, (), point.source)


def open_source(_: Sequence[int], path: str, create: bool) -> Answer:
    """Open (O_PATH) a path of the host, made as a directory if it is missing and to be made; the value is its mode.

    Raises InvalidParameter, System.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if not create:
            raise _missing(path) from None
        try:
            os.makedirs(path, mode=0o755, exist_ok=True)
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise System(f"error while creating mount source path '{path}': {error}") from error
    except OSError as error:
        why = (error.strerror or "").lower()
        raise InvalidParameter(f'invalid mount config for type "bind": stat {path}: {why}') from error
    return os.fstat(fd).st_mode, (fd,)


def look_for_source(_: Sequence[int], path: str) -> Answer:
    """See that something lies at a path of the host. Raises InvalidParameter."""
    if not os.path.lexists(path):
        raise _missing(path)
    return None, ()


@contextlib.contextmanager
def _naming(point: MountPoint) -> Iterator[None]:
    """Say of storage that does not answer whose it is."""
    try:
        yield
    except MountFailed as error:
        raise error.within(f"bind source path {point.source}") from None


def _missing(path: str) -> EngineError:
    return InvalidParameter(f'invalid mount config for type "bind": bind source path does not exist: {path}')
