"""Answers of a twin, as the API shows them. Pure, and never fast: call them in a thread."""

from __future__ import annotations

from collections.abc import Iterator

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
from vnet.verify.expectations import check
from vnet.verify.reachability import Reachability

CLASSES_MOST = 400  # of VIFs in a matrix
MIN_FRAME, MAX_FRAME = 14, 9216 + 22  # bytes, as of probes


def traced(pool: SimPool, body: api.TraceCall) -> api.Traced:
    """A conversation from one end to another and back, or one frame. Raises Invalid, SimError."""
    vif, other = ends_named(pool, body.source, body.target or body.source)
    source = _end(pool, vif, other if body.target else None)
    target = _end(pool, other, vif) if body.target else None
    if body.frame:
        leg = trace_packet(pool, source.endpoint, _frame(body.frame), f"frame from {source.name}")
        reached = target.delivery in leg.to if target is not None else bool(leg.to)
        found = Trace(f"{source.name} to {target.name if target is not None else 'anyone'}", (leg,), reached)
    elif target is None:
        raise Invalid("trace", "name a target, or give a frame", "target")
    else:
        found = trace_talk(pool, source, target, Protocol(body.protocol), body.port)
    shown = found.as_dict()
    for leg, plain in zip(found.legs, shown["legs"], strict=True):
        plain |= {"aside": leg.aside}
        for lost in plain["lost"]:
            lost["place"] = lost.pop("where")
        for hop in plain["hops"]:
            hop["came_in"] = hop.pop("in")
    return msgspec.convert({**shown, "reason": found.reason}, api.Traced)


def traced_then(then: Moment, body: api.TraceCall) -> api.Traced:
    """The same in the pool as it was."""
    pool, guessed = twin_then(then.state, then.now.bindings.values(), f"the pool at {then.name}")
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


def reachability_matrix(pool: SimPool, protocol: Protocol, port: int) -> api.ReachabilityMatrix:
    """Who reaches whom, by classes of equal VIFs. Raises Conflict for too many."""
    reach = Reachability(pool, protocol, port)
    if len(reach.classes) > CLASSES_MOST:
        text = f"the pool has {len(reach.classes)} classes of VIFs, and a matrix at most {CLASSES_MOST}"
        raise Conflict("too-many", f"{text}: 'vnet matrix' prints all")
    classes = [
        api.VifClass(name=each.name, network=each.network, hosts=list(each.hosts), vifs=list(each.vifs))
        for each in reach.classes
    ]
    return api.ReachabilityMatrix(protocol=protocol.value, port=port, classes=classes, reaches=reach.matrix())


def checked(pool: SimPool) -> list[api.Expected]:
    """The expectations of the pool's own document."""
    return [as_expected(result, held=result.holds) for result in check(pool, pool.document)] if pool.document else []


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
