"""Who is called what in which network, and the answers that follow. Pure.

A container finds the others of its own networks: by container name, alias, short id and host name, each also with
`.<network name>` behind it, and by address; the names of its links, which no other has, come first. Letters' case does
not count. Source: moby, libnetwork/resolver.go and sandbox.go.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from holdfast.attendant.document import Document, Membership

TTL_S: Final = 600
"""As Docker answers."""
_PLAIN_UDP_BYTES: Final = 512
"""What a client without EDNS can take. Source: RFC 1035, 4.2.1."""

Address = IPv4Address | IPv6Address


class Directory:
    """The names of every network."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._named: dict[str, dict[str, list[Address]]] = {}
        self._addressed: dict[str, dict[Address, str]] = {}

    def get(self, container_id: str) -> Document | None:
        """Give a container's document."""
        return self._documents.get(container_id)

    def all(self) -> Mapping[str, Document]:
        """Give every document by container."""
        return self._documents

    def put(self, document: Document) -> None:
        """Take in a document in place of the container's earlier one."""
        self._documents[document.id] = document
        self._index()

    def drop(self, container_id: str) -> None:
        """Forget a container."""
        if self._documents.pop(container_id, None) is not None:
            self._index()

    def addresses(self, document: Document, name: str) -> list[Address] | None:
        """Give whom a name stands for as this container sees it, None where nobody is called so."""
        places = [(each, name.removesuffix("." + each.network_name.lower())) for each in document.memberships]
        linked = [(each, _linked(each, {name, short})) for each, short in places]
        for membership, target in linked:
            found = self._named.get(membership.network_id, {}).get(target)
            if found:
                return found
        for (membership, short), (_, target) in zip(places, linked, strict=True):
            named = self._named.get(membership.network_id, {})
            found = named.get(name) or (named.get(short) if short != name else None)
            if found and not target:
                return found
        return None

    def name_of(self, document: Document, address: Address) -> str | None:
        """Give the full name of an address in one of this container's networks."""
        for membership in document.memberships:
            found = self._addressed.get(membership.network_id, {}).get(address)
            if found:
                return f"{found}.{membership.network_name}"
        return None

    def _index(self) -> None:
        named: dict[str, dict[str, list[Address]]] = {}
        addressed: dict[str, dict[Address, str]] = {}
        for document in self._documents.values():
            for membership in document.memberships:
                addresses = [ip_address(text) for text in membership.addresses]
                for name in membership.names:
                    named.setdefault(membership.network_id, {}).setdefault(name.lower(), []).extend(addresses)
                for address in addresses:
                    addressed.setdefault(membership.network_id, {})[address] = membership.names[0]
        self._named, self._addressed = named, addressed


def _linked(membership: Membership, names: Collection[str]) -> str:
    """Give whom one of these names is a link to, empty where it is none."""
    return next((target.lower() for alias, target in membership.links if alias.lower() in names), "")


def parse(wire: bytes) -> dns.message.Message | None:
    """Read a question; None for bytes that are none, which get no answer."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
    return None if message.flags & dns.flags.QR else message


def answer(directory: Directory, document: Document, query: dns.message.Message) -> dns.message.Message | None:
    """Answer what we know ourselves; None where the world outside is to be asked."""
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        return failure(query, dns.rcode.NOTIMP if len(query.question) == 1 else dns.rcode.FORMERR)
    question = query.question[0]
    if question.rdclass != dns.rdataclass.IN:
        return None
    if question.rdtype == dns.rdatatype.PTR:
        return _reverse(directory, document, query, question.name)
    addresses = directory.addresses(document, question.name.to_text(omit_final_dot=True).lower())
    if addresses is None:
        return None
    response = _response(query)
    wanted = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
    texts = [str(address) for address in addresses if address.version == wanted]
    if texts:
        random.shuffle(texts)
        response.answer.append(_records(question.name, question.rdtype, texts))
    return response


def failure(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    """Give an answer that says that there is none, and why."""
    response = _response(query)
    response.set_rcode(code)
    return response


def pack(query: dns.message.Message, response: dns.message.Message, *, by_stream: bool) -> bytes:
    """Give an answer's bytes; one that is too long for a datagram says so instead."""
    limit = 65535 if by_stream else max(_PLAIN_UDP_BYTES, query.payload if query.edns >= 0 else 0)
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def _reverse(
    directory: Directory, document: Document, query: dns.message.Message, name: dns.name.Name
) -> dns.message.Message | None:
    try:
        address = ip_address(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return None
    found = directory.name_of(document, address)
    if found is None:
        return None
    response = _response(query)
    response.answer.append(_records(name, dns.rdatatype.PTR, [found + "."]))
    return response


def _response(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.flags &= ~dns.flags.AA
    return response


def _records(name: dns.name.Name, kind: dns.rdatatype.RdataType, texts: Iterable[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, TTL_S, dns.rdataclass.IN, kind, list(texts))
