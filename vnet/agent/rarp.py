"""The frame by which a VIF's new place is told to switches that learn MACs, on behalf of a guest that says nothing."""

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
