"""One frame at one host: what the twin's switch does with it beside what the real one says it would do.

One rule: look-ups are alike by table, priority and cookie, frames by where they leave; ofports may be numbered differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from ipaddress import ip_address
from typing import Any, NamedTuple

from ovsctl.datapath import Emitted, Passed, Tunnel
from vnet.compile import Source, Table
from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE
from vnet.probe.ofproto_trace_parser import UNRESOLVED, NotATrace, RealOutput, RealPass, RealStep, parse_trace
from vnet.sim.fabric import Arrival, Fabric
from vnet.sim.flow_origin import describe
from vnet.sim.host import SimHost

OUR_COOKIES = 0x766E


@dataclass(frozen=True, slots=True)
class Question:
    """What would this host's switch do with a frame? It comes in by a VIF (its id), or by a device (then vif is "").

    key, source, target: what it came out of a tunnel with; source is "" where it did not. tracked: what the connection tracker
    says of it each time that it is asked, as "est+rpl+trk": that is the twin's, for the switch has not seen the connection.
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
class Answer:
    """What ofproto/trace printed, and the VIF ids and names of the switch's ports. problem: why there is none, else empty."""

    text: str = ""
    vifs: Mapping[int, str] = field(default_factory=dict)
    devices: Mapping[int, str] = field(default_factory=dict)
    problem: str = ""


Ask = Callable[[Sequence[Question]], list[Answer]]


class Look(NamedTuple):
    """A look-up as twin and switch can be compared: by number of the table, and priority and cookie of the flow."""

    table: int
    priority: int
    cookie: int


class Out(NamedTuple):
    """Where a frame leaves br-int: a VIF's id or a device's name, and for a tunnel its key and the other end."""

    port: str
    key: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True)
class LiveHop:
    """A frame at one host, by the twin and by the switch. sender: the host that sent it here, "" for the first.

    problem: why the switch was not heard; differences: what is not alike; foreign: which flow of somebody else's does more with
    the frame than drop it, so that it might come to a guest past our tables. Rows of `steps`: the twin's look-up, the switch's, None for one that only the other made.
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


class Asked:
    """One frame at one host: what the twin's switch did with it and what the real one would. question: what to ask that."""

    answer: Answer

    def __init__(
        self, pool: Fabric, host: SimHost, arrival: Arrival, notes: list[Passed], emitted: list[Emitted], sender: str
    ) -> None:
        self.pool, self.host, self.arrival, self.emitted = pool, host, arrival, emitted
        self.twin = [
            Look(n.table, n.flow.priority, n.flow.cookie) if n.flow is not None else Look(n.table, -1, 0)
            for n in notes
            if n.table is not None
        ]
        self.outs = {self._out(one): one for one in emitted}
        vif, device = host.vif_at.get(arrival.port, ""), host.device_at.get(arrival.port, "")
        self.came_in = self._port_name(vif or device)
        self.question = _question(host.name, arrival, vif, device, tuple(n.tracked for n in notes if n.tracked))
        self.sender = sender

    def compare(self, answer: Answer) -> tuple[LiveHop, list[Emitted], list[Emitted]]:
        """The hop, which of the twin's frames really leave, and what leaves only really."""
        self.answer, problem = answer, answer.problem
        try:
            real = parse_trace(self.answer.text) if not problem else None
        except NotATrace as error:
            real, problem = None, f"{self.host.name}: {error}"
        if real is None:
            alone = tuple(_aligned(self.twin, [], self._says, self._says))
            sent = tuple(_aligned(list(self.outs), [], self._leaves, self._leaves))
            return LiveHop(self.host.name, self.came_in, alone, sent, (), (), problem, self.sender), self.emitted, []
        looks = [Look(step.table, step.priority, step.cookie) for step in real.steps]
        outs = [self._real_out(output) for output in real.outputs]
        carried = not (real.dropped and outs and self.outs)
        differences = [*self._unlike(looks, outs, real), *(() if carried else self._uncarried(real))]
        says = {look: self._says(look, step) for look, step in zip(looks, real.steps, strict=True)}
        steps = tuple(_aligned(self.twin, looks, self._says, lambda look: says[look]))
        sent = tuple(_aligned(list(self.outs), outs, self._leaves, self._leaves))
        unresolved = _unresolved(real)
        notes = (*real.warnings, *unresolved)
        foreign = self._foreign(real)
        hop = LiveHop(self.host.name, self.came_in, steps, sent, notes, tuple(differences), "", self.sender, foreign)
        goes = carried or bool(unresolved)
        kept = [one for out, one in self.outs.items() if goes and out in outs]
        return hop, kept, [one for out in outs if out not in self.outs for one in self._extra(out)]

    def _unlike(self, looks: list[Look], outs: list[Out], real: RealPass) -> Iterator[str]:
        """What is not alike, the first cause first. The order of copies of a flood says nothing: ofports decide it."""
        said: list[str] = []
        ours, theirs = Counter(self.twin) - Counter(looks), Counter(looks) - Counter(self.twin)
        mine = next((look for look in self.twin if look in ours), None)
        other = next((look for look in looks if look in theirs), None)
        if first := mine or other:
            said.append(self._by_twin(mine))
            said.append(self._by_switch(other, dict(zip(looks, real.steps, strict=True)), first.table))
        missing = [self._leaves(out) for out in self.outs if out not in outs]
        added = [self._leaves(out) for out in dict.fromkeys(outs) if out not in self.outs]
        if missing:
            said.append(f"only the twin sends to {' and '.join(missing)}")
        if added:
            said.append(f"only the switch sends to {' and '.join(added)}")
        if said:
            yield (f"{_table(first.table)}: " if first else "sends: ") + ", ".join(said)

    def _by_twin(self, look: Look | None) -> str:
        return f"the twin matches {self._says(look)}" if look is not None else "the twin does not come here"

    def _by_switch(self, look: Look | None, steps: Mapping[Look, RealStep], table: int) -> str:
        if look is None:
            return "the switch does not come here"
        where = f" in {_table(look.table)}" if look.table != table else ""
        end = ", which drops" if steps[look].actions == ("drop",) else ""
        return f"the switch matches{where} {self._says(look, steps[look])}{end}"

    def _uncarried(self, real: RealPass) -> list[str]:
        if _unresolved(real):
            return []
        why = f": {'; '.join(real.warnings)}" if real.warnings else ""
        return [f"sends by {' and '.join(map(self._leaves, self.outs))}, but its datapath drops the frame{why}"]

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
        vif, device = self.answer.vifs.get(output.port), self.answer.devices.get(output.port)
        if vif is None and device in ENCAPSULATION_OF_DEVICE:
            return Out(device, output.key, output.target)
        return Out(vif or device or f"port {output.port}")

    def _extra(self, out: Out) -> Iterator[Emitted]:
        """A frame that only the real switch sends, as it came in: what it would have rewritten is not known."""
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

    def _says(self, look: Look, step: RealStep | None = None) -> str:
        if look.priority < 0:
            return "no flow"
        source = self._sources().get(look.cookie)
        if source is not None:
            return f"priority {look.priority} of {describe(self.pool, source)}"
        if look.cookie >> 48 == OUR_COOKIES:
            return f"priority {look.priority} of something that the twin does not know (cookie {look.cookie:#x})"
        match = f" ({step.match or 'everything'})" if step is not None else ""
        return f"priority {look.priority} of a flow that is not ours{match}"

    def _sources(self) -> dict[int, Source]:
        return {flow.cookie: source for source, flows in self.host.compiled.items() for flow in flows[:1]}


