"""The stream between the engine and conmon's attach socket: AF_UNIX, SOCK_SEQPACKET, one record a packet.

conmon → engine: one tag byte, then at most 8192 bytes of output. With a terminal all output carries the tag of
standard output. Engine → conmon: bare standard input, in packets that must stay small: conmon silently loses the
rest of larger ones. Shutting down the writing side is the end of standard input.

A client that does not read holds up the container, so whoever opens a socket here must drain or close it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Final

from holdfast.errors import Conflict
from holdfast.kernel.path import owned_fd

STDOUT: Final = 1
STDERR: Final = 2
"""Stream numbers as Docker's multiplexed format has them."""

PACKET_BYTES: Final = 8193
"""What to pass to recv: a tag and conmon's largest piece of output."""
STDIN_PACKET_BYTES: Final = 32768
"""The largest packet that conmon takes whole."""

_STREAMS: Final = {2: STDOUT, 3: STDERR}


def split_packet(packet: bytes) -> tuple[int, bytes]:
    """Take a packet from conmon apart: (STDOUT or STDERR, data). An empty packet is end of file: (0, b"")."""
    if not packet:
        return 0, b""
    return _STREAMS.get(packet[0], STDERR), packet[1:]


def stdin_packets(data: bytes) -> list[memoryview]:
    """Cut standard input into packets that conmon takes."""
    view = memoryview(data)
    return [view[start:start + STDIN_PACKET_BYTES] for start in range(0, len(view), STDIN_PACKET_BYTES)]


def send_stdin(connection: socket.socket, data: bytes) -> None:
    """Send standard input on a blocking socket. Raises OSError, EPIPE when the process is gone."""
    for packet in stdin_packets(data):
        connection.send(packet)


def connect(bundle: Path) -> socket.socket:
    """Connect to the attach socket in `bundle`; blocking, close-on-exec. Raises Conflict if nothing listens.

    A socket's path may have at most 108 bytes, so the way leads through a descriptor of the directory.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with owned_fd(os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            connection.connect(f"/proc/self/fd/{directory}/attach")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise Conflict("the container's streams are closed") from error
    except BaseException:
        connection.close()
        raise
    return connection


def hang_up(connection: socket.socket) -> None:
    """Close a non-blocking connection so that conmon still gets everything that was sent on it.

    A unix socket that is closed with packets unread resets its peer, which then loses what it had yet to read, so no
    more is let in and what is there is read away first. Source: Linux, net/unix/af_unix.c, unix_release_sock.
    """
    with connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(PACKET_BYTES):
            pass
