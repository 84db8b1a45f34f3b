"""Flows of a VIF's own port: how frames enter and leave by it.

One rule: the port of a migration's destination is opened inside the switch, by the guest's announcement.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovsctl.openflow import Action, Flow, Learn, LearnLoad, LearnMatch, Match, SampleDirection
from ovsctl.openflow import actions as act
from vnet.compile.accounting import delivering, not_to_itself, sent_flows
from vnet.compile.flow_export import sampled
from vnet.compile.flows import (
    ETH_ARP,
    ETH_IPV6,
    ETH_RARP,
    ICMPV6,
    Actions,
    Entries,
    Fields,
    Flows,
    goto,
)
from vnet.compile.guard import DISCOVERY_CODE, NEIGHBOUR_ADVERTISEMENT, guard_flows, link_addresses
from vnet.compile.isolation import ask_receiver, isolation_flows
from vnet.compile.l2 import (
    ASK_GATE,
    BROADCAST,
    EXACT_TAG,
    STACKED_DROP,
    TAGGED,
    ask_tag_type,
    classified,
    segment_to_tag,
    tag_to_segment,
    tag_with,
    untag,
)
from vnet.compile.learning import learn_flows
from vnet.compile.multicast import report_flows
from vnet.compile.pipeline import (
    ANY_TAG,
    FROM_VIF,
    OPEN_BOTH,
    OPEN_IN,
    OPEN_OUT,
    REG_FROM,
    REG_OPEN,
    REG_PORT,
    TO_VIF,
    Category,
    From,
    Table,
    cookie,
)
from vnet.compile.security import judge_flows
from vnet.compile.view import HostView, VifRole
from vnet.objects import BindingState, LockingMode, Vif
from vnet.objects.link_local import link_local
from vnet.objects.words import ip_version

ALL_NODES = "ff02::1"  # RFC 4291 §2.7.1
# userdata of the packet-in that tells the agent; the VIF's port is the packet's in_port
ANNOUNCEMENT = b"vnet:announce"
OWN_NETWORK = (0, (TAGGED, EXACT_TAG))  # vlan_tci of frames that are on no tag
LEARNED_PRIORITY = 200  # of the flow in GATE that an announcement makes, above the agent's own


def vif_flows(view: HostView, vif_id: str, network_name: str) -> Entries:
    """All flows and meters of a local VIF's port; none where the port must stay silent."""
    vif, network = view.vif(vif_id, network_name), view.network(network_name)
    if vif is None or network is None or network.segment is None:
        return ()
    role, ofport, segment = view.role(vif), view.ofport(vif), network.segment
    if role not in (VifRole.ACTIVE, VifRole.INCOMING) or ofport is None:
        return ()
    mark = cookie(Category.VIF, vif.id)
    entries = _entries(view, vif, segment)
    after, chosen = view.onward(Table.GUARD, vif), view.link_locals(vif)
    guard = (
        *guard_flows(vif, ofport, mark, after, segment, chosen),
        *learn_flows(view, vif, ofport, mark),
        *report_flows(view, vif, ofport, mark),
    )
    judge = (*isolation_flows(view, vif, ofport, mark), *(judge_flows(view, vif, ofport, mark) if vif.groups else ()))
    tagged = vif.trunk is not None or keeps_tags(view, vif)
    rank, runs = STACKED_DROP + 10 if tagged else 100, role is VifRole.ACTIVE
    sampling = view.sampling(vif)
    told_got = sampled(sampling, ofport, SampleDirection.EGRESS) if runs else ()
    deliver = [
        *sent_flows(view, vif, ofport, mark, sampled(sampling, ofport, SampleDirection.INGRESS)),
        not_to_itself(ofport, mark),
        *(
            flow
            for match, actions in _deliveries(vif, ofport, segment)
            for flow in delivering(view, vif, mark, rank, {"reg2": ofport, **match}, (*told_got, *actions), runs=runs)
        ),
    ]
    if not runs:
        return (*_gated(view, vif, ofport, mark, entries), *guard, *judge, *deliver)
    classify = [
        _flow(mark, _first_seen(view, vif, match), 100, {"in_port": ofport, **match}, actions)
        for match, actions in entries
    ]
    return (*classify, *_tag_asked(view, vif, ofport, mark), *guard, *judge, *deliver)


