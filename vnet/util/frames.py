"""Ethernet frames as bytes, and those that announce a MAC to switches that learn MACs, for a guest that says nothing."""

from __future__ import annotations

BROADCAST = "ff:ff:ff:ff:ff:ff"
MINIMUM_FRAME_BYTES = 60  # without the FCS, 802.3 §3.2.7
ARP_HEAD = b"\0\x01\x08\0\x06\x04"  # Ethernet and IPv4 (RFC 826)
REQUEST, REVERSE_REQUEST = b"\0\x01", b"\0\x03"  # operations of RFC 826 and RFC 903


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


def gratuitous_arp(mac: str) -> bytes:
    """A gratuitous ARP request from `mac`, about no address: hosts ignore it. Open vSwitch's bonds that are balanced by MAC learn from
    no other frame that a MAC of theirs is elsewhere (is_gratuitous_arp, lib/flow.h)."""
    return ethernet(BROADCAST, mac, 0x0806, ARP_HEAD + REQUEST + mac_bytes(mac) + bytes(14))
