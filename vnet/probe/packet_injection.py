"""The packets of live traces sent for real: marked, watched for by every host that could get them, and caught before any guest.

One rule: a packet is sent only after every switch on its way was heard, and only where nothing but our own tables decides who gets
it. Whatever cannot be sent says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

from vnet.compile import mark, marked_fields, refusal
from vnet.objects import InvalidValue, Vif
from vnet.probe.live_trace import Came, LiveLeg, LiveTrace, Sent
from vnet.probe.ofproto_trace_parser import UNRESOLVED
from vnet.sim.errors import UnknownName
from vnet.sim.pool import SimPool

MAX_PACKETS = 256  # that go together
MAX_BYTES = 48 * 1024
MAX_SIGHTINGS = 2000
ATTEMPTS = 3  # with other marks, where a host watches for the same ones already


@dataclass(frozen=True, slots=True)
class Shot:
    """A marked frame to send as a VIF (its id). after: the number of the shot that must have come to its own `to` before.

    to: the VIF it is for, or "" ; expect: those who would get it.
    """

    frame: bytes
    vif: str
    to: str
    round: int
    after: int | None
    expect: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a shot; `caught` has VIF ids. why: why it was not sent."""

    sent: bool
    why: str
    came: tuple[Came, ...]
    caught: tuple[Came, ...]
    changed: bool


Send = Callable[[Sequence[Shot]], tuple[list[Outcome], list[str]]]  # with the hosts that did not watch, and why


def send_all(pool: SimPool, send: Send, traces: Sequence[LiveTrace], random: Random) -> list[LiveTrace]:
    """The traces with what became of their packets, as many of which go together as may."""
    found: list[LiveTrace] = []
    batch: list[_Script] = []
    for trace in traces:
        script = _Script(pool, trace, random)
        if batch and not _fits([*batch, script]):
            found += _sent(pool, send, batch)
            batch = []
        batch.append(script)
    return found + _sent(pool, send, batch)


def _fits(batch: Sequence[_Script]) -> bool:
    shots = [shot for script in batch for shot in script.shots]
    sightings = sum(len(shot.expect) + 2 for shot in shots)
    return len(shots) <= MAX_PACKETS and sum(len(s.frame) for s in shots) <= MAX_BYTES and sightings <= MAX_SIGHTINGS


def _sent(pool: SimPool, send: Send, batch: list[_Script]) -> list[LiveTrace]:
    """A batch's traces. A lost packet whose tunnel had to ask for the far end's MAC first is sent once more."""
    found = _once(pool, send, batch)
    again = [n for n, trace in enumerate(found) if _was_first(trace)]
    if again:
        for number, trace in zip(again, _once(pool, send, [batch[n].again() for n in again]), strict=True):
            found[number] = trace
    return found


def _was_first(trace: LiveTrace) -> bool:
    notes = {note for leg in trace.legs for hop in leg.hops for note in hop.notes}
    return any(leg.sent is not None and leg.sent.lost for leg in trace.legs) and any(
        UNRESOLVED in note for note in notes
    )


def _once(pool: SimPool, send: Send, batch: list[_Script]) -> list[LiveTrace]:
    for _ in range(ATTEMPTS):
        shots: list[Shot] = []
        for script in batch:
            shots += script.numbered(len(shots))
        outcomes, silent = send(shots) if shots else ([], [])
        if not any("try again" in text for text in silent):
            break
        batch = [script.again() for script in batch]
    found = []
    for script in batch:
        count = len(script.shots)
        found.append(script.result(outcomes[:count], silent))
        outcomes = outcomes[count:]
    return found


def _stop(trace: LiveTrace) -> str | None:
    """Why nothing of a trace is sent."""
    if trace.problems:
        return "not every switch on its way was heard"
    foreign = next((hop.foreign for leg in trace.legs for hop in leg.hops if hop.foreign), None)
    return f"a flow of somebody else's could bring it to a guest past our tables: {foreign}" if foreign else None


