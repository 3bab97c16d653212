"""Other programs that drop what the host forwards: finding them, and one way through them for our bridges.

Docker and firewalls set the FORWARD chain's policy to drop. An accept in a table of our own does not help: a packet
must pass every table. So two rules a bridge, marked by a comment, go where Docker keeps room for others (DOCKER-USER),
else to the top of the chain that drops. Nothing else of others is touched, and the rules are taken away at the end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
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
_DROPS: Final = re.compile(r"^\s+type filter hook forward .*policy drop;")
_HANDLE: Final = re.compile(r"# handle (\d+)$")


@dataclass(frozen=True, slots=True)
class Chain:
    """An nftables chain."""

    family: str
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


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
            for chain in chains_that_need_a_way(self._nft.run("list chains"), own_table, families):
                present = self._listing(chain)
                for bridge in bridges6 if chain.family == "ip6" else bridges:
                    if rule_handles(present, self._tag, bridge):
                        continue
                    self._nft.run(
                        "".join(
                            f'insert rule {chain} {direction} "{bridge}" accept comment "{self._tag}"\n'
                            for direction in ("iifname", "oifname")
                        )
                    )
                    logger.info("another program drops forwarded packets; rule added", extra={"chain": str(chain)})
        except NftError as error:
            logger.warning("cannot look for other programs' packet filters", extra={"error": str(error)})
        self._each_legacy_rule("-I", bridges, wanted=True)

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


def chains_that_need_a_way(listing: str, own_table: str, families: Collection[str] = FAMILIES) -> list[Chain]:
    """Read `nft list chains` and give where to put rules: for each table whose forward chain drops by policy.

    That is DOCKER-USER where the table has it, else the chain itself.
    """
    chains = list(_scan(listing))
    places = []
    for chain, drops in chains:
        if drops and chain.table != own_table and chain.family in families:
            room = Chain(chain.family, chain.table, ROOM_FOR_OTHERS)
            places.append(room if any(other == room for other, _ in chains) else chain)
    return places


def dropping_chains(listing: str, own_table: str) -> list[Chain]:
    """Read `nft list chains` and give the forward chains of others that drop what no rule accepts."""
    return [chain for chain, drops in _scan(listing) if drops and chain.table != own_table]


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


def _scan(listing: str) -> Iterable[tuple[Chain, bool]]:
    """Yield each chain and whether it is a forward chain with policy drop."""
    family = table = ""
    chain: Chain | None = None
    drops = False
    for line in listing.splitlines():
        if start := _TABLE.match(line):
            family, table = start[1], start[2]
        elif start := _CHAIN.match(line):
            chain, drops = Chain(family, table, start[1]), False
        elif _DROPS.match(line):
            drops = True
        elif chain is not None and line.strip() == "}":
            yield chain, drops
            chain = None


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
