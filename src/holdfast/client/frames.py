"""The framing of output without a terminal: stdout and stderr share one stream.

Each frame: stream number (1 stdout, 2 stderr, 3 the engine's own error), three zero bytes, the length in four bytes
big-endian, payload. Source: Docker Engine API, ContainerAttach, "Stream format".
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.client.failures import Garbled

STDOUT, STDERR, ENGINE = 1, 2, 3
_HEADER_BYTES = 8


def frames(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Stream number and data, however the frames are cut into chunks; a long payload comes in pieces as it arrives.

    An end in the middle of a frame is an end: the process was killed, or the engine. Raises Garbled for no frame.
    """
    pending = b""
    stream = left = 0
    for chunk in chunks:
        data = pending + chunk if pending else chunk
        position = 0
        while position < len(data):
            if left:
                piece = data[position : position + left]
                position += len(piece)
                left -= len(piece)
                yield stream, piece
                continue
            header = data[position : position + _HEADER_BYTES]
            if len(header) < _HEADER_BYTES:
                break
            if header[0] > ENGINE or header[1:4] != b"\0\0\0":
                raise Garbled(f"the engine's output is not framed: {header!r}")
            stream, left = header[0], int.from_bytes(header[4:], "big")
            position += _HEADER_BYTES
        pending = data[position:]
