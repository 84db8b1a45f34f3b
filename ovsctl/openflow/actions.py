"""Actions and instructions, as values that encode themselves (ovs-actions(7)).

One rule: equal actions have equal bytes, and the bytes are those Open vSwitch takes over OpenFlow 1.5.
What follows the apply-actions list in a flow (clear_actions, write_actions, write_metadata, goto_table: their
`instruction` is not 0) is written in the same tuple, last, in that order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from ovsctl.openflow.errors import ActionError
from ovsctl.openflow.fields import (
    FIELDS,
    NICIRA_ID,
    Field,
    MatchValue,
    ReservedPort,
    Subfield,
    parse_value,
    port_to_wire,
    subfield,
)

AnySubfield = Subfield | Field | str
_set = object.__setattr__

_H2 = struct.Struct(">HH4x")
_U32 = struct.Struct(">HHI")
_U16 = struct.Struct(">HHH2x")
_OUTPUT = struct.Struct(">HHIH6x")
_COPY = struct.Struct(">HHHHH2x")
_NX = struct.Struct(">HHIH")
_NX_HH = struct.Struct(">HHIHHH")
_RESUBMIT = struct.Struct(">HHIHHB3x")
_CONJUNCTION = struct.Struct(">HHIHBBI")
_OUTPUT_REG = struct.Struct(">HHIHH4sH6x")
_TRUNC = struct.Struct(">HHIHHI")
_METADATA = struct.Struct(">HH4xQQ")
_GOTO = struct.Struct(">HHB3x")
_SAMPLE = struct.Struct(">HIIIHB5x")
_PADS = tuple(bytes(-length % 8) for length in range(8))


def check_range(action: str, name: str, value: int, low: int, high: int) -> None:
    """ActionError unless `value` is an int from `low` to `high`, both included."""
    if not isinstance(value, int) or not low <= value <= high:
        raise ActionError(action, f"{name}={value!r} is not a number from {low} to {high}")


def nicira(subtype: int, payload: bytes) -> bytes:
    """A Nicira extension action: its 10-byte header, `payload`, zeros to a multiple of 8 (nicira-ext.h)."""
    length = len(payload) + 10
    return _NX.pack(0xFFFF, length + 7 & ~7, NICIRA_ID, subtype) + payload + _PADS[length & 7]


class Action:
    """An action. `encode()` is its wire form, a multiple of 8 bytes."""

    __slots__ = ()
    instruction: ClassVar[int] = 0  # its place among the instructions that follow apply-actions; 0 is an action

    def encode(self) -> bytes:
        raise NotImplementedError


def encode_actions(actions: Iterable[Action]) -> bytes:
    """The action list, one after the other."""
    return b"".join([action.encode() for action in actions])


def as_actions(owner: str, actions: Sequence[Action]) -> tuple[Action, ...]:
    """`actions` as a tuple of plain actions; ActionError for anything else in it."""
    for action in actions:
        if not isinstance(action, Action) or action.instruction:
            raise ActionError(owner, f"{action!r} cannot be inside it")
    return tuple(actions)


@dataclass(frozen=True, slots=True)
class Output(Action):
    """Send to `port`, a number or a ReservedPort. To the controller is `ToController`."""

    port: int

    def __post_init__(self) -> None:
        port = self.port
        if not isinstance(port, int) or not 0 <= port < 0xFFFF or 0xFF00 <= port <= ReservedPort.UNSET:
            raise ActionError("output", f"{port!r} is neither a port from 0 to 0xfeff nor a reserved one")
        if port == ReservedPort.CONTROLLER:
            raise ActionError("output", "to the controller: use Controller(max_len=...)")

    def encode(self) -> bytes:
        port = self.port
        return _OUTPUT.pack(0, 16, port if port < 0xFF00 else port_to_wire(port), 0)


@dataclass(frozen=True, slots=True)
class OutputReg(Action):
    """Send to the port whose number a sub-field of at most 64 bits holds."""

    source: Subfield

    def __init__(self, source: AnySubfield) -> None:
        _set(self, "source", subfield(source))
        if self.source.bits > 64:
            raise ActionError("output", f"{self.source} is too wide to be a port number")

    def encode(self) -> bytes:
        source = self.source
        return _OUTPUT_REG.pack(0xFFFF, 24, NICIRA_ID, 15, ofs_nbits(source), source.field.header(), 0xFFFF)


def ofs_nbits(bits: Subfield) -> int:
    """(start << 6) | (bits - 1), as nicira-ext.h packs them."""
    return bits.start << 6 | bits.bits - 1


@dataclass(frozen=True, slots=True)
class OutputTrunc(Action):
    """Send the first `max_len` bytes (at least 14) to `port`. With Port.CONTROLLER nothing is sent: Open vSwitch takes a clone with
    such an action inside to the datapath, as a copy of the packet, whatever else is in it (ofproto-dpif-xlate.c)."""

    port: int
    max_len: int

    def __post_init__(self) -> None:
        if self.port not in (ReservedPort.LOCAL, ReservedPort.IN_PORT, ReservedPort.CONTROLLER):
            check_range("output", "port", self.port, 0, 0xFEFF)
        check_range("output", "max_len", self.max_len, 14, 0xFFFFFFFF)

    def encode(self) -> bytes:
        return _TRUNC.pack(0xFFFF, 16, NICIRA_ID, 39, self.port & 0xFFFF, self.max_len)


# OFPR_*, as `controller(reason=...)` names them.
REASONS = ("no_match", "action", "invalid_ttl", "action_set", "group", "packet_out")
NO_METER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ToController(Action):
    """Send the first `max_len` bytes in a packet-in with `userdata` to controllers with `controller_id`."""

    max_len: int = 0xFFFF
    userdata: bytes = b""
    reason: str = "action"
    controller_id: int = 0
    pause: bool = False
    meter: int = NO_METER

    def __post_init__(self) -> None:
        check_range("controller", "max_len", self.max_len, 0, 0xFFFF)
        check_range("controller", "controller_id", self.controller_id, 0, 0xFFFF)
        check_range("controller", "meter", self.meter, 0, 0xFFFFFFFF)
        if self.reason not in REASONS:
            raise ActionError("controller", f"reason {self.reason!r} is not one of {', '.join(REASONS)}")
        if len(self.userdata) > 65000:
            raise ActionError("controller", f"{len(self.userdata)} bytes of userdata do not fit a message")

    @property
    def plain(self) -> bool:
        """Whether OpenFlow's own output action says all of it."""
        return (
            not self.userdata
            and self.reason == "action"
            and not self.controller_id
            and not self.pause
            and self.meter == NO_METER
        )

    def encode(self) -> bytes:
        if self.plain:
            return _OUTPUT.pack(0, 16, port_to_wire(ReservedPort.CONTROLLER), self.max_len)
        properties = bytes(6)
        if self.max_len != 0xFFFF:
            properties += _property(0, self.max_len.to_bytes(2, "big"))
        if self.controller_id:
            properties += _property(1, self.controller_id.to_bytes(2, "big"))
        if self.reason != "action":
            properties += _property(2, bytes([REASONS.index(self.reason)]))
        if self.userdata:
            properties += _property(3, self.userdata)
        if self.pause:
            properties += _property(4, b"")
        if self.meter != NO_METER:
            properties += _property(5, self.meter.to_bytes(4, "big"))
        return nicira(37, properties)


