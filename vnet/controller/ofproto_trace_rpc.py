"""Asking hosts what their switches would do with frames. One rule: a host that cannot answer is an answer too, never an error."""

from __future__ import annotations

from uuid import uuid4

from vnet import api
from vnet.api.errors import Invalid
from vnet.controller.admission import find
from vnet.controller.endpoint import Call
from vnet.controller.service import refusing_pool_errors
from vnet.controller.vif_status import Reason, host_problem
from vnet.db.database import now_ms
from vnet.db.probes import MAX_ASKED, Answer, Probe, decode_answer
from vnet.objects import InvalidValue

MAX_WAIT_S = 30.0


async def probe(call: Call[api.ProbesCall]) -> list[api.Probe]:
    """The verdicts of hosts' switches on frames; nothing is sent.

    Raises Invalid, NotFound, Unavailable.
    """
    service, body = call.service, call.body
    if len(body.probes) > MAX_ASKED:
        raise Invalid("probes", f"{len(body.probes)} questions are too many: at most {MAX_ASKED}")
    view = service.view()
    for one in body.probes:
        find("host", one.host, view.state.hosts)
    questions = [_question(one) for one in body.probes]
    silent = {one.host: host_problem(view, one.host) for one in body.probes}
    asked = [question for question in questions if silent[question.host] is None]
    wait_s = min(max(body.wait_s, 0.0), MAX_WAIT_S)
    with refusing_pool_errors():
        found = await service.database.ask(asked, wait_s) if asked else []
    texts = dict(zip((question.id for question in asked), found, strict=True))
    return [_answer(question, silent[question.host], texts.get(question.id), wait_s) for question in questions]


def _answer(question: Probe, silent: Reason | None, text: str | None, wait_s: float) -> api.Probe:
    if silent is not None:
        return api.Probe(host=question.host, problem=silent.text)
    late = f"the agent of host {question.host} did not answer within {wait_s:g} s"
    said = decode_answer(text) if text else Answer(problem=late)
    return api.Probe(host=question.host, text=said.text, vifs=said.vifs, devices=said.devices, problem=said.problem)


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
            tracked=" ".join(body.tracked),
        )
    except InvalidValue as error:
        raise Invalid("probe", str(error)) from None
