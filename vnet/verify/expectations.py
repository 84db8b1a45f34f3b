"""The expectations of a document, held against a pool: its twin, the running pool, or a lab.

One rule: `judge` alone decides whether an expectation holds. `reachable` means that every sender reaches every receiver,
`unreachable` that no sender reaches any. A network or a security group stands for each of its VIFs that run, a group of a tier for those that it judges; a VM is one
sender or receiver, by whichever of its VIFs works.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from vnet.objects import Expectation, Protocol, Reach, Vif
from vnet.objects.tiers import all_obeyed
from vnet.sim.conversation import Party, outside, party, reaches, trace
from vnet.sim.errors import NotPlugged, UnknownName
from vnet.sim.fabric import Fabric
from vnet.topology import Document
from vnet.verify.equivalence_classes import AnswerCache, EquivalenceClasses
from vnet.verify.reachability import Reachability

Side = Vif | None  # None: outside
NO_UPLINK = "its network does not meet the physical one"


class Evidence(typing.Protocol):
    """A trace that shows a result: of the twin, or of the running pool."""

    def as_dict(self) -> dict[str, Any]: ...

    def render(self, full: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Result:
    """An expectation, and whether it holds. position: file:line:column; reason and trace: of the pair that breaks it. asked: False where each
    of its pairs has an end that is left out."""

    expectation: Expectation
    holds: bool
    position: str = ""
    reason: str = ""
    trace: Evidence | None = None
    asked: bool = True

    @property
    def name(self) -> str:
        """The expectation's name."""
        return self.expectation.name

    def __str__(self) -> str:
        if self.holds:
            return f"ok    {self.name}"
        position = f"{self.position}: " if self.position else ""
        return f"FAIL  {position}{self.name}: {self.reason}"


class Witness(typing.Protocol):
    """The source of answers for pairs of senders and receivers."""

    def reaches(self, source: Side, target: Side, spec: Expectation) -> bool | None:
        """Whether the conversation of an expectation works between two sides; None if nobody can tell."""

    def explain(self, source: Side, target: Side, spec: Expectation) -> tuple[str, Evidence | None]:
        """The reason of an answer, "" without one, and a trace that shows it."""


def check(pool: Fabric, document: Document) -> list[Result]:
    """Every expectation of a document on the twin of a pool, in the document's order."""
    witness = TwinWitness(pool)
    return [judge(pool, document, spec, witness) for spec in document.expectations]


def judge(
    pool: Fabric, document: Document, spec: Expectation, witness: Witness, gone: Collection[str] = frozenset()
) -> Result:
    """Whether an expectation holds by a witness. pool: the names of VIFs, and the hosts where they run. gone: the ids of VIFs that are left
    out."""
    position = position_of(document, spec)
    tried = left_out = 0

    def living() -> Iterator[tuple[list[Side], list[Side]]]:
        nonlocal tried, left_out
        for pair in pairs_of(pool, spec, gone):
            source, target = (_without(side, gone) for side in pair) if gone else pair
            if source and target:
                tried += 1
                yield source, target
            else:
                left_out += 1

    try:
        broken = _broken(living(), spec, witness)
    except UnknownName as error:  # the document may not be applied to this pool yet
        return Result(spec, False, position, str(error))
    if broken is None:
        return Result(spec, True, position, asked=tried > 0 or not left_out)
    source, target, reached = broken
    verb = {True: "reaches", False: "does not reach", None: "may or may not reach"}[reached]
    reason, evidence = witness.explain(source, target, spec)
    text = f"{name_of(pool, source)} {verb} {name_of(pool, target)}" + (f": {reason}" if reason else "")
    return Result(spec, False, position, text, evidence)


def _without(side: list[Side], gone: Collection[str]) -> list[Side]:
    return [vif for vif in side if vif is None or vif.id not in gone]


