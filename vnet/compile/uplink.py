"""Flows of an uplink's bridge. It switches by MAC without any of ours; it has some only while a VIF moves from or to this host.

One rule: a frame that the physical network brings for such a VIF goes to br-int, wherever the bridge believes the VIF's MAC to be,
and so does one from a VIF that leaves to a VIF here. Two hosts send as that MAC within milliseconds, and Open vSwitch learns MACs from
flow statistics too, some milliseconds late: a bridge that believes the MAC to be where a frame came from drops the frame
(docs/adr/0004-relay-after-the-move.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ovsctl.openflow import Action, Flow, Match
from ovsctl.openflow import actions as act
from ovsctl.openflow.fields import ReservedPort
from vnet.compile.flows import Actions, Flows
from vnet.compile.inputs import LocalNetwork
from vnet.compile.l2 import EXACT_TAG, NO_VLAN, TAGGED, to_uplink
from vnet.compile.pipeline import Category, cookie
from vnet.compile.view import HostView, all_tags, carried_tags
from vnet.objects import Network, Vif
from vnet.objects.identity import macs_of

AnyTci = int | tuple[int, int]
TO_LOCAL = 1  # the bridge's table that asks whether a frame is for a VIF here


@dataclass(frozen=True, slots=True)
class UplinkPorts:
    """The ofports of an uplink's bridge: of its NICs, and of the patch to br-int. by_mac: its NICs are a bond balanced by MAC."""

    nics: tuple[int, ...]
    patch: int
    by_mac: bool = False


def uplink_flows(view: HostView, uplink: str, ports: UplinkPorts) -> Flows:
    """The flows of one uplink's bridge, for the VIFs that are moving from or to this host."""
    moving = [
        (network, vif)
        for network in view.networks.values()
        if network.uplink == uplink
        for vif in view.unsettled(network.name)
        if _moving(view, network, vif)
    ]
    to_moving = [
        _flow(vif, 0, 100, Match(in_port=nic, vlan_tci=tci, eth_dst=mac), act.Output(ports.patch))
        for network, vif in moving
        for nic, tci, mac in product(ports.nics, _tags(network, vif), macs_of(vif))
    ]
    leaving = [(network, vif) for network, vif in moving if not _comes(view, network, vif)]
    if not leaving or not ports.by_mac:
        return tuple(to_moving)
    return (*to_moving, *_from_leaving(view, uplink, ports, moving, leaving))


def _from_leaving(
    view: HostView,
    uplink: str,
    ports: UplinkPorts,
    moving: list[tuple[Network, Vif]],
    leaving: list[tuple[Network, Vif]],
) -> Iterator[Flow]:
    """Unicast from a VIF that leaves to one that is here. A bond that is balanced by MAC takes a frame for its own, come back by another
    member, if it believes the MAC to be here (bond_check_admissibility, ofproto/bond.c). No such frame is this host's own: br-int
    hands what a VIF here sends to another one here to nobody else. Everything else stays for the bond to judge."""
    for network, vif in leaving:
        for nic, tci, mac in product(ports.nics, _tags(network, vif), macs_of(vif)):
            yield _flow(vif, 0, 110, Match(in_port=nic, vlan_tci=tci, eth_src=mac), act.Resubmit(table=TO_LOCAL))
    local = {(network.name, vif.id): (network, vif) for network, vif in moving}
    for network in view.networks.values():
        if network.uplink == uplink:
            local |= {(network.name, vif.id): (network, vif) for _, vif in view.here(network.name)}
    for network, vif in local.values():
        for tci, mac in product(_tags(network, vif), macs_of(vif)):
            yield _flow(vif, TO_LOCAL, 100, Match(vlan_tci=tci, eth_dst=mac), act.Output(ports.patch))
    normal = act.Output(ReservedPort.NORMAL)
    yield Flow(table=TO_LOCAL, priority=0, cookie=cookie(Category.NETWORK, uplink), match=Match(), actions=(normal,))


def _flow(vif: Vif, table: int, priority: int, match: Match, action: Action) -> Flow:
    return Flow(table=table, priority=priority, cookie=cookie(Category.LOOKUP, vif.id), match=match, actions=(action,))


def _comes(view: HostView, network: Network, vif: Vif) -> bool:
    """Whether a VIF that moves comes to this host, or has just come."""
    place = view.location(network.name, vif.id)
    found = place.incoming or place.current
    return found is not None and found.host == view.me


def _moving(view: HostView, network: Network, vif: Vif) -> bool:
    place = view.location(network.name, vif.id)
    mine = view.binding(network.name, vif.id, view.me)
    return mine is not None and (place.incoming is not None or bool(place.superseded))


def _tags(network: Network, vif: Vif) -> tuple[AnyTci, ...]:
    """The tags that the VIF's frames have on the wire."""
    tags = carried_tags(network, vif)
    if tags == all_tags():
        return (NO_VLAN, (TAGGED, TAGGED))
    return tuple((TAGGED | tag, EXACT_TAG) if tag else NO_VLAN for tag in sorted(tags))


def announced_tags(view: HostView, network: LocalNetwork, vif: Vif, learned: Iterable[int]) -> list[int]:
    """The tags on which a VIF that moved here is announced to the physical network: all that it carries. Of a trunk for all tags
    those that are in use: of networks and of other trunks here, and `learned`, on which this host has heard the VIF before."""
    own = {network.tag or 0}
    if vif.trunk is None or network.uplink is None:
        return sorted(own)
    taken = view.numbers_of_service_tags(network.uplink)
    if vif.trunk.tags:
        return sorted((own | {*vif.trunk.tags}) - taken)
    used = {other.tag or 0 for other in view.uplink_networks(network.uplink)}
    named = {tag for _, other in view.trunks(network.uplink) if other.trunk for tag in other.trunk.tags}
    return sorted((own | used | named | set(learned)) - taken)


ANNOUNCED_AT_ONCE = 256  # tags: so many fit one OpenFlow message, and one packet's actions in the switch


def announcements_out(patch: int, tags: Sequence[int], *, service: bool = False) -> Iterator[Actions]:
    """How a frame leaves by an uplink on each of these tags, in as few messages as it takes."""
    for first in range(0, len(tags), ANNOUNCED_AT_ONCE):
        some = tags[first : first + ANNOUNCED_AT_ONCE]
        yield tuple(action for tag in some for action in to_uplink(patch, tag, service=service))
