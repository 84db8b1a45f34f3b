"""What the builders of flows share: types, protocol numbers, and going on to a table."""

from __future__ import annotations

from ovsctl.openflow import Action, Flow, Match, Meter
from ovsctl.openflow import actions as act
from ovsctl.openflow.fields import MatchValue, ReservedPort
from vnet.compile.pipeline import Table

Actions = tuple[Action, ...]
Flows = tuple[Flow, ...]
Entries = tuple[Flow | Meter, ...]
FlowKey = tuple[int, int, Match]  # table, priority, match
Key = FlowKey | int  # a meter's is its number
Fields = dict[str, MatchValue]

ETH_IPV4, ETH_ARP, ETH_RARP, ETH_IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
# A clone is a copy in the datapath only if what is in it cannot be undone by the translation; this action cannot, and does nothing.
IN_THE_DATAPATH = act.OutputTrunc(ReservedPort.CONTROLLER, 14)
ETH_MPLS = (0x8847, 0x8848)
ICMP, IGMP, TCP, UDP, ICMPV6, PIM, VRRP = 1, 2, 6, 17, 58, 103, 112


def goto(table: Table) -> Action:
    return act.Resubmit(table=table)


def ask_as_begun(table: Table) -> Action:
    """Asks a table about the first packet of a packet's connection (ovs-actions(7), resubmit with ct)."""
    return act.Resubmit(table=table, ct=True)


def key_of(entry: Flow | Meter) -> Key:
    """The key of an entry, by which a switch tells it from others."""
    return entry.key if isinstance(entry, Flow) else entry.meter_id
