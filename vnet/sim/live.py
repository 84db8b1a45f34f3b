"""The same question put to the twin and to the real switches: what each host's switch would do with the frames that come to it,
beside what the twin does with them.

One rule: where the real frame goes next is what the real switch says. What is between the hosts (the underlay, physical
switches, uplink bridges) is the twin's, for no switch of ours can be asked about that; and nothing is sent anywhere.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from ipaddress import ip_address
from typing import Any, NamedTuple

from vnet.compile import Source, Table
from vnet.model import Protocol
from vnet.sim.deliveries import Deliveries, Station
from vnet.sim.host import KIND_OF_DEVICE, SimHost
from vnet.sim.pool import Arrival, SimPool
from vnet.sim.real import UNRESOLVED, NotATrace, RealOutput, RealPass, RealStep, parse_trace
from vnet.sim.switch import Emitted
from vnet.sim.talk import Party, plan, reaches
from vnet.sim.trace import HOPS_MAX, describe
from vnet.sim.translate import Passed, Tunnel

OUR_COOKIES = 0x766E


@dataclass(frozen=True, slots=True)
class Question:
    """What would this host's switch do with a frame? It comes in by a VIF (its id), or by a device (then vif is "").

    key, source, target: what it came out of a tunnel with; source is "" where it did not.
    """

    host: str
    frame: bytes
    vif: str = ""
    device: str = ""
    key: int = 0
    source: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What ofproto/trace printed, and the VIF ids and names of the switch's ports. problem: why there is none, else empty."""

    text: str = ""
    vifs: Mapping[int, str] = field(default_factory=dict)
    devices: Mapping[int, str] = field(default_factory=dict)
    problem: str = ""


Ask = Callable[[Question], Answer]


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
    """A frame at one host, by the twin and by the switch. problem: why the switch was not heard; differences: what is not alike.

    Rows of `steps`: the twin's look-up, the switch's, None for one that only the other made.
    """

    host: str
    came_in: str
    steps: tuple[tuple[str | None, str | None], ...]
    sent: tuple[tuple[str | None, str | None], ...]
    notes: tuple[str, ...]
    differences: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LiveLeg:
    """One packet: the hosts it came to, who gets it by the twin, and who by the switches."""

    title: str
    hops: tuple[LiveHop, ...]
    twin: tuple[str, ...]
    real: tuple[str, ...]
    aside: bool = False

    @property
    def differences(self) -> list[str]:
        """Where twin and pool are not alike, each with its host."""
        return [f"{hop.host} {text}" for hop in self.hops for text in hop.differences]

    @property
    def problems(self) -> list[str]:
        """Which hosts were not heard, and why."""
        return [hop.problem for hop in self.hops if hop.problem]

    @property
    def verdict(self) -> str:
        """One line."""
        heard = f"{', '.join(self.real)} would get it" if self.real else "nobody would get it"
        if self.problems:
            heard = "; ".join(dict.fromkeys(self.problems))
        if not self.differences:
            return heard + ("" if self.problems else ", and the twin agrees")
        return f"{heard}; the twin: " + (f"delivered to {', '.join(self.twin)}" if self.twin else "delivered to nobody")


@dataclass(frozen=True, slots=True)
class LiveTrace:
    """A question's packets. reached: every switch was heard, and by what they say all of it arrives."""

    title: str
    legs: tuple[LiveLeg, ...]
    reached: bool
    twin_reached: bool

    @property
    def differences(self) -> list[str]:
        return [text for leg in self.legs for text in leg.differences]

    @property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(text for leg in self.legs for text in leg.problems))

    @property
    def agrees(self) -> bool:
        """Every switch was heard, and does what the twin does."""
        return not self.differences and not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "reached": self.reached,
            "twin": {"reached": self.twin_reached, "agrees": self.agrees},
            "differences": self.differences,
            "problems": self.problems,
            "legs": [_leg_dict(leg) for leg in self.legs],
        }

    def render(self, full: bool = False) -> str:
        """For people, twin and switch side by side. Of packets that only help, and did, one line; with `full` every step."""
        return "\n".join(_render(self, full))

    def __str__(self) -> str:
        return self.render()


