"""The frame that answers a rejected one: a TCP reset, or ICMP's "unreachable". One rule: a frame that must not be answered is not.

Never answered are resets, errors of ICMP, what is not for a single host or says it comes from no single one, and fragments but the
first of a packet (RFC 1122 §3.2.2, RFC 4443 §2.4 e, RFC 9293 §3.10.7.1).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import unpack
from typing import NamedTuple

from vnet.compile.flows import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP

ETHERNET = 14  # bytes of the header; frames are untagged in the pipeline
# An error quotes as much of the packet as fits: RFC 1812 §4.3.2.3, and RFC 4443 §2.4 c with RFC 8200 §5.
QUOTED_IPV4, QUOTED_IPV6 = 576 - 20 - 8, 1280 - 40 - 8
LOOKED_AT = ETHERNET + max(QUOTED_IPV4, QUOTED_IPV6)  # bytes of a frame that its answer depends on
HOPS = 64
FIN, SYN, RST, ACK = 1, 2, 4, 16
# Queries and answers of ICMP; all other types are errors, or may be.
INFORMATION = frozenset({0, 8, 13, 14, 15, 16, 17, 18})
# Of ICMPv6 every type from 128 on informs (RFC 4443 §2.1), but errors about neighbours, listeners and redirects make no sense.
ON_LINK = frozenset({*range(130, 138), 143})
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, NO_NEXT = 0, 43, 44, 60, 59
PORT_UNREACHABLE = {4: (3, 3), 6: (1, 4)}  # type and code, by IP version
PROHIBITED = {4: (3, 13), 6: (1, 1)}  # RFC 1812 §5.2.7.1, RFC 4443 §3.1


class Packet(NamedTuple):
    """An IP packet without its Ethernet header. whole: its length in bytes, of which `data` may be the first part.

    at: where its transport header begins. more: whether further fragments follow.
    """

    version: int
    source: bytes
    target: bytes
    protocol: int
    at: int
    whole: int
    more: bool
    data: bytes


def rejection_of(frame: bytes) -> bytes | None:
    """The frame that answers a rejected one, from its receiver to its sender; None where nothing must be answered.

    Only the first LOOKED_AT bytes count: the answer to a frame that was cut there is the same.
    """
    packet = packet_of(frame[:LOOKED_AT])
    if (frame[0] | frame[6]) & 1 or packet is None or not (_is_host(packet.source) and _is_host(packet.target)):
        return None
    if packet.source == packet.target:
        return None
    body = _reset(packet) if packet.protocol == TCP else _unreachable(packet)
    if body is None:
        return None
    return frame[6:12] + frame[:6] + frame[12:14] + _ip(packet, TCP if packet.protocol == TCP else None, body)


def answer_in_words(frame: bytes) -> str:
    """The answer to a rejected packet, for people."""
    ipv6 = int.from_bytes(frame[12:14], "big") == ETH_IPV6
    protocol, error = frame[20 if ipv6 else 23], tuple(frame[54:56] if ipv6 else frame[34:36])
    if protocol == TCP:
        return "TCP reset"
    reason = "port unreachable" if error in PORT_UNREACHABLE.values() else "administratively prohibited"
    return f"{'ICMPv6' if ipv6 else 'ICMP'} {reason}"


def packet_of(frame: bytes) -> Packet | None:
    """The IP packet in a frame without a tag, of which the first bytes are enough; None for anything else, and for a later fragment."""
    match int.from_bytes(frame[12:14], "big"):
        case version if version == ETH_IPV4:
            return _ipv4(frame[ETHERNET:])
        case version if version == ETH_IPV6:
            return _ipv6(frame[ETHERNET:])
    return None


def _ipv4(data: bytes) -> Packet | None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    size, whole, fragment = (data[0] & 15) * 4, *unpack("!H2xH", data[2:8])
    if size < 20 or not size <= whole or fragment & 0x1FFF or _sum(data[:size]) != 0xFFFF:
        return None
    return Packet(4, data[12:16], data[16:20], data[9], size, whole, bool(fragment & 0x2000), data[:whole])


def _ipv6(data: bytes) -> Packet | None:
    if len(data) < 40 or data[0] >> 4 != 6:
        return None
    whole = 40 + int.from_bytes(data[4:6], "big")
    data, at, protocol, more = data[:whole], 40, data[6], False
    while protocol in (HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT):
        if len(data) < at + 8:
            return None
        following = data[at]
        if protocol == FRAGMENT:
            offset = int.from_bytes(data[at + 2 : at + 4], "big")
            more = more or bool(offset & 1)
            if offset & 0xFFF8:
                return None
        at += 8 if protocol == FRAGMENT else 8 * (1 + data[at + 1])
        protocol = following
    return Packet(6, data[8:24], data[24:40], protocol, at, whole, more, data) if at <= whole else None


def _is_host(address: bytes) -> bool:
    """Whether an address may be that of a single host on a network."""
    if len(address) == 4:
        four = IPv4Address(address)
        return 0 < address[0] < 224 and not four.is_loopback
    six = IPv6Address(address)
    return not (six.is_multicast or six.is_unspecified or six.is_loopback or six.ipv4_mapped)


def _reset(packet: Packet) -> bytes | None:
    """RFC 9293 §3.10.7.1: where the segment acknowledges, the reset has that sequence number; else it acknowledges the segment."""
    head = packet.data[packet.at : packet.at + 20]
    if len(head) < 20:
        return None
    source, target, sequence, acknowledged, offset, flags = unpack("!HHIIBB", head[:14])
    length = packet.whole - packet.at - (offset >> 4) * 4 + bool(flags & SYN) + bool(flags & FIN)
    if flags & RST or offset >> 4 < 5 or length < 0 or (packet.more and not flags & ACK):
        return None
    ours, theirs, reply = (acknowledged, 0, RST) if flags & ACK else (0, sequence + length, RST | ACK)
    numbers = ours.to_bytes(4, "big") + (theirs & 0xFFFFFFFF).to_bytes(4, "big")
    segment = target.to_bytes(2, "big") + source.to_bytes(2, "big") + numbers + bytes((0x50, reply)) + bytes(6)
    return _summed(segment, 16, _pseudo(packet, TCP, len(segment)))


def _unreachable(packet: Packet) -> bytes | None:
    if packet.protocol in (ICMP, ICMPV6) and not _informs(packet):
        return None
    if packet.protocol == UDP and len(packet.data) < packet.at + 8:
        return None
    error = PORT_UNREACHABLE if packet.protocol == UDP else PROHIBITED
    quoted = packet.data[: QUOTED_IPV4 if packet.version == 4 else QUOTED_IPV6]
    message = bytes(error[packet.version]) + bytes(6) + quoted
    return _summed(message, 2, b"" if packet.version == 4 else _pseudo(packet, ICMPV6, len(message)))


def _informs(packet: Packet) -> bool:
    own = ICMP if packet.version == 4 else ICMPV6
    if packet.protocol != own or len(packet.data) <= packet.at:
        return False
    number = packet.data[packet.at]
    return number in INFORMATION if own == ICMP else number >= 128 and number not in ON_LINK


def _ip(packet: Packet, protocol: int | None, body: bytes) -> bytes:
    """The answer's IP packet: from the receiver to the sender. protocol: None for ICMP."""
    if packet.version == 6:
        head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((protocol or ICMPV6, HOPS))
        return head + packet.target + packet.source + body
    head = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + b"\0\0\x40\0" + bytes((HOPS, protocol or ICMP, 0, 0))
    return _summed(head + packet.target + packet.source, 10, b"") + body


def _pseudo(packet: Packet, protocol: int, size: int) -> bytes:
    """The pseudo-header of the answer: RFC 9293 §3.1, RFC 8200 §8.1. The order of the addresses does not matter to the sum."""
    return packet.source + packet.target + size.to_bytes(4, "big") + protocol.to_bytes(4, "big")


def _summed(data: bytes, at: int, pseudo: bytes) -> bytes:
    """The data with its checksum (RFC 1071) at a place, over the pseudo-header too."""
    return data[:at] + (~_sum(pseudo + data) & 0xFFFF).to_bytes(2, "big") + data[at + 2 :]


def _sum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
