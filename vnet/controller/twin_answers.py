"""Answers of a twin, as the API shows them. Pure, and never fast: call them in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from ovsctl.openflow import Flow, format_match
from vnet import api
from vnet.api.errors import Conflict, Invalid, NotFound
from vnet.compile import PIPELINE, Category, Table
from vnet.compile.origin import asked, sources_of_vif
from vnet.controller.impact_analysis import as_expected
from vnet.controller.revisions import Moment
from vnet.objects import Protocol, Vif
from vnet.objects.tiers import STEPS, obeyed_in
from vnet.sim import SimPool
from vnet.sim.conversation import Party, ends_named, outside, party
from vnet.sim.conversation import trace as trace_talk
from vnet.sim.flow_origin import describe, position_of
from vnet.sim.past_twin import twin_then
from vnet.sim.trace import Trace, trace_packet
from vnet.verify.expectations import TwinWitness, judge
from vnet.verify.failures import (
    Failure,
    FailureVerdict,
    Outcome,
    cut,
    down,
    each_failure,
    failing,
    lost_pairs,
    outcomes,
    verdict_of,
)
from vnet.verify.reachability import Reachability

T = TypeVar("T")
CLASSES_MOST = 400  # of VIFs in a matrix
FAILURES_MOST = 1000  # that one question tries
PAIRS_MOST = CLASSES_MOST**2  # of classes, over all failures that one question tries
MIN_FRAME, MAX_FRAME = 14, 9216 + 22  # bytes, as of probes


def traced(pool: SimPool, body: api.TraceCall) -> api.Traced:
    """A conversation from one end to another and back, or one frame. Raises Invalid, SimError."""
    if not body.frame:
        found = conversation(pool, body, *ends_named(pool, body.source, target_of(body)))
    else:
        vif, other = ends_named(pool, body.source, body.target or body.source)
        source = _end(pool, vif, other if body.target else None)
        target = _end(pool, other, vif) if body.target else None
        leg = trace_packet(pool, source.endpoint, _frame(body.frame), f"frame from {source.name}")
        reached = target.delivery in leg.to if target is not None else bool(leg.to)
        found = Trace(f"{source.name} to {target.name if target is not None else 'anyone'}", (leg,), reached)
    shown = found.as_dict()
    for leg, plain in zip(found.legs, shown["legs"], strict=True):
        plain |= {"aside": leg.aside}
        for lost in plain["lost"]:
            lost["place"] = lost.pop("where")
        for hop in plain["hops"]:
            hop["came_in"] = hop.pop("in")
    return msgspec.convert({**shown, "reason": found.reason}, api.Traced)


def target_of(body: api.TraceCall) -> str:
    """The name of the end that a conversation is with. Raises Invalid."""
    if not body.target:
        raise Invalid("trace", "name a target, or give a frame", "target")
    return body.target


def conversation(pool: SimPool, body: api.TraceCall, source: Vif | None, target: Vif | None) -> Trace:
    """The conversation of two ends, of which one may be outside (None). Raises Invalid, SimError."""
    ends = _end(pool, source, target), _end(pool, target, source)
    return trace_talk(pool, *ends, Protocol(body.protocol), body.port)


def pool_then(then: Moment) -> tuple[SimPool, frozenset[str]]:
    """The twin of the pool as it was, and the VIFs of which it is not known where they ran."""
    return twin_then(then.state, then.now.bindings.values(), f"the pool at {then.name}")


def traced_then(then: Moment, body: api.TraceCall) -> api.Traced:
    """As `traced`, in the pool as it was."""
    pool, guessed = pool_then(then)
    ends = {vif.id for vif in pool.state.vifs.values() if {vif.id, vif.vm} & {body.source, body.target}}
    return msgspec.structs.replace(traced(pool, body), guessed=sorted(ends & guessed))


def _end(pool: SimPool, vif: Vif | None, other: Vif | None) -> Party:
    found = party(pool, vif) if vif is not None else outside(pool, other) if other is not None else None
    if found is None:
        raise Invalid("trace", "the network of that VIF does not meet the physical one: nothing outside can reach it")
    return found


def _frame(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError as error:
        raise Invalid("trace", f"the frame is no hexadecimal number: {error}", "frame") from None
    if not MIN_FRAME <= len(found) <= MAX_FRAME:
        raise Invalid("trace", f"a frame has {MIN_FRAME} to {MAX_FRAME} bytes, this has {len(found)}", "frame")
    return found


class Circumstances(NamedTuple):
    """A pool while parts of it fail. guessed: of a past one, the VIFs of which it is not known where they ran. gone: those whose hosts are down."""

    pool: SimPool
    guessed: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


def while_failing(
    pool: SimPool,
    guessed: frozenset[str],
    hosts: Sequence[str],
    links: Sequence[str],
    question: Callable[[Circumstances], T],
) -> T:
    """The answer while hosts are down and links are cut. Raises SimError for a name that the pool does not have."""
    fail = [*(down(pool, name) for name in hosts), *(cut(pool, name) for name in links)]
    with failing(pool, fail) as gone:
        return question(Circumstances(pool, guessed, gone))


def reachability_matrix(now: Circumstances, protocol: Protocol, port: int, *, each: bool) -> api.ReachabilityMatrix:
    """Who reaches whom, by classes of equal VIFs; with `each` also whom a single failure parts. Raises Conflict for too many."""
    pool, guessed, _ = now
    reach = Reachability(pool, protocol, port)
    if len(reach.classes) > CLASSES_MOST:
        text = f"the pool has {len(reach.classes)} classes of VIFs, and a matrix at most {CLASSES_MOST}"
        raise Conflict("too-many", f"{text}: 'vnet matrix' prints all")
    classes = [
        api.VifClass(name=found.name, network=found.network, hosts=list(found.hosts), vifs=list(found.vifs))
        for found in reach.classes
    ]
    parted = lost_pairs(reach, pool, _each(pool, len(classes) ** 2)) if each else {}
    return api.ReachabilityMatrix(
        protocol=protocol.value,
        port=port,
        classes=classes,
        reaches=reach.matrix(),
        parted=[
            api.PartedPair(source=source, target=target, failures=list(map(str, by)))
            for (source, target), by in sorted(parted.items())
        ],
        guessed=sorted(guessed),
    )


def checked(now: Circumstances) -> list[api.Expected]:
    """The expectations of the pool's own document."""
    document = now.pool.document
    if document is None:
        return []
    witness = TwinWitness(now.pool)
    results = [judge(now.pool, document, spec, witness, now.gone) for spec in document.expectations]
    return [as_expected(result, held=result.holds) for result in results]


