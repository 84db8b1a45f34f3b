"""Learning the MACs behind unlocked VIFs: what the agent is told, and the ways to those MACs.

One rule: a VIF's own MAC has its own flows, above these. An address that nobody has learned is flooded as ever.
"""

from __future__ import annotations

from dataclasses import replace

from ovsctl.openflow import Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from vnet.compile.flows import IN_THE_DATAPATH, Entries, Fields, Flows, goto
from vnet.compile.l2 import ways_to
from vnet.compile.pipeline import Table
from vnet.compile.view import HostView
from vnet.objects import Vif
from vnet.objects.identity import macs_of

# userdata of the packet-in by which the agent hears a MAC behind a VIF
HEARD = b"vnet:behind"
OF_HEARD = 0x7705_0000  # the meter of a VIF's frames that tell of new MACs, but for its ofport (see rates.OURS)
HEARD_RATE, HEARD_BURST = 5, 10  # frames a second
BELOW = 30  # how much lower in LOOKUP than the ways to VIFs' own MACs


def learn_flows(view: HostView, vif: Vif, ofport: int, mark: int) -> Entries:
    """Tells the agent of a MAC that is not known behind a VIF yet, some frames a second, while there is room for it. The frame goes on."""
    if not vif.learn:
        return ()
    own: Fields = {"in_port": ofport}
    onward, known = goto(view.onward(Table.LEARN, vif)), view.behind(vif)
    flows = [
        Flow(table=Table.LEARN, priority=200, cookie=mark, match=Match(**own, eth_src=mac), actions=(onward,))
        for mac in (*macs_of(vif), *known)
    ]
    if len(known) >= vif.learn:
        return (*flows, Flow(table=Table.LEARN, priority=100, cookie=mark, match=Match(**own), actions=(onward,)))
    meter = Meter(OF_HEARD | ofport, (Band(HEARD_RATE, HEARD_BURST),), packets=True)
    # A copy of its own: a meter that drops ends what is left to do with the packet (docs/adr/0011).
    tell = act.Clone(IN_THE_DATAPATH, act.MeterAction(meter.meter_id), act.ToController(userdata=HEARD))
    return (
        meter,
        *flows,
        Flow(table=Table.LEARN, priority=100, cookie=mark, match=Match(**own), actions=(tell, onward)),
    )


def behind_flows(view: HostView, mac: str, network: str) -> Flows:
    """The ways to a MAC behind a VIF: those to the VIF."""
    vif = view.in_front_of(mac, network)
    if vif is None:
        return ()
    return tuple(
        replace(flow, priority=flow.priority - BELOW)
        for flow in ways_to(view, vif, network, mac)
        if flow.table == Table.LOOKUP
    )
