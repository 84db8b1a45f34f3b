"""Flows read back and watched: flow and aggregate statistics, flow-removed, flow monitors.

(OpenFlow 1.5 §7.3.5.2, §7.3.5.4, §7.3.5.17, §7.4.2. Counters come as OXS, §7.2.4.)
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Self

import msgspec

from ..actions import Action
from ..decode import decode_instructions
from ..errors import InvalidValueError, MalformedMessage
from ..fields import ReservedPort, port_to_wire
from ..flow import ALL_TABLES, ANY_GROUP, MATCH_ALL, Flow, FlowEntry, FlowStats, decode_flow_descs, decode_stats
from ..match import Match, decode_match
from ..wire import Reader
from .core import MessageType
from .multipart import MultipartType

_REQUEST = Struct("!B3xII4xQQ")
_OXS = Struct("!HH")
_OXS_FIELD = Struct("!HBB")
_OXS_BASIC = 0x8002
_OXS_FLOWS, _OXS_PACKETS, _OXS_BYTES = 3, 4, 5
_REMOVED = Struct("!BBHHHQ")
_MONITOR = Struct("!IIIHBB")
_UPDATE = Struct("!HH")
_UPDATE_FULL = Struct("!HHBBHHH4xQ")
_UPDATE_OWN = Struct("!HHI")


class FlowStatsRequest(msgspec.Struct, frozen=True):
    """Flows that `match` covers, of one table or of all, whose cookie has these bits under the mask."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.FLOW_DESC
    table: int = ALL_TABLES
    match: Match = MATCH_ALL
    cookie: int = 0
    cookie_mask: int = 0
    out_port: int = ReservedPort.NONE
    out_group: int = ANY_GROUP

    def encode(self) -> bytes:
        out_port = port_to_wire(self.out_port)
        fixed = _REQUEST.pack(self.table, out_port, self.out_group, self.cookie, self.cookie_mask)
        return fixed + self.match.wire


def decode_flows(reader: Reader) -> Iterator[FlowEntry]:
    return decode_flow_descs(reader.rest())


class AggregateRequest(FlowStatsRequest, frozen=True):
    """The same selection, only counted."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.AGGREGATE_STATS


class AggregateStats(msgspec.Struct, frozen=True):
    n_flows: int
    n_packets: int
    n_bytes: int


def decode_aggregate(reader: Reader) -> Iterator[AggregateStats]:
    """The three OXS counters of an ofp_stats structure."""
    length = int.from_bytes(reader.data[reader.position + 2 : reader.position + 4], "big")
    stats = reader.sub(length, _OXS.size, "aggregate statistics")
    stats.position += _OXS.size
    found = {}
    while stats.remaining:
        oxs_class, field, size = stats.unpack(_OXS_FIELD, "aggregate statistic")
        value = stats.take(size, "aggregate statistic")
        if oxs_class == _OXS_BASIC:
            found[field >> 1] = int.from_bytes(value, "big")
    yield AggregateStats(*(found.get(number, 0) for number in (_OXS_FLOWS, _OXS_PACKETS, _OXS_BYTES)))


class RemovedReason(IntEnum):
    """Why a flow went (OpenFlow 1.5 §7.4.2)."""

    IDLE_TIMEOUT = 0
    HARD_TIMEOUT = 1
    DELETE = 2
    GROUP_DELETE = 3
    METER_DELETE = 4
    EVICTION = 5


def _removed_reason(number: int) -> RemovedReason:
    try:
        return RemovedReason(number)
    except ValueError:
        raise MalformedMessage("flow removed", f"{number} is no reason") from None


class FlowRemoved(msgspec.Struct, frozen=True):
    """A flow with the SEND_FLOW_REM flag went. `flow` has no actions: the switch does not say them."""

    TYPE: ClassVar[int] = MessageType.FLOW_REMOVED
    flow: Flow
    reason: RemovedReason
    stats: FlowStats

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        table, reason, priority, idle, hard, cookie = reader.unpack(_REMOVED, "flow removed")
        match, at = decode_match(reader.data, reader.position, reader.end)
        stats, reader.position = decode_stats(reader.data, at, reader.end)
        flow = _flow(match, (), table, priority, cookie, idle, hard)
        return cls(flow, _removed_reason(reason), stats)


def _flow(
    match: Match, actions: tuple[Action, ...], table: int, priority: int, cookie: int, idle: int, hard: int
) -> Flow:
    try:
        return Flow(match, actions, table, priority, cookie, idle, hard)
    except InvalidValueError as error:
        raise MalformedMessage("flow", str(error)) from error


class MonitorFlags(IntFlag):
    """Which updates a flow monitor sends (OpenFlow 1.5 §7.3.5.17.1).

    OWN_IN_FULL is bit 6 as Open vSwitch reads it: with it our own changes come in full, without it abbreviated.
    """

    INITIAL = 1 << 0
    ADDED = 1 << 1
    REMOVED = 1 << 2
    MODIFIED = 1 << 3
    INSTRUCTIONS = 1 << 4
    OWN_IN_FULL = 1 << 6


ALL_CHANGES = MonitorFlags.ADDED | MonitorFlags.REMOVED | MonitorFlags.MODIFIED | MonitorFlags.INSTRUCTIONS
_MONITOR_ADD, _MONITOR_DELETE = 0, 2


class FlowMonitorRequest(msgspec.Struct, frozen=True):
    """Start flow monitor `monitor_id` (OFPMP_FLOW_MONITOR, which Open vSwitch offers from OpenFlow 1.4 on)."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.FLOW_MONITOR
    monitor_id: int
    flags: MonitorFlags = ALL_CHANGES
    table: int = ALL_TABLES
    match: Match = MATCH_ALL
    out_port: int = ReservedPort.NONE
    out_group: int = ANY_GROUP

    def encode(self) -> bytes:
        out_port = port_to_wire(self.out_port)
        return (
            _MONITOR.pack(self.monitor_id, out_port, self.out_group, self.flags, self.table, _MONITOR_ADD)
            + self.match.wire
        )


