"""Group and meter counters (OpenFlow 1.5 §7.3.5)."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import ClassVar, Self

import msgspec

from ..group import ALL_GROUPS
from ..meter import ALL_METERS
from ..wire import Reader
from .multipart import MultipartType

_REQUEST = Struct("!I4x")
_GROUP = Struct("!H2xII4xQQII")
_METER = Struct("!IH6xIQQII")
_METER_FEATURES = Struct("!IIIBxxx")
_COUNTERS = Struct("!QQ")


class Counters(msgspec.Struct, frozen=True):
    n_packets: int
    n_bytes: int


def _counters(reader: Reader, subject: str) -> tuple[Counters, ...]:
    found = []
    while reader.remaining:
        found.append(Counters(*reader.unpack(_COUNTERS, subject)))
    return tuple(found)


class GroupStatsRequest(msgspec.Struct, frozen=True):
    """Counters of all groups, or of one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.GROUP_STATS
    group_id: int = ALL_GROUPS

    def encode(self) -> bytes:
        return _REQUEST.pack(self.group_id)


class GroupStats(msgspec.Struct, frozen=True):
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


class MeterStatsRequest(msgspec.Struct, frozen=True):
    """Counters of all meters, or of one."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.METER_STATS
    meter_id: int = ALL_METERS

    def encode(self) -> bytes:
        return _REQUEST.pack(self.meter_id)


class MeterStats(msgspec.Struct, frozen=True):
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


class MeterFeaturesRequest(msgspec.Struct, frozen=True):
    """The extent of a switch's meters."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.METER_FEATURES

    def encode(self) -> bytes:
        return b""


class MeterFeatures(msgspec.Struct, frozen=True):
    """The extent of a switch's meters (OpenFlow 1.5 §7.3.5.14). max_meter: how many it may have, 0 where its datapath has none; band_types
    and capabilities: bits; max_bands: of one meter."""

    max_meter: int
    band_types: int
    capabilities: int
    max_bands: int


def decode_meter_features(reader: Reader) -> Iterator[MeterFeatures]:
    yield MeterFeatures(*reader.unpack(_METER_FEATURES, "meter features"))
    reader.rest()


def decode_meter_stats(reader: Reader) -> Iterator[MeterStats]:
    return map(MeterStats.decode, reader.entries(4, _METER.size, "meter stats"))
