"""The same question put to the twin, to the real switches, and to real packets: what each host's switch would do with the frames
that come to it, beside what the twin does with them; what became of the packets is added by `sending.py`.

One rule: where the real frame goes next is what the real switch says. What is between the hosts (the underlay, physical
switches, uplink bridges) is the twin's here, for no switch of ours can be asked about that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ovsctl.datapath import Passed
from vnet.objects import Protocol
from vnet.probe.trace_comparison import Answer, Ask, Asked, LiveHop, Question
from vnet.sim.conversation import Party, plan, reaches, talk_of, title_of
from vnet.sim.deliveries import Deliveries, Station
from vnet.sim.errors import NotPlugged
from vnet.sim.fabric import Arrival
from vnet.sim.packets import CLIENT_PORT, Part
from vnet.sim.pool import SimPool
from vnet.sim.trace import HOPS_MAX

__all__ = [
    "Answer", "Ask", "Asking", "Came", "LiveHop", "LiveLeg", "LiveTrace", "Question", "Sent", "answered", "conversation",
    "one_frame",
]  # fmt: skip

MAX_ASKED = 128  # questions that go together


class Came(NamedTuple):
    """A marked packet at a host. where: the port it came in by, or what the VIF that would have got it is called."""

    host: str
    where: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a leg's packet. why: why none was sent, "" where one was; lost: where it got lost, "" if it did not.

    differences: what is not as the switches said.
    """

    why: str = ""
    came: tuple[Came, ...] = ()
    caught: tuple[Came, ...] = ()
    lost: str = ""
    differences: tuple[str, ...] = ()

    @property
    def to(self) -> list[str]:
        """Who would have got it, had it not been caught."""
        return sorted({came.where for came in self.caught})


@dataclass(frozen=True, slots=True)
class LiveLeg:
    """One packet: the hosts it came to, who gets it by the twin, who by the switches, and what became of it when it was sent.

    source, target: the VIF that sends it and the one it is for, "" where that is outside; target is None where anybody will do.
    """

    title: str
    frame: bytes
    source: str
    target: str | None
    hops: tuple[LiveHop, ...]
    twin: tuple[str, ...]
    real: tuple[str, ...]
    aside: bool = False
    sent: Sent | None = None

    @property
    def differences(self) -> list[str]:
        """Where twin, switches and packet are not alike, each with its host."""
        said = [f"{hop.host} {text}" for hop in self.hops for text in hop.differences]
        return said + [f"packet: {text}" for text in (self.sent.differences if self.sent is not None else ())]

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
        if any(hop.differences for hop in self.hops):
            said = f"{heard}; the twin: " + (
                f"delivered to {', '.join(self.twin)}" if self.twin else "delivered to nobody"
            )
        else:
            said = heard + ("" if self.problems else ", and the twin agrees")
        return said + (f"; {self._packet}" if self._packet else "")

    @property
    def _packet(self) -> str:
        if self.sent is None:
            return ""
        if self.sent.why:
            return f"no packet was sent: {self.sent.why}"
        came = f"the packet came to {', '.join(self.sent.to)}" if self.sent.to else ""
        lost = f"the packet was lost: {self.sent.lost}" if self.sent.lost else ""
        return "; ".join(filter(None, (came, lost)))


