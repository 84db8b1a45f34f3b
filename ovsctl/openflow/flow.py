"""Flows: their value, the flow-mod that writes one, and the flow-stats entry that reads one back.

One rule: `encode` and `decode` are inverse on canonical flows; the wire is OpenFlow 1.5 (0x06).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import NamedTuple

from ovsctl.openflow.actions import Action
from ovsctl.openflow.decode import decode_instructions
from ovsctl.openflow.errors import FlowError, MalformedMessage
from ovsctl.openflow.fields import ReservedPort, port_to_wire
from ovsctl.openflow.match import Match, decode_match

MATCH_ALL = Match()
ALL_TABLES = 255
ANY_GROUP = 0xFFFFFFFF
NO_BUFFER = 0xFFFFFFFF
FLOW_MOD_TYPE = 14  # OFPT_FLOW_MOD
FULL_COOKIE = 0xFFFFFFFFFFFFFFFF
_ANY_PORT = port_to_wire(ReservedPort.NONE)


class FlowModCommand(IntEnum):
    """ofp_flow_mod_command (OpenFlow 1.5.1 §7.3.4.2)."""

    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


class FlowFlags(IntFlag):
    """ofp_flow_mod_flags. CHECK_OVERLAP and RESET_COUNTS are of the message, and not kept."""

    NONE = 0
    SEND_FLOW_REM = 1
    CHECK_OVERLAP = 2
    RESET_COUNTS = 4
    NO_PACKET_COUNTS = 8
    NO_BYTE_COUNTS = 16


KEPT_FLAGS = FlowFlags.SEND_FLOW_REM | FlowFlags.NO_PACKET_COUNTS | FlowFlags.NO_BYTE_COUNTS
_KEPT = int(KEPT_FLAGS)
_set = object.__setattr__


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow. No actions means drop. Timeouts in seconds, 0 for none.

    Instructions other than apply-actions come last in `actions` (actions.py). Raises FlowError.
    """

    match: Match = MATCH_ALL
    actions: tuple[Action, ...] = ()
    table: int = 0
    priority: int = 0x8000
    cookie: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    importance: int = 0
    flags: int = 0
    _added: bytes | None = field(default=None, init=False, repr=False, compare=False)  # what encode_add made

    def __post_init__(self) -> None:
        if self.actions.__class__ is not tuple:
            _set(self, "actions", tuple(self.actions))
        for action in self.actions:
            if action.instruction:
                _check_order(self.actions)
                break
        # Each is 0 unless out of range; a negative number shifts to -1.
        if (
            (self.priority | self.idle_timeout | self.hard_timeout | self.importance) >> 16
            | self.cookie >> 64
            | (self.table + 1) >> 8
            | self.table >> 8
            | self.flags >> 5
        ):
            _refuse(self)

    @property
    def key(self) -> tuple[int, int, Match]:
        """The identity of a flow in a table: (table, priority, match)."""
        return (self.table, self.priority, self.match)

    def encode_add(self) -> bytes:
        """The body of the flow-mod that adds it, kept: a switch that has lost its flows gets them as fast as it reads."""
        if self._added is None:
            head = _flow_mod_head(self, FlowModCommand.ADD, 0, ReservedPort.NONE, ANY_GROUP)
            _set(self, "_added", b"%b%b%b" % (head, self.match.wire, _instructions(self.actions)))
        return self._added or b""

    def encode_instructions(self) -> bytes:
        """The instruction list of its actions."""
        return self.encode_add()[_FLOW_MOD.size + len(self.match.wire) :]


def _instructions(actions: tuple[Action, ...]) -> bytes:
    if actions and actions[-1].instruction:
        split = next(n for n, action in enumerate(actions) if action.instruction)
        rest = b"".join([action.encode() for action in actions[split:]])
        return _apply(actions[:split]) + rest
    return _apply(actions)


def _check_order(actions: tuple[Action, ...]) -> None:
    ranks = [action.instruction for action in actions]
    instructions = [rank for rank in ranks if rank]
    if sorted(set(instructions)) != instructions or ranks != sorted(ranks):
        raise FlowError(
            "after the actions come clear_actions, write_actions, write_metadata, goto_table, "
            f"each at most once, in this order; not {', '.join(type(action).__name__ for action in actions)}"
        )


