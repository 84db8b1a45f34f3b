"""Ethernet frames as bytes, and those that announce a MAC to switches that learn MACs, for a guest that says nothing."""

from __future__ import annotations

from socket import AF_INET6, inet_aton, inet_ntoa, inet_ntop, inet_pton
from struct import unpack
from typing import NamedTuple

IPV6_END = 54  # where the header of an untagged IPv6 frame ends
BROADCAST = "ff:ff:ff:ff:ff:ff"
MINIMUM_FRAME_BYTES = 60  # without the FCS, 802.3 §3.2.7
ARP_HEAD = b"\0\x01\x08\0\x06\x04"  # Ethernet and IPv4 (RFC 826)
REQUEST, ARP_ANSWER, REVERSE_REQUEST = b"\0\x01", b"\0\x02", b"\0\x03"  # operations of RFC 826 and RFC 903

NEIGHBOR_ADVERTISEMENT = b"\x88\0"  # type and code
ROUTER, OVERRIDE = 0x80000000, 0x20000000  # flags
SOLICITATION, ADVERTISEMENT = 135, 136  # types of ICMPv6
SOURCE_MAC, TARGET_MAC = b"\x01\x01", b"\x02\x01"  # the options, in their one unit of eight bytes
TAG_TYPES = (b"\x81\x00", b"\x88\xa8")
SERVICE_VLAN = 0x1000  # added to the VLAN ID of a service tag: it is another VLAN than that of 802.1Q with the number
ARP_TYPE, IPV6_TYPE = b"\x08\x06", b"\x86\xdd"
IPV6_HEAD = b"\x60\0\0\0\0\x20\x3a\xff"  # 32 bytes of ICMPv6, hop limit 255
ICMPV6 = b"\0\0\0\x20\0\0\0\x3a"  # the pseudo-header's length and next header (RFC 8200 §8.1)


def mac_bytes(mac: str) -> bytes:
    """The six bytes of a MAC address that is written with colons."""
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(dst: str, src: str, eth_type: int, body: bytes) -> bytes:
    """An Ethernet frame, padded to the 60 bytes that it has at least."""
    head = mac_bytes(dst) + mac_bytes(src) + eth_type.to_bytes(2, "big")
    return (head + body).ljust(MINIMUM_FRAME_BYTES, b"\0")


def rarp(mac: str) -> bytes:
    """A RARP broadcast from and about `mac`, as QEMU sends it when a guest resumes elsewhere."""
    own = mac_bytes(mac) + bytes(4)
    return ethernet(BROADCAST, mac, 0x8035, ARP_HEAD + REVERSE_REQUEST + own + own)


def arp_request(mac: str, address: str, target: str) -> bytes:
    """An ARP request to all, from which neighbours that know `address` take its MAC (RFC 826)."""
    return ethernet(
        BROADCAST, mac, 0x0806, ARP_HEAD + REQUEST + mac_bytes(mac) + inet_aton(address) + bytes(6) + inet_aton(target)
    )


def gratuitous_arp(mac: str, address: str = "0.0.0.0") -> bytes:
    """An ARP announcement (RFC 5227 §1.1, §3).

    One about no address is ignored by hosts. Open vSwitch's bonds that are balanced by MAC learn from no other frame that a MAC of theirs
    is elsewhere (is_gratuitous_arp, lib/flow.h).
    """
    return arp_request(mac, address, address)


def neighbor_advertisement(mac: str, address: str, *, router: bool) -> bytes:
    """An unsolicited neighbor advertisement to all nodes that overrides what they know (RFC 4861 §4.4, §7.2.6).

    router: that of a router must say so, else its neighbours take it from their default routers (§7.2.5).
    """
    source, nodes = inet_pton(AF_INET6, address), inet_pton(AF_INET6, "ff02::1")
    flags = OVERRIDE | (ROUTER if router else 0)
    body = flags.to_bytes(4, "big") + source + TARGET_MAC + mac_bytes(mac)
    total = checksum(source + nodes + ICMPV6 + NEIGHBOR_ADVERTISEMENT + bytes(2) + body)
    icmp = NEIGHBOR_ADVERTISEMENT + total.to_bytes(2, "big") + body
    return ethernet("33:33:00:00:00:01", mac, 0x86DD, IPV6_HEAD + source + nodes + icmp)