def _first_seen(view: HostView, vif: Vif, match: Fields) -> Table:
    """Where a frame's network is told: of a trunk's tagged frames only once the type of the tag is known."""
    asked = vif.trunk is not None and match["vlan_tci"] != 0 and view.knows_tag_types
    return Table.TAGGED if asked else Table.CLASSIFY


def _tag_asked(view: HostView, vif: Vif, ofport: int, mark: int) -> Flows:
    """Has a trunk's tagged frames looked at by the type of their tag. Where that is not known, those with the number of a service tag are dropped: on the uplink they
    would be frames of its network."""
    if vif.trunk is None:
        return ()
    if view.knows_tag_types:
        return ask_tag_type(mark, ofport)
    network = view.network(vif.network)
    taken = view.numbers_of_service_tags(network.uplink) if network is not None else set()
    return tuple(
        _flow(mark, Table.CLASSIFY, 150, {"in_port": ofport, "vlan_tci": (TAGGED | tag, EXACT_TAG)}, ())
        for tag in sorted(taken)
    )


def _flow(mark: int, table: Table, priority: int, match: Fields, actions: Actions) -> Flow:
    return Flow(table=table, priority=priority, cookie=mark, match=Match(**match), actions=actions)


def keeps_tags(view: HostView, vif: Vif) -> bool:
    """Whether the tags of a VIF's frames are its guest's own: they travel inside its network's service tag."""
    network = view.network(vif.network)
    return network is not None and network.service


def _entries(view: HostView, vif: Vif, segment: int) -> list[tuple[Fields, Actions]]:
    """How frames enter from the port: untagged and priority-tagged ones on the VIF's network, a trunk's on the tag's segment."""
    on = (*ask_receiver(view, vif), goto(view.enter(FROM_VIF, vif)))
    entries: list[tuple[Fields, Actions]] = [({"vlan_tci": 0}, classified(From.VIF, segment, *on))]
    if keeps_tags(view, vif):
        return [*entries, ({"vlan_tci": (TAGGED, TAGGED)}, classified(From.VIF, segment, *on))]
    if vif.trunk is not None and not vif.trunk.tags:
        actions = (*tag_to_segment(segment), act.SetField(REG_FROM, From.VIF), *on)
        return [*entries, ({"vlan_tci": (TAGGED, TAGGED)}, actions)]
    for tag in (0, *(vif.trunk.tags if vif.trunk else ())):
        actions = (*untag(), *classified(From.VIF, segment | tag, *on))
        entries.append(({"vlan_tci": (TAGGED | tag, EXACT_TAG)}, actions))
    return entries


def _deliveries(vif: Vif, ofport: int, segment: int) -> list[tuple[Fields, Actions]]:
    """How frames leave to the port: as they are, on a trunk with the tag of their segment. Those that the tracker had in hand when
    the VIF left their network do not."""
    out: Action = act.Output(ofport)
    deliveries: list[tuple[Fields, Actions]] = [({"metadata": segment}, (out,))]
    if vif.trunk is None:
        return deliveries
    for tag in vif.trunk.tags:
        deliveries.append(({"metadata": segment | tag}, (*tag_with(tag), out, act.PopVlan())))
    if not vif.trunk.tags:
        # Segment 0 of the uplink is the untagged one: without its own flow above it would get a tag of 0.
        deliveries += [({"metadata": (segment, ANY_TAG)}, (*segment_to_tag(), out, act.PopVlan()))]
    return deliveries


