"""Asking what hosts have found out about the network between them, and having them look anew. One rule: a host that is missing in the answer is named."""

from __future__ import annotations

from collections.abc import Mapping

from vnet import api
from vnet.controller.endpoint import Call
from vnet.controller.health_queries import ask_hosts
from vnet.controller.ofproto_trace_rpc import MAX_WAIT_S
from vnet.controller.presenters import show_neighbours
from vnet.controller.service import refusing_pool_errors
from vnet.db.health import HostHealth
from vnet.db.view import PoolView
from vnet.health.findings import findings, stated, tunnels_of

DEFAULT_WAIT_S = 10


async def get_health(call: Call[None]) -> api.Health:
    """What is wrong with the network between the hosts, by what they have stated.

    Nothing is asked or sent.
    """
    view = call.service.view()
    return _shown(view, stated(view), {})


async def look(call: Call[None]) -> api.Health:
    """Have all hosts look anew at the network between them, by frames that no guest gets.

    Raises Invalid, Unavailable.
    """
    view = call.service.view()
    wait_s = call.number("wait_s", DEFAULT_WAIT_S, 0, int(MAX_WAIT_S))
    with refusing_pool_errors():
        replies = await ask_hosts(call.service.database, view, wait_s)
    missing = {host: health.problem for host, health in sorted(replies.items()) if health.problem}
    return _shown(call.service.view(), {host: it for host, it in replies.items() if it.looks}, missing)


def _shown(view: PoolView, statements: Mapping[str, HostHealth], missing: dict[str, str]) -> api.Health:
    return api.Health(
        findings=[
            api.HealthFinding(code=it.code, text=it.text, remedy=it.remedy, hosts=list(it.hosts))
            for it in findings(view, statements)
        ],
        tunnels=[
            api.TunnelHealth(
                source=name, to=it.peer, via=it.via, passes=it.heard, mtu=it.mtu, needs=it.needs or None,
                round_trip_us=it.round_trip_us, ahead_ms=it.ahead_ms,
            )
            for name, it in tunnels_of(statements)
        ],
        uplinks=[
            api.UplinkHealth(
                host=name, uplink=it.uplink, links=list(it.links), vlans=list(it.tags), heard=sorted({host for host, _ in it.senders})
            )
            for name, health in statements.items()
            for it in health.uplinks
        ],
        neighbours=[it for name, health in statements.items() for it in show_neighbours(name, health)],
        hosts=sorted(statements),
        missing=missing,
    )  # fmt: skip
