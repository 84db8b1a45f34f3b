"""Header fields written to a frame, with the checksums that cover them (RFC 1624).

One rule: a checksum is corrected by the difference, never computed anew, so that a packet with a wrong checksum keeps a wrong
one. Open vSwitch's userspace datapath does the same.
"""

from __future__ import annotations

from ovsctl.datapath.flow_extract import (
    ARP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    RARP,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    ipv6_payload,
)
from ovsctl.datapath.flow_key import (
    ARP_SHA,
    ARP_THA,
    ETH_DST,
    ETH_SRC,
    IPV6_DST,
    IPV6_LABEL,
    IPV6_SRC,
    ND_RESERVED,
    ND_TARGET,
    NW_DST,
    NW_PROTO,
    NW_SRC,
    NW_TOS,
    NW_TTL,
    TP_DST,
    TP_SRC,
    KeyField,
)

_ETHERNET = ETH_DST.mask | ETH_SRC.mask


def corrected(checksum: int, old: int, new: int, words: int) -> int:
    """A checksum after `words` 16-bit words that it covers changed from `old` to `new`."""
    for shift in range(16 * (words - 1), -1, -16):
        total = (checksum ^ 0xFFFF) + (old >> shift & 0xFFFF ^ 0xFFFF) + (new >> shift & 0xFFFF)
        total = (total & 0xFFFF) + (total >> 16)
        checksum = (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
    return checksum


class _Frame:
    """A frame under rewriting. `value` and `mask`: the new bits, laid out as in the key."""

    def __init__(self, frame: bytes, value: int, mask: int, at: int) -> None:
        self.data = bytearray(frame)
        self.value = value
        self.mask = mask
        self.at = at  # offset of the network header

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], "big")

    def put(self, at: int, size: int, number: int) -> None:
        self.data[at : at + size] = number.to_bytes(size, "big")

    def wanted(self, place: KeyField, old: int) -> int | None:
        """The new value of a field that is `old`; None if it stays."""
        mask = self.mask >> place.shift & place.full
        new = old & ~mask | self.value >> place.shift & mask
        return None if new == old else new

    def change(self, place: KeyField, at: int, size: int) -> tuple[int, int] | None:
        """Write a field of `size` bytes. (old, new) if it changed."""
        old = self.number(at, size)
        new = self.wanted(place, old)
        if new is None:
            return None
        self.put(at, size, new)
        return old, new

    def correct(self, at: int, old: int, new: int, words: int) -> None:
        """Correct the checksum at `at`."""
        self.put(at, 2, corrected(self.number(at, 2), old, new, words))


def write_headers(frame: bytes, value: int, mask: int, eth_type: int, tags: int) -> bytes:
    """The frame with the bits of `mask` set to `value`. eth_type, tags: the frame's type and number of VLAN tags.

    Fields that the frame does not have are skipped.
    """
    if not mask & ~_ETHERNET:
        old = int.from_bytes(frame[:12], "big")
        shift = ETH_SRC.shift
        new = old & ~(mask >> shift) | (value & mask) >> shift
        return new.to_bytes(12, "big") + frame[12:]
    rest = mask & ~_ETHERNET
    at = 14 + 4 * tags
    if len(frame) >= at and int.from_bytes(frame[at - 2 : at], "big") < 0x600:
        at += 8  # 802.2 with SNAP
    work = _Frame(frame, value, rest, at)
    if eth_type == IPV4:
        _ipv4(work)
    elif eth_type == IPV6:
        _ipv6(work)
    elif eth_type in (ARP, RARP):
        _arp(work)
    done = bytes(work.data)
    return write_headers(done, value, mask & _ETHERNET, eth_type, tags) if mask & _ETHERNET else done


def _arp(work: _Frame) -> None:
    at = work.at
    if len(work.data) < at + 28:
        return
    operation = work.number(at + 6, 2)
    if not 0 < (work.wanted(NW_PROTO, operation) or operation) <= 0xFF:
        return  # it is 0 in struct flow, and commit_set_nw_action writes nothing without a protocol
    work.change(NW_PROTO, at + 6, 2)
    work.change(ARP_SHA, at + 8, 6)
    work.change(NW_SRC, at + 14, 4)
    work.change(ARP_THA, at + 18, 6)
    work.change(NW_DST, at + 24, 4)


def _ipv4(work: _Frame) -> None:
    at = work.at
    if len(work.data) < at + 20 or not work.data[at + 9]:
        return
    header = (work.data[at] & 15) * 4
    total = work.number(at + 2, 2)
    if header < 20 or total < header or at + total > len(work.data):
        return
    first = not work.number(at + 6, 2) & 0x1FFF
    proto, start, size = work.data[at + 9], at + header, total - header
    for place, offset in ((NW_SRC, at + 12), (NW_DST, at + 16)):
        if (changed := work.change(place, offset, 4)) is not None:
            work.correct(at + 10, *changed, 2)
            if first and proto in (TCP, UDP):
                _pseudo(work, proto, start, size, *changed, 2)
    if (changed := work.change(NW_TOS, at + 1, 1)) is not None:
        work.correct(at + 10, *changed, 1)
    if (changed := work.change(NW_TTL, at + 8, 1)) is not None:
        work.correct(at + 10, changed[0] << 8, changed[1] << 8, 1)
    if first:
        _transport(work, proto, start, size, ICMP)


