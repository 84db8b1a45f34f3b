"""Live traces: a conversation's way by the real switches of the running pool, beside the twin's; `packet_injection` sends it.

One rule: the real switch of a host decides where a frame goes next. Between hosts the twin decides (the underlay, physical
switches, uplink bridges), for ofproto/trace ends there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ovsctl.datapath import Passed
from vnet.compile import Category, Table, cookie
from vnet.objects import Protocol
from vnet.objects.mirror import TRANSPORT
from vnet.probe.trace_comparison import Ask, HostComparison, LiveHop, TraceReply, TraceRequest
from vnet.sim.conversation import Party, plan, reaches, talk_of, title_of
from vnet.sim.deliveries import Deliveries, Station
from vnet.sim.errors import NotPlugged
from vnet.sim.fabric import Arrival
from vnet.sim.packets import CLIENT_PORT, Part
from vnet.sim.pool import SimPool
from vnet.sim.trace import HOPS_MAX, NO_COMMON_VERSION

MAX_ASKED = 128  # requests that go together


class PacketSighting(NamedTuple):
    """A marked packet seen on a host. port: the port it came in by, or the VIF that it would have reached."""

    host: str
    port: str


@dataclass(frozen=True, slots=True)
class SentPacket:
    """The fate of a leg's packet. refusal: the reason if none was sent; lost: the place of a loss, both "" without.

    differences: from what the switches said.
    """

    refusal: str = ""
    came: tuple[PacketSighting, ...] = ()
    caught: tuple[PacketSighting, ...] = ()
    lost: str = ""
    differences: tuple[str, ...] = ()

    @property
    def to(self) -> list[str]:
        """The VIFs that it would have reached, had it not been caught."""
        return sorted({sighting.port for sighting in self.caught})


@dataclass(frozen=True, slots=True)
class LiveLeg:
    """One packet: the hosts it passes, its receivers by the twin and by the real switches, and its fate when it was sent.

    source, target: VIFs, "" for outside; a target of None stands for any receiver.
    """

    title: str
    frame: bytes
    source: str
    target: str | None
    hops: tuple[LiveHop, ...]
    twin: tuple[str, ...]
    real: tuple[str, ...]
    aside: bool = False
    sent: SentPacket | None = None

    @property
    def differences(self) -> list[str]:
        """The differences between twin, switches and packet, each with its host."""
        found = [f"{hop.host} {text}" for hop in self.hops for text in hop.differences]
        return found + [f"packet: {text}" for text in (self.sent.differences if self.sent is not None else ())]

    @property
    def problems(self) -> list[str]:
        """The hosts that did not answer, with the reasons."""
        return [hop.problem for hop in self.hops if hop.problem]

    @property
    def verdict(self) -> str:
        """One line."""
        text = f"{', '.join(self.real)} would get it" if self.real else "nobody would get it"
        if self.problems:
            text = "; ".join(dict.fromkeys(self.problems))
        if any(hop.differences for hop in self.hops):
            text += "; the twin: delivered to " + (", ".join(self.twin) or "nobody")
        elif not self.problems:
            text += ", and the twin agrees"
        return text + (f"; {self._packet}" if self._packet else "")

    @property
    def _packet(self) -> str:
        if self.sent is None:
            return ""
        if self.sent.refusal:
            return f"no packet was sent: {self.sent.refusal}"
        came = f"the packet came to {', '.join(self.sent.to)}" if self.sent.to else ""
        lost = f"the packet was lost: {self.sent.lost}" if self.sent.lost else ""
        return "; ".join(filter(None, (came, lost)))


@dataclass(frozen=True, slots=True)
class LiveTrace:
    """The packets of a conversation. reached: every switch answered, by their answers all packets arrive, and so did those sent.

    reset: the frame that ends the tracked connection, empty for none. silent: the hosts that did not watch, with the reasons.
    """

    title: str
    legs: tuple[LiveLeg, ...]
    reached: bool
    twin_reached: bool
    reset: bytes = b""
    silent: tuple[str, ...] = ()

    @property
    def differences(self) -> list[str]:
        return [text for leg in self.legs for text in leg.differences]

    @property
    def problems(self) -> list[str]:
        return list(dict.fromkeys((*(text for leg in self.legs for text in leg.problems), *self.silent)))

    @property
    def agrees(self) -> bool:
        """Whether every switch answered and decides as the twin does."""
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

    @property
    def basis(self) -> str:
        """The sources of the verdict."""
        if any(leg.sent is not None and not leg.sent.refusal for leg in self.legs):
            return "by the hosts' switches and by packets that were sent"
        return "by the hosts' switches"

    def render(self, full: bool = False) -> str:
        """For people, twin and switch side by side. A packet that only helps, and arrived, takes one line; with `full` every step."""
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
    found: dict[str, Any] = {"title": leg.title, "verdict": leg.verdict, "twin": list(leg.twin), "real": list(leg.real)}
    return found | {"packet": _sent_dict(leg.sent) if leg.sent is not None else None, "hops": hops}


def _sent_dict(sent: SentPacket) -> dict[str, Any]:
    came, caught = (
        [{"host": sighting.host, "where": sighting.port} for sighting in sightings]
        for sightings in (sent.came, sent.caught)
    )
    return {"sent": not sent.refusal, "why": sent.refusal, "came": came, "caught": caught, "lost": sent.lost}


# Asking


Asking = Generator[TraceRequest, TraceReply, LiveTrace]  # yields requests, is sent replies


def answered(pool: SimPool, ask: Ask, asking: Iterable[Asking]) -> list[LiveTrace | NotPlugged]:
    """Run these side by side: requests of the same time go out together, and no request twice."""
    known: dict[TraceRequest, TraceReply] = {}
    found: dict[int, LiveTrace | NotPlugged] = {}
    going = dict(enumerate(asking))
    waiting: dict[int, TraceRequest] = {}

    def step(number: int, reply: TraceReply | None) -> None:
        try:
            waiting[number] = next(going[number]) if reply is None else going[number].send(reply)
        except StopIteration as end:
            found[number] = end.value
        except NotPlugged as error:
            found[number] = error

    with pool.undone():
        for number in going:
            step(number, None)
        while waiting:
            new = [request for request in dict.fromkeys(waiting.values()) if request not in known]
            for at in range(0, len(new), MAX_ASKED):
                some = new[at : at + MAX_ASKED]
                known.update(zip(some, ask(some), strict=True))
            for number, request in [(number, waiting.pop(number)) for number in list(waiting)]:
                step(number, known[request])
    return [found[number] for number in sorted(found)]


def conversation(
    pool: SimPool,
    source: Party,
    target: Party,
    protocol: Protocol = Protocol.ICMP,
    port: int = 0,
    source_port: int = CLIENT_PORT,
) -> Asking:
    """Every packet of a conversation, up to the first that does not arrive. Raises NotPlugged."""
    title = title_of(source, target, protocol, port)
    if isinstance(target.endpoint, str) and not pool.is_plugged(pool.vif(target.endpoint)):
        title += f" (no host has a port of {target.name})"
    talk = talk_of(source, target, protocol, port, source_port)
    if talk is None:
        return LiveTrace(f"{title}: {NO_COMMON_VERSION}", (), False, False)
    with pool.undone():
        twin = reaches(pool, source, target, protocol, port)
    reset = talk.frame(Part.RESET) if protocol is Protocol.TCP else b""
    legs: list[LiveLeg] = []
    for packet in plan(source, target, protocol, port, source_port):
        receiver = packet.receiver.endpoint
        ends = packet.sender.endpoint, receiver if isinstance(receiver, str) else ""
        leg = yield from _follow(pool, *ends, packet.frame, packet.title, packet.aside)
        legs.append(leg)
        if packet.receiver.delivery not in leg.real or leg.problems:
            return LiveTrace(title, tuple(legs), False, twin, reset)
    return LiveTrace(title, tuple(legs), True, twin, reset)


def one_frame(pool: SimPool, source: str, target: str | None, frame: bytes) -> Asking:
    """One frame's way from a VIF; it has to reach the target, or with None any receiver."""
    wanted = pool.label(pool.vif(target)) if target is not None else None
    title = f"packet of {len(frame)} bytes from {source}"
    leg = yield from _follow(pool, pool.label(pool.vif(source)), wanted, frame, title)
    real, twin = ((wanted in got if wanted is not None else bool(got)) for got in (leg.real, leg.twin))
    return LiveTrace(f"{source} to {target or 'anyone'}", (leg,), real and not leg.problems, twin)