def _leg_dict(leg: LiveLeg) -> dict[str, Any]:
    hops = [
        {
            "host": hop.host,
            "in": hop.came_in,
            "steps": [{"twin": twin, "switch": real} for twin, real in hop.steps],
            "sent": [{"twin": twin, "switch": real} for twin, real in hop.sent],
            "notes": list(hop.notes),
            "differences": list(hop.differences),
            "problem": hop.problem,
        }
        for hop in leg.hops
    ]
    return {"title": leg.title, "verdict": leg.verdict, "twin": list(leg.twin), "real": list(leg.real), "hops": hops}


# Asking


def trace_live(
    pool: SimPool, ask: Ask, source: Party, target: Party, protocol: Protocol = Protocol.ICMP, port: int = 0
) -> LiveTrace:
    """Every packet of a conversation, to the first that does not arrive. Raises NotPlugged."""
    what = f"{protocol.value} {port}" if port else "ping"
    title = f"{source.name} to {target.name}, {what}"
    packets = plan(source, target, protocol, port)
    if not packets:
        return LiveTrace(f"{title}: they have no IP version in common", (), False, False)
    with pool.undone():
        twin = reaches(pool, source, target, protocol, port)
    legs: list[LiveLeg] = []
    with pool.undone():
        for name, sender, receiver, frame in packets:
            leg = _follow(pool, ask, sender.where, frame, name, aside=not name.startswith(what))
            legs.append(leg)
            if receiver.delivery not in leg.real or leg.problems:
                return LiveTrace(title, tuple(legs), False, twin)
    return LiveTrace(title, tuple(legs), True, twin)


def frame_live(pool: SimPool, ask: Ask, source: str, target: str | None, frame: bytes) -> LiveTrace:
    """One frame's way from a VIF; it has to reach the target, or with None anybody."""
    with pool.undone():
        leg = _follow(pool, ask, source, frame, f"packet of {len(frame)} bytes from {source}")
    wanted = pool.label(pool.vif(target)) if target is not None else None
    real, twin = ((wanted in got if wanted is not None else bool(got)) for got in (leg.real, leg.twin))
    return LiveTrace(f"{source} to {target or 'anyone'}", (leg,), real and not leg.problems, twin)


class _Way(NamedTuple):
    """An arrival, and whether the twin and the real switches bring the frame there."""

    arrival: Arrival
    twin: bool
    real: bool


def _follow(pool: SimPool, ask: Ask, source: str | Station, frame: bytes, title: str, aside: bool = False) -> LiveLeg:
    hosts = {host.bridge: host for host in pool.hosts.values()}
    waiting = deque((_Way(pool.entrance(source, frame), True, True),))
    hops: list[LiveHop] = []
    twin: list[str] = []
    real: list[str] = []
    for _ in range(HOPS_MAX):
        if not waiting:
            break
        arrival, by_twin, by_real = waiting.popleft()
        notes, emitted = arrival.switch.trace(arrival.frame, arrival.port, arrival.tunnel)
        ways = [(one, by_twin, by_real) for one in emitted]
        host = hosts.get(arrival.switch)
        if host is not None and by_real:
            hop, kept, extra = _Asked(pool, ask, host, arrival, notes, emitted).compare()
            hops.append(hop)
            ways = [(one, by_twin, one in kept) for one in emitted] + [(one, False, True) for one in extra]
        for one, twin_too, real_too in ways:
            following, got = pool.follow(arrival, one)
            _note(got, twin if twin_too else None, real if real_too else None)
            if following is not None:
                waiting.append(_Way(following, twin_too, real_too))
    return LiveLeg(title, tuple(hops), tuple(sorted(twin)), tuple(sorted(real)), aside)


