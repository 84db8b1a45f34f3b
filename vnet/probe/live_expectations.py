"""The expectations of a document, asked of the switches of the pool that runs and tried with packets.

One rule: only what every switch on the way was heard about holds; a host that does not answer, or watch, proves neither way.
"""

from __future__ import annotations

from random import Random

from vnet.objects import Protocol
from vnet.probe.live_trace import Ask, Asking, LiveTrace, answered, conversation
from vnet.probe.packet_injection import Send, send_all
from vnet.sim.errors import NotPlugged
from vnet.sim.packets import CLIENT_PORTS
from vnet.sim.pool import SimPool
from vnet.topology import Document, Expectation, Reach
from vnet.verify.expectations import Result, Side, end_of, name_of, pairs_of, where_of

MAX_PAIRS = 2000  # of VIFs in one expectation; each is asked for by itself, packet by packet


def check_live(pool: SimPool, ask: Ask, send: Send, document: Document, random: Random) -> list[Result]:
    """Every expectation of a document, in its order; `pool` is the twin of the pool that runs."""
    known: Known = {}
    for spec in document.expectations:
        if _count(pool, spec) <= MAX_PAIRS:
            pairs = ((a, b) for some, others in pairs_of(pool, spec) for a in some for b in others)
            known.update({_key(pool, spec, *pair): None for pair in pairs})
    asking = {key: _conversation(pool, key, random) for key in known}
    heard = answered(pool, ask, (one for one in asking.values() if one is not None))
    known.update(zip((key for key, one in asking.items() if one is not None), heard, strict=True))
    traces = {key: trace for key, trace in known.items() if isinstance(trace, LiveTrace)}
    known.update(zip(traces, send_all(pool, send, list(traces.values()), random), strict=True))
    return [_check(pool, known, document, spec) for spec in document.expectations]


Key = tuple[str | None, str | None, Protocol, int]  # ids of VIFs, None for outside
Known = dict[Key, LiveTrace | NotPlugged | None]  # None: where outside is, one end's network does not meet it


def _key(pool: SimPool, spec: Expectation, source: Side, target: Side) -> Key:
    ends = (side.id if side is not None else None for side in (source, target))
    return next(ends), next(ends), spec.protocol or Protocol.ICMP, spec.port or 0


def _conversation(pool: SimPool, key: Key, random: Random) -> Asking | None:
    source, target = (pool.vif(id) if id is not None else None for id in key[:2])
    ends = end_of(pool, source, target), end_of(pool, target, source)
    if ends[0] is None or ends[1] is None:
        return None
    return conversation(pool, ends[0], ends[1], key[2], key[3], random.randrange(*CLIENT_PORTS))


def _count(pool: SimPool, spec: Expectation) -> int:
    return sum(len(sources) * len(targets) for sources, targets in pairs_of(pool, spec))


def _check(pool: SimPool, known: Known, document: Document, spec: Expectation) -> Result:
    where = where_of(document, spec)
    if (count := _count(pool, spec)) > MAX_PAIRS:
        return Result(spec, False, where, f"{count} pairs of VIFs are too many to ask for one by one: name VMs in it")
    for sources, targets in pairs_of(pool, spec):
        failed = _unit(pool, known, spec, where, sources, targets)
        if failed is not None:
            return failed
    return Result(spec, True, where)


def _unit(
    pool: SimPool, known: Known, spec: Expectation, where: str, sources: list[Side], targets: list[Side]
) -> Result | None:
    """What fails of one sender and one receiver, any of whose VIFs will do; None if it is as expected."""
    wanted = spec.expect is Reach.REACHABLE
    shown: Result | None = None
    for source in sources:
        for target in targets:
            result, reached = _pair(pool, known, spec, where, source, target)
            if reached is True:
                return None if wanted else result
            if reached is None and not wanted:
                return result
            shown = shown or result
    return shown if wanted else None


def _pair(
    pool: SimPool, known: Known, spec: Expectation, where: str, source: Side, target: Side
) -> tuple[Result, bool | None]:
    """The failure that this pair would be, and whether it reaches: None where a switch was not heard or a host did not watch."""
    names = f"{name_of(pool, source)} {{}} {name_of(pool, target)}"
    trace = known[_key(pool, spec, source, target)]
    if trace is None:
        why = names.format("does not reach") + ": its network does not meet the physical one"
        return Result(spec, False, where, why), False
    if isinstance(trace, NotPlugged):
        return Result(spec, False, where, names.format("does not reach") + f": {trace}"), False
    return Result(spec, False, where, _why(names, trace), trace), None if trace.problems else trace.reached


def _why(names: str, trace: LiveTrace) -> str:
    if trace.problems:
        return names.format("may or may not reach") + ": " + "; ".join(trace.problems)
    return names.format("reaches" if trace.reached else "does not reach")