def _property(number: int, value: bytes) -> bytes:
    length = len(value) + 4
    return number.to_bytes(2, "big") + length.to_bytes(2, "big") + value + _PADS[length & 7]


@dataclass(frozen=True, slots=True)
class SetField(Action):
    """Write `value` to a field, or to the bits of it that a sub-field or a mask names.

    `SetField("eth_dst", "0a:00:00:00:00:01")`, `SetField(RegField(0, 21, 22), 2)`,
    `SetField("reg0", (2, 0xff))`.
    """

    field: Field
    value: int
    mask: int

    def __init__(self, bits: AnySubfield, value: MatchValue) -> None:
        if type(bits) is str and (f := FIELDS.get(bits)) is not None:
            if type(value) is int and 0 <= value <= f.limit:
                number, mask = value, f.full
            else:
                number, mask = parse_value(f, value)
        else:
            part = subfield(bits)
            f = part.field
            if part.whole:
                number, mask = parse_value(f, value)
            elif isinstance(value, int):
                number, mask = part.place(value), part.mask
            else:
                raise ActionError("set_field", f"{value!r} is not a number for {part}")
        if f.order in _SPECIAL or mask != f.full:
            number, mask = _check_set(f, number, mask)
        _set(self, "field", f)
        _set(self, "value", number)
        _set(self, "mask", mask)

    def encode(self) -> bytes:
        f = self.field
        if self.mask == f.full:
            prefix, pad = _SET_EXACT[f.order]
            return b"%b%b%b" % (prefix, self.value.to_bytes(f.size, "big"), pad)
        body = f.header(masked=True) + self.value.to_bytes(f.size, "big") + self.mask.to_bytes(f.size, "big")
        length = len(body) + 4
        return struct.pack(">HH", 25, length + 7 & ~7) + body + _PADS[length & 7]


