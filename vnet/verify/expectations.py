"""The expectations of a document, held against a pool.

A VM counts as one: any of its VIFs will do. A network or a security group counts as each of its VIFs. `reachable` wants every sender to reach every
receiver, `unreachable` none of them any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Structure

from vnet.objects import Protocol, Vif
from vnet.sim.conversation import Party, outside, party, reaches, trace
from vnet.sim.errors import NotPlugged, UnknownName
from vnet.sim.pool import SimPool
from vnet.topology import Document, Expectation, Reach
from vnet.verify.reachability import Reachability


class Evidence(Structure):
    """A trace that shows a result: of the twin, or of the running pool."""

    def as_dict(self) -> dict[str, Any]: ...

    def render(self, full: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Result:
    """An expectation and whether it holds. where: file:line:column; why: what is not as expected; trace: one that shows it."""

    expectation: Expectation
    holds: bool
    where: str = ""
    why: str = ""
    trace: Evidence | None = None

    @property
    def name(self) -> str:
        spec = self.expectation
        return spec.name or f"{spec.from_} to {spec.to} is {spec.expect.value}"

    def __str__(self) -> str:
        if self.holds:
            return f"ok    {self.name}"
        place = f"{self.where}: " if self.where else ""
        return f"FAIL  {place}{self.name}: {self.why}"


def check(pool: SimPool, document: Document) -> list[Result]:
    """Every expectation of a document, in its order. Changes nothing in the pool but what its physical switches learn."""
    known: dict[tuple[Protocol, int], Reachability] = {}
    return [_check(pool, document, spec, known) for spec in document.expectations]


def _check(
    pool: SimPool, document: Document, spec: Expectation, known: dict[tuple[Protocol, int], Reachability]
) -> Result:
    protocol, port = spec.protocol or Protocol.ICMP, spec.port or 0
    reach = known.setdefault((protocol, port), Reachability(pool, protocol, port))
    where = where_of(document, spec)
    wanted = spec.expect is Reach.REACHABLE
    try:
        pairs = list(pairs_of(pool, spec))
    except UnknownName as error:  # as where a document is held against a pool that it was not applied to yet
        return Result(spec, False, where, str(error))
    for sources, targets in pairs:
        found = [(a, b) for a in sources for b in targets if _works(reach, a, b)]
        if bool(found) is wanted:
            continue
        a, b = found[0] if found else (sources[0], targets[0])
        verb = "reaches" if found else "does not reach"
        why = f"{name_of(pool, a)} {verb} {name_of(pool, b)}"
        ends = end_of(pool, a, b), end_of(pool, b, a)
        if ends[0] is None or ends[1] is None:
            return Result(spec, False, where, f"{why}: its network does not meet the physical one")
        try:
            shown = trace(pool, ends[0], ends[1], protocol, port)
        except NotPlugged as error:
            return Result(spec, False, where, f"{why}: {error}")
        return Result(spec, False, where, why, shown)
    return Result(spec, True, where)


def where_of(document: Document, spec: Expectation) -> str:
    """Where an expectation stands, as file:line:column."""
    at = spec.at()
    filename = document.source.filename if document.source is not None else ""
    return f"{filename}:{at.line}:{at.column}" if at is not None else filename


Side = Vif | None  # None: outside


def pairs_of(pool: SimPool, spec: Expectation) -> Iterator[tuple[list[Side], list[Side]]]:
    """The senders and receivers that an expectation is about, as sets of which one pair must work, or none may."""
    for source in _units(pool, spec.from_):
        for target in _units(pool, spec.to):
            if source != target:
                yield source, target


def _units(pool: SimPool, word: str) -> list[list[Side]]:
    """What an expectation's word stands for."""
    if word == "outside":
        return [[None]]
    if of_vm := pool.vifs_of(word):
        return [list(of_vm)]
    if word in pool.state.networks:
        members = [vif for vif in pool.state.vifs.values() if vif.network == word]
    elif word in pool.state.groups:
        members = [vif for vif in pool.state.vifs.values() if word in vif.groups]
    else:
        return [[pool.vif(word)]]
    return [[vif] for vif in sorted(members, key=pool.label) if pool.runs_on(vif) is not None]


def _works(reach: Reachability, source: Side, target: Side) -> bool:
    if source is not None and target is not None:
        return reach.reaches(source, target)
    a, b = end_of(reach.pool, source, target), end_of(reach.pool, target, source)
    return a is not None and b is not None and reaches(reach.pool, a, b, reach.protocol, reach.port)


def end_of(pool: SimPool, side: Side, other: Side) -> Party | None:
    """A side as an end of a conversation; None for an outside that the other's network does not meet."""
    if side is not None:
        return party(pool, side)
    return outside(pool, other) if other is not None else None


def name_of(pool: SimPool, side: Side) -> str:
    """What people call a side."""
    return "outside" if side is None else pool.label(side)
