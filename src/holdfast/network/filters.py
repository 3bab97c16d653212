"""Everything the network does with nftables, and what is left of it where the kernel has none.

Without nftables containers still reach each other and the host by the bridge; the world outside and published ports
need address translation, which then is missing. That is said once in the log and to everybody who publishes a port.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast import log
from holdfast.errors import Unavailable
from holdfast.kernel.nft import Nft, NftError
from holdfast.network.forwarding import ForeignFilters
from holdfast.network.rules import Published, Rules
from holdfast.network.segment import Segment
from holdfast.network.watch import RulesetWatch

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything that the table has to hold."""

    segments: tuple[Segment, ...]
    published: tuple[Published, ...]

    @property
    def bridges(self) -> tuple[str, ...]:
        """The names of the bridges."""
        return tuple(segment.bridge for segment in self.segments)

    @property
    def bridges6(self) -> tuple[str, ...]:
        """The names of those that speak IPv6."""
        return tuple(segment.bridge for segment in self.segments if segment.ipv6 is not None)


class Filters:
    """Our table and our way through others' tables. The caller holds one lock around all calls that change elements."""

    def __init__(self, table: str, wanted: Callable[[], Wanted]) -> None:
        """`wanted` gives all that the table has to hold, called while the caller's lock is held."""
        self._table = table
        self._wanted = wanted
        self._guard = threading.Lock()
        self._nft: Nft | None = None
        self._watch: RulesetWatch | None = None
        self._loaded = False
        self.missing = ""
        """Why there is no address translation, empty while there is."""

    def warm_up(self) -> None:
        """Load libnftables."""
        try:
            self._opened()
        except OSError as error:
            logger.warning("no nftables", extra={"error": str(error)})

    def load(self, changed: Callable[[], None]) -> None:
        """Make the table with all that is wanted, and call `changed` whenever others change theirs.

        Where that fails `missing` says why, and so does the log.
        """
        try:
            nft = self._opened()
            wanted = self._wanted()
            self._rules(nft).load(wanted.segments, wanted.published)
            self._loaded = True
            self._foreign(nft).open(self._table, wanted.bridges, wanted.bridges6)
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

    def add_segment(self, segment: Segment, changed: Callable[[], None]) -> None:
        """Take a network in, making the table if there is none yet; see `load`."""
        if not self._loaded or self.missing:
            self.load(changed)
            return
        try:
            nft = self._opened()
            try:
                self._rules(nft).add_segment(segment)
            except NftError:
                self.load(changed)
            else:
                own = Wanted((segment,), ())
                self._foreign(nft).open(self._table, own.bridges, own.bridges6)
        except OSError as error:
            logger.warning("cannot take a network into the packet rules", extra={"error": str(error)})

    def remove_segment(self, segment: Segment, changed: Callable[[], None]) -> None:
        """Take a network out; a failure is logged, the bridge is going anyhow."""
        if not self._loaded or self.missing:
            return
        try:
            nft = self._opened()
            self._foreign(nft).close(segment.bridge)
            try:
                self._rules(nft).remove_segment(segment)
            except NftError:
                self.load(changed)
        except OSError as error:
            logger.warning("cannot take a network out of the packet rules", extra={"error": str(error)})

    def publish(self, new: Sequence[Published]) -> None:
        """Add elements; where the table is gone, make it again with all that is wanted. Raises NftError."""
        rules = self._rules(self._opened())
        try:
            rules.publish(new)
        except NftError:
            if not self._loaded or rules.is_loaded():
                raise
            wanted = self._wanted()
            rules.load(wanted.segments, wanted.published)

    def withdraw(self, old: Sequence[Published]) -> None:
        """Take elements out. A failure is logged: the container is going anyhow."""
        try:
            rules = self._rules(self._opened())
            try:
                rules.withdraw(old)
            except NftError:
                if self._loaded:
                    wanted = self._wanted()
                    rules.load(wanted.segments, wanted.published)
        except OSError as error:
            logger.warning("cannot withdraw published ports", extra={"error": str(error)})

    def check(self) -> None:
        """Make again what others removed: our table, and our rules in theirs."""
        if not self._loaded:
            return
        try:
            nft = self._opened()
            rules, wanted = self._rules(nft), self._wanted()
            if not rules.is_loaded():
                rules.load(wanted.segments, wanted.published)
                logger.warning("another program removed the packet rules; made again", extra={"table": self._table})
            self._foreign(nft).open(self._table, wanted.bridges, wanted.bridges6)
        except OSError as error:
            logger.warning("cannot restore the packet rules", extra={"error": str(error)})

    def remove(self) -> None:
        """Remove the table and the rules in others' tables; without nftables there is nothing to remove."""
        self._loaded = False
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
        return Rules(nft, self._table)

    def _foreign(self, nft: Nft) -> ForeignFilters:
        return ForeignFilters(nft, self._table)


def _reason(error: OSError) -> str:
    """Give the first line of what the library or the kernel said."""
    return (error.strerror or str(error)).strip().splitlines()[0]
