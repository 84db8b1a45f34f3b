"""The same question put to the twin and to the real switches: what each host's switch would do with the frames that come to it,
beside what the twin does with them.

One rule: where the real frame goes next is what the real switch says. What is between the hosts (the underlay, physical
switches, uplink bridges) is the twin's, for no switch of ours can be asked about that; and nothing is sent anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from vnet.model import Protocol
from vnet.sim.beside import Answer, Ask, Asked, LiveHop, Question
from vnet.sim.deliveries import Deliveries, Station
from vnet.sim.pool import Arrival, SimPool
from vnet.sim.talk import Party, plan, reaches
from vnet.sim.trace import HOPS_MAX

__all__ = ["Answer", "Ask", "LiveHop", "LiveLeg", "LiveTrace", "Question", "frame_live", "trace_live"]


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
            hop, kept, extra = Asked(pool, ask, host, arrival, notes, emitted).compare()
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
