"""A switch that runs flows on frames in memory.

One rule: every packet's way is translated as Open vSwitch would, and remembered under the bits it depended on, so that a
cached answer is the answer that translating again would give. Whatever could change an answer empties the cache.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ovsctl.datapath import flow_key as at
from ovsctl.datapath.classifier import FlowTables
from ovsctl.datapath.commit_headers import write_headers
from ovsctl.datapath.conntrack import Tracker
from ovsctl.datapath.flow_extract import check_frame, extract
from ovsctl.datapath.xlate import (
    CLONE,
    LEARN,
    LEARN_MAC,
    METER,
    OUTPUT,
    PACKET_IN,
    START,
    TRACK,
    VLAN,
    WRITE,
    Op,
    Passed,
    Resume,
    Tracking,
    Translation,
    Tunnel,
)
from ovsctl.openflow import Bucket, Controller, Flow, Group, Meter
from ovsctl.openflow.fields import Port as Reserved

CACHE_MAX = 65536  # answers kept; a flood of ever new packets must not fill the memory
MAC_TABLE_MAX = 8192  # what Open vSwitch's mac-table-size is by default
PACKET_INS_MAX = 1024
RECIRCULATIONS_MAX = 64


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a switch. mtu: the largest IP packet in bytes, None for no limit."""

    name: str
    is_tunnel: bool = False
    up: bool = True
    mtu: int | None = None


