"""Fragments in the connection tracker, as lib/ipf.c of Open vSwitch's userspace datapath handles them.

One rule: fragments wait until their packet is complete. The tracker then sees the packet, and every fragment goes on with the
connection fields of the packet. Fragments whose packet is not complete in time go on as invalid, with the packet that is
tracked next, whichever that is; so do fragments beyond a full batch, with valid fields.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from ovsctl.datapath import flow_key as at
from ovsctl.datapath.flow_extract import FRAGMENT, IPV4, ipv6_payload

SMALLEST_BYTES = {4: 1200, 6: 1280}  # of a fragment that is not the last one: its IP header and payload
MOST_FRAGMENTS = 1000  # that wait, of all packets together
TIMEOUT_US, PURGE_US = 15_000_000, 10_000_000
BATCH = 32  # NETDEV_MAX_BURST: packets that the datapath handles at once
MAX_PACKET = 65535
FRAGMENT_HEADER = 8


class Fragment(NamedTuple):
    """A fragment. start, end: the first and the last byte of the packet that it carries. payload: their offset in the frame."""

    frame: bytes
    payload: int
    start: int
    end: int
    is_first: bool
    is_last: bool


class PacketId(NamedTuple):
    """The fields that the fragments of a packet share. came_by: the way on which they came to the tracker."""

    ip: int
    src: int
    dst: int
    number: int
    proto: int
    zone: int
    came_by: object


@dataclass(slots=True)
class PartialPacket:
    """A packet that is not complete yet."""

    expires_us: int
    fragments: list[Fragment] = field(default_factory=list)
    is_too_long: bool = False

    def overlaps(self, fragment: Fragment) -> bool:
        """Whether one end of a fragment lies within another one."""
        return any(
            known.start <= fragment.start <= known.end or known.start <= fragment.end <= known.end
            for known in self.fragments
        )

    def is_complete(self) -> bool:
        """Whether the first, the last and all between them are here; sorts them."""
        parts = self.fragments
        if not (any(part.is_first for part in parts) and any(part.is_last for part in parts)):
            return False
        parts.sort(key=lambda part: part.start)
        return all(a.end + 1 == b.start for a, b in pairwise(parts))


class InvalidFragment(Exception):
    """The tracker calls this fragment invalid."""


class Reassembly:
    """The fragments that wait in the connection tracker of one host."""

    def __init__(self) -> None:
        self.partial: dict[PacketId, PartialPacket] = {}  # in the order in which they expire
        self.due: deque[tuple[bytes, int]] = deque()  # fragments beyond a full batch, each with its connection fields

    def copy(self) -> Reassembly:
        """An independent copy."""
        other = Reassembly()
        other.partial = {
            known: PartialPacket(packet.expires_us, list(packet.fragments), packet.is_too_long)
            for known, packet in self.partial.items()
        }
        other.due = deque(self.due)
        return other

    def take(self, frame: bytes, key: int, zone: int, came_by: object, now_us: int) -> tuple[bytes, list[bytes]] | None:
        """The packet that a fragment completes, and its fragments in order; None while some are missing.

        Raises InvalidFragment.
        """
        ident, fragment = _parse(frame, key, zone, came_by)
        if sum(len(packet.fragments) for packet in self.partial.values()) >= MOST_FRAGMENTS:
            raise InvalidFragment
        packet = self.partial.setdefault(ident, PartialPacket(now_us + TIMEOUT_US))
        if packet.is_too_long or packet.overlaps(fragment):
            raise InvalidFragment
        packet.fragments.append(fragment)
        if not packet.is_complete():
            return None
        whole = _joined(packet.fragments, ident.ip)
        if whole is None:
            packet.is_too_long = True
            return None
        del self.partial[ident]
        return whole, [part.frame for part in packet.fragments]

    def released(self, batch: list[tuple[bytes, int]], invalid: int, now_us: int) -> list[tuple[bytes, int]]:
        """A batch with what leaves together with it: fragments that are due, and those of a packet that has expired."""
        self.due.extend(batch[BATCH:])
        batch = batch[:BATCH]
        while self.due and len(batch) < BATCH:
            batch.append(self.due.popleft())
        oldest = next(iter(self.partial), None)
        if oldest is not None and now_us > self.partial[oldest].expires_us:
            packet = self.partial.pop(oldest)
            if now_us < packet.expires_us + PURGE_US:
                batch += [(part.frame, invalid) for part in packet.fragments]
        return batch


def _parse(frame: bytes, key: int, zone: int, came_by: object) -> tuple[PacketId, Fragment]:
    ip_at = 18 if at.VLAN_TCI.get(key) else 14
    if at.ETH_TYPE.get(key) == IPV4:
        size, start = int.from_bytes(frame[ip_at + 2 : ip_at + 4], "big"), ip_at + (frame[ip_at] & 15) * 4
        word, number = (
            int.from_bytes(frame[ip_at + 6 : ip_at + 8], "big"),
            int.from_bytes(frame[ip_at + 4 : ip_at + 6], "big"),
        )
        first_byte, more = (word & 0x1FFF) * 8, bool(word & 0x2000)
        ident = PacketId(4, at.NW_SRC.get(key), at.NW_DST.get(key), number, frame[ip_at + 9], zone, came_by)
        last_byte = first_byte + ip_at + size - start - 1
    else:
        size = 40 + int.from_bytes(frame[ip_at + 4 : ip_at + 6], "big")
        found = ipv6_payload(frame, ip_at, ip_at + size)
        header = _fragment_header(frame, ip_at)
        if found is None or header is None:
            raise InvalidFragment
        start = found[2]
        word, number = (
            int.from_bytes(frame[header + 2 : header + 4], "big"),
            int.from_bytes(frame[header + 4 : header + 8], "big"),
        )
        first_byte, more = (word & 0xFFF8) + FRAGMENT_HEADER, bool(word & 1)
        ident = PacketId(6, at.IPV6_SRC.get(key), at.IPV6_DST.get(key), number, 0, zone, came_by)
        last_byte = first_byte + ip_at + size - start - 1
    offset = word & 0x1FFF if ident.ip == 4 else word & 0xFFF8
    if more and size < SMALLEST_BYTES[ident.ip]:
        raise InvalidFragment
    return ident, Fragment(
        frame[: ip_at + size], start, first_byte, last_byte, more and not offset, bool(offset) and not more
    )


def _fragment_header(frame: bytes, ip_at: int) -> int | None:
    """The offset of the fragment header of an IPv6 packet whose headers are whole."""
    header, offset = frame[ip_at + 6], ip_at + 40
    while header != FRAGMENT:
        if offset + 8 > len(frame) or header not in (0, 43, 51, 60):
            return None
        size = (frame[offset + 1] + 2) * 4 if header == 51 else (frame[offset + 1] + 1) * 8
        header, offset = frame[offset], offset + size
    return offset


def _joined(parts: list[Fragment], ip: int) -> bytes | None:
    """The whole packet; None if it is longer than a packet can be."""
    first = parts[0]
    data = bytearray(first.frame + b"".join(part.frame[part.payload :] for part in parts[1:]))
    ip_at = 18 if first.frame[12:14] in (b"\x81\0", b"\x88\xa8") else 14
    if ip == 4:
        if len(data) - ip_at > MAX_PACKET:
            return None
        data[ip_at + 2 : ip_at + 4] = (len(data) - ip_at).to_bytes(2, "big")
        data[ip_at + 6] &= 0xDF
        return bytes(data)
    header = _fragment_header(first.frame, ip_at)
    if header is None or len(data) - ip_at - 40 - FRAGMENT_HEADER > MAX_PACKET:
        return None
    data[ip_at + 4 : ip_at + 6] = min(len(data) - ip_at - 40, MAX_PACKET).to_bytes(2, "big")
    data[header + 2 : header + 4] = b"\0\0"
    return bytes(data)
