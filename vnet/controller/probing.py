"""Asking a host what its switch would do with a frame. One rule: a host that cannot answer is an answer too, never an error."""

from __future__ import annotations

from uuid import uuid4

from vnet import api
from vnet.controller.calls import Call
from vnet.controller.errors import Invalid, Unavailable
from vnet.controller.outcomes import find
from vnet.controller.where import host_problem
from vnet.model import InvalidValue
from vnet.pool.database import now_ms
from vnet.pool.errors import PoolUnreachable
from vnet.pool.probes import Answer, Probe, decode_answer

MAX_WAIT_S = 30.0


async def probe(call: Call[api.ProbeCall]) -> api.Probe:
    """Ask, and wait for the answer. Raises Invalid, NotFound, Unavailable."""
    service, body = call.service, call.body
    view = service.view()
    find("host", body.host, view.state.hosts)
    question = _question(body)
    if (silent := host_problem(view, body.host)) is not None:
        return api.Probe(host=body.host, problem=silent.text)
    wait_s = min(max(body.wait_s, 0.0), MAX_WAIT_S)
    try:
        text = await service.database.ask(question, wait_s)
    except PoolUnreachable as error:
        raise Unavailable("database-unreachable", str(error)) from None
    late = f"the agent of host {body.host} did not answer within {wait_s:g} s"
    answer = Answer(problem=late) if text is None else decode_answer(text)
    return api.Probe(host=body.host, text=answer.text, vifs=answer.vifs, devices=answer.devices, problem=answer.problem)


def _question(body: api.ProbeCall) -> Probe:
    tunnel = body.tunnel
    try:
        return Probe(
            id=str(uuid4()),
            host=body.host,
            created=now_ms(),
            frame=body.frame,
            vif=body.vif or "",
            device=body.device or "",
            tun_id=tunnel.key if tunnel else 0,
            tun_src=tunnel.source if tunnel else "",
            tun_dst=tunnel.target if tunnel else "",
        )
    except InvalidValue as error:
        raise Invalid("probe", str(error)) from None
