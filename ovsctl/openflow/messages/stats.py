"""Group and meter counters (OpenFlow 1.5 §7.3.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from ..group import ALL_GROUPS
from ..meter import ALL_METERS
from ..wire import Reader
from .multipart import MultipartType

_REQUEST = Struct("!I4x")
_GROUP = Struct("!H2xII4xQQII")
_METER = Struct("!IH6xIQQII")
_COUNTERS = Struct("!QQ")


@dataclass(frozen=True, slots=True)
class Counters:
    n_packets: int
    n_bytes: int


def _counters(reader: Reader, subject: str) -> tuple[Counters, ...]:
    found = []
    while reader.remaining:
        found.append(Counters(*reader.unpack(_COUNTERS, subject)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class GroupStatsRequest:
    """Counters of all groups, or of one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.GROUP_STATS
    group_id: int = ALL_GROUPS

    def encode(self) -> bytes:
        return _REQUEST.pack(self.group_id)


@dataclass(frozen=True, slots=True)
class GroupStats:
    """Counters of a group and of its buckets, in their order; `duration_s` is its age in seconds."""

    group_id: int
    ref_count: int
    n_packets: int
    n_bytes: int
    duration_s: float
    buckets: tuple[Counters, ...]

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        _length, group, refs, packets, size, seconds, nanoseconds = reader.unpack(_GROUP, "group stats")
        buckets = _counters(reader, "bucket counter")
        return cls(group, refs, packets, size, seconds + nanoseconds / 1e9, buckets)


def decode_group_stats(reader: Reader) -> Iterator[GroupStats]:
    return map(GroupStats.decode, reader.entries(0, _GROUP.size, "group stats"))


@dataclass(frozen=True, slots=True)
class MeterStatsRequest:
    """Counters of all meters, or of one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.METER_STATS
    meter_id: int = ALL_METERS

    def encode(self) -> bytes:
        return _REQUEST.pack(self.meter_id)


@dataclass(frozen=True, slots=True)
class MeterStats:
    """Counters of the packets that entered a meter and that each of its bands acted on; `duration_s` is its age in seconds."""

    meter_id: int
    flow_count: int
    n_packets: int
    n_bytes: int
    duration_s: float
    bands: tuple[Counters, ...]

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        meter, _length, flows, packets, size, seconds, nanoseconds = reader.unpack(_METER, "meter stats")
        bands = _counters(reader, "meter band counter")
        return cls(meter, flows, packets, size, seconds + nanoseconds / 1e9, bands)


def decode_meter_stats(reader: Reader) -> Iterator[MeterStats]:
    return map(MeterStats.decode, reader.entries(4, _METER.size, "meter stats"))
