"""The switch's own description, table counters and table configuration (OpenFlow 1.5 §7.3.5)."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import ClassVar, Self

import msgspec

from ..wire import Reader
from .multipart import MultipartType

_TEXTS = Struct("!256s256s256s32s256s")
_STATS = Struct("!B3xIQQ")
_DESC = Struct("!HBxI")
_EVICTION = 1 << 2  # OFPTC14_EVICTION
_VACANCY_EVENTS = 1 << 3  # OFPTC14_VACANCY_EVENTS


class SwitchDescRequest(msgspec.Struct, frozen=True):
    MULTIPART: ClassVar[MultipartType] = MultipartType.DESC

    def encode(self) -> bytes:
        return b""


class SwitchDesc(msgspec.Struct, frozen=True):
    """The description that a switch gives of itself."""

    manufacturer: str
    hardware: str
    software: str
    serial: str
    datapath: str

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        texts = reader.unpack(_TEXTS, "switch description")
        return cls(*(text.split(b"\0", 1)[0].decode("utf-8", "replace") for text in texts))


def decode_switch_descs(reader: Reader) -> Iterator[SwitchDesc]:
    while reader.remaining:
        yield SwitchDesc.decode(reader)


class TableStatsRequest(msgspec.Struct, frozen=True):
    MULTIPART: ClassVar[MultipartType] = MultipartType.TABLE_STATS

    def encode(self) -> bytes:
        return b""


class TableStats(msgspec.Struct, frozen=True):
    """The numbers of flows in a table, and of packets that it looked up and matched."""

    table: int
    active: int
    lookups: int
    matched: int

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        return cls(*reader.unpack(_STATS, "table stats"))


def decode_table_stats(reader: Reader) -> Iterator[TableStats]:
    while reader.remaining:
        yield TableStats.decode(reader)


class TableDescRequest(msgspec.Struct, frozen=True):
    MULTIPART: ClassVar[MultipartType] = MultipartType.TABLE_DESC

    def encode(self) -> bytes:
        return b""


class TableDesc(msgspec.Struct, frozen=True):
    """The behaviour of a table that is full."""

    table: int
    eviction: bool
    vacancy_events: bool

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        _length, table, config = reader.unpack(_DESC, "table description")
        return cls(table, bool(config & _EVICTION), bool(config & _VACANCY_EVENTS))


def decode_table_descs(reader: Reader) -> Iterator[TableDesc]:
    return map(TableDesc.decode, reader.entries(0, _DESC.size, "table description"))
