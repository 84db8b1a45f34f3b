"""The frames that announce a VIF's new place to switches that learn MACs, on behalf of a guest that says nothing."""

from __future__ import annotations

from vnet.util.mac import mac_bytes

RARP_REQUEST = 3  # RFC 903: "request reverse"
MINIMUM_FRAME_BYTES = 60  # without the FCS, 802.3 §3.2.7


def rarp(mac: str) -> bytes:
    """A RARP broadcast from and about `mac`, as QEMU sends it after a migration."""
    address = mac_bytes(mac)
    ethernet = b"\xff" * 6 + address + b"\x80\x35"
    body = b"\x00\x01\x08\x00\x06\x04" + RARP_REQUEST.to_bytes(2, "big") + (address + bytes(4)) * 2
    return (ethernet + body).ljust(MINIMUM_FRAME_BYTES, b"\0")


def gratuitous_arp(mac: str) -> bytes:
    """A gratuitous ARP request from `mac`, about no address: hosts ignore it. Open vSwitch's bonds that are balanced by MAC learn from
    no other frame that a MAC of theirs is elsewhere (is_gratuitous_arp, lib/flow.h)."""
    address = mac_bytes(mac)
    ethernet = b"\xff" * 6 + address + b"\x08\x06"
    body = b"\x00\x01\x08\x00\x06\x04\x00\x01" + address + bytes(4) + bytes(6) + bytes(4)
    return (ethernet + body).ljust(MINIMUM_FRAME_BYTES, b"\0")
