"""Ports: descriptions, status changes, counters (OpenFlow 1.5 §7.2.1, §7.3.5, §7.4.3)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Self

import msgspec

from ..errors import MalformedMessage
from ..fields import ReservedPort, port_from_wire, port_to_wire
from ..wire import Reader
from .core import MessageType
from .multipart import MultipartType

UNSUPPORTED = 0xFFFFFFFFFFFFFFFF  # a counter the switch does not keep (OpenFlow 1.5 §7.3.5.6)

_PORT = Struct("!IH2x6s2x16sII")
_ETHERNET = Struct("!4x6I")
_REASON = Struct("!B7x")
_REQUEST = Struct("!I4x")
_STATS = Struct("!H2xIII8Q")
_ETHERNET_STATS = Struct("!4x4Q")


class PortConfig(IntFlag):
    PORT_DOWN = 1 << 0
    NO_RECV = 1 << 2
    NO_FWD = 1 << 5
    NO_PACKET_IN = 1 << 6


class PortState(IntFlag):
    LINK_DOWN = 1 << 0
    BLOCKED = 1 << 1
    LIVE = 1 << 2


class PortDesc(msgspec.Struct, frozen=True):
    """A port as OpenFlow sees it. `number` is the `ofport` of OVSDB, 65534 for the local port. Speeds are in kbit/s, 0 where unknown; `features` bitmaps are OFPPF_*."""

    number: int
    name: str
    hw_addr: bytes
    config: PortConfig
    state: PortState
    current_features: int = 0
    current_speed_kbps: int = 0
    max_speed_kbps: int = 0

    @property
    def link_up(self) -> bool:
        return PortState.LINK_DOWN not in self.state

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        number, _length, address, name, config, state = reader.unpack(_PORT, "port")
        features = current = maximum = 0
        for kind, payload in reader.properties("port property"):
            if kind == 0:
                features, _adv, _sup, _peer, current, maximum = payload.unpack(_ETHERNET, "ethernet property")
        text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
        return cls(_ofport(number), text, address, PortConfig(config), PortState(state), features, current, maximum)


def _ofport(wire: int) -> int:
    number = port_from_wire(wire)
    if number is None:
        raise MalformedMessage("port", f"{wire:#010x} is no port number of Open vSwitch")
    return number


class PortReason(IntEnum):
    ADD = 0
    DELETE = 1
    MODIFY = 2


class PortStatus(msgspec.Struct, frozen=True):
    """A port appeared, went or changed."""

    TYPE: ClassVar[int] = MessageType.PORT_STATUS
    reason: PortReason
    port: PortDesc

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        (number,) = reader.unpack(_REASON, "port status")
        try:
            reason = PortReason(number)
        except ValueError:
            raise MalformedMessage("port status", f"{number} is no reason") from None
        port = reader.sub(_port_length(reader), _PORT.size, "port status")
        return cls(reason, PortDesc.decode(port))


def _port_length(reader: Reader) -> int:
    at = reader.position + 4
    return int.from_bytes(reader.data[at : at + 2], "big")


class PortDescRequest(msgspec.Struct, frozen=True):
    """All ports, or one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.PORT_DESC
    port: int = ReservedPort.NONE

    def encode(self) -> bytes:
        return _REQUEST.pack(port_to_wire(self.port))


def decode_port_descs(reader: Reader) -> Iterator[PortDesc]:
    return map(PortDesc.decode, reader.entries(4, _PORT.size, "port"))


class PortStatsRequest(msgspec.Struct, frozen=True):
    """Counters of all ports, or of one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.PORT_STATS
    port: int = ReservedPort.NONE

    def encode(self) -> bytes:
        return _REQUEST.pack(port_to_wire(self.port))


class PortStats(msgspec.Struct, frozen=True):
    """Counters of a port; None where the switch keeps none. `duration_s` is the port's age in seconds."""

    number: int
    duration_s: float
    rx_packets: int | None
    tx_packets: int | None
    rx_bytes: int | None
    tx_bytes: int | None
    rx_dropped: int | None
    tx_dropped: int | None
    rx_errors: int | None
    tx_errors: int | None
    rx_frame_errors: int | None = None
    rx_over_errors: int | None = None
    rx_crc_errors: int | None = None
    collisions: int | None = None

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        _length, number, seconds, nanoseconds, *counters = reader.unpack(_STATS, "port stats")
        for kind, payload in reader.properties("port stats property"):
            if kind == 0:
                counters += payload.unpack(_ETHERNET_STATS, "ethernet stats")
        return cls(_ofport(number), seconds + nanoseconds / 1e9, *(_known(counter) for counter in counters[:12]))


def _known(counter: int) -> int | None:
    return None if counter == UNSUPPORTED else counter


def decode_port_stats(reader: Reader) -> Iterator[PortStats]:
    return map(PortStats.decode, reader.entries(0, _STATS.size, "port stats"))
