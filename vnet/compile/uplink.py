"""Flows of an uplink's bridge. It switches by MAC without any of ours; it has some only while a VIF moves from or to this host.

One rule: a frame that the physical network brings for such a VIF goes to br-int, wherever the bridge believes the VIF's MAC to
be. Two hosts send as that MAC within milliseconds, and Open vSwitch learns MACs from flow statistics too, some milliseconds late: a
bridge that believes the MAC to be where a frame came from drops the frame (docs/adr/0004-relay-after-the-move.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from ovsctl.openflow import Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import Flows
from vnet.compile.l2 import EXACT_TAG, NO_VLAN, TAGGED
from vnet.compile.pipeline import Category, cookie
from vnet.compile.view import HostView
from vnet.objects import Network, Vif

AnyTci = int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class UplinkPorts:
    """The ofports of an uplink's bridge: of its NICs, and of the patch to br-int."""

    nics: tuple[int, ...]
    patch: int


def uplink_flows(view: HostView, uplink: str, ports: UplinkPorts) -> Flows:
    """The flows of one uplink's bridge, for the VIFs that are moving from or to this host."""
    return tuple(
        Flow(
            table=0,
            priority=100,
            cookie=cookie(Category.LOOKUP, vif.id),
            match=Match(in_port=nic, vlan_tci=tci, eth_dst=vif.mac),
            actions=(act.Output(ports.patch),),
        )
        for network in view.networks.values()
        if network.uplink == uplink
        for vif in view.unsettled(network.name)
        if _moving(view, network, vif)
        for nic in ports.nics
        for tci in _tags(network, vif)
    )


def _moving(view: HostView, network: Network, vif: Vif) -> bool:
    place = view.location(network.name, vif.id)
    mine = view.binding(network.name, vif.id, view.me)
    return mine is not None and (place.incoming is not None or bool(place.superseded))


def _tags(network: Network, vif: Vif) -> tuple[AnyTci, ...]:
    """The tags that the VIF's frames have on the wire."""
    own = (TAGGED | network.tag, EXACT_TAG) if network.tag else NO_VLAN
    if vif.trunk is None:
        return (own,)
    if not vif.trunk.tags:
        return (own, (TAGGED, TAGGED))
    return (own, *((TAGGED | tag, EXACT_TAG) for tag in sorted(vif.trunk.tags)))
