"""The translation of a packet's way through the flow tables into operations on bytes, as ofproto-dpif-xlate does it, and the
bits of the key that it depends on.

One rule: a translation holds for every packet with the same values of those bits, so it is made once and run often.
An action that is not known raises UnsupportedFlowError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ovsctl.datapath import flow_key as at
from ovsctl.datapath.errors import UnsupportedFlowError
from ovsctl.datapath.flow_key import PREREQUISITES, KeyField, key_field, key_subfield
from ovsctl.datapath.ofproto import Ofproto
from ovsctl.openflow import (
    Action,
    CheckPktLarger,
    ClearActions,
    Clone,
    Ct,
    CtClear,
    DecTtl,
    Exit,
    FinTimeout,
    Flow,
    GotoTable,
    Group,
    GroupAction,
    GroupType,
    Learn,
    LearnLoad,
    LearnMatch,
    Match,
    MeterAction,
    Move,
    Note,
    Output,
    OutputReg,
    OutputTrunc,
    Pop,
    PopMpls,
    PopQueue,
    PopVlan,
    Push,
    PushMpls,
    PushVlan,
    ReservedPort,
    Resubmit,
    Sample,
    SetField,
    SetQueue,
    Subfield,
    ToController,
    WriteActions,
    WriteMetadata,
)
from ovsctl.openflow.errors import InvalidValueError
from ovsctl.openflow.fields import format_value
from ovsctl.openflow.messages import FragmentHandling

MAX_DEPTH = 64  # ofproto-dpif-xlate.c: resubmits to the same or an earlier table
MAX_RESUBMITS = 64 * 64
MAX_STACK = 65536 // 8
VLAN_PRESENT = 0x1000
IP_TYPES = (0x0800, 0x86DD)
MPLS_TYPES = (0x8847, 0x8848)
MULTICAST_BIT = 1 << 40
# eth_addr_is_reserved() of Open vSwitch: NORMAL does not forward these.
RESERVED_GROUP = 0x0180C2000000
RESERVED_OTHERS = frozenset((0x01000CCCCCCC, 0x01000CCCCCCD, 0x01000CCDCDCD, 0x01000C000000, 0x00E02B000000))
_ALWAYS = at.IN_PORT.mask | at.ETH_TYPE.mask | VLAN_PRESENT << at.VLAN_TCI.shift | at.NW_FRAG.mask
_VLAN = at.VLAN_TCI.mask | at.VLAN_TPID.mask
_SYMMETRIC_L4 = (at.ETH_SRC, at.ETH_DST, at.ETH_TYPE, at.VLAN_TCI, at.NW_SRC, at.NW_DST, at.IPV6_SRC, at.IPV6_DST,
                 at.NW_PROTO, at.TP_SRC, at.TP_DST)  # fmt: skip


# Operations: the first item of a tuple, then the operands. Plain numbers, for they are compared per packet.
OUTPUT = 0  # port, tunnel or None, most bytes or 0
WRITE = 1  # value, mask, eth_type, tags: see write_headers
VLAN = 2  # how many tags to pop, then (TPID, TCI) to push
CLONE = 3  # operations on a copy
TRACK = 4  # Tracking
LEARN = 5  # flow, limit
LEARN_MAC = 6  # VLAN, MAC, port
PACKET_IN = 7  # Controller, table, cookie, the key's part that is not in the frame
METER = 8  # meter id
AGAIN = 10  # Resume: the frame is read anew, and resumes there
BUCKET = 9  # operations on a copy; a meter that drops the copy drops the packet

Op = tuple[Any, ...]


class Tunnel(NamedTuple):
    """The encapsulation of a frame at a tunnel port. src, dst: addresses as numbers, of IPv6 if `ipv6`."""

    key: int
    src: int
    dst: int
    ipv6: bool


@dataclass(frozen=True, slots=True)
class Tracking:
    """A ct action with its zone resolved, and the table where a copy of the packet resumes (None: nowhere)."""

    action: Ct
    zone: int
    resume: Resume | None


@dataclass(frozen=True, slots=True)
class Resume:
    """The table where a packet resumes after the connection tracker, and the pipeline state that it keeps."""

    table: int
    carried: int = 0
    stack: tuple[int, ...] = ()
    action_set: tuple[Action, ...] = ()
    identity: object = field(init=False)  # tells translations apart, besides the key that `carried` is part of

    def __post_init__(self) -> None:
        identity = self.table if not self.stack and not self.action_set else (self.table, self.stack, self.action_set)
        object.__setattr__(self, "identity", identity)


START = Resume(0)


@dataclass(frozen=True, slots=True)
class Passed:
    """An event on a packet's way, for a trace. table and flow: a look-up; `flow` None is a miss. key: the packet's key in it.

    tracked: the connection state that the tracker gave.
    """

    depth: int
    text: str
    table: int | None = None
    flow: Flow | None = None
    output: int | None = None
    tracked: str = ""
    key: int = 0


class _Abandoned(Exception):
    """Open vSwitch abandons this packet: it sends nothing."""


@dataclass(slots=True)
class Translation:
    """A packet under translation. `seen` collects the bits of the original key that influenced it."""

    switch: Ofproto
    key: int
    notes: list[Passed] | None = None
    ops: list[Op] = field(default_factory=list)
    seen: int = _ALWAYS
    written: int = 0  # bits that are not the original's any more
    dirty: int = 0  # header bits that the frame does not have yet
    inner: list[tuple[int, int]] = field(default_factory=list)  # (TPID, TCI) of tags below the outermost
    on_wire: list[tuple[int, int]] = field(default_factory=list)  # the tags that the frame has now, outermost first
    base: list[tuple[int, int]] = field(default_factory=list)  # as Open vSwitch has it, which does not copy frames
    stack: list[int] = field(default_factory=list)
    action_set: list[Action] = field(default_factory=list)
    table: int = 0
    cookie: int = 0
    depth: int = 0
    nesting: int = 0
    resubmits: int = -1  # to enter the first table is none
    hashed: bool = False  # recirculated with the datapath's hash, in a translation of its own
    born_with: int = 0  # tags that the frame had
    taught: list[Op] = field(default_factory=list)  # the operations that learn
    untouched: int = 9  # the innermost tags that were never taken off the frame
    asked: bool = False  # whether this is what one answer of check_pkt_larger leads to
    exit: bool = False
    unfinished: int = 0  # lists of actions that have more to do once what is under way is done
    labelled: bool = False  # it has an MPLS label that it did not come with
    reread: bool = False  # such a label was popped: before the next look-up the frame is read anew (was_mpls)
    gone: str = ""  # the reason if Open vSwitch abandoned the packet

    def run(self, resume: Resume, actions: Sequence[Action] | None = None) -> None:
        """Translate from a table, or the actions of a packet-out, to the end of the pipeline."""
        self.stack, self.action_set = list(resume.stack), list(resume.action_set)
        self.on_wire = self._tags()
        self.born_with = len(self.on_wire)
        self.base = self.on_wire
        try:
            if actions is None:
                self._enter(resume.table, resume.table, False)
            else:
                self._do(actions)
            if self.action_set and not self.exit:
                self._do(in_set_order(self.action_set))
        except _Abandoned as reason:
            self.ops = self.taught  # what was learned until then stays
            self.gone = str(reason)
            self._note(f"dropped: {reason}")

    # The key

    def _see(self, mask: int) -> None:
        self.seen |= mask & ~self.written

    def _read(self, source: KeyField) -> int:
        self._see(source.mask)
        return source.get(self.key)

    def _write(self, mask: int, value: int) -> None:
        if mask & _VLAN:
            self._see(_VLAN)
        self.key = self.key & ~mask | value
        self.written |= mask
        self.dirty |= mask & at.HEADERS
        if mask & at.VLAN_TCI.mask:
            self._fix_tpid()

    def _fix_tpid(self) -> None:
        """A tag that a field write made is 0x8100, and one that it unmade is gone (flow_fix_vlan_tpid)."""
        tci, tpid = at.VLAN_TCI.get(self.key), at.VLAN_TPID.get(self.key)
        if tci and not tpid:
            tpid = 0x8100
        elif not tci:
            tpid = 0
        self.key = self.key & ~at.VLAN_TPID.mask | tpid << at.VLAN_TPID.shift
        self.written |= _VLAN

    def _exists(self, *fields: Subfield) -> bool:
        """Whether the packet has these fields; the deciding bits count as seen."""
        for bits in fields:
            choices = PREREQUISITES[bits.field.needs]
            for mask, _ in choices:
                self._see(mask)
            if not any(self.key & mask == value for mask, value in choices):
                return False
        return True

    def _tags(self) -> list[tuple[int, int]]:
        tci = at.VLAN_TCI.get(self.key)
        return [(at.VLAN_TPID.get(self.key), tci), *self.inner] if tci & VLAN_PRESENT else []

    def _commit(self) -> None:
        """Add the operations that bring the frame in line with the key."""
        if self.dirty:
            kind = at.ETH_TYPE.get(self.key)
            if self.dirty & (at.NW_PROTO.mask | at.PORTS_MASK):
                self._see(at.NW_PROTO.mask)
            self.ops.append((WRITE, self.key & self.dirty, self.dirty, kind, len(self.on_wire)))
            self.dirty = 0
        tags = self._tags()
        if tags != self.on_wire:
            same = _common(tags, self.on_wire)
            pushed = tuple(reversed(tags[: len(tags) - same]))
            self.ops.append((VLAN, len(self.on_wire) - same, pushed))
            self.untouched = min(self.untouched, same)
            self.on_wire = tags

    def _note(self, text: str, **more: Any) -> None:
        if self.notes is not None:
            self.notes.append(Passed(self.nesting, text, **more))

    # Tables

    def _enter(self, table: int, old: int, swap: bool, in_port: int | None = None) -> None:
        """Look the packet up in a table and do its flow's actions."""
        if self.depth >= MAX_DEPTH:
            raise _Abandoned(f"over {MAX_DEPTH} resubmits to the same or an earlier table")
        if self.resubmits >= MAX_RESUBMITS:
            raise _Abandoned(f"over {MAX_RESUBMITS} resubmits")
        if len(self.stack) >= MAX_STACK:
            raise _Abandoned("the stack is over 64 kB")
        key = self.key
        swapped: tuple[tuple[KeyField, KeyField], ...] = ()
        if swap:
            self._see(_CT_PROTO.mask)
            if not _CT_PROTO.get(key) or at.ETH_TYPE.get(key) not in IP_TYPES:
                self._note(f"resubmit to table {table} skipped: the packet has no connection")
                return
            swapped = _ORIGINAL_V4 if at.ETH_TYPE.get(key) == IP_TYPES[0] else _ORIGINAL_V6
            key = _exchanged(key, swapped)
        if key & at.NW_FRAG.mask and self.switch.fragments is FragmentHandling.NORMAL:
            key &= ~at.PORTS_MASK  # transport ports of a fragment are not looked at
        if in_port is not None:
            key = key & ~at.IN_PORT.mask | in_port << at.IN_PORT.shift
        flow, seen = self.switch.tables.lookup(table, key)
        seen = _exchanged(seen, swapped)
        self._see(seen & ~at.IN_PORT.mask if in_port is not None else seen)
        self._note("", table=table, flow=flow, key=key)
        if flow is None:
            return
        deeper = table <= old and self.resubmits >= 0
        before = (self.table, self.cookie)
        self.table, self.cookie = table, flow.cookie
        self.resubmits += 1
        self.depth += deeper
        self.nesting += 1
        self._do(flow.actions)
        self.nesting -= 1
        self.depth -= deeper
        self.table, self.cookie = before

    # Actions

    def _do(self, actions: Sequence[Action]) -> None:
        for index, action in enumerate(actions):
            if self.exit:
                return
            if self.labelled or self.reread:
                self._after_label(action, last=index == len(actions) - 1 and not self.unfinished)
            if isinstance(action, CheckPktLarger):
                self._check_pkt_larger(action, actions[index + 1 :])
                return
            handler = _HANDLERS.get(type(action))
            if handler is None:
                raise UnsupportedFlowError(f"action {type(action).__name__}")
            more = index < len(actions) - 1
            self.unfinished += more
            stop = handler(self, action) is _STOP
            self.unfinished -= more
            if stop:
                return

    def _output(self, action: Output) -> None:
        self.output(action.port)

    def output(self, port: int, most: int = 0) -> None:
        """Send to a port, reserved ones included; to the port that the packet came from only when asked to by IN_PORT."""
        came_from = at.IN_PORT.get(self.key)
        if port == ReservedPort.NORMAL:
            self._normal()
        elif port in (ReservedPort.FLOOD, ReservedPort.ALL):
            for number in sorted(self.switch.ports):
                if number != came_from:
                    self._send(number, most)
        elif port == ReservedPort.IN_PORT:
            self._send(came_from, most)
        elif port in (ReservedPort.NONE, ReservedPort.UNSET):
            self._note("output to no port")
        elif port == ReservedPort.TABLE:
            raise UnsupportedFlowError("output to TABLE outside a packet-out")
        elif port == came_from:
            self._note(f"output to {self.switch.port_name(port)} suppressed: the packet came from there")
        else:
            self._send(port, most)

    def _send(self, number: int, most: int = 0) -> None:
        port = self.switch.ports.get(number)
        if port is None:
            self._note(f"output to port {number}, which is not there")
            return
        before, self.base = len(self.base), self._tags()
        self._commit()
        if most:
            # The length to cut off is decided before tags that are due are pushed or popped (xlate_output_trunc_action).
            most += 4 * (len(self.base) - before)
            if most < 14:
                self._note(f"output to {port.name} dropped: {most} bytes are no frame")
                return
        tunnel: Tunnel | None = None
        if port.is_tunnel:
            self._see(at.TUNNEL)
            ipv6 = bool(at.TUN_IPV6_DST.get(self.key))
            src, dst = (at.TUN_IPV6_SRC, at.TUN_IPV6_DST) if ipv6 else (at.TUN_SRC, at.TUN_DST)
            tunnel = Tunnel(at.TUN_ID.get(self.key), src.get(self.key), dst.get(self.key), ipv6)
            if not tunnel.dst:
                self._note(f"output to {port.name} dropped: no tunnel destination is set")
                return
        self._note(f"output to {port.name}", output=number)
        self.ops.append((OUTPUT, number, tunnel, most))

    def _output_reg(self, action: OutputReg) -> None:
        self.output(self._read(key_subfield(action.source)) & 0xFFFF)

    def _output_trunc(self, action: OutputTrunc) -> None:
        if action.port != ReservedPort.CONTROLLER:
            self.output(action.port, action.max_len)

    def _normal(self) -> None:
        """Forward as a learning switch whose ports carry all VLANs."""
        self._see(at.ETH_SRC.mask | at.ETH_DST.mask | _VLAN)
        key, switch = self.key, self.switch
        source, target, came_from = at.ETH_SRC.get(key), at.ETH_DST.get(key), at.IN_PORT.get(key)
        vlan = at.VLAN_TCI.get(key) & 0xFFF
        if target & ~0xF == RESERVED_GROUP or target in RESERVED_OTHERS:
            self._note("NORMAL drops a reserved group address")
            return
        if at.ETH_TYPE.get(key) == 0x8100 and not at.VLAN_TCI.get(key):
            self._note("NORMAL drops a frame whose tag is cut short")
            return
        if not source & MULTICAST_BIT:
            switch.learn_mac(vlan, source, came_from)
            self._teach((LEARN_MAC, vlan, source, came_from))
        with self._copy():
            if at.VLAN_TCI.get(key) == VLAN_PRESENT:
                # A tag that says nothing is taken off, by default (other_config:priority-tags of a port).
                self._pop_vlan(PopVlan())
            self._forward(vlan, target, came_from)

    def _forward(self, vlan: int, target: int, came_from: int) -> None:
        switch = self.switch
        known = None if target & MULTICAST_BIT else switch.macs.get((vlan, target))
        if known is None:
            self._note("NORMAL floods")
            for number in sorted(switch.ports):
                if number != came_from:
                    self._send(number)
        elif known != came_from:
            self._send(known)
        else:
            self._note("NORMAL drops: the address is where the packet came from")

    def _set_field(self, action: SetField) -> None:
        target = key_field(action.field)
        if action.field.name == "nd_options_type":
            raise UnsupportedFlowError("writing nd_options_type")
        mask = 0xFC if action.field.name == "nw_tos" else action.mask
        if self._exists(Subfield(action.field, 0, action.field.bits - 1)):
            self._write(mask << target.shift, action.value << target.shift)
            self._note(f"{action.field.name} = {format_value(action.field, action.value, action.mask)}")

    def _move(self, action: Move) -> None:
        source, target = key_subfield(action.source), key_subfield(action.target)
        if self._exists(action.target, action.source):
            value = self._read(source)
            self._write(target.mask, value << target.shift)
            self._note(f"{action.target} = {action.source} ({value:#x})")

    def _push(self, action: Push) -> None:
        self.stack.append(self._read(key_subfield(action.source)))

    def _pop(self, action: Pop) -> None:
        if not self.stack:
            self._note("pop from an empty stack")
            return
        target = key_subfield(action.target)
        value = self.stack.pop() & target.full
        if self._exists(action.target):
            self._write(target.mask, value << target.shift)

    def _resubmit(self, action: Resubmit) -> None:
        # The look-up sees the in_port given; what the flow then does sees the packet's own again.
        table = self.table if action.table is None else action.table
        if self.reread:
            if action.ct or action.in_port is not None:
                raise UnsupportedFlowError("resubmit with ct or in_port after pop_mpls")
            self._again(table)
            return
        self._enter(table, self.table, action.ct, action.in_port)

    def _goto(self, action: GotoTable) -> object:
        self._enter(action.table, self.table, False)
        return _STOP

    def _push_vlan(self, action: PushVlan) -> None:
        self._see(_VLAN)
        self.inner = self._tags()[:1]  # struct flow keeps two tags
        self._write(_VLAN, VLAN_PRESENT << at.VLAN_TCI.shift | action.ethertype << at.VLAN_TPID.shift)
        self._note("push a VLAN tag")

    def _pop_vlan(self, action: PopVlan) -> None:
        self._see(_VLAN)
        tpid, tci = self.inner.pop(0) if self.inner else (0, 0)
        self.inner = list(self.inner)
        self._write(_VLAN, tci << at.VLAN_TCI.shift | tpid << at.VLAN_TPID.shift)
        self._note("pop the VLAN tag")

    def _push_mpls(self, action: PushMpls) -> None:
        if at.ETH_TYPE.get(self.key) in MPLS_TYPES:
            raise UnsupportedFlowError("push_mpls on an MPLS packet")
        self._see(at.ETH_TYPE.mask)
        self.labelled = True
        self._note("push an MPLS label")

    def _pop_mpls(self, action: PopMpls) -> None:
        if not self.labelled:
            raise UnsupportedFlowError("pop_mpls of a label that no action pushed")
        self.labelled, self.reread = False, True
        self._note("pop the MPLS label")

    def _after_label(self, action: Action, *, last: bool) -> None:
        """A label is pushed and popped before a look-up, by which the frame is read anew; all other uses are not modelled."""
        if self.labelled and isinstance(action, PopMpls):
            return
        if not (self.reread and isinstance(action, Resubmit) and last):
            raise UnsupportedFlowError(
                "MPLS labels but those that push_mpls, pop_mpls and a last resubmit push and pop"
            )

    def _again(self, table: int) -> None:
        """Has the frame read anew, as it is by now, and resume in a table (xlate_table_action, was_mpls)."""
        self._commit()
        kept = at.CARRIED | at.CONNECTION
        self._see(kept)
        self._note("the frame is read anew")
        self.ops.append((AGAIN, Resume(table, self.key & kept, tuple(self.stack), tuple(self.action_set))))
        self.action_set = []

    def _dec_ttl(self, action: DecTtl) -> object:
        self._see(at.ETH_TYPE.mask)
        if at.ETH_TYPE.get(self.key) not in IP_TYPES:
            return None
        ttl = self._read(at.NW_TTL)
        if ttl > 1:
            self._write(at.NW_TTL.mask, ttl - 1 << at.NW_TTL.shift)
            self._note(f"nw_ttl = {ttl - 1}")
            return None
        self._note("the TTL is over")
        for controller in action.controllers or (0,):
            self._packet_in(ToController(controller_id=controller, reason="invalid_ttl"))
        return _STOP

    def _packet_in(self, action: ToController) -> None:
        if action.pause:
            raise UnsupportedFlowError("controller(pause)")
        self._commit()
        self._see(at.CARRIED | at.CONNECTION)
        self._note("to the controller")
        rest = self.key & (at.CARRIED | at.CONNECTION)
        self.ops.append((PACKET_IN, action, self.table, self.cookie, rest))

    def _note_action(self, action: Note) -> None:
        """Does nothing."""

    def _queue(self, action: Action) -> None:
        """Queues, timeouts and samples change no packet."""

    def _meter(self, action: MeterAction) -> None:
        if action.meter not in self.switch.meters:
            raise _Abandoned(f"meter {action.meter} is not there")
        self.ops.append((METER, action.meter))

    def _check_pkt_larger(self, action: CheckPktLarger, rest: Sequence[Action]) -> None:
        """Translate the rest of the list for both results, and keep the translation of this packet's.

        As in xlate_check_pkt_larger, the flow that resubmitted here does not see the rest's changes. There the result that
        does not apply affects learn and the action set too; here those are refused.
        """
        if not rest:
            return
        self._commit()
        # The key has the frame's first length; tags pushed or popped since are not on the frame yet.
        length = self._read(at.LENGTH) + 4 * (len(self._tags()) - self.born_with)
        larger = length > action.length
        ops, notes, asked = self.ops, self.notes, self.asked
        self.asked = True
        left = {}
        for answer in (not larger, larger):
            self.ops = []
            self.notes = notes if answer is larger else None
            self._note(f"{action.target} = {int(answer)}: {length} bytes, over {action.length} or not")
            left[answer] = self._aside(rest, first=(key_subfield(action.target), int(answer)))
        self.exit = left[False]  # it is the second one that Open vSwitch translates
        if self.action_set:
            raise UnsupportedFlowError("check_pkt_larger with an action set")
        self.ops, self.notes, self.asked = ops + self.ops, notes, asked

    def _clone(self, action: Clone) -> None:
        """A copy takes the action set with it, and executes it at its own end.

        Only where the translation cannot undo what is inside is it a copy in the datapath as well: else a meter that drops it
        drops the packet (clone_xlate_actions).
        """
        acts = list(self.action_set)
        copied = any(isinstance(inner, IRREVERSIBLE) for inner in action.actions)
        self._aside(action.actions, to_the_end=True, op=CLONE if copied else BUCKET)
        self.action_set = acts

    def _aside(
        self,
        actions: Sequence[Action],
        to_the_end: bool = False,
        first: tuple[KeyField, int] | None = None,
        op: int = CLONE,
    ) -> bool:
        """Do actions on a copy of the packet, after writing `first` to it. Whether they ended with exit."""
        with self._copy(op):
            if first is not None:
                self._write(first[0].mask, first[1] << first[0].shift)
            self._do(actions)
            if to_the_end and self.action_set and not self.exit:
                self._do(in_set_order(self.action_set))
            left = self.exit
        # Open vSwitch 3.1: exit inside a clone ends the whole pipeline, inside a bucket the bucket only.
        self.exit = self.exit or (left and to_the_end)
        return left

    @contextmanager
    def _copy(self, op: int = CLONE) -> Iterator[None]:
        """Apply all changes inside to a copy of the packet."""
        kept = (self.key, self.written, self.dirty, list(self.inner), self.on_wire, list(self.stack), self.exit)
        ops, self.ops, untouched, self.untouched = self.ops, [], self.untouched, len(self.on_wire)
        yield
        if self.ops:
            ops.append((op, tuple(self.ops)))
        lost = len(kept[4]) - self.untouched
        if lost > 0:
            # Open vSwitch pushes tags back rather than copy the frame, and loses their DEI bit.
            ops.append((VLAN, lost, tuple(reversed(kept[4][:lost]))))
        self.untouched = min(untouched, self.untouched)
        self.ops = ops
        self.key, self.written, self.dirty, self.inner, self.on_wire, self.stack, self.exit = kept

    def _exit(self, action: Exit) -> None:
        self.exit = True

    def _ct_clear(self, action: CtClear) -> None:
        self._forget()

    def _forget(self) -> None:
        self.key &= ~at.CONNECTION
        self.written |= at.CONNECTION

    def _ct(self, action: Ct) -> None:
        zone = action.zone if isinstance(action.zone, int) else self._read(key_subfield(action.zone))
        if action.alg:
            raise UnsupportedFlowError(f"ct with alg={action.alg}")
        for inner in action.exec:
            if isinstance(inner, Move):
                raise UnsupportedFlowError("move inside ct(exec)")
        self._commit()
        resume = None
        if action.table is not None:
            self._see(at.CARRIED)
            resume = Resume(action.table, self.key & at.CARRIED, tuple(self.stack), tuple(self.action_set))
        self._note(f"ct zone {zone}" + (", commit" if action.commit else "") + (", nat" if action.nat else ""))
        self.ops.append((TRACK, Tracking(action, zone, resume)))
        self._forget()

    # Groups

    def _group(self, action: GroupAction) -> None:
        group = self.switch.groups.get(action.group)
        if group is None:
            self._note(f"group {action.group} is not there")
            return
        if self.depth >= MAX_DEPTH:
            raise _Abandoned(f"over {MAX_DEPTH} groups within groups")
        if group.type is GroupType.SELECT and group.selection == "dp_hash" and self.inner:
            # The packet recirculates for its hash. Where it has tags below the first one, that shows in what is read anew.
            (bucket,) = (group.buckets[index] for index in self._buckets(group))
            to = bucket.actions[0] if len(bucket.actions) == 1 else None
            if self.unfinished or not isinstance(to, Resubmit) or to.table is None:
                raise UnsupportedFlowError(
                    "a dp_hash group for stacked tags, but one that is a flow's last action and resubmits"
                )
            self._again(to.table)
            return
        before = (self.depth, self.resubmits, self.hashed)
        self.depth += 1
        if group.type is GroupType.SELECT and group.selection == "dp_hash" and not self.hashed:
            self.depth, self.resubmits, self.hashed = 0, 0, True
        for index in self._buckets(group):
            self._note(f"group {group.group_id}: bucket {group.buckets[index].bucket_id}")
            self.nesting += 1
            self._aside(in_set_order(group.buckets[index].actions), op=BUCKET)
            self.nesting -= 1
        self.depth = before[0]
        if self.hashed is not before[2]:
            self.resubmits, self.hashed = before[1:]

    def _buckets(self, group: Group) -> list[int]:
        """The indices of the buckets that this packet takes."""
        if group.type in (GroupType.ALL, GroupType.INDIRECT):
            return list(range(len(group.buckets)))
        live = [n for n, bucket in enumerate(group.buckets) if self.switch.is_live(bucket)]
        if group.type is GroupType.FF:
            return live[:1]
        weights = [1 if group.buckets[n].weight is None else group.buckets[n].weight or 0 for n in live]
        total = sum(weights)
        if not total:
            return []
        # Open vSwitch chooses by the datapath's own hash; any choice that is stable per flow is right.
        pick = self._symmetric_hash() % total
        for n, weight in zip(live, weights, strict=True):
            if pick < weight:
                return [n]
            pick -= weight
        return []

    def _symmetric_hash(self) -> int:
        """The same number for both directions of a flow."""
        total = 0x9E3779B97F4A7C15
        for hashed in _SYMMETRIC_L4:
            total += self._read(hashed) * 0xBF58476D1CE4E5B9
        total &= (1 << 256) - 1
        return (total ^ total >> 64 ^ total >> 128) >> 7 & 0xFFFFFFFF

    # Learning

    def _learn(self, action: Learn) -> None:
        if self.asked:
            raise UnsupportedFlowError("learn after check_pkt_larger")
        specs: list[Match | Action] = []
        entries: dict[Any, tuple[int, int]] = {}
        for spec in action.specs:
            value = spec.source if isinstance(spec.source, int) else self._read(key_subfield(spec.source))
            if isinstance(spec, LearnMatch):
                old = entries.get(spec.target.field, (0, 0))
                entries[spec.target.field] = (old[0] | value << spec.target.start, old[1] | spec.target.mask)
            elif isinstance(spec, LearnLoad):
                whole = spec.target.field
                shifted = (value << spec.target.start, spec.target.mask)
                specs.append(SetField(whole, value if spec.target.whole else shifted))
            elif value < 0xFF00 or value in (
                ReservedPort.IN_PORT,
                ReservedPort.FLOOD,
                ReservedPort.ALL,
                ReservedPort.LOCAL,
            ):
                specs.append(Output(value))
        try:
            match = Match.of([(f, value, mask) for f, (value, mask) in entries.items()])
        except InvalidValueError as error:
            raise UnsupportedFlowError(f"learn: {error}") from error
        flow = Flow(
            match,
            tuple(spec for spec in specs if isinstance(spec, Action)),
            action.table,
            action.priority,
            action.cookie,
            action.idle_timeout,
            action.hard_timeout,
        )
        # A translation sees the tables as they were when it began, so the flow is for the packets after this one.
        learned = self.switch.may_learn(flow, action.limit)
        self._note(f"learn in table {flow.table}: {flow.match}")
        self._teach((LEARN, flow, action.limit))
        if action.result is not None:
            target = key_subfield(action.result)
            self._write(target.mask, int(learned) << target.shift)

    def _teach(self, op: Op) -> None:
        self.ops.append(op)
        self.taught.append(op)

    # The action set (OpenFlow 1.5.1 §5.6)

    def _clear_actions(self, action: ClearActions) -> None:
        self.action_set.clear()

    def _write_actions(self, action: WriteActions) -> None:
        if self.asked:
            raise UnsupportedFlowError("write_actions after check_pkt_larger")
        self.action_set.extend(action.actions)

    def _write_metadata(self, action: WriteMetadata) -> None:
        target = at.SLOTS["metadata"]
        self._write(action.mask << target.shift, (action.value & action.mask) << target.shift)


