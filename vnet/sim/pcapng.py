"""Captures that Wireshark reads: pcapng (draft-ietf-opsawg-pcapng) with a named interface per port.

Written here because it takes three types of block only, and importing scapy costs half a second.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import IO

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_ETHERNET = 1  # LINKTYPE_ETHERNET
_END, _IF_NAME, _EPB_FLAGS = 0, 2, 2


class CaptureDirection(IntEnum):
    """As in a packet's flags: into the port from its far end, or out of it."""

    IN = 1
    OUT = 2


class PcapngWriter:
    """Writes frames to a file; an interface is added with its first frame."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._interfaces: dict[str, int] = {}
        self._block(_SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))

    def write(self, interface: str, frame: bytes, direction: CaptureDirection, at_us: int) -> None:
        """Add a frame. at_us: microseconds since 1970."""
        number = self._interfaces.get(interface)
        if number is None:
            number = self._interfaces[interface] = len(self._interfaces)
            self._block(
                _INTERFACE, struct.pack("<HHI", _ETHERNET, 0, 0) + _option(_IF_NAME, interface.encode()) + _end()
            )
        head = struct.pack("<IIIII", number, at_us >> 32, at_us & 0xFFFFFFFF, len(frame), len(frame))
        flags = _option(_EPB_FLAGS, struct.pack("<I", direction))
        self._block(_PACKET, head + _padded(frame) + flags + _end())

    def _block(self, block_type: int, body: bytes) -> None:
        length = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", block_type) + length + body + length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _end() -> bytes:
    return struct.pack("<HH", _END, 0)