_SPECIAL = frozenset(f.order for f in FIELDS.values() if f.name in ("vlan_vid", "nw_tos") or not f.writable)


def _set_exact(f: Field) -> tuple[bytes, bytes]:
    length = 4 + len(f.header()) + f.size
    return struct.pack(">HH", 25, length + 7 & ~7) + f.header(), _PADS[length & 7]


_SET_EXACT = tuple(_set_exact(f) for f in FIELDS.values())


def _check_set(f: Field, value: int, mask: int) -> tuple[int, int]:
    if not f.writable:
        raise ActionError("set_field", f"{f.name} is read-only")
    if mask == 0:
        raise ActionError("set_field", f"its mask leaves nothing of {f.name} to write")
    if mask != f.full and not f.maskable:
        raise ActionError("set_field", f"{f.name} can only be written as a whole")
    if f.name == "vlan_vid":
        # OpenFlow 1.5.1 §7.2.5: the present bit must be 1 in value and mask.
        return value | 0x1000, mask | 0x1000
    if f.name == "nw_tos" and value & 3:
        raise ActionError("set_field", "the low two bits of nw_tos are nw_ecn and must be 0")
    return value, mask


@dataclass(frozen=True, slots=True)
class Move(Action):
    """Copy the bits of one sub-field to another as wide."""

    source: Subfield
    target: Subfield

    def __init__(self, source: AnySubfield, target: AnySubfield) -> None:
        _set(self, "source", subfield(source))
        _set(self, "target", subfield(target))
        if self.source.bits != self.target.bits:
            raise ActionError("move", f"{self.source} and {self.target} are not equally wide")
        if not self.target.field.writable:
            raise ActionError("move", f"{self.target.field.name} is read-only")

    def encode(self) -> bytes:
        source, target = self.source, self.target
        headers = source.field.header() + target.field.header()
        length = len(headers) + 12
        return _COPY.pack(28, length + 7 & ~7, source.bits, source.start, target.start) + headers + _PADS[length & 7]


@dataclass(frozen=True, slots=True)
class Push(Action):
    """Push a sub-field to the stack."""

    source: Subfield

    def __init__(self, source: AnySubfield) -> None:
        _set(self, "source", subfield(source))

    def encode(self) -> bytes:
        return _stack(27, self.source)


@dataclass(frozen=True, slots=True)
class Pop(Action):
    """Pop the stack to a sub-field."""

    target: Subfield

    def __init__(self, target: AnySubfield) -> None:
        _set(self, "target", subfield(target))
        if not self.target.field.writable:
            raise ActionError("pop", f"{self.target.field.name} is read-only")

    def encode(self) -> bytes:
        return _stack(28, self.target)


def _stack(subtype: int, bits: Subfield) -> bytes:
    payload = bits.start.to_bytes(2, "big") + bits.field.header() + bits.bits.to_bytes(2, "big")
    return nicira(subtype, payload.ljust(14, b"\0"))


@dataclass(frozen=True, slots=True)
class Resubmit(Action):
    """Look the packet up again in `table` (None: this one), as if it came in at `in_port` (None: it did).

    With `ct` the lookup sees the original direction's tuple of the connection instead of the packet's own.
    """

    table: int | None = None
    in_port: int | None = None
    ct: bool = False

    def __post_init__(self) -> None:
        if self.table is None and self.in_port is None:
            raise ActionError("resubmit", "to the same table with the same port is a loop: give table or in_port")
        if self.table is not None:
            check_range("resubmit", "table", self.table, 0, 254)
        if self.in_port is not None:
            check_range("resubmit", "in_port", self.in_port, 0, 0xFFFF)
            if self.in_port == ReservedPort.IN_PORT:
                raise ActionError("resubmit", "in_port=IN_PORT is what None means: leave it out")

    def encode(self) -> bytes:
        return _RESUBMIT.pack(
            0xFFFF,
            16,
            NICIRA_ID,
            44 if self.ct else 14,
            ReservedPort.IN_PORT if self.in_port is None else self.in_port,
            255 if self.table is None else self.table,
        )


@dataclass(frozen=True, slots=True)
class PushVlan(Action):
    """Push a VLAN tag of this Ethernet type (0x8100 or 0x88a8)."""

    ethertype: int = 0x8100

    def __post_init__(self) -> None:
        if self.ethertype not in (0x8100, 0x88A8):
            raise ActionError("push_vlan", f"{self.ethertype!r} is not 0x8100 or 0x88a8")

    def encode(self) -> bytes:
        return _U16.pack(17, 8, self.ethertype)


