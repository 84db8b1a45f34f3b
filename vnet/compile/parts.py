"""The parts in which a flooded frame is delivered to the VIFs here, where they are too many for one flow.

One rule: a part is a fixed stretch of ofports, of trunks or of other VIFs. A VIF that comes or goes changes one flow, and a frame that is
between two translations while flows change finds its part divided as before.
"""

from __future__ import annotations

from typing import NamedTuple

from ovsctl.openflow import Action, Bucket, Group, GroupAction, GroupType
from vnet.compile.flows import goto
from vnet.compile.pipeline import Table
from vnet.compile.view import HostView
from vnet.objects import Vif
from vnet.objects.limits import MAX_GROUPS_OF_VIF, MAX_MONITORS_OF_VIF
from vnet.objects.tiers import STEPS

# Open vSwitch gives a frame up after 4,096 resubmits, or with more than 64 KiB of datapath actions (xlate_resubmit_resource_check,
# ofproto-dpif-xlate.c). The VIFs here have five eighths of them; the rest is for the way to FLOOD and the copies for other hosts.
MAX_RESUBMITS = 2560
MAX_UNDIVIDED = 512  # VIFs of one flow, which take 16 to 32 KiB of an OpenFlow message's 64
PART = 64  # ofports; VIFs in 32 groups, with a rate, take 3,776 resubmits
ACCESS = 1 << 15  # parts of VIFs that are no trunks have numbers from here
# A recirculated frame is translated anew, with resubmits and actions of its own. Only a group that selects by the datapath's hash
# recirculates frames of every type (pick_dp_hash_select_group). It ends the frame's way, but for a bucket's (xlate_group_bucket):
# so it is the bucket of another group.
HASHED, RECIRCULATED, BEHIND_TAG = 0x766E_0001, 0x766E_0002, 0x766E_0003
GROUPS = (
    Group(HASHED, GroupType.SELECT, (Bucket((goto(Table.FLOOD_PART),)),), "dp_hash"),
    Group(RECIRCULATED, GroupType.INDIRECT, (Bucket((GroupAction(HASHED),)),)),
    Group(BEHIND_TAG, GroupType.SELECT, (Bucket((goto(Table.TAG_TYPE),)),), "dp_hash"),  # for MPLS (vif.py)
)

LocalPorts = list[tuple[int, Vif]]  # ofports of VIFs here


class Parts(NamedTuple):
    """VIFs by the number of their part; `ask` sends a frame to the part in REG_PART."""

    members: dict[int, LocalPorts]
    ask: Action


def parts_of(view: HostView, vifs: LocalPorts) -> Parts | None:
    """The parts of VIFs here; None where one flow delivers to all of them. They are recirculated only where they must be."""
    if len(vifs) * resubmits(MAX_GROUPS_OF_VIF, limited=True, apart=True) <= MAX_RESUBMITS and not any(
        view.has_tiers(vif) or view.copies_got(vif.network, vif.id) for _, vif in vifs
    ):
        return None
    each = [
        resubmits(
            len(vif.groups),
            limited=view.limited(vif),
            apart=view.role_number(vif.network, vif.isolation) != 0,
            tiers=view.has_tiers(vif),
            copies=view.copies_got(vif.network, vif.id),
        )
        for _, vif in vifs
    ]
    fits = sum(each) <= MAX_RESUBMITS
    if fits and len(vifs) <= MAX_UNDIVIDED:
        return None
    members: dict[int, LocalPorts] = {}
    for ofport, vif in vifs:
        part = ofport // PART + (0 if vif.trunk is not None else ACCESS)
        members.setdefault(part, []).append((ofport, vif))
    return Parts(members, goto(Table.FLOOD_PART) if fits else GroupAction(RECIRCULATED))


def resubmits(groups: int, *, limited: bool, apart: bool, tiers: bool = False, copies: int = 0) -> int:
    """The most resubmits that a frame takes to a VIF in so many security groups."""
    policy = (
        Table.INGRESS,
        Table.INGRESS_STATE,
        Table.INGRESS_PEER,
        Table.INGRESS_SETS,
        Table.INGRESS_VERDICT,
        Table.TO_RATE,
    )
    limits = (Table.TO_RATE, Table.TO_METER)
    copied = (Table.MIRROR_FROM, Table.MIRROR_FILTER, Table.MIRROR_OUT, Table.GATE, Table.MIRROR_HERE)
    # A VIF whose groups are all in monitor mode goes through INGRESS twice; each such group asks two more tables.
    watched = len((Table.INGRESS,)) + 2 * min(groups, MAX_MONITORS_OF_VIF)
    # Of a group of a tier both its mandatory and its other rules may be asked, between steps; a monitoring one asks all the others again.
    asked = groups if not tiers else (2 * groups + len(STEPS)) * (1 + min(groups, MAX_MONITORS_OF_VIF))
    judged = len(policy) + asked + watched if groups else 0
    asked_of_mirrors = bool(groups or limited or copies) + copies * len(copied)
    return len((Table.DELIVER,)) + apart + judged + (len(limits) if limited else 0) + asked_of_mirrors