class _Way(NamedTuple):
    """An arrival, whether the twin and the real switches bring the frame there, and the host that sent it."""

    arrival: Arrival
    twin: bool
    real: bool
    sender: str


def _follow(
    pool: SimPool, source: str | Station, target: str | None, frame: bytes, title: str, aside: bool = False
) -> Generator[TraceRequest, TraceReply, LiveLeg]:
    waiting = deque((_Way(pool.entrance(source, frame), True, True, ""),))
    hops: list[LiveHop] = []
    twin: list[str] = []
    real: list[str] = []
    for _ in range(HOPS_MAX):
        if not waiting:
            break
        arrival, by_twin, by_real, sender = waiting.popleft()
        notes: list[Passed] = []
        emitted = pool.forward(arrival, notes)
        ways = [(item, by_twin, by_real) for item in emitted]
        host = pool.host_of(arrival.switch)
        if host is not None and by_real:
            comparison = HostComparison(pool, host, arrival, notes, emitted, sender)
            hop, kept, extra = comparison.compare((yield comparison.request))
            hops.append(hop)
            ways = [(item, by_twin, item in kept) for item in emitted] + [(item, False, True) for item in extra]
        copies = _copies(pool, notes)
        for item, twin_too, real_too in ways:
            following, got = pool.follow(arrival, item)
            if _is_copy(pool, following, got, copies):
                continue
            _note(got, twin if twin_too else None, real if real_too else None)
            if following is not None:
                waiting.append(_Way(following, twin_too, real_too, host.name if host is not None else sender))
    source = source if isinstance(source, str) else ""
    return LiveLeg(title, frame, source, target, tuple(hops), tuple(sorted(twin)), tuple(sorted(real)), aside)


