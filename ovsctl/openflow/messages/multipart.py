"""Multipart framing: one request, a reply in any number of parts (OpenFlow 1.5 §7.3.5).

|0            15|16           31|32                            63|
|     type      |     flags     |              pad               |  then the entries of the type
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import ClassVar, Protocol

from ..wire import Reader

_HEADER = Struct("!HH4x")
_MORE = 1


class MultipartType(IntEnum):
    DESC = 0
    FLOW_DESC = 1
    AGGREGATE_STATS = 2
    TABLE_STATS = 3
    PORT_STATS = 4
    GROUP_STATS = 6
    GROUP_DESC = 7
    METER_STATS = 9
    METER_DESC = 10
    METER_FEATURES = 11
    TABLE_DESC = 14
    PORT_DESC = 13
    FLOW_MONITOR = 16


class MultipartRequest(Protocol):
    """The interface of every multipart request."""

    MULTIPART: ClassVar[MultipartType]

    def encode(self) -> bytes: ...


def multipart_body(request: MultipartRequest) -> bytes:
    """The body of the OFPT_MULTIPART_REQUEST that carries `request`."""
    return _HEADER.pack(request.MULTIPART, 0) + request.encode()


def decode_multipart_header(reader: Reader) -> tuple[int, bool]:
    """(multipart type, whether more parts follow)."""
    kind, flags = reader.unpack(_HEADER, "multipart reply")
    return kind, bool(flags & _MORE)
