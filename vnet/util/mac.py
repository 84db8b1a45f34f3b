"""MAC addresses as bytes."""

from __future__ import annotations


def mac_bytes(mac: str) -> bytes:
    """The six bytes of a MAC address that is written with colons."""
    return bytes.fromhex(mac.replace(":", ""))