def single_failures(pool: SimPool, *, judged: bool) -> list[api.SingleFailure]:
    """Each failure that there can be; with `judged` what becomes of the expectations. Raises Conflict for too many."""
    document = pool.document
    if not judged or document is None:
        return [_failure(each) for each in each_failure(pool)]
    cases = [[each] for each in _each(pool)]
    return [_failure(outcome.failures[0], outcome) for outcome in outcomes(pool, document, cases)]


def _each(pool: SimPool, pairs: int = 0) -> list[Failure]:
    """Every single failure. pairs: of classes, to be tried under each. Raises Conflict for more than a page waits for."""
    found = list(each_failure(pool))
    if len(found) > FAILURES_MOST or len(found) * pairs > PAIRS_MOST:
        text = f"there are {len(found)} single failures" + (f" for {pairs} pairs of classes" if pairs else "")
        raise Conflict("too-many", f"{text}, more than are tried here: 'vnet matrix' and 'vnet check' take them")
    return found


def _failure(failure: Failure, outcome: Outcome | None = None) -> api.SingleFailure:
    results = sorted(outcome.results, key=lambda result: result.name) if outcome is not None else []
    verdicts = [(verdict_of(result), result.name) for result in results]
    return api.SingleFailure(
        text=str(failure),
        **{"down" if failure.link is None else "cut": failure.name},
        fails=[name for verdict, name in verdicts if verdict is FailureVerdict.FAILS],
        unasked=[name for verdict, name in verdicts if verdict is FailureVerdict.GONE],
    )


def explained(pool: SimPool, id: str) -> api.ExplainedVif:
    """A VIF's flows and the groups that judge it. Raises NotFound."""
    vif = pool.state.vifs.get(id)
    if vif is None:
        raise NotFound("unknown-vif", f"there is no VIF {id}", id)
    host = pool.runs_on(vif)
    obeyed = [pool.state.groups[name] for name in obeyed_in(pool.state, vif) if name in pool.state.groups]
    steps = [
        api.JudgingStep(tier=tier.value, mandatory=mandatory, groups=names)
        for tier, mandatory in STEPS
        if (names := [group.name for group in obeyed if group.is_asked_in(tier, mandatory=mandatory)])
    ]
    flows = list(_flows(pool, host, id)) if host is not None else []
    return api.ExplainedVif(vif=id, host=host, steps=steps, flows=flows)


def _flows(pool: SimPool, host: str, id: str) -> Iterator[api.ExplainedFlow]:
    at = pool.host(host)
    found = [
        (entry, source)
        for source in sources_of_vif(at.view, at.compiled, pool.state.vifs[id])
        for entry in at.compiled[source]
        if isinstance(entry, Flow)
    ]
    for flow, source in sorted(found, key=lambda item: (item[0].table, -item[0].priority)):
        known = flow.table in PIPELINE
        yield api.ExplainedFlow(
            table=flow.table,
            name=Table(flow.table).name if known else str(flow.table),
            does=PIPELINE[Table(flow.table)].does if known else "",
            priority=flow.priority,
            match=format_match(flow.match) or "everything",
            source=describe(pool, source, flow.cookie),
            place=position_of(pool, source, flow.cookie),
            asks=asked(flow, at.view.groups.values()) if source.category is not Category.GROUP else [],
        )
