"""Actions and instructions from the wire.

One rule: bytes that are not exactly an action are a MalformedMessage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from ovsctl.openflow import actions as act
from ovsctl.openflow.actions import Action
from ovsctl.openflow.conntrack import Ct, Nat
from ovsctl.openflow.errors import InvalidValueError, MalformedMessage
from ovsctl.openflow.fields import BY_HEADER, NICIRA_ID, Field, ReservedPort, Subfield, port_from_wire
from ovsctl.openflow.learning import Learn, LearnLoad, LearnMatch, LearnOutput, LearnSpec
from ovsctl.openflow.match import decode_oxm, decode_oxm_header

_MAX_DEPTH = 16
_CACHE_LIMIT = 65536
_HEADER = struct.Struct(">HH")
_APPLY, _CLEAR, _WRITE, _METADATA, _GOTO = 4, 5, 3, 2, 1

_known: dict[bytes, Action] = {}


def decode_actions(data: bytes, depth: int = 0) -> tuple[Action, ...]:
    """The action list that `data` is. Raises MalformedMessage."""
    if depth > _MAX_DEPTH:
        raise MalformedMessage("actions", f"nested more than {_MAX_DEPTH} deep")
    found = []
    at, end = 0, len(data)
    while at < end:
        if end - at < 8:
            raise MalformedMessage("actions", f"{end - at} bytes left where an action takes 8")
        length = data[at + 2] << 8 | data[at + 3]
        if length < 8 or length & 7 or at + length > end:
            raise MalformedMessage("actions", f"an action of {length} bytes where {end - at} are left")
        raw = data[at : at + length]
        found.append(_known.get(raw) or _decode_action(raw, depth))
        at += length
    return tuple(found)


def decode_instructions(data: bytes) -> tuple[Action, ...]:
    """The actions, then the other instructions, of an instruction list. Raises MalformedMessage."""
    found: list[Action] = []
    at, end, last = 0, len(data), 0
    while at < end:
        if end - at < 8:
            raise MalformedMessage("instructions", f"{end - at} bytes left where one takes 8")
        kind, length = _HEADER.unpack_from(data, at)
        if length < 8 or length & 7 or at + length > end:
            raise MalformedMessage("instructions", f"type {kind}, {length} bytes, where {end - at} are left")
        body = data[at + 4 : at + length]
        rank, actions = _decode_instruction(kind, body)
        if rank < last or (rank == last and at):
            raise MalformedMessage("instructions", f"type {kind} after one that must follow it")
        found.extend(actions)
        last = rank
        at += length
    return tuple(found)


def _decode_instruction(number: int, body: bytes) -> tuple[int, tuple[Action, ...]]:
    if number == _APPLY:
        return 0, decode_actions(body[4:])
    if number == _CLEAR and len(body) == 4:
        return 1, (act.ClearActions(),)
    if number == _WRITE:
        actions = decode_actions(body[4:])
        return 2, (act.WriteActions(*actions),) if actions else ()
    if number == _METADATA and len(body) == 20:
        value, mask = struct.unpack(">4xQQ", body)
        return 3, (act.WriteMetadata(value & mask, mask),)
    if number == _GOTO and len(body) == 4:
        if body[0] == 255:
            raise MalformedMessage("goto_table", "255 is no table")
        return 4, (act.GotoTable(body[0]),)
    raise MalformedMessage("instructions", f"type {number} with {len(body) + 4} bytes is not one that ovsctl supports")


def _decode_action(raw: bytes, depth: int) -> Action:
    kind = raw[0] << 8 | raw[1]
    if kind == 0xFFFF:
        vendor = int.from_bytes(raw[4:8], "big")
        if len(raw) < 16 or vendor != NICIRA_ID:
            raise MalformedMessage("actions", f"experimenter {vendor:#x} with {len(raw)} bytes")
        subtype = raw[8] << 8 | raw[9]
        decoder = _NICIRA.get(subtype)
        name = f"Nicira action {subtype}"
        body = raw[10:]
    else:
        decoder, name, body = _STANDARD.get(kind), f"action {kind}", raw[4:]
    if decoder is None:
        raise MalformedMessage("actions", f"{name} is not one that ovsctl supports")
    try:
        found = decoder(_Reader(name, body), depth)
    except InvalidValueError as error:
        raise MalformedMessage(name, str(error)) from error
    if len(_known) >= _CACHE_LIMIT:
        _known.clear()
    _known[raw] = found
    return found


class _Reader:
    """The rest of one action. Reading beyond it is a MalformedMessage."""

    __slots__ = ("at", "data", "name")

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.data, self.at = name, data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.data):
            raise MalformedMessage(self.name, f"{len(self.data)} bytes are too few")
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def left(self) -> int:
        return len(self.data) - self.at

    def zeros(self, count: int | None = None) -> None:
        if any(self.rest() if count is None else self.take(count)):
            raise MalformedMessage(self.name, "bytes that must be zero are not")

    def field(self) -> Field:
        f, masked, start, _ = decode_oxm_header(self.data, self.at, len(self.data))
        if masked:
            raise MalformedMessage(self.name, f"{f.name} with a mask where only its name belongs")
        self.at = start
        return f

    def short_field(self) -> Field:
        """A field by its 4-byte header, where no experimenter fits."""
        top = self.number(4)
        f = BY_HEADER.get((top >> 16, top >> 9 & 0x7F, 0))
        if f is None or top & 0x1FF != f.size:
            raise MalformedMessage(self.name, f"field {top:#010x} is not one that ovsctl supports")
        return f

    def packed_bits(self) -> tuple[int, int]:
        """(start, end) of ofs_nbits."""
        packed = self.number(2)
        return packed >> 6, (packed >> 6) + (packed & 0x3F)


_Decoder = Callable[[_Reader, int], Action]


def _void(action: Action) -> _Decoder:
    def decode(r: _Reader, depth: int) -> Action:
        r.zeros()
        return action

    return decode


def _output(r: _Reader, depth: int) -> Action:
    wire, max_len = r.number(4), r.number(2)
    r.zeros()
    port = port_from_wire(wire)
    if port is None:
        raise MalformedMessage("output", f"{wire:#x} is not a port that Open vSwitch can have")
    return act.ToController(max_len) if port == ReservedPort.CONTROLLER else act.Output(port)


def _u32(make: Callable[[int], Action]) -> _Decoder:
    def decode(r: _Reader, depth: int) -> Action:
        return make(r.number(4))

    return decode


def _ethertype(make: Callable[[int], Action]) -> _Decoder:
    def decode(r: _Reader, depth: int) -> Action:
        ethertype = r.number(2)
        r.zeros()
        return make(ethertype)

    return decode


def _set_field(r: _Reader, depth: int) -> Action:
    f, value, mask, r.at = decode_oxm(r.data, r.at, len(r.data))
    r.zeros()
    return act.SetField(f, (value, mask))


def _set_ttl(r: _Reader, depth: int) -> Action:
    value = r.number(1)
    r.zeros()
    return act.SetField("nw_ttl", value)


def _copy_field(r: _Reader, depth: int) -> Action:
    bits, source_start, target_start = r.number(2), r.number(2), r.number(2)
    r.zeros(2)
    source = Subfield(r.field(), source_start, source_start + bits - 1)
    target = Subfield(r.field(), target_start, target_start + bits - 1)
    r.zeros()
    return act.Move(source, target)


def _resubmit_port(r: _Reader, depth: int) -> Action:
    return act.Resubmit(in_port=r.number(2))


def _resubmit_table(ct: bool) -> _Decoder:
    def decode(r: _Reader, depth: int) -> Action:
        port, table = r.number(2), r.number(1)
        r.zeros()
        return act.Resubmit(None if table == 255 else table, None if port == ReservedPort.IN_PORT else port, ct)

    return decode


def _output_reg(r: _Reader, depth: int) -> Action:
    start, end = r.packed_bits()
    source = Subfield(r.short_field(), start, end)
    r.take(2)  # what a controller gets, should the port be that: ovs-ofctl does not show it either
    r.zeros()
    return act.OutputReg(source)


def _output_reg2(r: _Reader, depth: int) -> Action:
    start, end = r.packed_bits()
    r.take(2)
    source = Subfield(r.field(), start, end)
    r.zeros()
    return act.OutputReg(source)


def _output_trunc(r: _Reader, depth: int) -> Action:
    return act.OutputTrunc(r.number(2), r.number(4))


def _reason(number: int) -> str:
    if number >= len(act.REASONS):
        raise MalformedMessage("controller", f"reason {number} is not one that ovsctl supports")
    return act.REASONS[number]


def _controller(r: _Reader, depth: int) -> Action:
    max_len, controller_id, reason = r.number(2), r.number(2), r.number(1)
    r.zeros()
    return act.ToController(max_len, controller_id=controller_id, reason=_reason(reason))


def _controller2(r: _Reader, depth: int) -> Action:
    r.zeros(6)
    max_len, controller_id, reason, userdata, pause, meter = 0xFFFF, 0, 1, b"", False, act.NO_METER
    while r.left():
        kind, length = r.number(2), r.number(2)
        value = _Reader("controller", r.take(max(length - 4, 0)))
        r.take(min(-length % 8, r.left()))
        if kind == 0:
            max_len = value.number(2)
        elif kind == 1:
            controller_id = value.number(2)
        elif kind == 2:
            reason = value.number(1)
        elif kind == 3:
            userdata = value.rest()
        elif kind == 4:
            pause = True
        elif kind == 5:
            meter = value.number(4)
        else:
            raise MalformedMessage("controller", f"property {kind} is not one that ovsctl supports")
    return act.ToController(max_len, userdata, _reason(reason), controller_id, pause, meter)


def _dec_ttl_ids(r: _Reader, depth: int) -> Action:
    count = r.number(2)
    r.zeros(4)
    ids = tuple(r.number(2) for _ in range(count))
    r.zeros()
    return act.DecTtl(ids)


def _stack(make: Callable[[Subfield], Action]) -> _Decoder:
    def decode(r: _Reader, depth: int) -> Action:
        start, f, bits = r.number(2), r.field(), r.number(2)
        r.zeros()
        return make(Subfield(f, start, start + bits - 1))

    return decode


def _conjunction(r: _Reader, depth: int) -> Action:
    clause, count, conj_id = r.number(1), r.number(1), r.number(4)
    r.zeros()
    return act.Conjunction(conj_id, clause + 1, count)


def _note(r: _Reader, depth: int) -> Action:
    return act.Note(r.rest())


def _check_pkt_larger(r: _Reader, depth: int) -> Action:
    length, start = r.number(2), r.number(2)
    target = Subfield(r.field(), start, start)
    r.zeros()
    return act.CheckPktLarger(length, target)


def _clone(r: _Reader, depth: int) -> Action:
    r.zeros(6)
    return act.Clone(*decode_actions(r.rest(), depth + 1))


def _sample(r: _Reader, depth: int) -> Action:
    probability, collector_set, domain, point = r.number(2), r.number(4), r.number(4), r.number(4)
    port, direction = (r.number(2), r.number(1)) if r.left() else (0xFFFF, 0)  # the oldest form has neither
    r.zeros()
    if direction > act.SampleDirection.EGRESS:
        raise MalformedMessage("sample", f"direction {direction} is not one that ovsctl supports")
    port_or_none = None if port == 0xFFFF else port
    return act.Sample(probability, collector_set, domain, point, port_or_none, act.SampleDirection(direction))


def _fin_timeout(r: _Reader, depth: int) -> Action:
    idle, hard = r.number(2), r.number(2)
    r.zeros()
    return act.FinTimeout(idle, hard)


def _ct(r: _Reader, depth: int) -> Action:
    flags, source = r.number(2), r.take(4)
    if flags & ~3:
        raise MalformedMessage("ct", f"flags {flags:#x} are not ones that ovsctl supports")
    zone: int | Subfield
    if any(source):
        zone_field = _Reader("ct", source).short_field()
        start, end = r.packed_bits()
        zone = Subfield(zone_field, start, end)
    else:
        zone = r.number(2)
    table = r.number(1)
    r.zeros(3)
    alg = r.number(2)
    inner = decode_actions(r.rest(), depth + 1)
    nat = None
    if inner and isinstance(inner[0], Nat):
        nat, inner = inner[0], inner[1:]
    return Ct(bool(flags & 1), bool(flags & 2), None if table == 255 else table, zone, alg, nat, inner)


def _nat(r: _Reader, depth: int) -> Action:
    r.zeros(2)
    flags, present = r.number(2), r.number(2)
    if flags & ~0x1F or flags & 3 == 3 or present & ~0x3F or (present & 3 and present & 12):
        raise MalformedMessage("nat", f"flags {flags:#x} with range {present:#x}")
    first = IPv4Address(r.take(4)) if present & 1 else None
    last = IPv4Address(r.take(4)) if present & 2 else None
    first6 = IPv6Address(r.take(16)) if present & 4 else None
    last6 = IPv6Address(r.take(16)) if present & 8 else None
    port = r.number(2) if present & 16 else None
    port_max = r.number(2) if present & 32 else None
    r.zeros()
    return Nat(
        "src" if flags & 1 else "dst" if flags & 2 else None,
        first or first6,
        last or last6,
        port,
        port_max,
        persistent=bool(flags & 4),
        hash=bool(flags & 8),
        random=bool(flags & 16),
    )


def _learn_specs(r: _Reader) -> tuple[LearnSpec, ...]:
    specs: list[LearnSpec] = []
    while r.left() >= 2:
        header = r.number(2)
        if not header:
            break
        bits, kind = header & 0x7FF, header >> 11 & 3
        source: Subfield | int
        if header & 0x2000:
            source = r.number((bits + 15) // 16 * 2)
        else:
            f, start = r.short_field(), r.number(2)
            source = Subfield(f, start, start + bits - 1)
        if kind == 2 and isinstance(source, Subfield):
            specs.append(LearnOutput(source))
            continue
        if header & 0xC000 or kind > 1:
            raise MalformedMessage("learn", f"specification {header:#06x} is not one that ovsctl supports")
        f, start = r.short_field(), r.number(2)
        target = Subfield(f, start, start + bits - 1)
        specs.append(LearnMatch(target, source) if kind == 0 else LearnLoad(source, target))
    r.zeros()
    return tuple(specs)


def _learn(extended: bool) -> _Decoder:
    def decode(r: _Reader, depth: int) -> Action:
        idle, hard, priority, cookie = r.number(2), r.number(2), r.number(2), r.number(8)
        flags, table = r.number(2), r.number(1)
        r.zeros(1)
        fin_idle, fin_hard = r.number(2), r.number(2)
        limit, result = 0, None
        if flags & ~(7 if extended else 3):
            raise MalformedMessage("learn", f"flags {flags:#x} are not ones that ovsctl supports")
        if extended:
            limit, start = r.number(4), r.number(2)
            r.zeros(2)
            if flags & 4:
                result = Subfield(r.field(), start, start)
        return Learn(
            _learn_specs(r),
            table=table,
            priority=priority,
            cookie=cookie,
            idle_timeout=idle,
            hard_timeout=hard,
            fin_idle_timeout=fin_idle,
            fin_hard_timeout=fin_hard,
            send_flow_rem=bool(flags & 1),
            delete_learned=bool(flags & 2),
            limit=limit,
            result=result,
        )

    return decode


_STANDARD: dict[int, _Decoder] = {
    0: _output,
    17: _ethertype(act.PushVlan),
    18: _void(act.PopVlan()),
    19: _ethertype(act.PushMpls),
    20: _ethertype(act.PopMpls),
    21: _u32(act.SetQueue),
    22: _u32(act.GroupAction),
    23: _set_ttl,
    24: _void(act.DecTtl()),
    25: _set_field,
    28: _copy_field,
    29: _u32(act.MeterAction),
}
_NICIRA: dict[int, _Decoder] = {
    1: _resubmit_port,
    5: _void(act.PopQueue()),
    8: _note,
    14: _resubmit_table(ct=False),
    15: _output_reg,
    16: _learn(extended=False),
    17: _void(act.Exit()),
    19: _fin_timeout,
    20: _controller,
    21: _dec_ttl_ids,
    27: _stack(act.Push),
    28: _stack(act.Pop),
    29: _sample,
    32: _output_reg2,
    34: _conjunction,
    35: _ct,
    36: _nat,
    37: _controller2,
    39: _output_trunc,
    38: _sample,
    41: _sample,
    42: _clone,
    43: _void(act.CtClear()),
    44: _resubmit_table(ct=True),
    45: _learn(extended=True),
    49: _check_pkt_larger,
}