def _note(got: Deliveries, *lists: list[str] | None) -> None:
    for names in lists:
        if names is not None:
            names.extend(got.to)


class _Asked:
    """One frame at one host: what the twin's switch did with it and what the real one would."""

    def __init__(
        self, pool: SimPool, ask: Ask, host: SimHost, arrival: Arrival, notes: list[Passed], emitted: list[Emitted]
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
        self.answer = ask(_question(host.name, arrival, vif, device))

    def compare(self) -> tuple[LiveHop, list[Emitted], list[Emitted]]:
        """The hop, which of the twin's frames really leave, and what leaves only really."""
        problem = self.answer.problem
        try:
            real = parse_trace(self.answer.text) if not problem else None
        except NotATrace as error:
            real, problem = None, f"{self.host.name}: {error}"
        if real is None:
            alone = tuple(_aligned(self.twin, [], self._says, self._says))
            sent = tuple(_aligned(list(self.outs), [], self._leaves, self._leaves))
            return LiveHop(self.host.name, self.came_in, alone, sent, (), (), problem), self.emitted, []
        looks = [Look(step.table, step.priority, step.cookie) for step in real.steps]
        outs = [self._real_out(output) for output in real.outputs]
        carried = not (real.dropped and outs and self.outs)
        differences = [*self._unlike(looks, outs, real), *(() if carried else self._uncarried(real))]
        says = {look: self._says(look, step) for look, step in zip(looks, real.steps, strict=True)}
        steps = tuple(_aligned(self.twin, looks, self._says, lambda look: says[look]))
        sent = tuple(_aligned(list(self.outs), outs, self._leaves, self._leaves))
        unresolved = _unresolved(real)
        notes = (*real.warnings, *unresolved)
        hop = LiveHop(self.host.name, self.came_in, steps, sent, notes, tuple(differences))
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

    # Names

    def _out(self, emitted: Emitted) -> Out:
        port = self.host.vif_at.get(emitted.port) or self.host.device_at.get(emitted.port) or f"port {emitted.port}"
        tunnel = emitted.tunnel
        return Out(port, tunnel.key, _address(tunnel.dst, tunnel.ipv6)) if tunnel is not None else Out(port)

    def _real_out(self, output: RealOutput) -> Out:
        vif, device = self.answer.vifs.get(output.port), self.answer.devices.get(output.port)
        if vif is None and device in KIND_OF_DEVICE:
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


def _question(host: str, arrival: Arrival, vif: str, device: str) -> Question:
    source, target = _ends(arrival.tunnel)
    key = arrival.tunnel.key if arrival.tunnel is not None else 0
    return Question(host, arrival.frame, vif, "" if vif else device, key, source, target)


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


# For people


def _render(trace: LiveTrace, full: bool) -> Iterator[str]:
    yield f"{trace.title}: {'reached' if trace.reached else 'NOT reached'} by what the hosts' switches say"
    yield from (f"  twin and pool disagree: {text}" for text in trace.differences)
    yield from (f"  not heard: {text}" for text in trace.problems)
    for leg in trace.legs:
        yield ""
        yield f"{leg.title}: {leg.verdict}"
        if leg.aside and not full and not leg.differences and (trace.reached or leg is not trace.legs[-1]):
            continue
        for hop in leg.hops:
            yield from _render_hop(hop)


def _render_hop(hop: LiveHop) -> Iterator[str]:
    yield f"  {hop.host}, in by {hop.came_in}"
    if hop.problem:
        yield f"      not heard: {hop.problem}"
        return
    sent = hop.sent or (("dropped", "dropped"),)
    rows = [*hop.steps, *((f"    => {a or 'dropped'}", f"    => {b or 'dropped'}") for a, b in sent)]
    width = max(len(twin or "") for twin, _ in rows)
    for twin, real in rows:
        if twin == real:
            yield f"    = {twin}"
        else:
            yield f"    ! {twin or '':<{width}} | {real or ''}"
    yield from (f"      the switch says: {note}" for note in hop.notes)
