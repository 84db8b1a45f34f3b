"""Meters: their value, the meter-mod that writes one, and the meter description that reads one back.

One rule: rates are in kilobits per second (1,000 bits), or in packets per second where `packets` says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from ovsctl.openflow.errors import FlowError, InvalidValueError, MalformedMessage

MAX_METER = 0xFFFF0000
SLOWPATH_METER = 0xFFFFFFFD
CONTROLLER_METER = 0xFFFFFFFE
ALL_METERS = 0xFFFFFFFF

_METER_MOD = struct.Struct(">HHI")
_METER_DESC = struct.Struct(">HHI")
_BAND = struct.Struct(">HHIIB3x")
_KBPS, _PKTPS, _BURST, _STATS = 1, 2, 4, 8
_set = object.__setattr__


class MeterModCommand(IntEnum):
    """ofp_meter_mod_command (OpenFlow 1.5.1 §7.3.4.5)."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


class BandType(IntEnum):
    """The action of a band on packets above its rate."""

    DROP = 1
    DSCP_REMARK = 2


@dataclass(frozen=True, slots=True)
class Band:
    """From `rate` on (kbit/s or packets/s), do `type`. `burst` is in kbit or packets; 0 leaves it to the switch."""

    rate: int
    burst: int = 0
    type: BandType = BandType.DROP
    precedence: int = 0

    def __post_init__(self) -> None:
        _set(self, "type", BandType(self.type))
        for name, limit in (("rate", 0xFFFFFFFF), ("burst", 0xFFFFFFFF), ("precedence", 255)):
            if not 0 <= getattr(self, name) <= limit:
                raise FlowError(f"band {name}={getattr(self, name)} is not from 0 to {limit}")
        if self.precedence and self.type is BandType.DROP:
            raise FlowError("band precedence is for DSCP_REMARK")


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter. Raises FlowError."""

    meter_id: int
    bands: tuple[Band, ...]
    packets: bool = False
    stats: bool = True

    def __post_init__(self) -> None:
        _set(self, "bands", tuple(self.bands))
        if not 1 <= self.meter_id <= MAX_METER and self.meter_id not in (SLOWPATH_METER, CONTROLLER_METER):
            raise FlowError(f"meter_id={self.meter_id} is not from 1 to {MAX_METER:#x}, nor slowpath or controller")
        if not self.bands:
            raise FlowError(f"meter {self.meter_id} has no band, so it would do nothing")

    @property
    def flags(self) -> int:
        """OFPMF_*; the burst flag is set where any band has a burst."""
        burst = _BURST if any(band.burst for band in self.bands) else 0
        return (_PKTPS if self.packets else _KBPS) | burst | (_STATS if self.stats else 0)


def encode_meter_mod(meter: Meter, command: MeterModCommand = MeterModCommand.ADD) -> bytes:
    """The body of the meter-mod that writes `meter`."""
    bands = [_BAND.pack(band.type, 16, band.rate, band.burst, band.precedence) for band in meter.bands]
    return _METER_MOD.pack(command, meter.flags, meter.meter_id) + b"".join(bands)


def encode_meter_delete(meter_id: int = ALL_METERS) -> bytes:
    """The body of the meter-mod that deletes a meter, by default all, with the flows that use it."""
    return _METER_MOD.pack(MeterModCommand.DELETE, 0, meter_id)


def decode_meter_mod(body: bytes) -> tuple[MeterModCommand, Meter]:
    """(command, meter) of a meter-mod's body that writes a meter. Raises MalformedMessage."""
    if len(body) < _METER_MOD.size:
        raise MalformedMessage("meter-mod", f"{len(body)} bytes are too few")
    command, flags, meter_id = _METER_MOD.unpack_from(body)
    if command > MeterModCommand.DELETE:
        raise MalformedMessage("meter-mod", f"command {command}")
    return MeterModCommand(command), _decode_meter("meter-mod", body[_METER_MOD.size :], flags, meter_id)


def decode_meter_descs(data: bytes) -> Iterator[Meter]:
    """All entries of an OFPMP_METER_DESC reply's body (without its multipart header). Raises MalformedMessage."""
    at = 0
    while at < len(data):
        if len(data) - at < _METER_DESC.size:
            raise MalformedMessage("meter desc", f"{len(data) - at} bytes left where an entry takes {_METER_DESC.size}")
        length, flags, meter_id = _METER_DESC.unpack_from(data, at)
        if length < _METER_DESC.size or at + length > len(data):
            raise MalformedMessage("meter desc", f"an entry of {length} bytes where {len(data) - at} are left")
        yield _decode_meter("meter desc", data[at + _METER_DESC.size : at + length], flags, meter_id)
        at += length


def _decode_meter(subject: str, data: bytes, flags: int, meter_id: int) -> Meter:
    bands = []
    try:
        for at in range(0, len(data), _BAND.size):
            kind, length, rate, burst, precedence = _BAND.unpack_from(data, at)
            bands.append(
                Band(
                    rate,
                    burst if flags & _BURST else 0,
                    BandType(kind),
                    precedence if kind == BandType.DSCP_REMARK else 0,
                )
            )
            if length != _BAND.size:
                raise MalformedMessage(subject, f"a band of {length} bytes")
        return Meter(meter_id, tuple(bands), packets=bool(flags & _PKTPS), stats=bool(flags & _STATS))
    except (InvalidValueError, ValueError, struct.error) as error:
        raise MalformedMessage(subject, str(error)) from error
