"""The expectations of a document, asked of the switches of the running pool and tried with packets.

One rule: an answer counts only if every switch on the way was heard. A host that does not answer proves neither way.
"""

from __future__ import annotations

from random import Random

from vnet.objects import Expectation, Protocol
from vnet.probe.live_trace import Asking, LiveTrace, answered, conversation
from vnet.probe.packet_injection import Send, send_all
from vnet.probe.trace_comparison import Ask
from vnet.sim.errors import NotPlugged, UnknownName
from vnet.sim.packets import CLIENT_PORTS
from vnet.sim.pool import SimPool
from vnet.topology import Document
from vnet.verify.expectations import (
    NO_UPLINK,
    Evidence,
    Result,
    Side,
    ends_of,
    judge,
    pairs_of,
    position_of,
    service_of,
)

MAX_PAIRS = 2000  # of VIFs in one expectation; each pair is probed by itself, packet by packet


def check_live(pool: SimPool, ask: Ask, send: Send, document: Document, random: Random) -> list[Result]:
    """Every expectation of a document, in its order; `pool` is the twin of the running pool."""
    counts = [_count(pool, spec) for spec in document.expectations]
    pairs: dict[_Pair, None] = {}
    for spec, count in zip(document.expectations, counts, strict=True):
        if count <= MAX_PAIRS:
            pairs |= dict.fromkeys(
                _pair(a, b, spec) for some, others in pairs_of(pool, spec) for a in some for b in others
            )
    witness = LiveWitness(_probed(pool, ask, send, list(pairs), random))
    return [
        judge(pool, document, spec, witness) if count <= MAX_PAIRS else _too_many(document, spec, count)
        for spec, count in zip(document.expectations, counts, strict=True)
    ]


_Pair = tuple[str | None, str | None, Protocol, int]  # ids of VIFs, None for outside
_Answers = dict[_Pair, LiveTrace | NotPlugged | None]  # None: one side's network has no uplink


def _pair(source: Side, target: Side, spec: Expectation) -> _Pair:
    ids = [side.id if side is not None else None for side in (source, target)]
    return ids[0], ids[1], *service_of(spec)


def _count(pool: SimPool, spec: Expectation) -> int:
    try:
        return sum(len(sources) * len(targets) for sources, targets in pairs_of(pool, spec))
    except UnknownName:
        return 0


def _too_many(document: Document, spec: Expectation, count: int) -> Result:
    reason = f"{count} pairs of VIFs are too many to probe one by one: name VMs in it"
    return Result(spec, False, position_of(document, spec), reason)


def _probed(pool: SimPool, ask: Ask, send: Send, pairs: list[_Pair], random: Random) -> _Answers:
    """Every pair's conversation, asked of all switches at once and then sent."""
    asking = {pair: found for pair in pairs if (found := _conversation(pool, pair, random)) is not None}
    known: _Answers = dict.fromkeys(pairs)
    known.update(zip(asking, answered(pool, ask, asking.values()), strict=True))
    traces = {pair: trace for pair, trace in known.items() if isinstance(trace, LiveTrace)}
    known.update(zip(traces, send_all(pool, send, list(traces.values()), random), strict=True))
    return known


def _conversation(pool: SimPool, pair: _Pair, random: Random) -> Asking | None:
    source, target = (pool.vif(id) if id is not None else None for id in pair[:2])
    ends = ends_of(pool, source, target)
    if ends is None:
        return None
    return conversation(pool, *ends, pair[2], pair[3], random.randrange(*CLIENT_PORTS))


class LiveWitness:
    """Answers from live traces."""

    def __init__(self, known: _Answers) -> None:
        self._known = known

    def reaches(self, source: Side, target: Side, spec: Expectation) -> bool | None:
        trace = self._known[_pair(source, target, spec)]
        if not isinstance(trace, LiveTrace):
            return False
        return None if trace.problems else trace.reached

    def explain(self, source: Side, target: Side, spec: Expectation) -> tuple[str, Evidence | None]:
        trace = self._known[_pair(source, target, spec)]
        if trace is None:
            return NO_UPLINK, None
        if isinstance(trace, NotPlugged):
            return str(trace), None
        return "; ".join(trace.problems), trace
