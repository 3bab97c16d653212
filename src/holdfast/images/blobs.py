"""Single blobs of an image in a registry, through `skopeo experimental-image-proxy`: what is here is not fetched again.

One request at a time goes over a socket of packets, JSON both ways; a blob comes through a pipe that is passed along:

    Initialize → OpenImage(docker://...) → id
    GetBlob(id, digest, size) → size and a pipe;  FinishPipe(pipe) → once all went into it and its digest was right

Each download has a proxy of its own, which dies with it. Source: containers-image-proxy's protocol, version 0.2.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from holdfast.errors import DeadlineExceeded, System
from holdfast.images.reference import Reference
from holdfast.images.skopeo import Credentials, failure, registry_child
from holdfast.kernel.path import owned_fd

_PROTOCOL: Final = "0.2."
_PACKET_BYTES: Final = 32 << 10
_STALL_TIMEOUT_S: Final = 300.0
_IDLE_S: Final = 0.5
_PIECE_BYTES: Final = 1 << 20
_SAID_BYTES: Final = 8000
_END_TIMEOUT_S: Final = 5.0


class BlobReader:
    """Fetches blobs of one image. Not safe for several threads: open one for each."""

    def __init__(
        self, connection: socket.socket, said: IO[bytes], image: Reference, credentials: Credentials
    ) -> None:
        self._connection = connection
        self._said = said
        self._image = image
        self._credentials = credentials
        self._id = 0
        self._moved_at = time.monotonic()

    def open(self) -> None:
        """Reach the image. Raises NotFound, Unauthorized, System, DeadlineExceeded."""
        version = self._call("Initialize")[0]
        if not str(version).startswith(_PROTOCOL):
            raise System(f"skopeo experimental-image-proxy speaks version {version}, not {_PROTOCOL}x")
        self._id = self._call("OpenImage", f"docker://{self._image}")[0]

    def fetch(self, digest: str, size_bytes: int, path: Path, received: Callable[[int], None]) -> None:
        """Write a blob to `path`, which must not exist; `received` is told how many bytes came so far.

        It is told again while nothing comes, so that it can end a download that nobody waits for by raising. Raises
        System if it is not what its digest says, and as `open`; given up when nothing comes for five minutes.
        """
        _, pipe_id, pipe = self._call("GetBlob", self._id, digest, size_bytes)
        check, count = hashlib.sha256(), 0
        self._moved_at = time.monotonic()
        with owned_fd(pipe), path.open("xb") as out:
            self._send("FinishPipe", pipe_id)
            while (data := self._read(pipe)) != b"":
                if data is None:
                    received(count)
                    continue
                count += len(data)
                if count > size_bytes:
                    raise System(f"layer verification failed for digest {digest}")
                check.update(data)
                out.write(data)
                received(count)
        self._receive("FinishPipe")
        if f"sha256:{check.hexdigest()}" != digest:
            raise System(f"layer verification failed for digest {digest}")

    def _call(self, method: str, *arguments: object) -> tuple[Any, int, int]:
        self._send(method, *arguments)
        return self._receive(method)

    def _send(self, method: str, *arguments: object) -> None:
        try:
            self._connection.send(json.dumps({"method": method, "args": arguments}).encode())
        except OSError as error:
            raise self._failure(str(error)) from error

    def _receive(self, method: str) -> tuple[Any, int, int]:
        """Give the value, the number of the pipe, and the pipe, -1 if there is none."""
        try:
            packet, pipes, _, _ = socket.recv_fds(self._connection, _PACKET_BYTES, 1)
        except TimeoutError:
            raise DeadlineExceeded(f"registry: nothing came for {_STALL_TIMEOUT_S:g} s") from None
        pipe = pipes[0] if pipes else -1
        try:
            reply = json.loads(packet)
            if reply["success"]:
                return reply["value"], reply["pipeid"], pipe
            problem = str(reply["error"])
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{method}: no answer"
            if packet:
                problem = f"{method}: {error}"
        if pipe >= 0:
            os.close(pipe)
        raise self._failure(problem)

    def _read(self, pipe: int) -> bytes | None:
        """Read what there is; b"" at the end, None if nothing came for a moment."""
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        if poll.poll(_IDLE_S * 1000):
            self._moved_at = time.monotonic()
            return os.read(pipe, _PIECE_BYTES)
        if time.monotonic() - self._moved_at > _STALL_TIMEOUT_S:
            raise DeadlineExceeded(f"registry: nothing came for {_STALL_TIMEOUT_S:g} s")
        return None

    def _failure(self, problem: str) -> Exception:
        self._said.seek(0)
        return failure(problem or self._said.read(_SAID_BYTES).decode(errors="replace"), self._image, self._credentials)


@contextlib.contextmanager
def opened(image: Reference, credentials: Credentials, scratch: Path) -> Iterator[BlobReader]:
    """Open an image, named by its manifest's digest, for the length of the block. Raises as `BlobReader.open`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryFile(dir=scratch) as said:
        with theirs:
            ours.settimeout(_STALL_TIMEOUT_S)
            arguments = ["experimental-image-proxy", f"--sockfd={theirs.fileno()}"]
            child = registry_child(arguments, image, credentials, scratch, stderr=said, pass_fds=(theirs.fileno(),))
        try:
            reader = BlobReader(ours, said, image, credentials)
            reader.open()
            yield reader
        finally:
            ours.close()
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """It ends by itself once its socket is closed, unless it is in the middle of something."""
    child.kill()
    child.wait(_END_TIMEOUT_S)