@dataclass(frozen=True, slots=True)
class LiveTrace:
    """A question's packets. reached: every switch was heard, and by what they say all of it arrives; and so did what was sent.

    reset: what ends the connection that switches may remember of it, empty for none. silent: the hosts that did not watch, and
    why, so that nothing was sent.
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

    @property
    def how(self) -> str:
        """By what it is said to be reached, or not."""
        if any(leg.sent is not None and not leg.sent.why for leg in self.legs):
            return "by what the hosts' switches say and what became of packets"
        return "by what the hosts' switches say"

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
    found: dict[str, Any] = {"title": leg.title, "verdict": leg.verdict, "twin": list(leg.twin), "real": list(leg.real)}
    return found | {"packet": _sent_dict(leg.sent) if leg.sent is not None else None, "hops": hops}


def _sent_dict(sent: Sent) -> dict[str, Any]:
    came, caught = ([one._asdict() for one in places] for places in (sent.came, sent.caught))
    return {"sent": not sent.why, "why": sent.why, "came": came, "caught": caught, "lost": sent.lost}


# Asking


Asking = Generator[Question, Answer, LiveTrace]


def answered(pool: SimPool, ask: Ask, asking: Iterable[Asking]) -> list[LiveTrace | NotPlugged]:
    """What these come to, side by side: what they all ask at one time goes out together, and nothing is asked twice."""
    known: dict[Question, Answer] = {}
    found: dict[int, LiveTrace | NotPlugged] = {}
    going = dict(enumerate(asking))
    waiting: dict[int, Question] = {}

    def step(number: int, answer: Answer | None) -> None:
        try:
            waiting[number] = next(going[number]) if answer is None else going[number].send(answer)
        except StopIteration as end:
            found[number] = end.value
        except NotPlugged as error:
            found[number] = error

    with pool.undone():
        for number in going:
            step(number, None)
        while waiting:
            new = [question for question in dict.fromkeys(waiting.values()) if question not in known]
            for at in range(0, len(new), MAX_ASKED):
                some = new[at : at + MAX_ASKED]
                known.update(zip(some, ask(some), strict=True))
            for number, question in [(number, waiting.pop(number)) for number in list(waiting)]:
                step(number, known[question])
    return [found[number] for number in sorted(found)]


def conversation(
    pool: SimPool,
    source: Party,
    target: Party,
    protocol: Protocol = Protocol.ICMP,
    port: int = 0,
    source_port: int = CLIENT_PORT,
) -> Asking:
    """Every packet of a conversation, to the first that does not arrive. Raises NotPlugged."""
    title = title_of(source, target, protocol, port)
    if isinstance(target.endpoint, str) and not pool.is_plugged(pool.vif(target.endpoint)):
        title += f" (no host has a port of {target.name})"
    talk = talk_of(source, target, protocol, port, source_port)
    if talk is None:
        return LiveTrace(f"{title}: they have no IP version in common", (), False, False)
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
    """One frame's way from a VIF; it has to reach the target, or with None anybody."""
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
) -> Generator[Question, Answer, LiveLeg]:
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
        ways = [(one, by_twin, by_real) for one in emitted]
        host = pool.host_of(arrival.switch)
        if host is not None and by_real:
            asked = Asked(pool, host, arrival, notes, emitted, sender)
            hop, kept, extra = asked.compare((yield asked.question))
            hops.append(hop)
            ways = [(one, by_twin, one in kept) for one in emitted] + [(one, False, True) for one in extra]
        for one, twin_too, real_too in ways:
            following, got = pool.follow(arrival, one)
            _note(got, twin if twin_too else None, real if real_too else None)
            if following is not None:
                waiting.append(_Way(following, twin_too, real_too, host.name if host is not None else sender))
    source = source if isinstance(source, str) else ""
    return LiveLeg(title, frame, source, target, tuple(hops), tuple(sorted(twin)), tuple(sorted(real)), aside)


def _note(got: Deliveries, *lists: list[str] | None) -> None:
    for names in lists:
        if names is not None:
            names.extend(got.to)


# For people


def _render(trace: LiveTrace, full: bool) -> Iterator[str]:
    yield f"{trace.title}: {'reached' if trace.reached else 'NOT reached'} {trace.how}"
    yield from (f"  twin and pool disagree: {text}" for text in trace.differences)
    yield from (f"  not heard: {text}" for text in trace.problems)
    for leg in trace.legs:
        yield ""
        yield f"{leg.title}: {leg.verdict}"
        if leg.aside and not full and not leg.differences and (trace.reached or leg is not trace.legs[-1]):
            continue
        for hop in leg.hops:
            yield from _render_hop(hop)
            if leg.sent is not None and not leg.sent.why:
                yield f"      the packet {_seen(leg.sent, hop.host)}"


def _seen(sent: Sent, host: str) -> str:
    came = [f"came in by {one.where}" for one in sent.came if one.host == host]
    got = [one.where for one in sent.caught if one.host == host]
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