class _Script:
    """What is to be sent of one trace: a shot for each leg that can be sent, then what ends the connection."""

    def __init__(self, pool: SimPool, trace: LiveTrace, random: Random) -> None:
        self._pool = pool
        self._trace = trace
        self._random = random
        self._why: dict[int, str] = {}  # leg to why it is not sent
        self._shot_of: dict[int, int] = {}
        self.shots: list[Shot] = []
        stop = _stop(trace)
        for number, leg in enumerate(trace.legs):
            why = stop or self._add(number, leg)
            if why:
                self._why[number] = why
        self._add_reset()

    def again(self) -> _Script:
        """The same with other marks."""
        return _Script(self._pool, self._trace, self._random)

    def numbered(self, first: int) -> Iterator[Shot]:
        """The shots, as they are numbered after `first` others."""
        for shot in self.shots:
            yield replace(shot, after=None if shot.after is None else first + shot.after)

    def _add(self, number: int, leg: LiveLeg) -> str | None:
        if not leg.source or leg.target == "":
            return "it comes from or goes to where nobody of ours can send or watch"
        vif = self._pool.vif(leg.source)
        network = self._pool.state.networks[vif.network]
        if (why := refusal(network, vif, leg.frame)) is not None:
            return why
        try:
            frame = self._mark(leg.frame)
        except InvalidValue as error:
            return error.message
        to = self._pool.vif(leg.target).id if leg.target else ""
        expect = {vif.id for vif in self._vifs(leg.real)} | ({to} if to else set())
        after = len(self.shots) - 1 if self.shots else None
        self._shot_of[number] = len(self.shots)
        self.shots.append(Shot(frame, vif.id, to, len(self.shots), after, tuple(sorted(expect))))
        return None

    def _mark(self, frame: bytes) -> bytes:
        """The marked frame, unlike all before it."""
        known = [marked_fields(shot.frame) for shot in self.shots]
        while marked_fields(marked := mark(frame, self._random.getrandbits(64))) in known:
            pass
        return marked

    def _add_reset(self) -> None:
        """Once the first packet came there, switches may remember a connection: it ends after all else."""
        opening = next(
            (self._shot_of[n] for n, leg in enumerate(self._trace.legs) if not leg.aside and n in self._shot_of), None
        )
        if self._trace.reset and opening is not None:
            shot, frame = self.shots[opening], self._mark(self._trace.reset)
            self.shots.append(Shot(frame, shot.vif, shot.to, len(self.shots), opening, (shot.to,)))

    def _vifs(self, names: Iterable[str]) -> Iterator[Vif]:
        """Those that are VIFs, and no stations."""
        for name in names:
            with suppress(UnknownName):
                yield self._pool.vif(name)

    def result(self, outcomes: Sequence[Outcome], silent: Sequence[str]) -> LiveTrace:
        """The trace with what became of its packets."""
        legs, problems = [], list(silent) if self.shots else []
        for number, leg in enumerate(self._trace.legs):
            if number in self._why:
                legs.append(replace(leg, sent=Sent(self._why[number])))
            elif silent:
                legs.append(replace(leg, sent=Sent("not every host that could get it watched for it")))
            else:
                sent = self._became(leg, outcomes[self._shot_of[number]])
                legs.append(replace(leg, sent=sent))
                problems += [f"{leg.title}: {sent.why}"] if sent.why else []
                if sent.why or sent.lost:
                    break
        lost = any(leg.sent is not None and leg.sent.lost for leg in legs)
        reached = self._trace.reached and not problems and not lost
        return replace(self._trace, legs=tuple(legs), reached=reached, silent=tuple(problems))

    def _became(self, leg: LiveLeg, outcome: Outcome) -> Sent:
        if not outcome.sent:
            return Sent(outcome.why)
        caught = tuple(Came(host, self._label(where)) for host, where in outcome.caught)
        came = tuple(Came(host, self._label(where)) for host, where in outcome.came)
        got = {one.where for one in caught}
        hosts = {one.host for one in came}
        lost = self._lost(leg, hosts, leg.target) if (leg.target not in got if leg.target else not got) else ""
        wanted = {self._pool.label(vif) for vif in self._vifs(leg.real)}
        said = []
        if missing := sorted(wanted - got):
            said.append(f"{' and '.join(missing)} did not get it: {self._lost(leg, hosts, missing[0])}")
        # What a switch gives to a port where the VIF does not run yet is no delivery, but no surprise either.
        if added := sorted(got - wanted - {real for hop in leg.hops for _, real in hop.sent if real is not None}):
            said.append(f"{' and '.join(added)} would have got it, which no switch said")
        if outcome.changed:
            said.append("it did not come out as it was sent")
        return Sent("", came, caught, lost, tuple(said))

    def _lost(self, leg: LiveLeg, came: set[str], target: str | None) -> str:
        """Where a packet that did not come to a VIF ended: on the way to that one's host, or to the first that never got it."""
        home = self._pool.runs_on(self._pool.vif(target)) if target else None
        for hop in sorted(leg.hops, key=lambda hop: hop.host != home):
            if hop.host not in came and hop.sender in came:
                return f"{hop.sender} sent it to {hop.host}, which never got it"
        last = next((hop.host for hop in leg.hops if hop.host == home and home in came), leg.hops[0].host)
        return f"{last} got it and gave it to nobody" if last in came else f"{last} did not take it"

    def _label(self, where: str) -> str:
        vif = self._pool.state.vifs.get(where)
        return self._pool.label(vif) if vif is not None else where
