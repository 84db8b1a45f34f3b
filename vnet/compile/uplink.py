"""Flows of an uplink's bridge. It switches by MAC without any of ours; it has some only while a VIF moves from or to this host.

One rule: a frame that the physical network brings for such a VIF goes to br-int, wherever the bridge believes the VIF's MAC to
be. Two hosts send as that MAC within milliseconds, and Open vSwitch learns MACs from flow statistics too, some milliseconds late: a
bridge that believes the MAC to be where a frame came from drops the frame (docs/adr/0004-relay-after-the-move.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ovsctl.openflow import Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import Actions, Flows
from vnet.compile.inputs import LocalNetwork
from vnet.compile.l2 import EXACT_TAG, NO_VLAN, TAGGED, to_uplink
from vnet.compile.pipeline import Category, cookie
from vnet.compile.view import ALL_TAGS, HostView, carried_tags
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
    tags = carried_tags(network, vif)
    if tags == ALL_TAGS:
        return (NO_VLAN, (TAGGED, TAGGED))
    return tuple((TAGGED | tag, EXACT_TAG) if tag else NO_VLAN for tag in sorted(tags))


def announced_tags(view: HostView, network: LocalNetwork, vif: Vif, learned: Iterable[int]) -> list[int]:
    """The tags on which a VIF that moved here is announced to the physical network: all that it carries. Of a trunk for all tags
    those that are in use: of networks and of other trunks here, and `learned`, on which this host has heard the VIF before."""
    own = {network.tag or 0}
    if vif.trunk is None or network.uplink is None:
        return sorted(own)
    if vif.trunk.tags:
        return sorted(own | {*vif.trunk.tags})
    used = {other.tag or 0 for other in view.uplink_networks(network.uplink)}
    named = {tag for _, other in view.trunks(network.uplink) if other.trunk for tag in other.trunk.tags}
    return sorted(own | used | named | set(learned))


ANNOUNCED_AT_ONCE = 256  # tags: so many fit one OpenFlow message, and one packet's actions in the switch


def announcements_out(patch: int, tags: Sequence[int]) -> Iterator[Actions]:
    """How a frame leaves by an uplink on each of these tags, in as few messages as it takes."""
    for first in range(0, len(tags), ANNOUNCED_AT_ONCE):
        some = tags[first : first + ANNOUNCED_AT_ONCE]
        yield tuple(action for tag in some for action in to_uplink(patch, tag))
