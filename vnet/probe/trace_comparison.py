"""One frame at one host: the decisions of the twin's switch beside those of the real one, by ofproto/trace.

One rule: look-ups are equal by table, priority and cookie, frames by the port they leave through; ofports may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from ipaddress import ip_address
from typing import Any, NamedTuple

from ovsctl.datapath import Emitted, Passed, Tunnel
from vnet.compile import FlowSource, Table, flat
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE
from vnet.objects.encryption import in_first_plane
from vnet.probe.ofproto_trace_parser import UNRESOLVED, NotATrace, RealOutput, RealPass, RealStep, parse_trace
from vnet.sim.fabric import Arrival, Fabric
from vnet.sim.flow_origin import describe
from vnet.sim.host import SimHost

OUR_COOKIES = 0x766E


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A frame for ofproto/trace on a host. It enters through a VIF (its id), or through a device (then vif is "").

    key, source, target: of the tunnel that it came out of; source is "" without one. tracked: the connection state at each pass
    through the tracker, as "est+rpl+trk": the twin's, for the real switch has not seen the connection.
    """

    host: str
    frame: bytes
    vif: str = ""
    device: str = ""
    key: int = 0
    source: str = ""
    target: str = ""
    tracked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceReply:
    """The text of ofproto/trace, and the VIF ids and device names of the switch's ports. problem: the reason if there is none."""

    text: str = ""
    vifs: Mapping[int, str] = field(default_factory=dict)
    devices: Mapping[int, str] = field(default_factory=dict)
    problem: str = ""


Ask = Callable[[Sequence[TraceRequest]], list[TraceReply]]


class Look(NamedTuple):
    """A look-up by what is comparable: the table's number, the flow's priority and cookie."""

    table: int
    priority: int
    cookie: int


class Out(NamedTuple):
    """The port a frame leaves br-int through: a VIF's id or a device's name, with a tunnel's key and far end."""

    port: str
    key: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True)
class LiveHop:
    """A frame at one host, by the twin and by the real switch. sender: the host that sent it here, "" for the first.

    steps: look-ups side by side, None for one that only the other side made. problem: the reason if the switch did not answer.
    foreign: a flow that is not ours and does more with the frame than drop it, so that it might reach a guest past our tables.
    """

    host: str
    came_in: str
    steps: tuple[tuple[str | None, str | None], ...]
    sent: tuple[tuple[str | None, str | None], ...]
    notes: tuple[str, ...]
    differences: tuple[str, ...]
    problem: str = ""
    sender: str = ""
    foreign: str = ""


