"""The calls that ask the twin: a packet's way, who reaches whom, expectations, the flows of a VIF.

One rule: nothing is sent and nothing written: each answer follows from the pool as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vnet import api
from vnet.api.errors import Invalid
from vnet.controller.endpoint import Call, Route
from vnet.controller.revisions import moment
from vnet.objects import Protocol
from vnet.objects.token import ApiRole

if TYPE_CHECKING:
    from vnet.sim import SimPool


PORTS = range(1, 65536)


def _protocol(text: str) -> Protocol:
    if text not in ("icmp", "tcp", "udp"):
        raise Invalid("protocol", f"{text[:40]!r} is none of icmp, tcp, udp", "protocol")
    return Protocol(text)


async def trace(call: Call[api.TraceCall]) -> api.Traced:
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

    def question(pool: SimPool) -> api.Traced:
        from vnet.controller.twin_answers import traced  # noqa: PLC0415 - as above

        return traced(pool, body)

    return await call.service.twin.ask(call.service.view, question)


async def matrix(call: Call[None]) -> api.ReachabilityMatrix:
    protocol = _protocol(call.query.get("protocol", Protocol.ICMP.value))
    port = 0 if protocol is Protocol.ICMP else call.number("port", 0, 1, 65535)

    def question(pool: SimPool) -> api.ReachabilityMatrix:
        from vnet.controller.twin_answers import reachability_matrix  # noqa: PLC0415 - as above

        return reachability_matrix(pool, protocol, port)

    return await call.service.twin.ask(call.service.view, question)


async def check(call: Call[None]) -> list[api.Expected]:
    def question(pool: SimPool) -> list[api.Expected]:
        from vnet.controller.twin_answers import checked  # noqa: PLC0415 - as above

        return checked(pool)

    return await call.service.twin.ask(call.service.view, question)


async def explain(call: Call[None]) -> api.ExplainedVif:
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
        "A packet's way from one end to another and back, on the twin of the pool as it is; nothing is sent.",
        api.Traced,
        trace,
        body=api.TraceCall,
        tag="reachability",
        roles=VIEWING,
    )
    service = {"protocol": "icmp (ping, unless told), tcp or udp.", "port": "Of tcp or udp."}
    text = "Who reaches whom, by classes of VIFs that all reach and are reached alike."
    yield Route(
        "GET", "/v1/matrix", text, api.ReachabilityMatrix, matrix, query=service, tag="reachability", roles=VIEWING
    )
    text = "The pool's expectations, and whether each holds on its twin."
    yield Route("GET", "/v1/check", text, list[api.Expected], check, tag="reachability", roles=VIEWING)
    text = "The flows of a VIF on its host with what they are for, and the groups whose rules judge it, in their order."
    yield Route(
        "GET", "/v1/vifs/{id}/explained", text, api.ExplainedVif, explain, tag="vifs", roles=VIEWING, noun="vif"
    )
