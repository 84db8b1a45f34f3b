"""Captures that Wireshark reads: the blocks of pcapng (draft-ietf-opsawg-pcapng), with a named interface per port.

Written here because it takes four types of block only, and importing scapy costs half a second.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import IO, Final

MAX_BLOCK_BYTES = 1 << 20

_LITTLE_ENDIAN = 0x1A2B3C4D
_ETHERNET = 1  # LINKTYPE_ETHERNET
_NANOSECONDS = b"\x09"  # of if_tsresol: a negative power of ten
_END, _COMMENT = 0, 1
_IF_NAME, _IF_MAC, _IF_TSRESOL, _IF_FILTER = 2, 6, 9, 11
_EPB_FLAGS = 2
_ISB_RECEIVED, _ISB_DROPPED = 4, 5
_APPLICATION = 4  # shb_userappl


class Block(IntEnum):
    """The types of blocks that are written here."""

    SECTION = 0x0A0D0D0A
    INTERFACE = 1
    STATISTICS = 5
    PACKET = 6


class CaptureDirection(IntEnum):
    """As in a packet's flags: into the interface, or out of it."""

    IN = 1
    OUT = 2


def section(application: str = "", comment: str = "") -> bytes:
    """The block that a file begins with."""
    body = struct.pack("<IHHq", _LITTLE_ENDIAN, 1, 0, -1)
    return _block(Block.SECTION, body, (_COMMENT, comment.encode()), (_APPLICATION, application.encode()))


def interface(name: str, *, comment: str = "", mac: bytes = b"", snap: int = 0, filter: str = "") -> bytes:
    """An interface, numbered by its order from 0. Times of its packets are nanoseconds. snap: the most bytes of a packet, 0 for all."""
    text = b"\0" + filter.encode() if filter else b""  # 0: in the language of pcap-filter(7)
    named = ((_COMMENT, comment.encode()), (_IF_NAME, name.encode()), (_IF_MAC, mac))
    head = struct.pack("<HHI", _ETHERNET, 0, snap)
    return _block(Block.INTERFACE, head, *named, (_IF_TSRESOL, _NANOSECONDS), (_IF_FILTER, text))


def packet(number: int, frame: bytes, direction: CaptureDirection, at_ns: int, length: int = 0) -> bytes:
    """A packet of an interface. at_ns: nanoseconds since 1970. length: of the whole frame, where it is cut off."""
    head = struct.pack("<IIIII", number, at_ns >> 32, at_ns & 0xFFFFFFFF, len(frame), max(length, len(frame)))
    return _block(Block.PACKET, head + _padded(frame), (_EPB_FLAGS, struct.pack("<I", direction)))


def statistics(number: int, at_ns: int, received: int, dropped: int, comment: str = "") -> bytes:
    """What came to an interface until then, and what of it is not in the file."""
    head = struct.pack("<III", number, at_ns >> 32, at_ns & 0xFFFFFFFF)
    counters = ((_ISB_RECEIVED, struct.pack("<Q", received)), (_ISB_DROPPED, struct.pack("<Q", dropped)))
    return _block(Block.STATISTICS, head, (_COMMENT, comment.encode()), *counters)


class PcapngWriter:
    """Writes frames to a file; an interface is added with its first frame."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._interfaces: dict[str, int] = {}
        self._file.write(section())

    def write(self, name: str, frame: bytes, direction: CaptureDirection, at_us: int) -> None:
        """Add a frame. at_us: microseconds since 1970."""
        number = self._interfaces.get(name)
        if number is None:
            number = self._interfaces[name] = len(self._interfaces)
            self._file.write(interface(name))
        self._file.write(packet(number, frame, direction, 1000 * at_us))


class PcapngBlocks:
    """Splits a stream of bytes into the blocks of a section of ours. Raises ValueError for one that is none, or too long."""

    def __init__(self) -> None:
        self._rest: Final = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The blocks that are complete now."""
        self._rest.extend(data)
        while len(self._rest) >= 8:
            (length,) = struct.unpack_from("<I", self._rest, 4)
            if length % 4 or not 12 <= length <= MAX_BLOCK_BYTES:
                raise ValueError(f"a block of {length} bytes")
            if len(self._rest) < length:
                return
            block = bytes(self._rest[:length])
            del self._rest[:length]
            yield block


def type_of(block: bytes) -> int:
    """The type of a block."""
    return int(struct.unpack_from("<I", block)[0])


def section_of(block: bytes) -> str:
    """The comment of a section's block."""
    return _options(block, 24).get(_COMMENT, b"").decode(errors="replace")


def interface_of(block: bytes) -> tuple[str, str]:
    """The name and the comment of an interface's block."""
    found = _options(block, 16)
    return found.get(_IF_NAME, b"").decode(errors="replace"), found.get(_COMMENT, b"").decode(errors="replace")


def packet_of(block: bytes) -> tuple[int, int, bytes]:
    """The interface of a packet's block, its time in nanoseconds, and its bytes."""
    number, high, low, size, _ = struct.unpack_from("<IIIII", block, 8)
    return number, high << 32 | low, block[28 : 28 + size]


def statistics_of(block: bytes) -> tuple[int, int, int]:
    """The interface of a statistics' block, what came to it and what was dropped."""
    found = _options(block, 20)
    received, dropped = (int.from_bytes(found.get(code, b""), "little") for code in (_ISB_RECEIVED, _ISB_DROPPED))
    return int(struct.unpack_from("<I", block, 8)[0]), received, dropped


def _options(block: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + 4 <= len(block) - 4:
        code, size = struct.unpack_from("<HH", block, at)
        if code == _END:
            break
        found[code] = block[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4
    return found


def _block(type: Block, body: bytes, *options: tuple[int, bytes]) -> bytes:
    """A block; options without a value are left out."""
    told = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options if value]
    body += b"".join((*told, struct.pack("<HH", _END, 0))) if told else b""
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", type) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
