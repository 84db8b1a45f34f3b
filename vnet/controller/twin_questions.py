"""The calls that ask the twin: a packet's way, who reaches whom, expectations, the flows of a VIF.

One rule: nothing is sent and nothing written: each answer follows from the pool as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from vnet import api
from vnet.api.errors import Invalid
from vnet.controller.endpoint import Call, Route
from vnet.controller.revisions import moment
from vnet.objects import Protocol
from vnet.objects.token import ApiRole

if TYPE_CHECKING:
    from vnet.controller.tenant_answers import Own
    from vnet.controller.twin_answers import Circumstances
    from vnet.sim import SimPool

T = TypeVar("T")
PORTS = range(1, 65536)


def _protocol(text: str) -> Protocol:
    if text not in ("icmp", "tcp", "udp"):
        raise Invalid("protocol", f"{text[:40]!r} is none of icmp, tcp, udp", "protocol")
    return Protocol(text)


def _own(call: Call[Any]) -> Own | None:
    """What a caller with a scope sees; None for one without."""
    if call.service.caller.scope is None:
        return None
    from vnet.controller.tenant_answers import Own  # noqa: PLC0415 - a controller that nobody asks need not load it

    state = call.service.seen().state
    return Own(frozenset(state.vifs), frozenset(state.vms), frozenset(state.networks), frozenset(state.groups))


async def trace(call: Call[api.TraceCall]) -> api.Traced:
    """A packet's way from one end to another and back, on the twin of the pool as it is; nothing is sent."""
    body = call.body
    protocol = _protocol(body.protocol)
    if not body.frame and protocol is not Protocol.ICMP and body.port not in PORTS:
        raise Invalid("trace", f"port: {body.port} is no number from 1 to 65535", "port")

    if body.at:
        then = await moment(call.service, body.at)

        def answer() -> api.Traced:
            from vnet.controller.twin_answers import traced_then  # noqa: PLC0415 - a controller that nobody asks need not load it

            return traced_then(then, body)

        return await call.service.twin.run(answer)

    own = _own(call)

    def question(pool: SimPool) -> api.Traced:
        from vnet.controller import tenant_answers, twin_answers  # noqa: PLC0415 - as above

        if own is not None:
            return tenant_answers.traced(pool, body, own)
        return twin_answers.traced(pool, body)

    return await call.service.twin.ask(call.service.view, question)


async def _asked(call: Call[None], question: Callable[[Circumstances], T]) -> T:
    """The answer of the twin, of now or as the pool was, while parts of it fail as the query says."""
    down, cuts = (tuple(filter(None, call.query.get(name, "").split(","))) for name in ("down", "cut"))

    def during(pool: SimPool, guessed: frozenset[str] = frozenset()) -> T:
        from vnet.controller.twin_answers import while_failing  # noqa: PLC0415 - a controller that nobody asks need not load it

        return while_failing(pool, guessed, down, cuts, question)

    if not (at := call.query.get("at", "")):
        return await call.service.twin.ask(call.service.view, during)
    then = await moment(call.service, at)

    def past() -> T:
        from vnet.controller.twin_answers import pool_then  # noqa: PLC0415 - as above

        return during(*pool_then(then))

    return await call.service.twin.run(past)


async def matrix(call: Call[None]) -> api.ReachabilityMatrix:
    """Who reaches whom, by classes of VIFs that all reach and are reached alike; for a caller with a scope its own VIFs."""
    protocol = _protocol(call.query.get("protocol", Protocol.ICMP.value))
    port = 0 if protocol is Protocol.ICMP else call.number("port", 0, 1, 65535)
    each, own = call.flag("each-failure"), _own(call)
    if each and (name := next((name for name in ("down", "cut") if call.query.get(name)), None)) is not None:
        raise Invalid("query", f"each-failure tries each alone: leave {name} out", name)

    def question(now: Circumstances) -> api.ReachabilityMatrix:
        from vnet.controller import tenant_answers, twin_answers  # noqa: PLC0415 - as above

        if own is not None:
            return tenant_answers.matrix(now.pool, protocol, port, own)
        return twin_answers.reachability_matrix(now, protocol, port, each=each)

    return await _asked(call, question)


async def check(call: Call[None]) -> list[api.Expected]:
    """The pool's expectations by name, and whether each holds on its twin."""

    def question(now: Circumstances) -> list[api.Expected]:
        from vnet.controller.twin_answers import checked  # noqa: PLC0415 - as above

        return checked(now)

    return await _asked(call, question)


async def failures(call: Call[None]) -> list[api.SingleFailure]:
    """Every single failure of a host, a NIC, an uplink or a host's way to the others."""
    judged = call.flag("expectations")

    def question(now: Circumstances) -> list[api.SingleFailure]:
        from vnet.controller.twin_answers import single_failures  # noqa: PLC0415 - as above

        return single_failures(now.pool, judged=judged)

    return await _asked(call, question)


async def explain(call: Call[None]) -> api.ExplainedVif:
    """The flows of a VIF on its host with what they are for, and the groups whose rules judge it, in their order."""

    def question(pool: SimPool) -> api.ExplainedVif:
        from vnet.controller.twin_answers import explained  # noqa: PLC0415 - as above

        return explained(pool, call.id)

    return await call.service.twin.ask(call.service.view, question)


VIEWING = frozenset(ApiRole) - {ApiRole.HOST, ApiRole.PROXY}


def twin_routes() -> Iterator[Route]:
    """The calls of all questions."""
    yield Route(
        "POST",
        "/v1/trace",
        trace,
        tag="reachability",
        roles=VIEWING,
        scoped=True,
        whole=frozenset(["at", "frame"]),
        asks=True,
    )
    past = {"at": "In the pool as it was: a revision, the id of a record, or a time (RFC 3339)."}
    failing = {
        **past,
        "down": "With these hosts down, by commas.",
        "cut": "With these links cut, by commas: trunk0 on every host, xen1:trunk0, xen1:eth1, xen1:underlay.",
    }
    query = {
        "protocol": "icmp (ping, unless told), tcp or udp.",
        "port": "Of tcp or udp.",
        **failing,
        "each-failure": "Also the pairs that a single failure parts: true or false.",
    }
    yield Route(
        "GET",
        "/v1/matrix",
        matrix,
        query=query,
        tag="reachability",
        roles=VIEWING,
        scoped=True,
        whole=frozenset([*failing, "each-failure"]),
        asks=True,
    )
    yield Route("GET", "/v1/check", check, query=failing, tag="reachability", roles=VIEWING, asks=True)
    query = {**past, "expectations": "Also the expectations that fail then: true or false."}
    yield Route("GET", "/v1/failures", failures, query=query, tag="reachability", roles=VIEWING, asks=True)
    yield Route("GET", "/v1/vifs/{id}/explained", explain, tag="vifs", roles=VIEWING, noun="vif", asks=True)
