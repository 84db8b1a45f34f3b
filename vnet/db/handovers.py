"""The tracked connections of a VIF that moves, on their way from the host that it leaves to the one that it comes to: a row for each.

One rule: what a row has is read as a stranger's: bounded, and refused whole if anything in it is not as it should be.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.objects.limits import SCTP
from vnet.objects.words import COUNT, HOST_REF, LINE, VIF_REF

# Connections of a VIF that go along. A row with so many takes 130 kB to 560 kB in the database, for HANDED_MS.
MAX_HANDED = 10_000
HANDED_MS = 30_000

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
PORTED = (TCP, UDP, SCTP)
ANSWERS = {ICMP: {8: 0, 13: 14}, ICMPV6: {128: 129}}  # messages by those that they answer: RFC 792, RFC 4443 §4
# States of TCP and SCTP that a connection may be in which goes on (linux/netfilter/nf_conntrack_tcp.h, nf_conntrack_sctp.h).
LIVE = {TCP: range(1, 7), SCTP: range(2, 9)}
MAX_TIMEOUT_S = 432_000  # of an established TCP connection (nf_conntrack_tcp_timeout_established)

_HEAD = struct.Struct("!BBBIHH")  # protocol, flags, state, seconds left, two ports
_TAGS = struct.Struct("!II")
_IPV6, _REPLIED, _ASSURED = 1, 2, 4
_MAX_BYTES = MAX_HANDED * (_HEAD.size + 32 + _TAGS.size)


@dataclass(frozen=True, slots=True)
class TrackedConnection:
    """A connection by its first packet: source and target are addresses as bytes, of 4 or 16.

    ports: of source and target; with ICMP the identifier and the type of the message. state: of TCP and SCTP, as the kernel numbers them. replied: it was
    answered. assured: it is not given up early where the table is full. tags: SCTP's verification tags of both directions.
    Raises ValueError if no tracker would have such a connection.
    """

    protocol: int
    source: bytes
    target: bytes
    ports: tuple[int, int]
    timeout_s: int
    state: int = 0
    replied: bool = True
    assured: bool = True
    tags: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if {len(self.source), len(self.target)} not in ({4}, {16}):
            raise ValueError("its addresses are not of one IP version")
        if self.protocol not in PORTED and self.ports[1] not in ANSWERS.get(self.protocol, {}):
            raise ValueError(f"protocol {self.protocol} with {self.ports[1]} has no connections")
        if (self.protocol == ICMPV6) > (len(self.source) == 16) or (self.protocol == ICMP) > (len(self.source) == 4):
            raise ValueError("ICMP of the other IP version")
        if self.protocol in LIVE and self.state not in LIVE[self.protocol]:
            raise ValueError(f"state {self.state} is none that goes on")
        if not 0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"{self.timeout_s} s are outside 1..{MAX_TIMEOUT_S}")


@dataclass(frozen=True, slots=True)
class Handover(Declared):
    """The connections of a VIF, from `host` for the binding of `to` that has that epoch. problem: why they are not all of them, else empty."""

    NOUN: ClassVar[Noun] = Noun("handover", "handovers", "handover", "Handover", "", key="vif", second="host")
    TITLE: ClassVar[str] = "a handover"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    vif: str = attr(VIF_REF, "The VIF.")
    host: str = attr(HOST_REF, "The host that it leaves.")
    to: str = attr(LINE, "The host that it comes to.")
    epoch: int = attr(COUNT, "Of the binding there.")
    created: int = attr(COUNT, "Milliseconds since 1970.")
    problem: str = attr(LINE, "Why these are not all.", default="")
    connections: str = attr(LINE, "The connections, as `encoded` writes them.", default="", ephemeral=True)


def encoded(connections: Iterable[TrackedConnection]) -> str:
    """Connections as text: base64 of what zlib makes of their fields, each of 19 bytes (IPv4) or more."""
    return b64encode(zlib.compress(b"".join(map(_packed, connections)))).decode()


def decoded(text: str) -> tuple[TrackedConnection, ...]:
    """The connections of a text. Raises ValueError if it is not one that `encoded` wrote, or has more than MAX_HANDED."""
    if not text:
        return ()
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(b64decode(text, validate=True), _MAX_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("it is cut short, or too long")
    found: list[TrackedConnection] = []
    at = 0
    while at < len(data):
        connection, at = _unpacked(data, at)
        found.append(connection)
        if len(found) > MAX_HANDED:
            raise ValueError(f"more than {MAX_HANDED} connections")
    return tuple(found)


def _packed(it: TrackedConnection) -> bytes:
    flags = _IPV6 * (len(it.source) == 16) | _REPLIED * it.replied | _ASSURED * it.assured
    head = _HEAD.pack(it.protocol, flags, it.state, it.timeout_s, *it.ports)
    return head + it.source + it.target + (_TAGS.pack(*it.tags) if it.protocol == SCTP else b"")


def _unpacked(data: bytes, at: int) -> tuple[TrackedConnection, int]:
    try:
        protocol, flags, state, timeout_s, *ports = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        size = 16 if flags & _IPV6 else 4
        source, target = data[at : at + size], data[at + size : at + 2 * size]
        at += 2 * size
        tags = (0, 0)
        if protocol == SCTP:
            tags = _TAGS.unpack_from(data, at)
            at += _TAGS.size
    except struct.error:
        raise ValueError("it ends within a connection") from None
    replied, assured = bool(flags & _REPLIED), bool(flags & _ASSURED)
    return TrackedConnection(
        protocol, source, target, (ports[0], ports[1]), timeout_s, state, replied, assured, tags
    ), at