def _refuse(flow: Flow) -> None:
    limits = {
        "table": 254, "priority": 0xFFFF, "cookie": FULL_COOKIE, "idle_timeout": 0xFFFF,
        "hard_timeout": 0xFFFF, "importance": 0xFFFF, "flags": 31,
    }  # fmt: skip
    wrong = [
        f"{name}={getattr(flow, name)} is not from 0 to {limit}"
        for name, limit in limits.items()
        if not 0 <= getattr(flow, name) <= limit
    ]
    raise FlowError("; ".join(wrong))


_APPLY = struct.Struct(">HH4x")
_FLOW_MOD = struct.Struct(">QQBBHHHIIIHH")


def _apply(actions: tuple[Action, ...]) -> bytes:
    if not actions:
        return b""
    body = b"".join([action.encode() for action in actions])
    if len(body) > 65000:
        raise FlowError(f"{len(body)} bytes of actions do not fit a message")
    return _APPLY.pack(4, 8 + len(body)) + body


def encode_flow_mod(
    flow: Flow,
    command: FlowModCommand = FlowModCommand.ADD,
    *,
    cookie_mask: int = 0,
    out_port: int = ReservedPort.NONE,
    out_group: int = ANY_GROUP,
) -> bytes:
    """The body of the flow-mod (what follows the 8-byte ofp_header) that writes or deletes `flow`.

    For modify and delete, `cookie_mask` says which bits of its cookie the flow in the switch must have.
    """
    delete = command >= FlowModCommand.DELETE
    return b"%b%b%b" % (
        _flow_mod_head(flow, command, cookie_mask, out_port, out_group),
        flow.match.wire,
        b"" if delete else flow.encode_instructions(),
    )


def _flow_mod_head(flow: Flow, command: int, cookie_mask: int, out_port: int, out_group: int) -> bytes:
    return _FLOW_MOD.pack(
        flow.cookie, cookie_mask, flow.table, command, flow.idle_timeout, flow.hard_timeout,
        flow.priority, NO_BUFFER, port_to_wire(out_port), out_group, flow.flags, flow.importance,
    )  # fmt: skip


def encode_flow_delete(
    table: int = ALL_TABLES,
    match: Match = MATCH_ALL,
    *,
    cookie: int = 0,
    cookie_mask: int = 0,
    out_port: int = ReservedPort.NONE,
    out_group: int = ANY_GROUP,
) -> bytes:
    """The body of the flow-mod that deletes all flows that `match` covers, of this cookie under its mask."""
    return (
        _FLOW_MOD.pack(
            cookie, cookie_mask, table, FlowModCommand.DELETE, 0, 0, 0,
            NO_BUFFER, port_to_wire(out_port), out_group, 0, 0,
        )
        + match.wire
    )  # fmt: skip


class FlowMod(NamedTuple):
    """A flow-mod: what to do with `flow`, or for a non-strict command with all flows that it covers.

    `all_tables` (then flow.table is 0) is for non-strict deletion. `cookie_mask` says which bits of flow.cookie
    a flow in the switch must have to be modified or deleted.
    """

    command: FlowModCommand
    flow: Flow
    cookie_mask: int = 0
    all_tables: bool = False

    @property
    def TYPE(self) -> int:
        """OFPT_FLOW_MOD, as every message has it."""
        return FLOW_MOD_TYPE

    def encode(self) -> bytes:
        """The flow-mod's body: what follows the ofp_header."""
        if self.all_tables:
            flow = self.flow
            return encode_flow_delete(match=flow.match, cookie=flow.cookie, cookie_mask=self.cookie_mask)
        if self.command is FlowModCommand.ADD and not self.cookie_mask:
            return self.flow.encode_add()
        return encode_flow_mod(self.flow, self.command, cookie_mask=self.cookie_mask)

    @classmethod
    def add(cls, flow: Flow) -> FlowMod:
        """Add `flow`, in place of one with the same key."""
        return cls(FlowModCommand.ADD, flow)

    @classmethod
    def modify(cls, flow: Flow) -> FlowMod:
        """Give the flow with this key these actions; its counters, cookie and timeouts stay."""
        return cls(FlowModCommand.MODIFY_STRICT, flow)

    @classmethod
    def delete(cls, flow: Flow) -> FlowMod:
        """Delete the flow with this key, whatever its actions."""
        return cls(FlowModCommand.DELETE_STRICT, flow)

    @classmethod
    def delete_all(
        cls, table: int | None = None, match: Match = MATCH_ALL, cookie: int = 0, cookie_mask: int = 0
    ) -> FlowMod:
        """Delete every flow that `match` covers, of one table or of all, with this cookie under this mask."""
        flow = Flow(match, table=table or 0, cookie=cookie)
        return cls(FlowModCommand.DELETE, flow, cookie_mask, table is None)