def _pseudo(work: _Frame, proto: int, start: int, size: int, old: int, new: int, words: int) -> None:
    """Correct a transport checksum for an address in its pseudo-header."""
    if proto == TCP and size >= 20:
        work.correct(start + 16, old, new, words)
    elif proto == UDP and size >= 8 and work.number(start + 6, 2):
        work.correct(start + 6, old, new, words)
        _never_zero(work, start + 6)
    elif proto == ICMPV6 and size >= 4:
        work.correct(start + 2, old, new, words)


def _never_zero(work: _Frame, at: int) -> None:
    """UDP's checksum 0 means none, so a computed 0 is sent as all ones (RFC 768)."""
    if not work.number(at, 2):
        work.put(at, 2, 0xFFFF)


def _transport(work: _Frame, proto: int, start: int, size: int, icmp: int) -> None:
    if not work.mask & (TP_SRC.mask | TP_DST.mask):
        return
    if proto == TCP and size >= 20:
        for place, offset in ((TP_SRC, start), (TP_DST, start + 2)):
            if (changed := work.change(place, offset, 2)) is not None:
                work.correct(start + 16, *changed, 1)
    elif proto == UDP and size >= 8:
        checked = work.number(start + 6, 2)
        for place, offset in ((TP_SRC, start), (TP_DST, start + 2)):
            if (changed := work.change(place, offset, 2)) is not None and checked:
                work.correct(start + 6, *changed, 1)
        if checked:
            _never_zero(work, start + 6)
    elif proto == SCTP and size >= 12:
        _sctp(work, start, size)
    elif proto == icmp and size >= 4:
        before = work.number(start, 2)
        work.change(TP_SRC, start, 1)
        work.change(TP_DST, start + 1, 1)
        if (after := work.number(start, 2)) != before:
            work.correct(start + 2, before, after, 1)


def _sctp(work: _Frame, start: int, size: int) -> None:
    """SCTP's checksum is a CRC32c: an error in it is kept by exclusive or."""
    end = start + size
    old = work.number(start + 8, 4)
    work.put(start + 8, 4, 0)
    right = crc32c(bytes(work.data[start:end]))
    work.change(TP_SRC, start, 2)
    work.change(TP_DST, start + 2, 2)
    work.put(start + 8, 4, old ^ right ^ crc32c(bytes(work.data[start:end])))


def crc32c(data: bytes) -> int:
    """The CRC32c of RFC 9260 appendix A, in the byte order of its header field."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return int.from_bytes((crc ^ 0xFFFFFFFF).to_bytes(4, "little"), "big")


def _ipv6(work: _Frame) -> None:
    at = work.at
    if len(work.data) < at + 40 or at + 40 + work.number(at + 4, 2) > len(work.data):
        return
    end = at + 40 + work.number(at + 4, 2)
    found = ipv6_payload(bytes(work.data), at, end)
    if found is None or not found[0]:
        return
    proto, frag, start = found
    first = not frag & 2
    for place, offset in ((IPV6_SRC, at + 8), (IPV6_DST, at + 24)):
        # With a routing header the checksum covers the final destination, not this address.
        covered = place is IPV6_SRC or not _has_routing(work, at, start)
        if (changed := work.change(place, offset, 16)) is not None and first and covered:
            _pseudo(work, proto, start, end - start, *changed, 8)
    word = work.number(at, 4)
    label = work.wanted(IPV6_LABEL, word & 0xFFFFF)
    tos = work.wanted(NW_TOS, word >> 20 & 0xFF)
    word = word & ~0xFFFFF | (word & 0xFFFFF if label is None else label)
    word = word & ~(0xFF << 20) | (word & 0xFF << 20 if tos is None else tos << 20)
    work.put(at, 4, word)
    work.change(NW_TTL, at + 7, 1)
    if first:
        _transport(work, proto, start, end - start, ICMPV6)
        if proto == ICMPV6:
            _neighbour(work, start, end)


def _has_routing(work: _Frame, at: int, payload: int) -> bool:
    header, offset = work.data[at + 6], at + 40
    while offset < payload:
        if header == ROUTING:
            return True
        header, offset = work.data[offset], offset + (work.data[offset + 1] + 1) * 8
    return False


def _neighbour(work: _Frame, start: int, end: int) -> None:
    """The fields of a neighbour solicitation or advertisement (RFC 4861 §4.3, §4.4)."""
    if work.data[start] not in (135, 136) or end - start < 24:
        return
    checksum = start + 2
    if (changed := work.change(ND_RESERVED, start + 4, 4)) is not None:
        work.correct(checksum, *changed, 2)
    if (changed := work.change(ND_TARGET, start + 8, 16)) is not None:
        work.correct(checksum, *changed, 8)
    at = start + 24
    while end - at >= 8 and work.data[at + 1]:
        place = {1: ARP_SHA, 2: ARP_THA}.get(work.data[at])
        if place is not None and work.data[at + 1] == 1 and (changed := work.change(place, at + 2, 6)) is not None:
            work.correct(checksum, *changed, 3)
        at += work.data[at + 1] * 8