class HostComparison:
    """One frame at one host: the twin's decisions, and the request for the real switch's."""

    reply: TraceReply

    def __init__(
        self, pool: Fabric, host: SimHost, arrival: Arrival, notes: list[Passed], emitted: list[Emitted], sender: str
    ) -> None:
        self.pool, self.host, self.arrival, self.emitted = pool, host, arrival, emitted
        self.twin = [
            Look(n.table, n.flow.priority, n.flow.cookie) if n.flow is not None else Look(n.table, -1, 0)
            for n in notes
            if n.table is not None
        ]
        self.outs = {self._out(item): item for item in emitted}
        vif, device = host.vif_at.get(arrival.port, ""), host.device_at.get(arrival.port, "")
        self.came_in = self._port_name(vif or device)
        self.request = _request(host.name, arrival, vif, device, tuple(n.tracked for n in notes if n.tracked))
        self.sender = sender

    def compare(self, reply: TraceReply) -> tuple[LiveHop, list[Emitted], list[Emitted]]:
        """The hop, the twin's frames that really leave, and the frames that only the real switch sends."""
        self.reply, problem = reply, reply.problem
        try:
            real = parse_trace(self.reply.text) if not problem else None
        except NotATrace as error:
            real, problem = None, f"{self.host.name}: {error}"
        if real is None:
            alone = tuple(_aligned(self.twin, [], self._text, self._text))
            sent = tuple(_aligned(list(self.outs), [], self._leaves, self._leaves))
            return LiveHop(self.host.name, self.came_in, alone, sent, (), (), problem, self.sender), self.emitted, []
        looks = [Look(step.table, step.priority, step.cookie) for step in real.steps]
        outs = [self._real_out(output) for output in real.outputs]
        carried = not (real.dropped and outs and self.outs)
        differences = [*self._unlike(looks, outs, real), *(() if carried else self._uncarried(real))]
        texts = {look: self._text(look, step) for look, step in zip(looks, real.steps, strict=True)}
        steps = tuple(_aligned(self.twin, looks, self._text, lambda look: texts[look]))
        sent = tuple(_aligned(list(self.outs), outs, self._leaves, self._leaves))
        unresolved = _unresolved(real)
        notes = (*real.warnings, *unresolved)
        foreign = self._foreign(real)
        hop = LiveHop(self.host.name, self.came_in, steps, sent, notes, tuple(differences), "", self.sender, foreign)
        goes = carried or bool(unresolved)
        kept = [item for out, item in self.outs.items() if goes and out in outs]
        return hop, kept, [item for out in outs if out not in self.outs for item in self._extra(out)]

    def _unlike(self, looks: list[Look], outs: list[Out], real: RealPass) -> Iterator[str]:
        """The differences, the first cause first. The order of a flood's copies does not count: ofports decide it."""
        texts: list[str] = []
        ours, theirs = Counter(self.twin) - Counter(looks), Counter(looks) - Counter(self.twin)
        mine = next((look for look in self.twin if look in ours), None)
        other = next((look for look in looks if look in theirs), None)
        if first := mine or other:
            texts.append(self._by_twin(mine))
            texts.append(self._by_switch(other, dict(zip(looks, real.steps, strict=True)), first.table))
        missing = [self._leaves(out) for out in self.outs if out not in outs]
        added = [self._leaves(out) for out in dict.fromkeys(outs) if out not in self.outs]
        if missing:
            texts.append(f"only the twin sends to {' and '.join(missing)}")
        if added:
            texts.append(f"only the switch sends to {' and '.join(added)}")
        if texts:
            yield (f"{_table(first.table)}: " if first else "sends: ") + ", ".join(texts)

    def _by_twin(self, look: Look | None) -> str:
        return f"the twin matches {self._text(look)}" if look is not None else "the twin does not come here"

    def _by_switch(self, look: Look | None, steps: Mapping[Look, RealStep], table: int) -> str:
        if look is None:
            return "the switch does not come here"
        place = f" in {_table(look.table)}" if look.table != table else ""
        end = ", which drops" if steps[look].actions == ("drop",) else ""
        return f"the switch matches{place} {self._text(look, steps[look])}{end}"

    def _uncarried(self, real: RealPass) -> list[str]:
        if _unresolved(real):
            return []
        reason = f": {'; '.join(real.warnings)}" if real.warnings else ""
        return [f"sends by {' and '.join(map(self._leaves, self.outs))}, but its datapath drops the frame{reason}"]

    def _foreign(self, real: RealPass) -> str:
        for step in real.steps:
            ours = step.priority < 0 or step.cookie >> 48 == OUR_COOKIES
            if not ours and step.actions != ("drop",):
                return f"{self.host.name} {_table(step.table)} priority {step.priority} ({step.match or 'everything'})"
        return ""

    # Names

    def _out(self, emitted: Emitted) -> Out:
        port = self.host.vif_at.get(emitted.port) or self.host.device_at.get(emitted.port) or f"port {emitted.port}"
        tunnel = emitted.tunnel
        return Out(port, tunnel.key, _address(tunnel.dst, tunnel.ipv6)) if tunnel is not None else Out(port)

    def _real_out(self, output: RealOutput) -> Out:
        vif, device = self.reply.vifs.get(output.port), self.reply.devices.get(output.port)
        if vif is None and device in ENCAPSULATION_OF_DEVICE:
            # The twin's hosts send on one plane of WireGuard only.
            known = self.pool.state.pool
            target = in_first_plane(known.id if known is not None else "", output.target) if output.target else ""
            return Out(device, output.key, target)
        return Out(vif or device or f"port {output.port}")

    def _extra(self, out: Out) -> Iterator[Emitted]:
        """A frame that only the real switch sends, as it came in: its rewrites are not known."""
        port = self.host.ports.get(out.port) or self.host.devices.get(out.port)
        if port is not None:
            to = ip_address(out.target) if out.target else None
            yield Emitted(port, self.arrival.frame, Tunnel(out.key, 0, int(to), to.version == 6) if to else None)

    def _port_name(self, port: str) -> str:
        vif = self.pool.state.vifs.get(port)
        return self.pool.label(vif) if vif is not None else port

    def _leaves(self, out: Out) -> str:
        name = self._port_name(out.port)
        return f"{name} with key {out.key} to {out.target}" if out.target else name

    def _text(self, look: Look, step: RealStep | None = None) -> str:
        if look.priority < 0:
            return "no flow"
        source = self._sources().get(look.cookie)
        if source is not None:
            return f"priority {look.priority} of {describe(self.pool, source)}"
        if look.cookie >> 48 == OUR_COOKIES:
            return f"priority {look.priority} of something that the twin does not know (cookie {look.cookie:#x})"
        match = f" ({step.match or 'everything'})" if step is not None else ""
        return f"priority {look.priority} of a flow that is not ours{match}"

    def _sources(self) -> dict[int, FlowSource]:
        return {
            flow.cookie: source for source, found in self.host.compiled.items() for flow in flat({source: found})[:1]
        }


def _request(host: str, arrival: Arrival, vif: str, device: str, tracked: tuple[str, ...]) -> TraceRequest:
    source, target = _ends(arrival.tunnel)
    key = arrival.tunnel.key if arrival.tunnel is not None else 0
    return TraceRequest(host, arrival.frame, vif, "" if vif else device, key, source, target, tracked)


def _ends(tunnel: Tunnel | None) -> tuple[str, str]:
    if tunnel is None:
        return "", ""
    return _address(tunnel.src, tunnel.ipv6), _address(tunnel.dst, tunnel.ipv6)


def _address(number: int, ipv6: bool) -> str:
    return str(ip_address(number.to_bytes(16 if ipv6 else 4, "big")))


def _unresolved(real: RealPass) -> list[str]:
    """Tunnels whose far end's MAC the host has yet to resolve: that costs the first real packet only."""
    return [action.strip("-> ") for step in real.steps for action in step.actions if UNRESOLVED in action]


def _table(number: int) -> str:
    return Table(number).name if number in Table._value2member_map_ else f"table {number}"


def _aligned(
    twin: list[Any], real: list[Any], twin_text: Callable[[Any], str], real_text: Callable[[Any], str]
) -> Iterator[tuple[str | None, str | None]]:
    """Both lists as rows; equal items share a row."""

    def cell(items: list[Any], at: int, text: Callable[[Any], str]) -> str | None:
        if at >= len(items):
            return None
        item = items[at]
        return f"{item.table:>3} {_table(item.table):<9} {text(item)}" if isinstance(item, Look) else text(item)

    for _, i, j, k, n in SequenceMatcher(None, twin, real, autojunk=False).get_opcodes():
        for row in range(max(j - i, n - k)):
            yield cell(twin[:j], i + row, twin_text), cell(real[:n], k + row, real_text)