def in_set_order(actions: Sequence[Action]) -> list[Action]:
    """The actions of an action set as a list (OpenFlow 1.5.1 §5.6). Of each type the last counts, but for set-field.

    A group goes before an output. Without either the packet is dropped, as by any action that an action set does not take.
    """

    def last(action_type: type) -> list[Action]:
        return [action for action in actions if isinstance(action, action_type)][-1:]

    final = next((found for action_type in _FINAL if (found := last(action_type))), [])
    fields = [action for action in actions if isinstance(action, SetField | Move)]
    return [*last(PopVlan), *last(PushVlan), *last(DecTtl), *fields, *last(SetQueue), *final] if final else []


IRREVERSIBLE = (Ct, OutputTrunc)  # reversible_actions() of Open vSwitch says no; a meter cannot stand in a clone
_FINAL = (GroupAction, Output, OutputReg, ToController, Resubmit, Ct)


def _common(tags: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> int:
    """The number of innermost tags that are equal."""
    same = 0
    while same < min(len(tags), len(others)) and tags[-1 - same] == others[-1 - same]:
        same += 1
    return same


# The fields that change places with those of the connection's first packet (tuple_swap).
_CT_PROTO = at.SLOTS["ct_nw_proto"]
_PORTS = (
    (at.NW_PROTO, _CT_PROTO), (at.TP_SRC, at.SLOTS["ct_tp_src"]), (at.TP_DST, at.SLOTS["ct_tp_dst"]),
)  # fmt: skip
_ORIGINAL_V4 = (*_PORTS, (at.NW_SRC, at.SLOTS["ct_nw_src"]), (at.NW_DST, at.SLOTS["ct_nw_dst"]))
_ORIGINAL_V6 = (*_PORTS, (at.IPV6_SRC, at.SLOTS["ct_ipv6_src"]), (at.IPV6_DST, at.SLOTS["ct_ipv6_dst"]))


def _exchanged(key: int, pairs: Sequence[tuple[KeyField, KeyField]]) -> int:
    """A key or a mask with the bits of these pairs of fields exchanged."""
    for left, right in pairs:
        a, b = key >> left.shift & left.full, key >> right.shift & right.full
        key = key & ~(left.mask | right.mask) | a << right.shift | b << left.shift
    return key


_STOP = object()
_HANDLERS: dict[type, Callable[[Translation, Any], object]] = {
    Output: Translation._output,
    OutputReg: Translation._output_reg,
    OutputTrunc: Translation._output_trunc,
    ToController: Translation._packet_in,
    SetField: Translation._set_field,
    Move: Translation._move,
    Push: Translation._push,
    Pop: Translation._pop,
    Resubmit: Translation._resubmit,
    GotoTable: Translation._goto,
    PushVlan: Translation._push_vlan,
    PopVlan: Translation._pop_vlan,
    PushMpls: Translation._push_mpls,
    PopMpls: Translation._pop_mpls,
    DecTtl: Translation._dec_ttl,
    Note: Translation._note_action,
    SetQueue: Translation._queue,
    PopQueue: Translation._queue,
    FinTimeout: Translation._queue,
    Sample: Translation._queue,
    MeterAction: Translation._meter,
    Clone: Translation._clone,
    Exit: Translation._exit,
    CtClear: Translation._ct_clear,
    Ct: Translation._ct,
    GroupAction: Translation._group,
    Learn: Translation._learn,
    ClearActions: Translation._clear_actions,
    WriteActions: Translation._write_actions,
    WriteMetadata: Translation._write_metadata,
}