@dataclass(frozen=True, slots=True)
class PopVlan(Action):
    """Take the outermost VLAN tag off."""

    def encode(self) -> bytes:
        return _H2.pack(18, 8)


@dataclass(frozen=True, slots=True)
class PushMpls(Action):
    """Push an MPLS label of this Ethernet type (0x8847 or 0x8848), behind the VLAN tags."""

    ethertype: int = 0x8847

    def __post_init__(self) -> None:
        if self.ethertype not in (0x8847, 0x8848):
            raise ActionError("push_mpls", f"{self.ethertype!r} is not 0x8847 or 0x8848")

    def encode(self) -> bytes:
        return _U16.pack(19, 8, self.ethertype)


@dataclass(frozen=True, slots=True)
class PopMpls(Action):
    """Take the outermost MPLS label off; what is behind it has this Ethernet type."""

    ethertype: int

    def __post_init__(self) -> None:
        check_range("pop_mpls", "ethertype", self.ethertype, 0, 0xFFFF)

    def encode(self) -> bytes:
        return _U16.pack(20, 8, self.ethertype)


@dataclass(frozen=True, slots=True)
class DecTtl(Action):
    """Decrement the TTL or hop limit; at 1 or 0 stop, with a packet-in to `controllers` (default: id 0)."""

    controllers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _set(self, "controllers", () if self.controllers in ((0,), [0]) else tuple(self.controllers))
        for number in self.controllers:
            check_range("dec_ttl", "controller", number, 0, 0xFFFF)

    def encode(self) -> bytes:
        if not self.controllers:
            return _H2.pack(24, 8)
        count = len(self.controllers)
        return nicira(21, struct.pack(f">H4x{count}H", count, *self.controllers))


@dataclass(frozen=True, slots=True)
class SetQueue(Action):
    """Use this queue of the ports that follow."""

    queue: int

    def __post_init__(self) -> None:
        check_range("set_queue", "queue", self.queue, 0, 0xFFFFFFFF)

    def encode(self) -> bytes:
        return _U32.pack(21, 8, self.queue)


@dataclass(frozen=True, slots=True)
class PopQueue(Action):
    """Back to the port's default queue."""

    def encode(self) -> bytes:
        return nicira(5, b"")


@dataclass(frozen=True, slots=True)
class GroupAction(Action):
    """Hand the packet to a group."""

    group: int

    def __post_init__(self) -> None:
        check_range("group", "group", self.group, 0, 0xFFFFFFFF)

    def encode(self) -> bytes:
        return _U32.pack(22, 8, self.group)


@dataclass(frozen=True, slots=True)
class MeterAction(Action):
    """Let a meter drop or remark the packet."""

    meter: int

    def __post_init__(self) -> None:
        check_range("meter", "meter", self.meter, 1, 0xFFFF0000)

    def encode(self) -> bytes:
        return _U32.pack(29, 8, self.meter)


@dataclass(frozen=True, slots=True)
class Conjunction(Action):
    """This flow is alternative of dimension `k` of `n` of the conjunctive match `id` (ovs-fields(7))."""

    id: int
    k: int
    n: int

    def __post_init__(self) -> None:
        check_range("conjunction", "id", self.id, 0, 0xFFFFFFFF)
        check_range("conjunction", "n", self.n, 2, 64)
        check_range("conjunction", "k", self.k, 1, self.n)

    def encode(self) -> bytes:
        return _CONJUNCTION.pack(0xFFFF, 16, NICIRA_ID, 34, self.k - 1, self.n, self.id)


@dataclass(frozen=True, slots=True)
class Note(Action):
    """Bytes that do nothing. The wire has 6, 14, 22, ... of them: shorter notes end in zeros."""

    data: bytes = b""

    def __post_init__(self) -> None:
        data = bytes(self.data)
        if len(data) > 65000:
            raise ActionError("note", f"{len(data)} bytes do not fit a message")
        _set(self, "data", data + bytes(-(len(data) - 6) % 8 if data else 6))

    def encode(self) -> bytes:
        return nicira(8, self.data)


@dataclass(frozen=True, slots=True)
class CheckPktLarger(Action):
    """Set a one-bit sub-field to whether the packet, Ethernet header included, is over `length` bytes."""

    length: int
    target: Subfield

    def __init__(self, length: int, target: AnySubfield) -> None:
        _set(self, "length", length)
        _set(self, "target", subfield(target))
        check_range("check_pkt_larger", "length", length, 0, 0xFFFF)
        if self.target.bits != 1:
            raise ActionError("check_pkt_larger", f"{self.target} is not one bit")
        if not self.target.field.writable:
            raise ActionError("check_pkt_larger", f"{self.target.field.name} is read-only")

    def encode(self) -> bytes:
        header = self.target.field.header()
        return _NX_HH.pack(0xFFFF, 24, NICIRA_ID, 49, self.length, self.target.start) + header.ljust(10, b"\0")


