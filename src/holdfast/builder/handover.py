"""An image from buildah's store into the engine's own, without the layers that the engine has already.

`buildah push` writes every layer of an image to a directory, those of a big base image included. It leaves out files
that are there, but empties the directory first. So it is watched: when its file `version` appears, which comes before
any layer, an empty file is put in the place of each layer that is known here. Where that comes too late the layer is
written after all, and nothing is lost but time. Only layers that were really written are looked at, and digested.
Source: containers/image, directory transport, `TryReusingBlob`.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from holdfast import log
from holdfast.kernel.inotify import IN_CREATE, Inotify

logger = log.get(__name__)

_WAIT_S: Final = 30.0
_POLL_MS: Final = 50


def push_arguments(image_id: str, destination: str) -> Sequence[str]:
    """The arguments of buildah for writing an image, as Docker's, to a directory inside the sandbox. Pure."""
    return ("push", "--quiet", "--disable-compression", "--format=v2s2", image_id, f"dir:{destination}")


@contextlib.contextmanager
def known_layers(directory: Path, diff_ids: Sequence[str]) -> Iterator[None]:
    """Spare whoever pushes to the empty `directory` in the block these layers. Failing is logged, and costs only time.

    Layers are pushed as they are, uncompressed, so that the name of one is its diff id.
    """
    ended = threading.Event()
    names = [diff_id.removeprefix("sha256:") for diff_id in diff_ids]
    with contextlib.ExitStack() as closing:
        if names:
            watching = closing.enter_context(Inotify())
            watching.add_watch(directory, IN_CREATE)
            watcher = threading.Thread(
                target=_fill, args=(watching, directory, names, ended.is_set), name="build-handover", daemon=True
            )
            watcher.start()
            closing.callback(watcher.join)
            closing.callback(ended.set)
        yield


def _fill(watching: Inotify, directory: Path, names: Sequence[str], ended: Callable[[], bool]) -> None:
    poll = select.poll()
    poll.register(watching.fd, select.POLLIN)
    limit = time.monotonic() + _WAIT_S
    while not ended() and time.monotonic() < limit:
        if poll.poll(_POLL_MS) and any(event.name == "version" for event in watching.read_events()):
            try:
                for name in names:
                    (directory / name).touch()
            except OSError as error:
                logger.debug("layers are pushed after all", extra={"error": str(error)})
            return
