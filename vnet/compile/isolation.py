"""Isolation of VIFs: which frames pass between two VIFs of a network, and how a host knows the isolation of both.

One rule: the host of either VIF keeps them apart, by what it knows itself. So a VIF that becomes isolated exchanges nothing from the moment
its own host knows, however late the other hosts are.

The sender's host knows it by its port, the receiver's by the frame's source MAC, which a VIF that is not promiscuous cannot change: it
is locked. From a tunnel a MAC that no VIF is known to have counts as isolated, since a new VIF's frames may be here before its binding.
From the physical network it is a station's, and stations are promiscuous: routers are among them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ovsctl.openflow import Action, Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import Actions, Fields, Flows, goto
from vnet.compile.inputs import LocalNetwork
from vnet.compile.pipeline import REG_ROLE, Category, Table, cookie
from vnet.compile.view import HostView
from vnet.objects import Vif, Way
from vnet.objects.identity import macs_of
from vnet.objects.isolation import ISOLATED

_SHIFT, _MASK = 16, 0xFFFF0000  # of REG_ROLE


def _role(number: int) -> tuple[int, int]:
    return number << _SHIFT, _MASK


def isolation_number(register: int) -> int:
    """The number of isolation (HostView.roles) in the value of REG_ROLE."""
    return register >> _SHIFT


def _take(number: int) -> Action:
    return act.SetField(REG_ROLE, _role(number))


def ask_receiver(view: HostView, vif: Vif) -> Actions:
    """Finds out whom a frame of a VIF here is for; nothing for a VIF that reaches everybody."""
    return (goto(Table.RECEIVER_ROLE),) if view.role_number(vif.network, vif.isolation) else ()


def ask_sender(view: HostView, network: LocalNetwork) -> Actions:
    """Finds out whom a frame from elsewhere is of; nothing on a network where no VIF here is kept apart from others."""
    if not view.roles(network.name):
        return ()
    unknown = view.roles(network.name)[ISOLATED] if network.way is Way.TUNNEL else 0
    return (*((_take(unknown),) if unknown else ()), goto(Table.SENDER_ROLE))


def isolation_flows(view: HostView, vif: Vif, ofport: int, mark: int) -> Iterator[Flow]:
    """Whom a VIF here sends to and who sends to it, if it is not promiscuous: the promiscuous, and its own community."""
    own = view.role_number(vif.network, vif.isolation)
    if not own:
        return
    met = (0,) if own == view.roles(vif.network)[ISOLATED] else (0, own)
    send, take = (goto(view.onward(table, vif)) for table in (Table.FROM_ISOLATION, Table.TO_ISOLATION))
    for other in met:
        yield _flow(mark, Table.FROM_ISOLATION, {"in_port": ofport, REG_ROLE: _role(other)}, _take(own), send)
        yield _flow(mark, Table.TO_ISOLATION, {"reg2": ofport, REG_ROLE: _role(other)}, take)


def role_flows(view: HostView, vif_id: str, network_name: str) -> Flows:
    """The isolation of a VIF, wherever it is, by its MAC. Where hosts do not agree about it, it counts as isolated."""
    if not view.roles(network_name):
        return ()
    network = view.network(network_name)
    if network is None or network.segment is None:
        return ()
    known = view.vif(vif_id, network_name)
    sources = view.bindings_of(network_name, vif_id) if known is None else (known,)
    numbers = {view.role_number(network_name, source.isolation) for source in sources}
    number = numbers.pop() if len(numbers) == 1 else view.roles(network_name)[ISOLATED]
    mark = cookie(Category.LOOKUP, vif_id)
    return tuple(
        _flow(mark, table, {"metadata": network.segment, field: mac}, _take(number))
        for mac in dict.fromkeys(mac for source in sources for mac in macs_of(source))
        for table, field in ((Table.RECEIVER_ROLE, "eth_dst"), (Table.SENDER_ROLE, "eth_src"))
        if number or (table is Table.SENDER_ROLE and network.way is Way.TUNNEL)
    )


def promiscuous_sender(view: HostView, network: LocalNetwork, mac: str, mark: int) -> Flows:
    """Of a MAC that promiscuous VIFs share."""
    if network.way is not Way.TUNNEL or not view.roles(network.name):
        return ()
    return (_flow(mark, Table.SENDER_ROLE, {"metadata": network.segment or 0, "eth_src": mac}, _take(0)),)


def _flow(mark: int, table: Table, match: Fields, *actions: Action) -> Flow:
    return Flow(table=table, priority=100, cookie=mark, match=Match(**match), actions=actions)
