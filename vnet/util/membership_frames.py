"""Frames of IGMP and MLD: what a listener's or a router's frame says, and the queries that make listeners speak.

One rule: a frame is hostile until it is parsed. What is cut short, has a wrong checksum, or is a fragment says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from vnet.util.frames import checksum, ethernet

IGMP, PIM, ICMPV6, HOP_BY_HOP = 2, 103, 58, 0
# Types of IGMP (RFC 3376 §4) and of MLD (RFC 3810 §5).
QUERY, REPORT_V1, REPORT_V2, LEAVE, REPORT_V3 = 0x11, 0x12, 0x16, 0x17, 0x22
MLD_QUERY, MLD_REPORT, MLD_DONE, MLD_REPORT_V2 = 130, 131, 132, 143
PIM_HELLO = 0x20  # version 2, type 0 (RFC 7761 §4.9)
# Types of group records (RFC 3376 §4.2.12).
IS_INCLUDE, IS_EXCLUDE, TO_INCLUDE, TO_EXCLUDE, ALLOW, BLOCK = range(1, 7)
ROUTER_ALERT_V4, ROUTER_ALERT_V6 = b"\x94\x04\0\0", b"\x3a\0\x05\x02\0\0\1\0"  # RFC 2113; RFC 2711, with padding


class Membership(NamedTuple):
    """What a frame says: the groups that its sender joins, those it leaves, those of which it only leaves sources or which others behind the
    same port may still listen to, and whether a multicast router sent it."""

    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    router: bool = False


NOTHING = Membership()


def membership(frame: bytes) -> Membership:
    """What an untagged frame says of multicast groups; NOTHING for any other frame. Addresses are multicast ones."""
    if frame[12:14] == b"\x08\0":
        return _of_ipv4(frame[14:])
    if frame[12:14] == b"\x86\xdd":
        return _of_ipv6(frame[14:])
    return NOTHING


def _of_ipv4(packet: bytes) -> Membership:
    head = (packet[0] & 0x0F) * 4 if packet else 0
    length = int.from_bytes(packet[2:4], "big")
    if head < 20 or not head + 8 <= length <= len(packet) or packet[6] & 0x3F or packet[7]:
        return NOTHING  # cut short, or a fragment
    body, anybody = packet[head:length], not any(packet[12:16])
    if packet[9] == PIM:
        return Membership(router=body[0] == PIM_HELLO)
    if packet[9] != IGMP or checksum(body):
        return NOTHING
    if body[0] == QUERY:  # from 0.0.0.0 it is a switch's (RFC 4541 §2.1.1)
        return Membership(router=not anybody)
    if body[0] == REPORT_V3:
        return _of_records(body, 4)
    return _of_single(body[0], body[4:8], (REPORT_V1, REPORT_V2), LEAVE)


def _of_ipv6(packet: bytes) -> Membership:
    end = 40 + int.from_bytes(packet[4:6], "big")
    if len(packet) < end or packet[7:8] != b"\1":  # a hop limit of 1 (RFC 3810 §5)
        return NOTHING
    following, at = packet[6], 40
    if following == HOP_BY_HOP and end >= 48:
        following, at = packet[40], 48 + packet[41] * 8
    if following == PIM and at < end:
        return Membership(router=packet[at] == PIM_HELLO)
    body = packet[at:end]
    if following != ICMPV6 or len(body) < 8:
        return NOTHING
    if checksum(packet[8:40] + len(body).to_bytes(4, "big") + ICMPV6.to_bytes(4, "big") + body):
        return NOTHING
    if body[0] == MLD_QUERY:
        return Membership(router=any(packet[8:24]))
    if body[0] == MLD_REPORT_V2:
        return _of_records(body, 16)
    return _of_single(body[0], body[8:24], (MLD_REPORT,), MLD_DONE)


def _of_single(sort: int, octets: bytes, reports: tuple[int, ...], done: int) -> Membership:
    group = _group(octets)
    if group is None:
        return NOTHING
    if sort in reports:
        return Membership(joined=(group,))
    return Membership(left=(group,)) if sort == done else NOTHING


def _of_records(body: bytes, width: int) -> Membership:
    """A report of version 3 of IGMP (RFC 3376 §4.2) or 2 of MLD (RFC 3810 §5.2). width: of an address, in bytes."""
    joined, left, doubtful = [], [], []
    for sort, sources, group in _records(body, width):
        if sort in (IS_EXCLUDE, TO_EXCLUDE) or (sources and sort in (IS_INCLUDE, TO_INCLUDE, ALLOW)):
            joined.append(group)
        elif sort == TO_INCLUDE:
            left.append(group)
        elif sort == BLOCK:
            doubtful.append(group)  # perhaps the last source that it listened to
    return Membership(tuple(joined), tuple(left), tuple(doubtful))


def _records(body: bytes, width: int) -> Iterator[tuple[int, int, str]]:
    at, head = 8, 4 + width
    for _ in range(int.from_bytes(body[6:8], "big")):
        sources = int.from_bytes(body[at + 2 : at + 4], "big")
        group = _group(body[at + 4 : at + head])
        end = at + head + sources * width + body[at + 1] * 4 if at + head <= len(body) else len(body) + 1
        if end > len(body):
            return
        if group is not None:
            yield body[at], sources, group
        at = end


def _group(octets: bytes) -> str | None:
    """A multicast group as text; None for what is none."""
    if len(octets) == 4:
        return str(ip_address(octets)) if octets[0] >> 4 == 0xE else None
    return str(ip_address(octets)) if len(octets) == 16 and octets[0] == 0xFF else None


def query_v4(mac: str, source: str, response_ms: int, interval_s: int, group: str = "0.0.0.0") -> bytes:
    """A query of IGMPv3 (RFC 3376 §4.1), which older listeners take for their own version's. group: 0.0.0.0 for all. mac, source: its sender's."""
    about = ip_address(group).packed
    target = ip_address("224.0.0.1").packed if not any(about) else about
    body = bytes((QUERY, min(127, max(1, response_ms // 100)), 0, 0)) + about + bytes((2, _code(interval_s), 0, 0))
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    head = b"\x46\xc0" + (24 + len(body)).to_bytes(2, "big") + bytes(4) + bytes((1, IGMP, 0, 0))
    head += ip_address(source).packed + target + ROUTER_ALERT_V4
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return ethernet(group_mac(target), mac, 0x0800, head + body)


def query_v6(mac: str, source: str, response_ms: int, interval_s: int, group: str = "::") -> bytes:
    """A query of MLDv2 (RFC 3810 §5.1), which older listeners take for their own version's. group: :: for all. source: a link-local address."""
    about = ip_address(group).packed
    target = ip_address("ff02::1").packed if not any(about) else about
    body = bytes((MLD_QUERY, 0, 0, 0)) + min(32767, max(1, response_ms)).to_bytes(2, "big") + bytes(2)
    body += about + bytes((2, _code(interval_s), 0, 0))
    ends = ip_address(source).packed + target
    total = checksum(ends + len(body).to_bytes(4, "big") + ICMPV6.to_bytes(4, "big") + body)
    body = body[:2] + total.to_bytes(2, "big") + body[4:]
    head = b"\x60\0\0\0" + (len(body) + 8).to_bytes(2, "big") + bytes((HOP_BY_HOP, 1)) + ends
    return ethernet(group_mac(target), mac, 0x86DD, head + ROUTER_ALERT_V6 + body)


def _code(seconds: int) -> int:
    """A querier's interval as one byte (RFC 3376 §4.1.7): above 127 seconds it is rounded down to what the byte can say."""
    if seconds < 128:
        return seconds
    exponent = min(7, seconds.bit_length() - 8)
    return 0x80 | exponent << 4 | min(15, (seconds >> (exponent + 3)) & 0x0F)


def group_mac(octets: bytes) -> str:
    """The MAC of a multicast group (RFC 1112 §6.4, RFC 2464 §7)."""
    if len(octets) == 4:
        return bytes((1, 0, 0x5E, octets[1] & 0x7F, *octets[2:])).hex(":")
    return bytes((0x33, 0x33, *octets[12:])).hex(":")