def _broken(
    pairs: Iterable[Sequence[list[Side]]], spec: Expectation, witness: Witness
) -> tuple[Side, Side, bool | None] | None:
    """The first pair that breaks an expectation, with its answer; None if it holds."""
    wanted = spec.expect is Reach.REACHABLE
    for sources, targets in pairs:
        first: tuple[Side, Side, bool | None] | None = None
        for source, target in ((a, b) for a in sources for b in targets):
            reached = witness.reaches(source, target, spec)
            if not wanted and reached is not False:
                return source, target, reached
            if wanted and reached:
                break
            first = first or (source, target, reached)
        else:
            if wanted and first is not None:
                return first
    return None


def position_of(document: Document, spec: Expectation) -> str:
    """The position of an expectation, as file:line:column."""
    at = document.place("expectation", spec.name)
    return document.source.position(at) if at is not None else document.source.filename


def pairs_of(
    pool: Fabric, spec: Expectation, gone: Collection[str] = frozenset()
) -> Iterator[tuple[list[Side], list[Side]]]:
    """Each sender and receiver of an expectation, both as lists of VIFs of which one is enough. gone: the ids of VIFs that run nowhere by now,
    and are named all the same. Raises UnknownName."""
    for source in sides_of(pool, spec.from_, gone):
        for target in sides_of(pool, spec.to, gone):
            if source != target:
                yield source, target


def sides_of(pool: Fabric, name: str, gone: Collection[str] = frozenset()) -> list[list[Side]]:
    """The senders or receivers behind a name of an expectation, each as its VIFs. Raises UnknownName."""
    if name == "outside":
        return [[None]]
    if of_vm := pool.vifs_of(name):
        return [list(of_vm)]
    if name in pool.state.networks:
        members = [vif for vif in pool.state.vifs.values() if vif.network == name]
    elif name in pool.state.groups:
        judged = all_obeyed(pool.state)
        members = [vif for vif in pool.state.vifs.values() if name in judged[vif.id]]
    else:
        return [[pool.vif(name)]]
    return [[vif] for vif in sorted(members, key=pool.label) if pool.runs_on(vif) is not None or vif.id in gone]


def service_of(spec: Expectation) -> tuple[Protocol, int]:
    """The protocol and port of an expectation; ICMP and 0 for a ping."""
    return spec.protocol or Protocol.ICMP, spec.port or 0


def ends_of(pool: Fabric, source: Side, target: Side) -> tuple[Party, Party] | None:
    """Two sides as ends of a conversation; None if one is outside and the other's network has no uplink."""
    ends = _end(pool, source, target), _end(pool, target, source)
    return (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None


def _end(pool: Fabric, side: Side, other: Side) -> Party | None:
    if side is not None:
        return party(pool, side)
    return outside(pool, other) if other is not None else None


def name_of(pool: Fabric, side: Side) -> str:
    """The name of a side for people."""
    return "outside" if side is None else pool.label(side)


class TwinWitness:
    """Answers from the twin: by equivalence classes between VIFs, by a conversation with the outside."""

    def __init__(self, pool: Fabric, answers: AnswerCache | None = None) -> None:
        self._pool = pool
        self._answers: Final = answers
        self._known: Final[dict[tuple[Protocol, int], Reachability]] = {}

    @cached_property
    def _equivalence(self) -> EquivalenceClasses:
        return EquivalenceClasses(self._pool, self._answers)

    def reaches(self, source: Side, target: Side, spec: Expectation) -> bool:
        service = service_of(spec)
        if source is not None and target is not None:
            if service not in self._known:
                self._known[service] = Reachability(self._pool, *service, self._equivalence)
            return self._known[service].reaches(source, target)
        ends = ends_of(self._pool, source, target)
        return ends is not None and reaches(self._pool, *ends, *service)

    def explain(self, source: Side, target: Side, spec: Expectation) -> tuple[str, Evidence | None]:
        ends = ends_of(self._pool, source, target)
        if ends is None:
            return NO_UPLINK, None
        try:
            found = trace(self._pool, *ends, *service_of(spec))
            return found.reason, found
        except NotPlugged as error:
            return str(error), None