def announcements(vif: Vif, chosen: Sequence[str] = ()) -> list[Fields]:
    """The frames by which a guest makes itself known at its new host: RARP, gratuitous ARP, an unsolicited advertisement.

    Only frames that the source guard and the VIF's groups let pass: the announcement that opens the port is delivered.
    Where its addresses are not known, any ARP to everyone counts: a gratuitous request, as Linux and Xen's guests send it, has
    its own address as the target (RFC 5227 §3), and no flow can compare two fields.
    """
    locked = vif.locking_mode is LockingMode.LOCKED
    own: Fields = {"eth_src": vif.mac} if locked else {}
    arp = own | {"eth_type": ETH_ARP} | ({"arp_sha": vif.mac} if locked else {})
    found: list[Fields] = [own | {"eth_type": ETH_RARP}]
    v4 = [a for a in vif.addresses if ip_version(a) == 4]
    v6 = [a for a in vif.addresses if ip_version(a) == 6]
    found += [arp | {"arp_spa": a, "arp_tpa": a} for a in v4]
    if not v4 and not (locked and v6):
        found.append(arp | {"eth_dst": BROADCAST})
    advertise = own | {
        "eth_type": ETH_IPV6,
        "nw_proto": ICMPV6,
        "ip_frag": "no",
        "icmpv6_type": NEIGHBOUR_ADVERTISEMENT,
        **DISCOVERY_CODE,
        "ipv6_dst": ALL_NODES,
        "nw_ttl": 255,  # RFC 4861 §7.1.2
    }
    if not locked:
        return [*found, advertise]
    teaching = [advertise | taught for taught in link_addresses(vif.mac, NEIGHBOUR_ADVERTISEMENT)]
    if not vif.addresses:
        return found + teaching
    mine = [*v6, link_local(vif.mac), *chosen] if v6 else []
    return found + [
        taught | {"ipv6_src": source, "nd_target": target} for taught in teaching for source in mine for target in mine
    ]


def _gated(
    view: HostView,
    vif: Vif,
    ofport: int,
    mark: int,
    entries: list[tuple[Fields, Actions]],
) -> Flows:
    """The port of a migration's destination: GATE says whether it is open, and an announcement opens it."""
    ask: Actions = (act.SetField(REG_PORT, ofport), *ASK_GATE)
    flows = [_flow(mark, Table.CLASSIFY, 100, {"in_port": ofport}, (*ask, goto(Table.ADMIT)))]
    flows += _tag_asked(view, vif, ofport, mark)
    if vif.trunk is not None and view.knows_tag_types:
        flows.append(_flow(mark, Table.TAGGED, 100, {"in_port": ofport}, (*ask, goto(Table.ADMIT))))
    for match, actions in entries:
        opened = {"in_port": ofport, "reg5": (OPEN_OUT, OPEN_OUT), **match}
        flows.append(_flow(mark, Table.ADMIT, 200, opened, actions))
        opening: Actions = (open_by_learning(), act.ToController(userdata=ANNOUNCEMENT), *actions)
        for announcement in announcements(vif, view.link_locals(vif) if match["vlan_tci"] in OWN_NETWORK else ()):
            flows.append(_flow(mark, Table.ADMIT, 150, {"in_port": ofport, **match, **announcement}, opening))
    is_open: Fields = {"reg2": ofport, "reg5": (OPEN_IN, OPEN_IN)}
    flows.append(_flow(mark, Table.GATED, 100, is_open, (goto(view.enter(TO_VIF, vif)),)))
    if view.state(vif) is BindingState.RECEIVING:
        flows.append(gate_flow(vif, ofport, BindingState.RECEIVING))
    return tuple(flows)


def gate_flow(vif: Vif, ofport: int, state: BindingState) -> Flow:
    """GATE's entry for a port that is receiving, or, as `open_by_learning` makes it, active."""
    if state is BindingState.ACTIVE:
        opened = act.SetField(REG_OPEN, (OPEN_BOTH, OPEN_BOTH))
        match: Fields = {"reg2": (ofport, 0xFFFF)}
        return _flow(cookie(Category.LEARNED, ""), Table.GATE, LEARNED_PRIORITY, match, (opened,))
    return _flow(cookie(Category.VIF, vif.id), Table.GATE, 100, {"reg2": ofport}, (act.SetField(REG_OPEN, OPEN_IN),))


def open_by_learning() -> Action:
    """The switch opens the port that the packet came from, both ways, without asking anyone (ovs-actions(7), learn)."""
    return Learn(
        table=Table.GATE,
        priority=LEARNED_PRIORITY,
        cookie=cookie(Category.LEARNED, ""),
        specs=(
            LearnMatch(f"{REG_PORT}[0..15]", "in_port"),
            LearnLoad(OPEN_BOTH, f"{REG_OPEN}[0..1]"),
        ),
    )
