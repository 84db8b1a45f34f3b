"""Asking hosts what the ports of VIFs have received and sent, and what went between hosts. One rule: who asks within some seconds of another gets the same answer, so watchers cost no more than one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import uuid4

from vnet import api
from vnet.controller.admission import find
from vnet.controller.endpoint import Call
from vnet.controller.questions import ask
from vnet.controller.service import Service, refusing_pool_errors
from vnet.db.database import now_ms
from vnet.db.traffic_queries import TrafficQuery, TrafficReply
from vnet.db.view import PoolView

WAIT_S = 2.0  # for hosts to answer


@dataclass(frozen=True, slots=True)
class HostsTraffic:
    """replies: of the hosts that were asked. missing: the reasons of those that did not answer."""

    replies: Mapping[str, TrafficReply]
    missing: Mapping[str, str]


async def of_all(service: Service) -> HostsTraffic:
    """What all hosts with VIFs answer. Raises Unavailable."""
    view = service.view()
    return await asked(
        service, view, sorted({at.host for at in view.state.bindings.values() if at.host in view.state.hosts})
    )


async def asked(service: Service, view: PoolView, hosts: Iterable[str], vif: str = "") -> HostsTraffic:
    """What hosts answer. Raises Unavailable."""
    queries = [TrafficQuery(str(uuid4()), host, now_ms(), vif) for host in hosts]
    with refusing_pool_errors():
        async with service.counting:
            found = await ask(service.database, view, queries, TrafficReply, WAIT_S)
    replies = {query.host: reply for query, reply in zip(queries, found, strict=True)}
    missing = {host: reply.problem for host, reply in replies.items() if reply.problem}
    for host, reply in replies.items():
        if reply.left_out:
            missing[host] = f"host {host} has {reply.left_out} more VIFs than it counts for"
    return HostsTraffic(replies, dict(sorted(missing.items())))


async def traffic(call: Call[None]) -> api.Traffic:
    """What the ports of VIFs have received and sent, and hosts to each other. Who asks within 2 s of another gets the same answer.

    Raises Invalid, Unavailable.
    """
    service, seen = call.service, call.service.seen()
    id = call.query.get("vif", "")
    if id:
        find("vif", id, seen.state.vifs)
        current = seen.location(id).current
        found = await asked(service, seen, [current.host] if current is not None else [], id)
    else:
        found = await service.traffic.get(lambda: of_all(service))
    vifs = {}
    for host, reply in found.replies.items():
        for port in reply.ports:
            current = seen.location(port.vif).current if port.vif in seen.state.vifs else None
            if current is not None and current.host == host and (not id or port.vif == id):
                counts = {name: getattr(port, name) for name in port.__struct_fields__ if name != "vif"}
                vifs[port.vif] = api.VifTraffic(host=host, at=reply.at, **counts)
    if service.caller.scope is not None:
        return api.Traffic(vifs=vifs)
    tunnels = [
        api.TunnelTraffic(source=host, to=peer.host, at=reply.at, packets=peer.packets, bytes=peer.bytes)
        for host, reply in sorted(found.replies.items())
        for peer in reply.peers
        if peer.host in seen.state.hosts
    ]
    return api.Traffic(vifs=vifs, missing=dict(found.missing), tunnels=tunnels)