@dataclass(frozen=True, slots=True)
class Clone(Action):
    """Do `actions` on a copy; what they change is not seen afterwards."""

    actions: tuple[Action, ...]

    def __init__(self, *actions: Action) -> None:
        _set(self, "actions", as_actions("clone", actions))

    def encode(self) -> bytes:
        return nicira(42, bytes(6) + encode_actions(self.actions))


class SampleDirection(IntEnum):
    """Whether a sample is of a packet that comes into the switch, or of one that leaves it."""

    DEFAULT = 0  # leaves it if it is to go to the sampling port, and that is not the port it came in by
    INGRESS = 1
    EGRESS = 2


@dataclass(frozen=True, slots=True)
class Sample(Action):
    """Send the packet, with a chance of `probability` in 65535, to the IPFIX collectors of a set (Flow_Sample_Collector_Set in
    ovs-vswitchd.conf.db(5)). Without such a set it does nothing."""

    probability: int
    collector_set: int = 0
    domain: int = 0
    point: int = 0
    port: int | None = None
    direction: SampleDirection = SampleDirection.DEFAULT

    def __post_init__(self) -> None:
        check_range("sample", "probability", self.probability, 1, 0xFFFF)
        for name in ("collector_set", "domain", "point"):
            check_range("sample", name, getattr(self, name), 0, 0xFFFFFFFF)
        check_range("sample", "port", 0 if self.port is None else self.port, 0, 0xFFFE)
        check_range("sample", "direction", self.direction, 0, 2)

    def encode(self) -> bytes:
        port = 0xFFFF if self.port is None else self.port
        words = (self.probability, self.collector_set, self.domain, self.point, port, self.direction)
        return nicira(41, _SAMPLE.pack(*words))


@dataclass(frozen=True, slots=True)
class FinTimeout(Action):
    """Shorten the flow's own timeouts (seconds; 0: leave) when a TCP FIN or RST passes."""

    idle: int = 0
    hard: int = 0

    def __post_init__(self) -> None:
        check_range("fin_timeout", "idle", self.idle, 0, 0xFFFF)
        check_range("fin_timeout", "hard", self.hard, 0, 0xFFFF)

    def encode(self) -> bytes:
        return nicira(19, struct.pack(">HH2x", self.idle, self.hard))


@dataclass(frozen=True, slots=True)
class CtClear(Action):
    """Forget the packet's connection tracking state."""

    def encode(self) -> bytes:
        return nicira(43, bytes(6))


@dataclass(frozen=True, slots=True)
class Exit(Action):
    """Do nothing more with the packet."""

    def encode(self) -> bytes:
        return nicira(17, bytes(6))


# ---- instructions: after the actions, in this order (OpenFlow 1.5.1 §5.8) ----


@dataclass(frozen=True, slots=True)
class ClearActions(Action):
    """Empty the action set."""

    instruction: ClassVar[int] = 1

    def encode(self) -> bytes:
        return _H2.pack(5, 8)


@dataclass(frozen=True, slots=True)
class WriteActions(Action):
    """Merge `actions` into the action set."""

    actions: tuple[Action, ...]
    instruction: ClassVar[int] = 2

    def __init__(self, *actions: Action) -> None:
        _set(self, "actions", as_actions("write_actions", actions))
        if not actions:
            raise ActionError("write_actions", "it has no actions, so the switch would drop it: leave it out")

    def encode(self) -> bytes:
        body = encode_actions(self.actions)
        return _H2.pack(3, 8 + len(body)) + body


@dataclass(frozen=True, slots=True)
class WriteMetadata(Action):
    """Write the bits of `mask` of the metadata field."""

    value: int
    mask: int = 0xFFFFFFFFFFFFFFFF
    instruction: ClassVar[int] = 3

    def __post_init__(self) -> None:
        check_range("write_metadata", "mask", self.mask, 0, 0xFFFFFFFFFFFFFFFF)
        check_range("write_metadata", "value", self.value, 0, 0xFFFFFFFFFFFFFFFF)

    def encode(self) -> bytes:
        return _METADATA.pack(2, 24, self.value, self.mask)


@dataclass(frozen=True, slots=True)
class GotoTable(Action):
    """Go on in a later table."""

    table: int
    instruction: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_range("goto_table", "table", self.table, 0, 254)

    def encode(self) -> bytes:
        return _GOTO.pack(1, 8, self.table)
