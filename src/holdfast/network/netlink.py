"""Netlink: requests in one datagram, their answers, and attributes. Source: netlink(7), linux/netlink.h.

    datagram   message, message, ...           one send; the kernel works through them in order
    message    nlmsghdr, family header, attributes
    attribute  length and type (2 + 2 bytes), value, padding to 4
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

NETLINK_NETFILTER: Final = 12

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

HEADER: Final = struct.Struct("=IHHII")
_RECEIVE_BYTES: Final = 1 << 18
_DUMP_RETRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Message:
    """One request; `what` names it in errors."""

    what: str
    type: int
    flags: int
    body: bytes


class NetlinkSocket:
    """A netlink socket in the network namespace of the thread that makes it. Safe from any thread."""

    def __init__(self, protocol: int) -> None:
        self._guard = threading.Lock()
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, *messages: Message) -> list[bytes]:
        """Send the messages in one datagram, wait for every answer and give the bodies of those that carry one.

        The kernel works through all of them even if one fails; the first failure is raised as OSError then.
        """
        with self._guard:
            first = self._sequence + 1
            datagram = bytearray()
            for message in messages:
                self._sequence += 1
                flags = message.flags | NLM_F_REQUEST | NLM_F_ACK
                datagram += HEADER.pack(HEADER.size + len(message.body), message.type, flags, self._sequence, 0)
                datagram += message.body
            self._socket.send(datagram)
            bodies: list[bytes] = []
            failure: OSError | None = None
            waiting = len(messages)
            while waiting:
                for kind, _, sequence, body in split(self._socket.recv(_RECEIVE_BYTES)):
                    if sequence < first:
                        continue
                    if kind != NLMSG_ERROR:
                        bodies.append(body)
                        continue
                    waiting -= 1
                    code = -struct.unpack_from("=i", body)[0]
                    if code and failure is None:
                        failure = OSError(code, f"{messages[sequence - first].what}: {os.strerror(code)}")
        if failure is not None:
            raise failure
        return bodies

    def dump(self, message: Message) -> list[bytes]:
        """Give the bodies of a whole table; asked again where it changed meanwhile. Raises OSError."""
        with self._guard:
            bodies, interrupted = self._dump_once(message)
            for _ in range(_DUMP_RETRIES):
                if interrupted:
                    bodies, interrupted = self._dump_once(message)
        return bodies

    def _dump_once(self, message: Message) -> tuple[list[bytes], bool]:
        self._sequence += 1
        header = HEADER.pack(
            HEADER.size + len(message.body), message.type, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0
        )
        self._socket.send(header + message.body)
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in split(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    return bodies, interrupted
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, f"{message.what}: {os.strerror(code)}")
                bodies.append(body)


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Decode attributes by type; of equal ones the last counts."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def split(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Take a datagram apart: yield type, flags, sequence number and body of each message."""
    offset = 0
    while offset + HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram, offset)
        yield kind, flags, sequence, datagram[offset + HEADER.size : offset + length]
        offset += max(HEADER.size, (length + 3) & ~3)
