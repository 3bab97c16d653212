"""Everything the network does with nftables, and what is left of it where the kernel has none.

Without nftables containers still reach each other and the host by the bridge; the world outside and published ports
need address translation, which then is missing. That is said once in the log and to everybody who publishes a port.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network

from holdfast import log
from holdfast.errors import Unavailable
from holdfast.kernel.nft import Nft, NftError
from holdfast.network.forwarding import ForeignFilters
from holdfast.network.rules import Published, Rules
from holdfast.network.watch import RulesetWatch

logger = log.get(__name__)


class Filters:
    """Our table and our way through others' tables. The caller holds one lock around all calls that change elements."""

    def __init__(self, table: str, bridge: str) -> None:
        self._table = table
        self._bridge = bridge
        self._guard = threading.Lock()
        self._nft: Nft | None = None
        self._watch: RulesetWatch | None = None
        self._subnet: IPv4Network | None = None
        self.missing = ""
        """Why there is no address translation, empty while there is."""

    def warm_up(self) -> None:
        """Load libnftables."""
        try:
            self._opened()
        except OSError as error:
            logger.warning("no nftables", extra={"error": str(error)})

    def load(
        self, subnet: IPv4Network, published: Callable[[], Sequence[Published]], changed: Callable[[], None]
    ) -> None:
        """Make the table with all that is published, and call `changed` whenever others change theirs.

        Where that fails `missing` says why, and so does the log.
        """
        self._subnet = subnet
        try:
            nft = self._opened()
            self._rules(nft).load(subnet, published())
            self._foreign(nft).open(self._table)
            if self._watch is None:
                self._watch = RulesetWatch(changed)
        except OSError as error:
            self.missing = _reason(error)
            logger.warning(
                "no address translation: containers cannot reach other hosts and no port can be published",
                extra={"error": self.missing},
            )
        else:
            self.missing = ""

    def require(self, load: Callable[[], None]) -> None:
        """Raise Unavailable where ports cannot be published; tries to `load` once more before."""
        if self.missing:
            load()
        if self.missing:
            raise Unavailable(
                f"cannot publish ports: nftables does not work on this host: {self.missing}",
                hint="publish no port, or use the host's network",
            )

    def publish(self, new: Sequence[Published], published: Callable[[], Sequence[Published]]) -> None:
        """Add elements; where the table is gone, make it again with all that is `published`. Raises NftError."""
        rules = self._rules(self._opened())
        try:
            rules.publish(new)
        except NftError:
            if self._subnet is None or rules.is_loaded():
                raise
            rules.load(self._subnet, published())

    def withdraw(self, old: Sequence[Published], published: Callable[[], Sequence[Published]]) -> None:
        """Take elements out; `published` is what stays. A failure is logged: the container is going anyhow."""
        try:
            rules = self._rules(self._opened())
            try:
                rules.withdraw(old)
            except NftError:
                if self._subnet is not None:
                    rules.load(self._subnet, published())
        except OSError as error:
            logger.warning("cannot withdraw published ports", extra={"error": str(error)})

    def check(self, subnet: IPv4Network, published: Callable[[], Sequence[Published]]) -> None:
        """Make again what others removed: our table, and our rules in theirs."""
        try:
            nft = self._opened()
            rules = self._rules(nft)
            if not rules.is_loaded():
                rules.load(subnet, published())
                logger.warning("another program removed the packet rules; made again", extra={"table": self._table})
            self._foreign(nft).open(self._table)
        except OSError as error:
            logger.warning("cannot restore the packet rules", extra={"error": str(error)})

    def remove(self) -> None:
        """Remove the table and the rules in others' tables; without nftables there is nothing to remove."""
        try:
            nft = self._opened()
            self._foreign(nft).close()
            self._rules(nft).remove()
        except OSError as error:
            if not self.missing:
                logger.warning("cannot remove the packet rules", extra={"error": str(error)})

    def unwatch(self) -> None:
        """Stop looking for changes by others. Not to be called with the lock held that `changed` takes."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def close(self) -> None:
        """Close the library's socket; everything stays loaded in the kernel."""
        with self._guard:
            if self._nft is not None:
                self._nft.close()
                self._nft = None

    def _opened(self) -> Nft:
        with self._guard:
            if self._nft is None:
                self._nft = Nft()
            return self._nft

    def _rules(self, nft: Nft) -> Rules:
        return Rules(nft, self._table, self._bridge)

    def _foreign(self, nft: Nft) -> ForeignFilters:
        return ForeignFilters(nft, self._table, self._bridge)


def _reason(error: OSError) -> str:
    """Give the first line of what the library or the kernel said."""
    return (error.strerror or str(error)).strip().splitlines()[0]