def _copies(pool: SimPool, notes: list[Passed]) -> list[str]:
    """The targets of mirrors to which a bridge hands a copy itself."""
    found = []
    for mirror in pool.state.mirrors.values():
        vif = pool.state.vifs.get(mirror.target or "")
        mark = cookie(Category.MIRROR, mirror.name)
        handed = [n for n in notes if n.table == Table.MIRROR_HERE and n.flow is not None and n.flow.cookie == mark]
        found += [pool.label(vif) for note in handed if vif is not None and note.flow is not None and note.flow.actions]
    return found


def _is_copy(pool: SimPool, following: Arrival | None, got: Deliveries, copies: list[str]) -> bool:
    """Whether a frame that left is a mirror's copy. A packet that is sent has none: it is for no guest but its receiver."""
    mirrors = pool.state.mirrors.values()
    if following is not None and following.tunnel is not None:
        device = following.switch.port_name(following.port)
        return device == TRANSPORT.device and any(it.key == following.tunnel.key for it in mirrors)
    if any(name == str(it.to) for name in got.to for it in mirrors if it.target is None):
        return True
    copied = next((name for name in got.to if name in copies), None)
    if copied is not None:
        copies.remove(copied)
    return copied is not None


def _note(got: Deliveries, *lists: list[str] | None) -> None:
    for names in lists:
        if names is not None:
            names.extend(got.to)


# For people


def _render(trace: LiveTrace, full: bool) -> Iterator[str]:
    yield f"{trace.title}: {'reached' if trace.reached else 'NOT reached'} {trace.basis}"
    yield from (f"  twin and pool disagree: {text}" for text in trace.differences)
    yield from (f"  not heard: {text}" for text in trace.problems)
    for leg in trace.legs:
        yield ""
        yield f"{leg.title}: {leg.verdict}"
        if leg.aside and not full and not leg.differences and (trace.reached or leg is not trace.legs[-1]):
            continue
        for hop in leg.hops:
            yield from _render_hop(hop)
            if leg.sent is not None and not leg.sent.refusal:
                yield f"      the packet {_seen(leg.sent, hop.host)}"


def _seen(sent: SentPacket, host: str) -> str:
    came = [f"came in by {sighting.port}" for sighting in sent.came if sighting.host == host]
    got = [sighting.port for sighting in sent.caught if sighting.host == host]
    return "; ".join(
        (*(came or ["was not seen here"]), *([f"was caught on its way to {', '.join(got)}"] if got else []))
    )


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