def decode_flow_mod(body: bytes) -> FlowMod:
    """The flow-mod that `body` (without ofp_header) is. Raises MalformedMessage."""
    if len(body) < _FLOW_MOD.size + 8:
        raise MalformedMessage("flow-mod", f"{len(body)} bytes are too few")
    cookie, cookie_mask, table, command, idle, hard, priority, _, _, _, flags, importance = _FLOW_MOD.unpack_from(body)
    match, at = decode_match(body, _FLOW_MOD.size, len(body))
    if command > 4 or flags > 31:
        raise MalformedMessage("flow-mod", f"command {command}, flags {flags:#x}")
    flow = Flow(
        match=match,
        actions=decode_instructions(body[at:]),
        table=0 if table == ALL_TABLES else table,
        priority=priority,
        cookie=cookie,
        idle_timeout=idle,
        hard_timeout=hard,
        importance=importance,
        flags=flags,
    )
    return FlowMod(FlowModCommand(command), flow, cookie_mask, table == ALL_TABLES)


# ---- what the switch says of its flows ----

_FLOW_DESC = struct.Struct(">H2xBxHHHHHQ")
_STATS_HEADER = struct.Struct(">HH")
_OXS_CLASS = 0x8002
_DURATION, _IDLE, _PACKETS, _BYTES = 0, 1, 4, 5


class FlowStats(NamedTuple):
    """A flow's counters. Times in seconds; None where the switch does not say."""

    duration_s: float | None = None
    idle_s: float | None = None
    packets: int | None = None
    bytes: int | None = None


class FlowEntry(NamedTuple):
    """A flow as the switch has it."""

    flow: Flow
    stats: FlowStats


def decode_stats(data: bytes, offset: int, end: int) -> tuple[FlowStats, int]:
    """The OXS statistics at `offset` and where they end, padding included (OpenFlow 1.5.1 §7.2.4)."""
    if end - offset < 8:
        raise MalformedMessage("flow stats", f"{end - offset} bytes left where statistics take 8")
    _, length = _STATS_HEADER.unpack_from(data, offset)
    stop, padded = offset + length, offset + (length + 7 & ~7)
    if length < 4 or padded > end:
        raise MalformedMessage("flow stats", f"statistics of {length} bytes where {end - offset} are left")
    values: dict[int, int] = {}
    at = offset + 4
    while at < stop:
        if stop - at < 4 or at + 4 + data[at + 3] > stop:
            raise MalformedMessage("flow stats", f"a statistic that does not end in the {stop - at} bytes left")
        oxs_class, number, size = data[at] << 8 | data[at + 1], data[at + 2] >> 1, data[at + 3]
        at += 4
        if oxs_class == _OXS_CLASS:
            values[number] = int.from_bytes(data[at : at + size], "big")
        at += size
    return FlowStats(
        _time(values.get(_DURATION)), _time(values.get(_IDLE)), values.get(_PACKETS), values.get(_BYTES)
    ), padded


def _time(value: int | None) -> float | None:
    """Seconds of the 32+32 bits of seconds and nanoseconds."""
    return None if value is None else (value >> 32) + (value & 0xFFFFFFFF) / 1e9


def decode_flow_desc(data: bytes, offset: int = 0) -> tuple[FlowEntry, int]:
    """The OFPMP_FLOW_DESC reply entry at `offset` and where the next one starts. Raises MalformedMessage."""
    left = len(data) - offset
    if left < _FLOW_DESC.size:
        raise MalformedMessage("flow desc", f"{left} bytes left where an entry takes {_FLOW_DESC.size}")
    length, table, priority, idle, hard, flags, importance, cookie = _FLOW_DESC.unpack_from(data, offset)
    end = offset + length
    if length < _FLOW_DESC.size or length > left or table == ALL_TABLES:
        raise MalformedMessage("flow desc", f"an entry of {length} bytes in table {table} where {left} bytes are left")
    match, at = decode_match(data, offset + _FLOW_DESC.size, end)
    stats, at = decode_stats(data, at, end)
    flow = Flow(
        match,
        decode_instructions(data[at:end]),
        table,
        priority,
        cookie,
        idle,
        hard,
        importance,
        flags & _KEPT,
    )
    return FlowEntry(flow, stats), end


def decode_flow_descs(data: bytes) -> Iterator[FlowEntry]:
    """All entries of an OFPMP_FLOW_DESC reply's body (without its multipart header). Raises MalformedMessage."""
    at = 0
    while at < len(data):
        entry, at = decode_flow_desc(data, at)
        yield entry
