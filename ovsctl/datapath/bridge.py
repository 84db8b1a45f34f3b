"""A bridge that forwards frames in memory.

One rule: a packet is translated as Open vSwitch translates it, and the result is cached under the bits that it depended on,
so that a cached result equals a new translation. Every change of the OpenFlow state empties the cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ovsctl.datapath import flow_key as at
from ovsctl.datapath.commit_headers import write_headers
from ovsctl.datapath.conntrack import Tracker
from ovsctl.datapath.flow_extract import FRAG_LATER, check_frame, extract
from ovsctl.datapath.meters import TokenBucketMeter
from ovsctl.datapath.ofproto import EmulatedPort, Ofproto
from ovsctl.datapath.xlate import (
    AGAIN,
    BUCKET,
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
from ovsctl.openflow import Action, Flow, Group, Meter, ToController
from ovsctl.openflow.fields import CT_STATE_BITS
from ovsctl.openflow.messages import FragmentHandling

CACHE_MAX = 65536  # translations; a flood of ever new packets must not fill the memory
PACKET_INS_MAX = 1024
RECIRCULATIONS_MAX = 64
_CT_PORTS = at.SLOTS["ct_tp_src"].mask | at.SLOTS["ct_tp_dst"].mask


class Emitted(NamedTuple):
    """A frame that left through a port; `tunnel` is its encapsulation, if any."""

    port: int
    frame: bytes
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class PuntedFrame:
    """A frame that was sent to the controller."""

    frame: bytes
    in_port: int
    action: ToController
    table: int
    cookie: int
    metadata: int
    tun_src: int = 0  # of the tunnel that it came out of, over IPv4 or IPv6


class Learned(NamedTuple):
    """All that packets change in a bridge."""

    macs: dict[tuple[int, int], int]
    flows: dict[object, Flow]
    tracker: Tracker
    punted: tuple[PuntedFrame, ...]
    meters: dict[int, TokenBucketMeter]


_Cache = dict[object, list[tuple[int, dict[int, tuple[Op, ...]]]]]


class EmulatedBridge(Ofproto):
    """A bridge with its datapath: the connection tracker, the cache of translations, and the frames for the controller."""

    def __init__(
        self,
        flows: Iterable[Flow] = (),
        *,
        ports: Mapping[int, EmulatedPort] | None = None,
        groups: Iterable[Group] = (),
        meters: Iterable[Meter] = (),
        name: str = "br0",
        fragments: FragmentHandling = FragmentHandling.NORMAL,
    ) -> None:
        self.tracker = Tracker()
        self.punted: deque[PuntedFrame] = deque(maxlen=PACKET_INS_MAX)
        self._cache: _Cache = {}
        self._cached = 0
        self._extracted: tuple[bytes, int] = (b"", 0)
        self._now_us = 0
        super().__init__(flows, ports=ports, groups=groups, meters=meters, name=name, fragments=fragments)

    def changed(self) -> None:
        """Empty the cache."""
        super().changed()
        self._cache.clear()
        self._cached = 0

    def snapshot(self) -> Learned:
        """A copy of all that packets change."""
        meters = {number: meter.copy() for number, meter in self.meters.items()}
        return Learned(dict(self.macs), dict(self.learned), self.tracker.copy(), tuple(self.punted), meters)

    def restore(self, before: Learned) -> None:
        """Return to a snapshot, which is used up."""
        self.tracker = before.tracker
        # The flows, and the meters with them, may have been loaded since the snapshot.
        self.meters = {
            number: before.meters.get(number) or TokenBucketMeter(meter.meter) for number, meter in self.meters.items()
        }
        self.punted = deque(before.punted, PACKET_INS_MAX)
        self.restore_learned(before.macs, before.flows)

    def receive(
        self,
        frame: bytes,
        in_port: int,
        tunnel: Tunnel | None = None,
        now_us: int = 0,
        notes: list[Passed] | None = None,
    ) -> list[Emitted]:
        """The frames that leave when a frame comes in. now_us: the time for meters.

        `notes` collects every step of the way; such a packet is translated anew. Raises FrameError, UnsupportedFlowError.
        """
        check_frame(frame)
        self._now_us = now_us
        key = self._key(frame) | in_port << at.IN_PORT.shift
        if tunnel is not None:
            key |= tunnel_bits(tunnel)
        emitted: list[Emitted] = []
        self._pass(START, key, frame, emitted, 0, notes)
        return emitted

    def packet_out(
        self, frame: bytes, in_port: int, actions: Sequence[Action], now_us: int = 0, notes: list[Passed] | None = None
    ) -> list[Emitted]:
        """The frames that leave when the controller sends one through `actions`, as if it had come in by `in_port`."""
        check_frame(frame)
        self._now_us = now_us
        translation = Translation(self, self._key(frame) | (in_port & 0xFFFF) << at.IN_PORT.shift, notes)
        translation.run(START, actions)
        emitted: list[Emitted] = []
        self._execute(tuple(translation.ops), START, frame, emitted, 0, notes)
        return emitted

    def _pass(
        self,
        start: Resume,
        key: int,
        frame: bytes,
        emitted: list[Emitted],
        rounds: int,
        notes: list[Passed] | None,
    ) -> None:
        if notes is None:
            known = self._cache.get(start.identity)
            if known is not None:
                for mask, results in known:
                    ops = results.get(key & mask)
                    if ops is not None:
                        self._execute(ops, start, frame, emitted, rounds, None)
                        return
        version = self.version
        translation = Translation(self, key, notes)
        translation.run(start)
        ops = tuple(translation.ops)
        if version == self.version:
            # A packet that changed the tables on its way was translated with some of both.
            self._remember(start.identity, key, translation.seen, ops)
        self._execute(ops, start, frame, emitted, rounds, notes)

    def _remember(self, identity: object, key: int, seen: int, ops: tuple[Op, ...]) -> None:
        if self._cached >= CACHE_MAX:
            self._cache.clear()
            self._cached = 0
        known = self._cache.setdefault(identity, [])
        self._cached += 1
        for mask, results in known:
            if mask == seen:
                results[key & seen] = ops
                return
        known.append((seen, {key & seen: ops}))

    def _execute(
        self,
        ops: tuple[Op, ...],
        start: Resume,
        frame: bytes,
        emitted: list[Emitted],
        rounds: int,
        notes: list[Passed] | None,
    ) -> bool:
        """Run operations on a frame that started at `start`. False if a meter dropped it: nothing after that is done."""
        for place, op in enumerate(ops):
            do = op[0]
            if do == OUTPUT:
                most = op[3]
                emitted.append(Emitted(op[1], frame[:most] if most else frame, op[2]))
            elif do == WRITE:
                frame = write_headers(frame, *op[1:])
            elif do == VLAN:
                frame = _retag(frame, op[1], op[2])
            elif do == CLONE:
                self._execute(op[1], start, frame, emitted, rounds, notes)
            elif do == BUCKET:
                if not self._execute(op[1], start, frame, emitted, rounds, notes):
                    return False
            elif do == TRACK:
                frames = self._track(op[1], start, frame, emitted, rounds, notes)
                if len(frames) != 1:  # a fragment waits for the others, or the last one brings them along
                    for part in frames:
                        self._execute(ops[place + 1 :], start, part, emitted, rounds, notes)
                    return True
                frame = frames[0]
            elif do == LEARN:
                self.learn(op[1], op[2])
            elif do == LEARN_MAC:
                self.learn_mac(*op[1:])
            elif do == METER:
                if not self.meters[op[1]].admits(len(frame), self._now_us):
                    if notes is not None:
                        notes.append(Passed(0, f"dropped by meter {op[1]}"))
                    return False
            elif do == AGAIN:
                resume = op[1]
                if rounds < RECIRCULATIONS_MAX:
                    self._pass(resume, self._key(frame) | resume.carried, frame, emitted, rounds + 1, notes)
            elif do == PACKET_IN:
                self._punt(frame, *op[1:])
        return True

    def _punt(self, frame: bytes, action: ToController, table: int, cookie: int, rest: int) -> None:
        in_port, metadata = at.IN_PORT.get(rest), at.SLOTS["metadata"].get(rest)
        source = at.TUN_SRC.get(rest) or at.TUN_IPV6_SRC.get(rest)
        self.punted.append(PuntedFrame(frame[: action.max_len], in_port, action, table, cookie, metadata, source))

    def _key(self, frame: bytes) -> int:
        """The key of a frame by itself. The same frame is looked at several times on its way."""
        if frame is not self._extracted[0]:
            self._extracted = frame, extract(frame, 0)
        return self._extracted[1]

    def _track(
        self,
        tracking: Tracking,
        start: Resume,
        frame: bytes,
        emitted: list[Emitted],
        rounds: int,
        notes: list[Passed] | None,
    ) -> list[bytes]:
        """The frames that go on; a copy of each resumes where the action says."""
        tracked = self.tracker.track(frame, self._key(frame), tracking.action, tracking.zone, start, self._now_us)
        resume = tracking.resume
        if notes is not None and not tracked:
            notes.append(Passed(0, "tracked: waits for the other fragments of its packet"))
        if resume is not None and rounds < RECIRCULATIONS_MAX:
            for going, fields in tracked:
                if notes is not None:
                    state = _state(fields)
                    notes.append(Passed(0, f"tracked: {state}", tracked=state))
                key = self._key(going) | resume.carried | fields
                if at.NW_FRAG.get(key) & FRAG_LATER:
                    key &= ~_CT_PORTS  # miniflow_extract keeps them for packets with a transport header only
                self._pass(resume, key, going, emitted, rounds + 1, notes)
        return [going for going, _ in tracked]


def tunnel_bits(tunnel: Tunnel) -> int:
    """The key's fields of the tunnel that a frame came out of."""
    src, dst = (at.TUN_IPV6_SRC, at.TUN_IPV6_DST) if tunnel.ipv6 else (at.TUN_SRC, at.TUN_DST)
    return tunnel.key << at.TUN_ID.shift | tunnel.src << src.shift | tunnel.dst << dst.shift


def _state(fields: int) -> str:
    state = at.CT_STATE.get(fields)
    return "+".join(name for n, name in enumerate(CT_STATE_BITS) if state >> n & 1)


def _retag(frame: bytes, pops: int, pushes: tuple[tuple[int, int], ...]) -> bytes:
    rest = frame[12 + 4 * pops :]
    for tpid, tci in pushes:
        rest = tpid.to_bytes(2, "big") + tci_on_wire(tci) + rest
    return frame[:12] + rest


def tci_on_wire(tci: int) -> bytes:
    """A tag's TCI; the key's bit for "tagged" is the DEI bit on the wire, and not set there."""
    return (tci & 0xEFFF).to_bytes(2, "big")
