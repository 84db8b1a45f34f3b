"""The expectations of a document, asked of the switches of the pool that runs.

One rule: only what every switch on the way was heard about holds; a host that does not answer proves neither way.
"""

from __future__ import annotations

from vnet.model import Protocol
from vnet.sim.errors import NotPlugged
from vnet.sim.expect import Result, Side, end_of, name_of, pairs_of, where_of
from vnet.sim.live import Answer, Ask, LiveTrace, Question, trace_live
from vnet.sim.pool import SimPool
from vnet.topology import Document, Expectation, Reach

MAX_PAIRS = 2000  # of VIFs in one expectation; each is asked for by itself, packet by packet


def check_live(pool: SimPool, ask: Ask, document: Document) -> list[Result]:
    """Every expectation of a document, in its order; `pool` is the twin of the pool that runs."""
    once = _once(ask)
    return [_check(pool, once, document, spec) for spec in document.expectations]


def _once(ask: Ask) -> Ask:
    """Ask each question once: ARP goes through the same switches for every port that is asked about."""
    known: dict[Question, Answer] = {}

    def asked(question: Question) -> Answer:
        if question not in known:
            known[question] = ask(question)
        return known[question]

    return asked


def _check(pool: SimPool, ask: Ask, document: Document, spec: Expectation) -> Result:
    where = where_of(document, spec)
    pairs = list(pairs_of(pool, spec))
    count = sum(len(sources) * len(targets) for sources, targets in pairs)
    if count > MAX_PAIRS:
        return Result(spec, False, where, f"{count} pairs of VIFs are too many to ask for one by one: name VMs in it")
    for sources, targets in pairs:
        failed = _unit(pool, ask, spec, where, sources, targets)
        if failed is not None:
            return failed
    return Result(spec, True, where)


def _unit(
    pool: SimPool, ask: Ask, spec: Expectation, where: str, sources: list[Side], targets: list[Side]
) -> Result | None:
    """What fails of one sender and one receiver, any of whose VIFs will do; None if it is as expected."""
    wanted = spec.expect is Reach.REACHABLE
    shown: Result | None = None
    for source in sources:
        for target in targets:
            result, reached = _pair(pool, ask, spec, where, source, target)
            if reached is True:
                return None if wanted else result
            if reached is None and not wanted:
                return result
            shown = shown or result
    return shown if wanted else None


def _pair(
    pool: SimPool, ask: Ask, spec: Expectation, where: str, source: Side, target: Side
) -> tuple[Result, bool | None]:
    """The failure that this pair would be, and whether it reaches: None where a switch was not heard."""
    names = f"{name_of(pool, source)} {{}} {name_of(pool, target)}"
    ends = end_of(pool, source, target), end_of(pool, target, source)
    if ends[0] is None or ends[1] is None:
        why = names.format("does not reach") + ": its network does not meet the physical one"
        return Result(spec, False, where, why), False
    try:
        trace = trace_live(pool, ask, ends[0], ends[1], spec.protocol or Protocol.ICMP, spec.port or 0)
    except NotPlugged as error:
        return Result(spec, False, where, names.format("does not reach") + f": {error}"), False
    return Result(spec, False, where, _why(names, trace), trace), None if trace.problems else trace.reached


def _why(names: str, trace: LiveTrace) -> str:
    if trace.problems:
        return names.format("may or may not reach") + ": " + "; ".join(trace.problems)
    return names.format("reaches" if trace.reached else "does not reach")
