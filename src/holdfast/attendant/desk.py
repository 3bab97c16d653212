"""One container's desk: the sockets in its network namespace on which its questions arrive.

They listen on free ports, and the container's own packet rules lead 127.0.0.11:53 there, so that it can have a server
of its own on port 53. Where its kernel has no nftables they listen on 53 itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from holdfast.attendant.document import LISTENING_ADDRESS, PORT
from holdfast.kernel.namespaces import in_network_namespace
from holdfast.kernel.nft import Nft

Answer = Callable[[bytes, bool], Awaitable[bytes | None]]
"""Gives the answer to a question that came as datagram or, True, over a stream; None for none."""

_TABLE: Final = "holdfast_names"
_QUESTIONS_AT_ONCE: Final = 128
_STREAMS_AT_ONCE: Final = 32
_IDLE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where questions arrive."""

    datagram: socket.socket
    stream: socket.socket


def open_sockets(namespace: str) -> Sockets:
    """Open them in a network namespace, given by path, and lead the container's questions there. Raises OSError."""
    return in_network_namespace(namespace, _open_here)


class Desk:
    """Serves one container."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._busy = 0
        self._streams = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def open(self, sockets: Sockets) -> None:
        """Begin to serve."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=sockets.datagram)
        self._server = await asyncio.start_server(self._serve_stream, sock=sockets.stream)

    def close(self) -> None:
        """Let go of the sockets, and with them of the namespace."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def take(self, question: bytes, sender: tuple[str, int]) -> None:
        """Answer a datagram; one of too many at once gets no answer."""
        if self._busy >= _QUESTIONS_AT_ONCE:
            return
        self._busy += 1
        task = asyncio.get_running_loop().create_task(self._answer_datagram(question, sender))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, question: bytes, sender: tuple[str, int]) -> None:
        try:
            answer = await self._answer(question, False)
            if answer is not None and self._transport is not None:
                self._transport.sendto(answer, sender)
        finally:
            self._busy -= 1

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the questions of one connection, one after the other. Source: RFC 1035, 4.2.2."""
        if self._streams >= _STREAMS_AT_ONCE:
            writer.close()
            return
        self._streams += 1
        try:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                while True:
                    async with asyncio.timeout(_IDLE_S):
                        length = int.from_bytes(await reader.readexactly(2), "big")
                        question = await reader.readexactly(length)
                    answer = await self._answer(question, True)
                    if answer is None:
                        break
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        finally:
            self._streams -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._desk.take(data, addr)


def _open_here() -> Sockets:
    """Runs in a thread that is in the container's network namespace."""
    try:
        with Nft() as nft, contextlib.ExitStack() as undo:
            sockets = Sockets(_bound(socket.SOCK_DGRAM, 0, undo), _bound(socket.SOCK_STREAM, 0, undo))
            nft.run(_rules(sockets.datagram.getsockname()[1], sockets.stream.getsockname()[1]))
            undo.pop_all()
            return sockets
    except OSError:
        with contextlib.ExitStack() as undo:
            sockets = Sockets(_bound(socket.SOCK_DGRAM, PORT, undo), _bound(socket.SOCK_STREAM, PORT, undo))
            undo.pop_all()
            return sockets


def _bound(kind: socket.SocketKind, port: int, undo: contextlib.ExitStack) -> socket.socket:
    opened = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    undo.callback(opened.close)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((LISTENING_ADDRESS, port))
    if kind == socket.SOCK_STREAM:
        opened.listen()
    return opened


def _rules(datagram_port: int, stream_port: int) -> str:
    """Give the commands that lead the container's questions to us, in place of earlier ones."""
    return f"""\
add table ip {_TABLE}
delete table ip {_TABLE}
table ip {_TABLE} {{
    chain output {{
        type nat hook output priority -100; policy accept;
        ip daddr {LISTENING_ADDRESS} udp dport {PORT} dnat to {LISTENING_ADDRESS}:{datagram_port}
        ip daddr {LISTENING_ADDRESS} tcp dport {PORT} dnat to {LISTENING_ADDRESS}:{stream_port}
    }}
}}
"""