def _question(host: str, arrival: Arrival, vif: str, device: str, tracked: tuple[str, ...]) -> Question:
    source, target = _ends(arrival.tunnel)
    key = arrival.tunnel.key if arrival.tunnel is not None else 0
    return Question(host, arrival.frame, vif, "" if vif else device, key, source, target, tracked)


def _ends(tunnel: Tunnel | None) -> tuple[str, str]:
    if tunnel is None:
        return "", ""
    return _address(tunnel.src, tunnel.ipv6), _address(tunnel.dst, tunnel.ipv6)


def _address(number: int, ipv6: bool) -> str:
    return str(ip_address(number.to_bytes(16 if ipv6 else 4, "big")))


def _unresolved(real: RealPass) -> list[str]:
    """Tunnels whose far end's MAC the host has to ask for: the first real packet is lost to that, later ones are not."""
    return [action.strip("-> ") for step in real.steps for action in step.actions if UNRESOLVED in action]


def _table(number: int) -> str:
    return Table(number).name if number in Table._value2member_map_ else f"table {number}"


def _aligned(
    twin: list[Any], real: list[Any], says_twin: Callable[[Any], str], says_real: Callable[[Any], str]
) -> Iterator[tuple[str | None, str | None]]:
    """Both lists as rows, what is the same in one row."""

    def text(items: list[Any], at: int, says: Callable[[Any], str]) -> str | None:
        if at >= len(items):
            return None
        item = items[at]
        return f"{item.table:>3} {_table(item.table):<9} {says(item)}" if isinstance(item, Look) else says(item)

    for _, i, j, k, n in SequenceMatcher(None, twin, real, autojunk=False).get_opcodes():
        for row in range(max(j - i, n - k)):
            yield text(twin[:j], i + row, says_twin), text(real[:n], k + row, says_real)
