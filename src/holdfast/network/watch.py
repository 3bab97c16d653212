"""Notice when another program changes the packet filter: a firewall that starts afresh takes our table with it."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Final

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NFNLGRP_NFTABLES: Final = 7
_SUBSYSTEM_NFTABLES: Final = 10
_MESSAGES: Final = frozenset({0, 2, 3, 5, 8})
"""NFT_MSG_NEWTABLE, DELTABLE, NEWCHAIN, DELCHAIN and DELRULE; linux/netfilter/nf_tables.h."""

_SETTLE_S: Final = 0.3
_PAUSE_S: Final = 5.0
_RECEIVE_BYTES: Final = 1 << 16


class RulesetWatch:
    """Calls `changed` in a thread of its own after tables, chains or rules of this network namespace changed.

    Changes that come together make one call, and calls are at least some seconds apart.
    """

    def __init__(self, changed: Callable[[], None], *, settle_s: float = _SETTLE_S, pause_s: float = _PAUSE_S) -> None:
        """Raises OSError where the kernel has no nftables to watch."""
        self._changed = changed
        self._settle_s = settle_s
        self._pause_s = pause_s
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        try:
            self._news.bind((0, 0))
            self._news.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
            self._news.setblocking(False)
        except OSError:
            self._news.close()
            raise
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._work, name="holdfast-network-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, after the call it may be in."""
        os.write(self._wake_write, b"x")
        self._thread.join()
        self._news.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _work(self) -> None:
        while not self._stopped_within(None, with_news=True):
            if not self._read_news():
                continue
            if self._stopped_within(self._settle_s):
                return
            self._read_news()
            self._changed()
            if self._stopped_within(self._pause_s):
                return

    def _stopped_within(self, timeout_s: float | None, *, with_news: bool = False) -> bool:
        """Wait; True if it is time to end."""
        sources = [self._wake_read, self._news.fileno()] if with_news else [self._wake_read]
        ready, _, _ = select.select(sources, [], [], timeout_s)
        return self._wake_read in ready

    def _read_news(self) -> bool:
        """Read everything that waits; True if some of it matters, or if so much came that some was lost."""
        matters = False
        while True:
            try:
                datagram = self._news.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return matters
            except OSError:
                matters = True
                continue
            matters = matters or concerns_tables(datagram)


def concerns_tables(datagram: bytes) -> bool:
    """Whether a datagram of netlink messages tells of a table, chain or removed rule, rather than of elements."""
    from pyroute2.netlink.marshal import Marshal

    kinds = [message["header"]["type"] for message in Marshal().parse(datagram)]
    return any(kind >> 8 == _SUBSYSTEM_NFTABLES and kind & 0xFF in _MESSAGES for kind in kinds)
