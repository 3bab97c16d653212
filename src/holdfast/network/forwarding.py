"""Other programs that drop what the host forwards: finding them, and one way through them for our bridges.

Docker and ufw set the FORWARD chain's policy to drop, firewalld ends its chain with a reject. An accept in a table of
our own does not help: a packet must pass every table. So two rules a bridge, marked by a comment, go where Docker keeps
room for others (DOCKER-USER), else to the top of the chain that drops. Nothing else of others is touched, and the rules
are taken away at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast import log
from holdfast.errors import EngineError
from holdfast.kernel.nft import Nft, NftError
from holdfast.process.run import run

logger = log.get(__name__)

ROOM_FOR_OTHERS: Final = "DOCKER-USER"
LEGACY_TABLES: Final = Path("/proc/net/ip_tables_names")
_LEGACY_PROGRAM: Final = "iptables-legacy"
_LEGACY_TIMEOUT_S: Final = 10.0

FAMILIES: Final = frozenset({"ip", "inet"})
_TABLE: Final = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN: Final = re.compile(r"^\s+chain (\S+) \{")
_FORWARDS: Final = re.compile(r"^\s+type filter hook forward .*policy (\w+);")
_DENIES_ALL: Final = re.compile(r"^(?:counter packets \d+ bytes \d+ )?(?:drop|reject(?: with .+)?)$")
_OWNED: Final = re.compile(r"^\s+flags (?:\w+,\s*)*owner\b", re.MULTILINE)
_HANDLE: Final = re.compile(r"# handle (\d+)$")


@dataclass(frozen=True, slots=True)
class Chain:
    """An nftables chain."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class Closed:
    """A forward chain that lets through only what its rules accept, `by` its policy or the rule at its end."""

    chain: Chain
    by: str


class ForeignFilters:
    """The way through other programs' filters for our bridges. `tag` marks the rules as ours."""

    def __init__(self, nft: Nft, tag: str) -> None:
        self._nft = nft
        self._tag = tag

    def open(self, own_table: str, bridges: Sequence[str], bridges6: Sequence[str] = ()) -> None:
        """Add the rules where they are missing; `bridges6` are those of the bridges that speak IPv6.

        What cannot be changed is logged: a bridge may work all the same.
        """
        families = FAMILIES | ({"ip6"} if bridges6 else frozenset())
        try:
            listing = self._nft.run("list chains")
            places = chains_that_need_a_way(listing, closed_chains(listing, own_table, self._listing), families)
        except NftError as error:
            logger.warning("cannot look for other programs' packet filters", extra={"error": str(error)})
            places = []
        for chain in places:
            try:
                self._open_one(chain, bridges6 if chain.family == "ip6" else bridges)
            except NftError as error:
                logger.warning(
                    "cannot add a rule to another program's packet filter",
                    extra={"chain": str(chain), "error": str(error)},
                )
        self._each_legacy_rule("-I", bridges, wanted=True)

    def _open_one(self, chain: Chain, bridges: Sequence[str]) -> None:
        present = self._listing(chain)
        for bridge in bridges:
            if rule_handles(present, self._tag, bridge):
                continue
            self._nft.run(
                "".join(
                    f'insert rule {chain} {direction} "{bridge}" accept comment "{self._tag}"\n'
                    for direction in ("iifname", "oifname")
                )
            )
            logger.info("another program drops forwarded packets; rule added", extra={"chain": str(chain)})

    def close(self, bridge: str = "") -> None:
        """Take the rules away wherever they are: those of one bridge, or all."""
        try:
            for chain in all_chains(self._nft.run("list chains")):
                if chain.name == ROOM_FOR_OTHERS or chain.name.lower().endswith("forward"):
                    for handle in rule_handles(self._listing(chain), self._tag, bridge):
                        self._nft.run(f"delete rule {chain} handle {handle}")
        except NftError as error:
            logger.warning("cannot remove rules from other programs' packet filters", extra={"error": str(error)})
        self._each_legacy_rule("-D", [bridge] if bridge else None, wanted=False)

    def _listing(self, chain: Chain) -> str:
        return self._nft.run(f"list chain {chain}", handles=True)

    def _each_legacy_rule(self, verb: str, bridges: Sequence[str] | None, *, wanted: bool) -> None:
        """Bring our rules in the older iptables of the kernel, which nftables cannot see, to the wanted state.

        None stands for every bridge that has one.
        """
        if "filter" not in _read_words(LEGACY_TABLES):
            return
        try:
            rules = self._legacy("-S").splitlines()
            chain = ROOM_FOR_OTHERS if f"-N {ROOM_FOR_OTHERS}" in rules else "FORWARD"
            mark = ("-m", "comment", "--comment", self._tag, "-j", "ACCEPT")
            present = {
                (words[2], words[3])
                for words in map(str.split, rules)
                if words[:2] == ["-A", chain] and tuple(words[4:]) == mark
            }
            every = {name for _, name in present}
            for bridge in every if bridges is None else bridges:
                for direction in ("-i", "-o"):
                    has = (direction, bridge) in present
                    if has != wanted and (not wanted or "-P FORWARD DROP" in rules):
                        self._legacy(verb, chain, direction, bridge, *mark)
        except EngineError as error:
            logger.warning("cannot change the older iptables", extra={"error": str(error)})

    def _legacy(self, *words: str) -> str:
        return run((_LEGACY_PROGRAM, "-w", *words), timeout_s=_LEGACY_TIMEOUT_S).stdout.decode()


