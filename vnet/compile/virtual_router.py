"""Virtual routers (RFC 9568): where frames for a virtual MAC go, which several VIFs may have.

One rule: each VIF that may be the master gets them, once. A backup's guest does not take them (RFC 9568 §6.4.2), so whoever is the master by
the routers' own election is reached at once, whatever became of this host's agent or of the pool database.
"""

from __future__ import annotations

from ovsctl.openflow import Flow, Match
from vnet.compile.accounting import mac_flows
from vnet.compile.flows import Fields, Flows
from vnet.compile.isolation import promiscuous_sender
from vnet.compile.l2 import deliver_all, to_host, to_uplink
from vnet.compile.pipeline import Category, From, Table, cookie
from vnet.compile.view import HostView
from vnet.objects import Way
from vnet.objects.identity import virtual_macs_of


def router_flows(view: HostView, name: str, _: str) -> Flows:
    """The flows of a network's virtual routers: none on a network without."""
    routers = view.routers(name)
    if not routers:
        return ()
    network = view.network(name)
    if network is None or network.segment is None:
        return ()
    mark = cookie(Category.ROUTER, name)
    flows: list[Flow] = []
    for router in sorted(routers):
        here = [(ofport, vif) for ofport, vif in view.here(name) if router in vif.vrrp]
        local = deliver_all(view, here)
        if network.way is Way.UPLINK:
            away = () if network.patch is None else to_uplink(network.patch, network.tag or 0, service=network.service)
        else:
            others = sorted(set(routers[router]) - {view.me})
            away = tuple(action for host in others for action in to_host(view, network, host))
        for mac in virtual_macs_of(router):
            to: Fields = {"metadata": network.segment, "eth_dst": mac}
            flows.append(Flow(table=Table.LOOKUP, priority=100, cookie=mark, match=Match(**to), actions=local))
            out = (*away, *local)
            match = Match(reg0=From.VIF, **to)
            flows.append(Flow(table=Table.LOOKUP, priority=110, cookie=mark, match=match, actions=out))
            flows += (*promiscuous_sender(view, network, mac, mark), *mac_flows(view, name, mark, mac))
    return tuple(flows)