class FlowMonitorCancel(msgspec.Struct, frozen=True):
    """End flow monitor `monitor_id`."""

    MULTIPART: ClassVar[MultipartType] = MultipartType.FLOW_MONITOR
    monitor_id: int

    def encode(self) -> bytes:
        return _MONITOR.pack(self.monitor_id, 0, 0, 0, 0, _MONITOR_DELETE) + MATCH_ALL.wire


class FlowEvent(IntEnum):
    """The event that a flow monitor reports (OpenFlow 1.5 §7.3.5.17.2)."""

    INITIAL = 0  # there when the monitor began
    ADDED = 1
    REMOVED = 2
    MODIFIED = 3
    OWN = 4  # a change of ours, by the transaction id of its modification
    PAUSED = 5  # the switch's buffer is full: what it tells is incomplete
    RESUMED = 6  # complete again


class FlowUpdate(msgspec.Struct, frozen=True):
    """One change of the flow tables. `flow` is set from INITIAL to MODIFIED, `reason` for REMOVED, `xid` for OWN."""

    event: FlowEvent
    flow: Flow | None = None
    reason: RemovedReason | None = None
    xid: int | None = None

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        start = reader.position
        _length, number = reader.unpack(_UPDATE, "flow update")
        try:
            event = FlowEvent(number)
        except ValueError:
            raise MalformedMessage("flow update", f"{number} is no event") from None
        reader.position = start
        if event is FlowEvent.OWN:
            return cls(event, xid=reader.unpack(_UPDATE_OWN, "flow update")[2])
        if event in (FlowEvent.PAUSED, FlowEvent.RESUMED):
            return cls(event)
        _, _, table, reason, idle, hard, priority, cookie = reader.unpack(_UPDATE_FULL, "flow update")
        match, reader.position = decode_match(reader.data, reader.position, reader.end)
        flow = _flow(match, decode_instructions(reader.rest()), table, priority, cookie, idle, hard)
        return cls(event, flow, _removed_reason(reason) if event is FlowEvent.REMOVED else None)


def decode_flow_updates(reader: Reader) -> Iterator[FlowUpdate]:
    return map(FlowUpdate.decode, reader.entries(0, 8, "flow update"))