class Emitted(NamedTuple):
    """A frame that left through a port; `tunnel` is what it is encapsulated with."""

    port: int
    frame: bytes
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A frame that was sent to the controller."""

    frame: bytes
    in_port: int
    action: Controller
    table: int
    cookie: int
    metadata: int


_Cache = dict[object, list[tuple[int, dict[int, tuple[Op, ...]]]]]


class Switch:
    """A bridge: its flows, groups, meters and ports, and what it has learned since."""

    def __init__(
        self,
        flows: Iterable[Flow] = (),
        *,
        ports: Mapping[int, Port] | None = None,
        groups: Iterable[Group] = (),
        meters: Iterable[Meter] = (),
        name: str = "br0",
    ) -> None:
        self.name = name
        self.ports: dict[int, Port] = dict(ports or {})
        self._tables: FlowTables | None = FlowTables(flows)
        self._flows: Callable[[], Iterable[Flow]] = tuple
        self.groups = {group.group_id: group for group in groups}
        self.meters = {meter.meter_id: meter for meter in meters}
        self.macs: dict[tuple[int, int], int] = {}
        self.learned: dict[object, Flow] = {}
        self.tracker = Tracker()
        self.metered: Counter[int] = Counter()
        self.packet_ins: deque[PacketIn] = deque(maxlen=PACKET_INS_MAX)
        self._cache: _Cache = {}
        self._cached = 0
        self._version = 0
        self._extracted: tuple[bytes, int] = (b"", 0)

    # What it is made of

    def changed(self) -> None:
        """Forget every remembered answer."""
        self._version += 1
        self._cache.clear()
        self._cached = 0

    def set_port(self, number: int, port: Port | None) -> None:
        """A port is this, or with None is gone."""
        if port is None:
            self.ports.pop(number, None)
        else:
            self.ports[number] = port
        self.changed()

    @property
    def tables(self) -> FlowTables:
        if self._tables is None:
            self._tables = FlowTables([*self._flows(), *self.learned.values()])
        return self._tables

    def replace_flows(self, flows: Callable[[], Iterable[Flow]]) -> None:
        """Run these flows from now on, besides those that it learned itself. They are asked for once they are needed."""
        self._tables, self._flows = None, flows
        self.changed()

    def add_flow(self, flow: Flow) -> None:
        if self.tables.add(flow):
            self.changed()

    def delete_flow(self, flow: Flow) -> None:
        self.learned.pop(flow.key, None)
        if self.tables.discard(flow):
            self.changed()

    def set_group(self, group: Group) -> None:
        self.groups[group.group_id] = group
        self.changed()

    def set_meter(self, meter: Meter) -> None:
        self.meters[meter.meter_id] = meter
        self.changed()

    def port_name(self, number: int) -> str:
        """A port's name, for messages."""
        port = self.ports.get(number)
        if port is not None:
            return port.name
        return Reserved(number).name if number in Reserved._value2member_map_ else f"port {number}"

    def is_live(self, bucket: Bucket) -> bool:
        """Whether what a bucket watches is up; a bucket that watches nothing is."""
        watched = bucket.watch_port
        if watched is not None and watched in self.ports and self.ports[watched].up:
            return True
        group = self.groups.get(bucket.watch_group) if bucket.watch_group is not None else None
        if group is not None and any(self.is_live(inner) for inner in group.buckets):
            return True
        return watched is None and bucket.watch_group is None

    # What it learns

    def may_learn(self, flow: Flow, limit: int) -> bool:
        """Whether there is room for a flow that a packet makes: at most `limit` of its cookie in its table, 0 for any."""
        if not limit or flow.key in self.learned:
            return True
        return sum(1 for f in self.tables if f.table == flow.table and f.cookie == flow.cookie) < limit

    def learn(self, flow: Flow, limit: int = 0) -> None:
        """Add a flow that a packet made, where there is room for it."""
        if self.may_learn(flow, limit):
            self.learned[flow.key] = flow
            if self.tables.add(flow):
                self.changed()

    def learn_mac(self, vlan: int, mac: int, port: int) -> None:
        """NORMAL saw this address here."""
        if self.macs.get((vlan, mac)) != port:
            if len(self.macs) >= MAC_TABLE_MAX:
                del self.macs[next(iter(self.macs))]
            self.macs[vlan, mac] = port
            self.changed()

    def restore(
        self,
        macs: dict[tuple[int, int], int],
        learned: dict[object, Flow],
        tracker: Tracker,
        packet_ins: Iterable[PacketIn],
        metered: Counter[int],
    ) -> None:
        """Back to what it had learned before."""
        self.tracker, self.metered = tracker, metered
        self.packet_ins = deque(packet_ins, PACKET_INS_MAX)
        if macs != self.macs or learned != self.learned:
            for key in self.learned.keys() - learned.keys():
                self.tables.discard(self.learned[key])
            for flow in learned.values():
                self.tables.add(flow)
            self.macs, self.learned = macs, learned
            self.changed()

    # Packets

    def receive(self, frame: bytes, in_port: int, tunnel: Tunnel | None = None) -> list[Emitted]:
        """What leaves when a frame comes in. Raises FrameError, UnsupportedFlowError."""
        check_frame(frame)
        key = self._key(frame) | in_port << at.IN_PORT.shift
        if tunnel is not None:
            key |= tunnel_bits(tunnel)
        emitted: list[Emitted] = []
        self._pass(START, key, frame, emitted, 0)
        return emitted

    def trace(self, frame: bytes, in_port: int, tunnel: Tunnel | None = None) -> tuple[list[Passed], list[Emitted]]:
        """Every step of a frame's way, and what leaves. What it learns on the way stays, as with `receive`."""
        check_frame(frame)
        key = self._key(frame) | in_port << at.IN_PORT.shift
        if tunnel is not None:
            key |= tunnel_bits(tunnel)
        notes: list[Passed] = []
        emitted: list[Emitted] = []
        self._pass(START, key, frame, emitted, 0, notes)
        return notes, emitted

    def _pass(
        self,
        start: Resume,
        key: int,
        frame: bytes,
        emitted: list[Emitted],
        rounds: int,
        notes: list[Passed] | None = None,
    ) -> None:
        if notes is None:
            known = self._cache.get(start.where)
            if known is not None:
                for mask, answers in known:
                    ops = answers.get(key & mask)
                    if ops is not None:
                        self._execute(ops, key, frame, emitted, rounds)
                        return
        version = self._version
        translation = Translation(self, key, notes)
        translation.run(start)
        ops = tuple(translation.ops)
        if version == self._version:
            # A packet that changed the tables on its way was translated with some of both.
            self._remember(start.where, key, translation.seen, ops)
        self._execute(ops, key, frame, emitted, rounds, notes)

    def _remember(self, where: object, key: int, seen: int, ops: tuple[Op, ...]) -> None:
        if self._cached >= CACHE_MAX:
            self._cache.clear()
            self._cached = 0
        known = self._cache.setdefault(where, [])
        self._cached += 1
        for mask, answers in known:
            if mask == seen:
                answers[key & seen] = ops
                return
        known.append((seen, {key & seen: ops}))

    def _execute(
        self,
        ops: tuple[Op, ...],
        key: int,
        frame: bytes,
        emitted: list[Emitted],
        rounds: int,
        notes: list[Passed] | None = None,
    ) -> None:
        for op in ops:
            do = op[0]
            if do == OUTPUT:
                most = op[3]
                emitted.append(Emitted(op[1], frame[:most] if most else frame, op[2]))
            elif do == WRITE:
                frame = write_headers(frame, *op[1:])
            elif do == VLAN:
                frame = _retag(frame, op[1], op[2])
            elif do == CLONE:
                self._execute(op[1], key, frame, emitted, rounds, notes)
            elif do == TRACK:
                frame = self._track(op[1], frame, emitted, rounds, notes)
            elif do == LEARN:
                self.learn(op[1], op[2])
            elif do == LEARN_MAC:
                self.learn_mac(*op[1:])
            elif do == METER:
                self.metered[op[1]] += 1
            elif do == PACKET_IN:
                _, action, table, cookie, rest = op
                in_port = at.IN_PORT.get(rest)
                self.packet_ins.append(
                    PacketIn(frame[: action.max_len], in_port, action, table, cookie, at.SLOTS["metadata"].get(rest))
                )

    def _key(self, frame: bytes) -> int:
        """The key of a frame by itself. One packet is asked about several times on its way."""
        if frame is not self._extracted[0]:
            self._extracted = frame, extract(frame, 0)
        return self._extracted[1]

    def _track(
        self, tracking: Tracking, frame: bytes, emitted: list[Emitted], rounds: int, notes: list[Passed] | None
    ) -> bytes:
        frame, fields = self.tracker.track(frame, self._key(frame), tracking.action, tracking.zone)
        resume = tracking.resume
        if resume is not None and rounds < RECIRCULATIONS_MAX:
            if notes is not None:
                state = _state(fields)
                notes.append(Passed(0, f"tracked: {state}", tracked=state))
            key = self._key(frame) | resume.carried | fields
            self._pass(resume, key, frame, emitted, rounds + 1, notes)
        return frame


def tunnel_bits(tunnel: Tunnel) -> int:
    """The part of a key that says which tunnel a frame came out of."""
    src, dst = (at.TUN_IPV6_SRC, at.TUN_IPV6_DST) if tunnel.ipv6 else (at.TUN_SRC, at.TUN_DST)
    return tunnel.key << at.TUN_ID.shift | tunnel.src << src.shift | tunnel.dst << dst.shift


def _state(fields: int) -> str:
    from ovsctl.openflow.fields import CT_STATE_BITS  # noqa: PLC0415

    state = at.CT_STATE.get(fields)
    return "+".join(name for n, name in enumerate(CT_STATE_BITS) if state >> n & 1)


def _retag(frame: bytes, pops: int, pushes: tuple[tuple[int, int], ...]) -> bytes:
    rest = frame[12 + 4 * pops :]
    for tpid, tci in pushes:
        rest = tpid.to_bytes(2, "big") + tci_on_wire(tci) + rest
    return frame[:12] + rest


def tci_on_wire(tci: int) -> bytes:
    """A tag's TCI; the bit that says there is a tag is the DEI bit on the wire, and not set there."""
    return (tci & 0xEFFF).to_bytes(2, "big")
