"""What a VIF has sent and got, counted by its own flows: with other VIFs of the pool, or with stations outside.

One rule: a frame counts where the pool's database says that the VIF runs: as its policy has let it pass, and as it goes out of its port. The flows
that count have a flag by which the switch tells their last counters as they go.

Outside is what is behind uplinks. What a host hands to a tunnel, or to a VIF of its own, is for a VIF. On a network with an uplink the other side is a VIF if
it has the MAC of one, wherever that runs; what is for many goes to stations too, so it counts as outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from ovsctl.openflow import Flow, Match
from ovsctl.openflow import actions as act
from ovsctl.openflow.fields import ReservedPort
from ovsctl.openflow.flow import FlowFlags
from vnet.compile.flows import Actions, Fields, Flows, goto
from vnet.compile.pipeline import POOL_ASKED, POOL_MET, REG_POOL, UNCOUNTED, Category, From, Table, cookie
from vnet.compile.view import HostView
from vnet.objects import Vif, Way
from vnet.objects.identity import macs_of

_TOLD = POOL_ASKED | POOL_MET
# What an agent does with a frame that it sends as a VIF, which has not sent it.
AS_VIF: Actions = (act.SetField(REG_POOL, (UNCOUNTED, UNCOUNTED)), act.Output(ReservedPort.TABLE))


class Lane(IntEnum):
    """What a flow counts. The order is that of the counts of a VIF in the pool database (vnet/db/accounting.py)."""

    FROM_VM_POOL = 0
    FROM_VM_OUTSIDE = 1
    TO_VM_POOL = 2
    TO_VM_OUTSIDE = 3


def lane_of(flow: Flow) -> Lane:
    """What a flow of SENT or DELIVER counts."""
    if flow.table == Table.SENT:
        met = flow.match.get(REG_POOL)
        return Lane.FROM_VM_OUTSIDE if met is not None and met.value == POOL_ASKED else Lane.FROM_VM_POOL
    return Lane.TO_VM_OUTSIDE if "reg0" in flow.match else Lane.TO_VM_POOL


def has_outside(view: HostView, network: str) -> bool:
    """Whether frames of a network may come from stations outside of the pool, or go to them."""
    known = view.network(network)
    return known is not None and known.way is Way.UPLINK


def sent_flows(view: HostView, vif: Vif, ofport: int, mark: int, sampled: Actions) -> Iterator[Flow]:
    """Counts what a VIF sends and its policy has let pass. sampled: what is done with it besides."""
    own: Fields = {"in_port": ofport}
    by_itself: Fields = {REG_POOL: (0, UNCOUNTED)}
    onward = (*sampled, goto(view.onward(Table.SENT, vif)))
    if not has_outside(view, vif.network):
        yield _counting(mark, Table.SENT, 100, own | by_itself, onward)
        return
    ask = act.SetField(REG_POOL, (POOL_ASKED, POOL_ASKED))
    asking: Actions = (ask, goto(Table.TO_POOL), goto(Table.SENT))
    yield Flow(table=Table.SENT, priority=90, cookie=mark, match=Match(**own, **by_itself), actions=asking)
    for met in (POOL_ASKED, _TOLD):
        yield _counting(mark, Table.SENT, 100, own | {REG_POOL: (met, _TOLD)}, onward)


def delivering(
    view: HostView, vif: Vif, mark: int, priority: int, match: Fields, out: Actions, *, runs: bool
) -> Iterator[Flow]:
    """A flow out of a VIF's port, with one more for what comes from outside. runs: whether the VIF does so here: what its port gets before counts where it still runs,
    which gets it as well. So that the switch takes no counts over, the flows have other priorities then."""
    if not runs:
        yield Flow(table=Table.DELIVER, priority=priority + 2, cookie=mark, match=Match(**match), actions=out)
        return
    yield _counting(mark, Table.DELIVER, priority, match, out)
    if has_outside(view, vif.network):
        outside = match | {"reg0": From.UPLINK, REG_POOL: (0, POOL_MET)}
        yield _counting(mark, Table.DELIVER, priority + 5, outside, out)


def not_to_itself(ofport: int, mark: int) -> Flow:
    """What a VIF sends to all is handed to its own port, too, and a switch puts no frame out where it came in: so that does not count."""
    return Flow(table=Table.DELIVER, priority=150, cookie=mark, match=Match(reg2=ofport, in_port=ofport))


def _counting(mark: int, table: Table, priority: int, match: Fields, actions: Actions) -> Flow:
    return Flow(
        table=table,
        priority=priority,
        cookie=mark,
        match=Match(**match),
        actions=actions,
        flags=FlowFlags.SEND_FLOW_REM,
    )


def pool_flows(view: HostView, vif_id: str, network_name: str) -> Flows:
    """The MACs of a VIF, wherever it is, on a network where they tell it from stations outside."""
    if not has_outside(view, network_name):
        return ()
    known = view.vif(vif_id, network_name)
    sources = view.bindings_of(network_name, vif_id) if known is None else (known,)
    return mac_flows(
        view, network_name, cookie(Category.LOOKUP, vif_id), *(mac for it in sources for mac in macs_of(it))
    )


def mac_flows(view: HostView, network_name: str, mark: int, *macs: str) -> Flows:
    """MACs that are of VIFs, on a network with an uplink."""
    network = view.network(network_name)
    if network is None or network.segment is None or network.way is not Way.UPLINK:
        return ()
    met, on = (act.SetField(REG_POOL, (POOL_MET, POOL_MET)),), network.segment
    return tuple(
        Flow(table=table, priority=100, cookie=mark, match=Match(metadata=on, **{field: mac}), actions=met)
        for mac in dict.fromkeys(macs)
        for table, field in ((Table.TO_POOL, "eth_dst"), (Table.FROM_POOL, "eth_src"))
    )
