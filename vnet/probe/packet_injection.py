"""The packets of live traces, sent for real: marked, watched for on every host that they could reach, caught before any guest.

One rule: a packet is sent only after every switch on its way has answered, and only if our own tables alone decide its
receivers. A packet that is not sent has a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

from vnet.compile import mark, marked_fields, refusal
from vnet.objects import InvalidValue, Vif
from vnet.probe.live_trace import LiveLeg, LiveTrace, PacketSighting, SentPacket
from vnet.probe.ofproto_trace_parser import UNRESOLVED
from vnet.sim.errors import UnknownName
from vnet.sim.pool import SimPool

MAX_PACKETS = 256  # that go together
MAX_BYTES = 48 * 1024
MAX_SIGHTINGS = 2000
ATTEMPTS = 3  # with other marks, where a host watches for the same ones already


@dataclass(frozen=True, slots=True)
class Shot:
    """A marked frame to send as a VIF (its id). to: the VIF it is for, or ""; expect: the VIFs that it should reach.

    after: the number of the shot that must have reached its own `to` before.
    """

    frame: bytes
    vif: str
    to: str
    round: int
    after: int | None
    expect: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShotResult:
    """The fate of a shot; `caught` has VIF ids. refusal: the reason if it was not sent."""

    sent: bool
    refusal: str
    came: tuple[PacketSighting, ...]
    caught: tuple[PacketSighting, ...]
    changed: bool


Send = Callable[[Sequence[Shot]], tuple[list[ShotResult], list[str]]]  # and the problems of hosts that did not watch


def send_all(pool: SimPool, send: Send, traces: Sequence[LiveTrace], random: Random) -> list[LiveTrace]:
    """The traces with the fate of their packets, which go out in batches."""
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
    """A batch's traces. A packet lost while its tunnel resolved the far end's MAC is sent once more."""
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
    """The reason why nothing of a trace is sent, None without one."""
    if trace.problems:
        return "not every switch on its way answered"
    foreign = next((hop.foreign for leg in trace.legs for hop in leg.hops if hop.foreign), None)
    return f"a flow of somebody else's could bring it to a guest past our tables: {foreign}" if foreign else None


class _Script:
    """The shots of one trace: one for each leg that can be sent, then one that ends the connection."""

    def __init__(self, pool: SimPool, trace: LiveTrace, random: Random) -> None:
        self._pool = pool
        self._trace = trace
        self._random = random
        self._refusals: dict[int, str] = {}  # by leg
        self._shot_of: dict[int, int] = {}
        self.shots: list[Shot] = []
        stop = _stop(trace)
        for number, leg in enumerate(trace.legs):
            if refused := stop or self._add(number, leg):
                self._refusals[number] = refused
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
            return "one of its ends is outside, where no host of the pool can send or watch"
        vif = self._pool.vif(leg.source)
        network = self._pool.state.networks[vif.network]
        if (refused := refusal(network, vif, leg.frame)) is not None:
            return refused
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
        """End the connection that trackers may have entered for the first packet, after all other shots."""
        opening = next(
            (self._shot_of[n] for n, leg in enumerate(self._trace.legs) if not leg.aside and n in self._shot_of), None
        )
        if self._trace.reset and opening is not None:
            shot, frame = self.shots[opening], self._mark(self._trace.reset)
            self.shots.append(Shot(frame, shot.vif, shot.to, len(self.shots), opening, (shot.to,)))

    def _vifs(self, names: Iterable[str]) -> Iterator[Vif]:
        """Those of the names that are VIFs."""
        for name in names:
            with suppress(UnknownName):
                yield self._pool.vif(name)

    def result(self, outcomes: Sequence[ShotResult], silent: Sequence[str]) -> LiveTrace:
        """The trace with the fate of its packets."""
        legs, problems = [], list(silent) if self.shots else []
        for number, leg in enumerate(self._trace.legs):
            if number in self._refusals:
                legs.append(replace(leg, sent=SentPacket(self._refusals[number])))
            elif silent:
                legs.append(replace(leg, sent=SentPacket("not every host that it could reach watched for it")))
            else:
                sent = self._fate(leg, outcomes[self._shot_of[number]])
                legs.append(replace(leg, sent=sent))
                problems += [f"{leg.title}: {sent.refusal}"] if sent.refusal else []
                if sent.refusal or sent.lost:
                    break
        lost = any(leg.sent is not None and leg.sent.lost for leg in legs)
        reached = self._trace.reached and not problems and not lost
        return replace(self._trace, legs=tuple(legs), reached=reached, silent=tuple(problems))

    def _fate(self, leg: LiveLeg, outcome: ShotResult) -> SentPacket:
        if not outcome.sent:
            return SentPacket(outcome.refusal)
        caught = tuple(PacketSighting(host, self._label(port)) for host, port in outcome.caught)
        came = tuple(PacketSighting(host, self._label(port)) for host, port in outcome.came)
        got = {sighting.port for sighting in caught}
        hosts = {sighting.host for sighting in came}
        lost = self._lost(leg, hosts, leg.target) if (leg.target not in got if leg.target else not got) else ""
        wanted = {self._pool.label(vif) for vif in self._vifs(leg.real)}
        found = []
        if missing := sorted(wanted - got):
            found.append(f"{' and '.join(missing)} did not get it: {self._lost(leg, hosts, missing[0])}")
        # A copy for a port where the VIF does not run yet is no delivery, but expected.
        if added := sorted(got - wanted - {real for hop in leg.hops for _, real in hop.sent if real is not None}):
            found.append(f"{' and '.join(added)} would have got it, which no switch said")
        if outcome.changed:
            found.append("it did not come out as it was sent")
        return SentPacket("", came, caught, lost, tuple(found))

    def _lost(self, leg: LiveLeg, came: set[str], target: str | None) -> str:
        """The place where a packet ended: on the way to its target's host, or to the first host that never got it."""
        home = self._pool.runs_on(self._pool.vif(target)) if target else None
        for hop in sorted(leg.hops, key=lambda hop: hop.host != home):
            if hop.host not in came and hop.sender in came:
                return f"{hop.sender} sent it to {hop.host}, which never got it"
        last = next((hop.host for hop in leg.hops if hop.host == home and home in came), leg.hops[0].host)
        return f"{last} got it and gave it to nobody" if last in came else f"{last} did not take it"

    def _label(self, port: str) -> str:
        vif = self._pool.state.vifs.get(port)
        return self._pool.label(vif) if vif is not None else port