def closed_chains(listing: str, own_table: str, listing_of: Callable[[Chain], str]) -> list[Closed]:
    """Read `nft list chains` and give the forward chains of others that drop or reject what no rule accepts.

    `listing_of` gives `nft list chain` of one whose policy is accept: its last rule may deny everything all the same.
    """
    closed = []
    for chain, policy in _scan(listing):
        if not policy or chain.table == own_table:
            continue
        if policy == "drop":
            closed.append(Closed(chain, "policy drop"))
        elif rule := denying_end(listing_of(chain)):
            closed.append(Closed(chain, rule))
    return closed


def chains_that_need_a_way(listing: str, closed: Iterable[Closed], families: Collection[str] = FAMILIES) -> list[Chain]:
    """Give where to put rules: DOCKER-USER where a closed chain's table has it in `listing`, else the chain itself."""
    present = set(all_chains(listing))
    places = []
    for chain in (each.chain for each in closed if each.chain.family in families):
        room = Chain(chain.family, chain.table, ROOM_FOR_OTHERS)
        places.append(room if room in present else chain)
    return places


def denying_end(listing: str) -> str:
    """Read `nft list chain` and give its last rule if that drops or rejects every packet, else nothing."""
    lines = [_HANDLE.sub("", line).strip() for line in listing.splitlines()]
    rules = [line for line in lines if line and line != "}"]
    return rules[-1] if rules and _DENIES_ALL.match(rules[-1]) else ""


def all_chains(listing: str) -> list[Chain]:
    """Read `nft list chains`."""
    return [chain for chain, _ in _scan(listing)]


def rule_handles(listing: str, tag: str, bridge: str = "") -> list[str]:
    """Read `nft --handle list chain` and give the handles of the rules whose comment is `tag`, of one bridge or all."""
    handles = []
    for line in listing.splitlines():
        found = _HANDLE.search(line)
        if found and f'comment "{tag}"' in line and (not bridge or f'name "{bridge}"' in line):
            handles.append(found[1])
    return handles


def is_owned(listing: str) -> bool:
    """Read `nft list table` and say whether the program that made it lets nobody else change it. Source: nft(8)."""
    return _OWNED.search(listing) is not None


def _scan(listing: str) -> Iterable[tuple[Chain, str]]:
    """Yield each chain with its policy if it is one that forwarded packets pass, else with nothing."""
    family = table = policy = ""
    chain: Chain | None = None
    for line in listing.splitlines():
        if start := _TABLE.match(line):
            family, table = start[1], start[2]
        elif start := _CHAIN.match(line):
            chain, policy = Chain(family, table, start[1]), ""
        elif forwards := _FORWARDS.match(line):
            policy = forwards[1]
        elif chain is not None and line.strip() == "}":
            yield chain, policy
            chain = None


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
