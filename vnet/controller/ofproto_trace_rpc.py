"""Asking hosts what their switches would do with frames. One rule: a host that cannot answer is an answer too, never an error."""

from __future__ import annotations

from uuid import uuid4

from vnet import api
from vnet.api.errors import Invalid
from vnet.controller.admission import find
from vnet.controller.endpoint import Call
from vnet.controller.questions import ask
from vnet.controller.service import refusing_pool_errors
from vnet.db.database import now_ms
from vnet.db.probes import Answer, Probe
from vnet.db.replies import MAX_ASKED
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
    with refusing_pool_errors():
        replies = await ask(service.database, view, questions, Answer, min(max(body.wait_s, 0.0), MAX_WAIT_S))
    return [
        api.Probe(host=each.host, text=it.text, vifs=it.vifs, devices=it.devices, problem=it.problem)
        for each, it in zip(questions, replies, strict=True)
    ]


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