def address_announcement(mac: str, address: str, *, router: bool = False, plain: bool = False) -> bytes:
    """The frame by which neighbours take an address to be at `mac` from now on. plain: no gratuitous ARP, but a request for nobody."""
    if ":" in address:
        return neighbor_advertisement(mac, address, router=router)
    return arp_request(mac, address, "0.0.0.0" if plain else address)


def used_address(frame: bytes) -> bytes | None:
    """The 16 bytes of the address that an IPv6 frame's sender uses, or asks for whether it may (RFC 4862 §5.4.2); None of another frame."""
    if frame[12:14] != b"\x86\xdd" or len(frame) < IPV6_END:
        return None
    source = frame[22:38]
    if any(source):
        return source
    return frame[62:78] if is_detection(frame) else None


def is_detection(frame: bytes) -> bool:
    """Whether an IPv6 frame is a neighbour solicitation from ::, so of duplicate address detection."""
    return len(frame) >= 78 and not any(frame[22:38]) and frame[20] == 58 and frame[IPV6_END] == 135


def vlan_of(frame: bytes) -> int:
    """The VLAN ID of a frame's tag, SERVICE_VLAN added for a service tag; 0 without one."""
    if frame[12:14] not in TAG_TYPES or len(frame) < 16:
        return 0
    vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
    return vlan | SERVICE_VLAN if frame[12:14] == TAG_TYPES[1] else vlan


def tagged(frame: bytes, vlan: int) -> bytes:
    """The frame on a VLAN, as `vlan_of` has it: without a tag for 0."""
    tag_type = TAG_TYPES[1] if vlan & SERVICE_VLAN else TAG_TYPES[0]
    return frame[:12] + tag_type + (vlan & 0xFFF).to_bytes(2, "big") + frame[12:] if vlan else frame


class AddressClaim(NamedTuple):
    """A claim of an address for a MAC. tag: the VLAN as `vlan_of` has it. asker: the MAC of the station that asked by ARP, "" for a claim that answers nobody."""

    tag: int
    address: str
    mac: str
    asker: str = ""


def claimed_address(frame: bytes) -> AddressClaim | None:
    """The claim that a frame makes: ARP from an address (RFC 5227 §2.4), a neighbour advertisement of it, a solicitation from it (RFC 4861 §7.2). None of any other frame."""
    at, tag = 16 if frame[12:14] in TAG_TYPES else 12, vlan_of(frame)
    eth_type, body = frame[at : at + 2], frame[at + 2 :]
    if eth_type == ARP_TYPE and body[:6] == ARP_HEAD and len(body) >= 28:
        mac, address, asker, asked_from = body[8:14], body[14:18], body[18:24], body[24:28]
        answers = body[6:8] == ARP_ANSWER and asked_from != address
        return (
            AddressClaim(tag, inet_ntoa(address), mac.hex(":"), asker.hex(":") if answers else "")
            if any(address)
            else None
        )
    if eth_type != IPV6_TYPE or len(body) < 64 or body[6:8] != b"\x3a\xff" or body[41]:
        return None
    source, message, target = body[8:24], body[40], body[48:64]
    address = target if message == ADVERTISEMENT else source if message == SOLICITATION else b""
    if not any(address):
        return None
    wanted = TARGET_MAC if message == ADVERTISEMENT else SOURCE_MAC
    mac = body[66:72] if body[64:66] == wanted and len(body) >= 72 else frame[6:12]
    return AddressClaim(tag, inet_ntop(AF_INET6, address), mac.hex(":"))


def checksum(data: bytes) -> int:
    """The checksum of the Internet (RFC 1071): 0 over data that has its own in it."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
