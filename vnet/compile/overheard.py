"""Flows of an uplink's bridge by which the agent hears what stations of the physical network say of themselves: that they have an address which is a VIF's here, or the host's; and
by LLDP, which switch port they are.

One rule: the agent gets a copy, at a rate, and the frame goes on as if nothing had been. Only claims of addresses that are watched are copied, so others cost the host nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from ovsctl.openflow import Band, Flow, Match, Meter, Output, ReservedPort
from ovsctl.openflow import actions as act
from vnet.compile.flows import ETH_ARP, ETH_IPV6, ICMPV6, IN_THE_DATAPATH, Actions, Entries, Fields, Flows
from vnet.compile.guard import DISCOVERY_CODE, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION
from vnet.compile.hello import OF_HELLO
from vnet.compile.l2 import EXACT_TAG, NO_VLAN, TAGGED
from vnet.compile.pipeline import TAG_MASK, Category, cookie
from vnet.util.lldp_frames import LLDP_TYPE

CLAIM_BY = b"vnet:claim:"  # userdata of the packet-in by which the agent gets one, with the uplink's name
LLDP_BY = b"vnet:lldp:"  # and of LLDP
OF_CLAIMS, OF_LLDP, OF_OTHERS = OF_HELLO | 1, OF_HELLO | 2, OF_HELLO | 3
CLAIM_RATE, CLAIM_BURST = 20, 50  # frames a second of an uplink
LLDP_RATE, LLDP_BURST = 5, 20
OTHERS_RATE, OTHERS_BURST = 2, 10  # of claims that are no conflict by themselves: a gateway makes many
OVERHEARD_PRIORITY = 50  # below what VIFs that move need of their uplink
# A claim that is for one station alone is not looked at: this keeps unicast of IPv6 in one megaflow for all protocols.
MANY = ("33:33:00:00:00:00", "ff:ff:00:00:00:00")

RESERVED = ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0")  # 802.1Q-2018 table 8-1


class WatchedAddress(NamedTuple):
    """An address whose claims are heard on an uplink. vlan: as Network.vlan has it; None: on all, and what the host itself sends. of_vif: it is a VIF's here."""

    address: str
    vlan: int | None
    of_vif: bool


METERS = {
    True: Meter(OF_CLAIMS, (Band(CLAIM_RATE, CLAIM_BURST),), packets=True),
    False: Meter(OF_OTHERS, (Band(OTHERS_RATE, OTHERS_BURST),), packets=True),
}


def claim_flows(uplink: str, nics: tuple[int, ...], watched: Iterable[WatchedAddress]) -> Entries:
    """What copies claims of addresses that come in by an uplink's NICs, given by ofport."""
    # Flows cannot tell a service tag from another one with the same number; who gets the copy can.
    of_flows = {(it.address, -1 if it.vlan is None else it.vlan & TAG_MASK): it for it in watched}
    ordered = [it for _, it in sorted(of_flows.items())]
    meters = [METERS[of_vif] for of_vif in sorted({it.of_vif for it in ordered})]
    return (*meters, *(flow for it in ordered for flow in _flows_of(uplink, nics, it)))


@lru_cache(maxsize=4096)  # a VIF that is plugged does not have the flows of all others made anew
def _flows_of(uplink: str, nics: tuple[int, ...], watched: WatchedAddress) -> Flows:
    actions, mark = _copied(METERS[watched.of_vif], CLAIM_BY + uplink.encode()), cookie(Category.HELLO, uplink)
    return tuple(
        Flow(priority=OVERHEARD_PRIORITY, cookie=mark, match=Match(**where, **claim), actions=actions)
        for where in _places(nics, watched.vlan)
        for claim in _claims(watched.address)
    )


def lldp_flows(uplink: str, nics: Iterable[int]) -> Entries:
    """What copies LLDP that comes in by an uplink's NICs, given by ofport. Bridges forward nothing that is sent to these groups: it is of whoever is at the other end of the cable."""
    meter = Meter(OF_LLDP, (Band(LLDP_RATE, LLDP_BURST),), packets=True)
    actions, mark = _copied(meter, LLDP_BY + uplink.encode()), cookie(Category.HELLO, uplink)
    matches = [Match(in_port=nic, eth_dst=RESERVED, eth_type=LLDP_TYPE) for nic in sorted(nics)]
    return (meter, *(Flow(priority=OVERHEARD_PRIORITY, cookie=mark, match=it, actions=actions) for it in matches))


def _copied(meter: Meter, userdata: bytes) -> Actions:
    tell = act.Clone(IN_THE_DATAPATH, act.MeterAction(meter.meter_id), act.ToController(userdata=userdata))
    return (tell, Output(ReservedPort.NORMAL))


def _places(nics: tuple[int, ...], vlan: int | None) -> Iterator[Fields]:
    if vlan is None:
        yield {}
        return
    for nic in nics:
        yield {"in_port": nic, "vlan_tci": (TAGGED | vlan & TAG_MASK, EXACT_TAG) if vlan else NO_VLAN}


def _claims(address: str) -> Iterator[Fields]:
    if ":" not in address:
        yield {"eth_type": ETH_ARP, "arp_spa": address}
        return
    discovery: Fields = {"eth_type": ETH_IPV6, "eth_dst": MANY, "nw_proto": ICMPV6}
    yield discovery | DISCOVERY_CODE | {"icmpv6_type": NEIGHBOUR_ADVERTISEMENT, "nd_target": address}
    yield discovery | {"icmpv6_type": NEIGHBOUR_SOLICITATION, "ipv6_src": address}
