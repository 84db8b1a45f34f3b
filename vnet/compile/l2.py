"""Layer 2 of a network: which frames are on it, and where unicast, unknown and broadcast frames go.

One rule: what came from a tunnel or an uplink goes only to VIFs here. Each `..._flows` returns the flows of one source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product

from ovsctl.openflow import Action, Flow, GroupAction, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import ETH_IPV4, ETH_MPLS, Actions, Fields, Flows, goto
from vnet.compile.inputs import LocalNetwork
from vnet.compile.isolation import ask_sender
from vnet.compile.parts import BEHIND_TAG, LocalPorts, parts_of
from vnet.compile.pipeline import (
    ANY_TAG,
    OPEN_BOTH,
    OPEN_IN,
    PIPELINE,
    REG_FROM,
    REG_OPEN,
    REG_PART,
    REG_PORT,
    REG_PRIORITY,
    REG_SECOND,
    SECOND,
    TO_VIF,
    Category,
    From,
    Stage,
    Table,
    cookie,
)
from vnet.compile.second_copies import GROUP_BIT, UNMARK, marked, to_both
from vnet.compile.view import HostView, VifRole
from vnet.objects import Location, LockingMode, Trunk, Vif, Way
from vnet.objects.encryption import ENCRYPTED_MARK, HOST_BITS, PREFIX_BITS
from vnet.objects.identity import macs_of
from vnet.util.hello_frames import HELLO_GROUP

BROADCAST = "ff:ff:ff:ff:ff:ff"
MULTICAST = ("01:00:00:00:00:00", "01:00:00:00:00:00")  # the group bit, 802-2014 §8.2.2
RESERVED = ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0")  # never forwarded by a bridge, 802.1Q-2018 table 8-1
FORBIDDEN = (
    Match(eth_dst=RESERVED),
    Match(eth_src=MULTICAST),
    Match(eth_dst=HELLO_GROUP),
)  # frames that no VIF may send
TAGGED = 0x1000  # vlan_tci: a tag is present
EXACT_TAG = 0x1FFF
NO_VLAN = (0, 0x0FFF)  # untagged, or a priority tag
# Ethernet types of a tag behind the first one, which is the only one that Open vSwitch reads.
CUSTOMER_TAG, SERVICE_TAG = TAG_TYPES = (0x8100, 0x88A8)
Segment = tuple[int, int | None]  # value and mask of metadata, None for exactly the value
TAG_OF_FRAME, TAG_OF_SEGMENT = "vlan_tci[0..11]", "metadata[0..11]"
PRIORITY_OF_FRAME, PRIORITY_KEPT = "vlan_tci[13..15]", f"{REG_PRIORITY}[0..2]"
STACKED_DROP = 110  # priority in DELIVER, between the flows of VIFs that take no tags and those of trunks


@cache
def base_flows() -> Flows:
    """The flows for every network: misses are drops that can be counted, and no reserved or forged group addresses pass."""
    mark = cookie(Category.BASE, "")

    def flow(table: Table, priority: int, match: Match, *actions: Action) -> Flow:
        return Flow(table=table, priority=priority, cookie=mark, match=match, actions=actions)

    return (
        *(flow(table, 0, Match(), *_missed(stage)) for table, stage in PIPELINE.items()),
        *(flow(table, 300, match) for table in (Table.ADMIT, Table.GUARD) for match in FORBIDDEN),
        *(flow(Table.CLASSIFY, 200, Match(vlan_tci=NO_VLAN, eth_type=tag)) for tag in TAG_TYPES),
        flow(
            Table.TAG_TYPE,
            100,
            Match(vlan_tci=(TAGGED, TAGGED), eth_type=TAG_TYPES[0]),
            act.PopVlan(),
            *read_anew(Table.TAGGED),
        ),
        *(flow(Table.DELIVER, STACKED_DROP, Match(eth_type=tag)) for tag in TAG_TYPES),
        flow(Table.GUARD, 50, Match(reg0=From.TUNNEL), goto(Table.LOOKUP)),
        flow(Table.LOOKUP, 50, Match(eth_dst=MULTICAST), goto(Table.FLOOD)),
    )


def _missed(stage: Stage) -> Actions:
    return (goto(stage.miss),) if stage.miss is not None else ()


def classified(source: From, segment: int, *on: Action) -> Actions:
    """Marks a frame with where it came from and its segment, and sends it on."""
    return (act.SetField(REG_FROM, source), act.SetField("metadata", segment), *on)


def network_flows(view: HostView, name: str, _: str) -> Flows:
    """Frames that reach this host on a network from its tunnel or its uplink."""
    network = view.network(name)
    if network is None or network.segment is None:
        return ()
    mark = cookie(Category.NETWORK, network.name)
    flows = []
    if network.tunnel is not None and network.key is not None:
        match = Match(in_port=network.tunnel, tun_id=network.key, **_encrypted_only(view, network))
        flows.append(Flow(table=Table.CLASSIFY, priority=100, cookie=mark, match=match,
                          actions=classified(From.TUNNEL, network.segment, *ask_sender(view, network), goto(Table.GUARD))))  # fmt: skip
        if network.tag == 0:  # a relay of a trunk VIF's frames
            match = Match(in_port=network.tunnel, tun_id=network.key, vlan_tci=(TAGGED, TAGGED))
            relayed = (*tag_to_segment(network.segment), act.SetField(REG_FROM, From.TUNNEL), goto(Table.GUARD))
            flows.append(Flow(table=Table.CLASSIFY, priority=110, cookie=mark, match=match, actions=relayed))
        match = Match(in_port=network.tunnel, tun_id=network.key, eth_src=GROUP_BIT)
        actions = (UNMARK, act.SetField(REG_SECOND, (SECOND, SECOND)), goto(Table.CLASSIFY))
        flows.append(Flow(table=Table.CLASSIFY, priority=130, cookie=mark, match=match, actions=actions))
    if network.patch is not None:
        table = _told_in(view, network.uplink)
        table = Table.SERVICE_TAGGED if network.service and table is Table.TAGGED else table
        ask = (*ask_sender(view, network), goto(Table.FROM_POOL))
        following = Table.MIRROR_PASSED if view.has_mirrors(network.name) else Table.LOOKUP
        flows += from_uplink(network.patch, network.tag or 0, network.segment, mark, ask, table, following)
    return tuple(flows)


def _encrypted_only(view: HostView, network: LocalNetwork) -> Fields:
    """On an encrypted network what comes in clear is no frame of it."""
    if not network.encrypted:
        return {}
    return {"tun_ipv6_src": (view.inner(view.me) or "::", PREFIX_BITS)}


def from_uplink(
    ofport: int,
    tag: int,
    segment: int,
    mark: int,
    ask: Actions = (),
    told_in: Table = Table.CLASSIFY,
    following: Table = Table.LOOKUP,
) -> Flows:
    """Frames of one VLAN, or with tag 0 untagged ones, as the physical network hands them in. ask: what is asked about each."""

    def flow(vlan: int | tuple[int, int], *first: Action) -> Flow:
        actions = (*first, *classified(From.UPLINK, segment, *ask, goto(following)))
        match = Match(in_port=ofport, vlan_tci=vlan)
        table = told_in if vlan else Table.CLASSIFY
        return Flow(table=table, priority=100, cookie=mark, match=match, actions=actions)

    tagged = flow((TAGGED | tag, EXACT_TAG), *untag())
    return (tagged,) if tag else (flow(0), tagged)


def _told_in(view: HostView, uplink: str | None) -> Table:
    """Where tagged frames of an uplink are told apart: if by the type of their tag as well, once that is known."""
    return Table.TAGGED if uplink is not None and view.tells_tag_types(uplink) else Table.CLASSIFY


def ask_tag_type(mark: int, ofport: int) -> Flows:
    """Has a port's tagged frames looked at from behind one more tag: then the Ethernet type is that of their own tag, which no field
    shows."""
    tagged: Fields = {"in_port": ofport, "vlan_tci": (TAGGED, TAGGED)}
    # Of a frame that has labels of its own, the one whose removal has it read anew would not cancel out.
    by_hash = (act.PushVlan(), GroupAction(BEHIND_TAG))
    return (
        Flow(table=Table.CLASSIFY, priority=150, cookie=mark, match=Match(**tagged),
             actions=(act.PushVlan(), *read_anew(Table.TAG_TYPE))),
        *(Flow(table=Table.CLASSIFY, priority=160, cookie=mark, match=Match(**tagged | {"eth_type": mpls}), actions=by_hash)
          for mpls in ETH_MPLS),
    )  # fmt: skip


def _service_tags(view: HostView, uplink: str, patch: int, mark: int) -> Flows:
    """Asks for the type of the tags of an uplink's frames, where it matters, and takes service tags apart from the others."""
    if not view.tells_tag_types(uplink):
        return ()
    match = Match(in_port=patch, vlan_tci=(TAGGED, TAGGED), eth_type=SERVICE_TAG)
    actions = (act.PopVlan(), *read_anew(Table.SERVICE_TAGGED))
    return (
        *ask_tag_type(mark, patch),
        Flow(table=Table.TAG_TYPE, priority=110, cookie=mark, match=match, actions=actions),
    )


def to_uplink(ofport: int, tag: int, *, service: bool = False) -> Actions:
    """Out to the physical network, tagged; the frame is left as it was."""
    if not tag:
        return (act.Output(ofport),)
    return (*tag_with(tag, SERVICE_TAG if service else CUSTOMER_TAG), act.Output(ofport), act.PopVlan())


def to_vif(view: HostView, ofport: int, vif: Vif) -> Actions:
    """On the path to a VIF here; to the port of one that is moving here only if that is open."""
    port = act.SetField(REG_PORT, ofport)
    if view.role(vif) is VifRole.INCOMING:
        return (port, *ASK_GATE, goto(Table.GATED))
    return (port, goto(view.enter(TO_VIF, vif)))


ASK_GATE: Actions = (act.SetField(REG_OPEN, 0), goto(Table.GATE))  # about the port in REG_PORT


def to_host(view: HostView, network: LocalNetwork, host: str) -> Actions:
    """Through the network's tunnel to another host; nothing where there is no way, or none that is encrypted as it must be."""
    return by_tunnel(view, network.tunnel, network.key, host, encrypted=network.encrypted)


def by_tunnel(view: HostView, tunnel: int | None, key: int | None, host: str, *, encrypted: bool) -> Actions:
    """Through a tunnel port, with a key, to another host; nothing where there is no way."""
    if tunnel is None or key is None:
        return ()
    if encrypted:
        inner = view.inner(host) if view.inner(view.me) is not None else None
        if inner is None:
            return ()
        through = _through(tunnel, key, "tun_ipv6_dst", inner)
        return (act.SetField("pkt_mark", ENCRYPTED_MARK), *through, act.SetField("pkt_mark", 0))
    vtep = view.vtep(host)
    if vtep is None:
        return ()
    return _through(tunnel, key, "tun_ipv6_dst" if ":" in vtep else "tun_dst", vtep)


@lru_cache(maxsize=4096)  # a network's VIFs elsewhere share a few hosts
def _through(tunnel: int, key: int, field: str, vtep: str) -> Actions:
    return (act.SetField("tun_id", key), act.SetField(field, vtep), act.Output(tunnel))


TunnelEnd = tuple[str, int]  # the field that names it, and the address


def tunnels_here(view: HostView) -> list[int]:
    """The ofports of the tunnels that networks here use, each one for all peers."""
    found = (view.network(name) for name in view.networks)
    return sorted({network.tunnel for network in found if network is not None and network.tunnel is not None})


def tunnel_ends(view: HostView) -> dict[TunnelEnd, str]:
    """The other hosts by the ends of their tunnels, inside WireGuard and not."""
    ends = ((host, end) for host in view.hosts for end in (view.vtep(host), view.inner(host)))
    return {_end(ip_address(end)): host for host, end in ends if end is not None and host != view.me}


def _end(address: IPv4Address | IPv6Address) -> TunnelEnd:
    return "tun_ipv6_dst" if address.version == 6 else "tun_dst", int(address)


def copies_by_tunnel(actions: Actions, tunnel: int) -> Iterator[TunnelEnd]:
    """The ends to which a flow with these actions sends each of its frames through a tunnel, in order."""
    end: TunnelEnd | None = None
    for action in actions:
        match action:
            case act.SetField(field=to, value=address) if to.name in ("tun_dst", "tun_ipv6_dst"):
                end = to.name, address
            case act.Output(port=port) if port == tunnel and end is not None:
                yield end


def flood_flows(view: HostView, name: str, _: str) -> Flows:
    """Where broadcast, multicast and unknown unicast of a network go.

    From a VIF: every local VIF, then one copy per remote host with members, or one to the uplink. From elsewhere: local VIFs.
    """
    network = view.network(name)
    if network is None or network.segment is None:
        return ()
    here = on_segment(view, network)
    return segment_flood(view, cookie(Category.FLOOD, name), (network.segment, None), here, *_away(view, network))


def on_segment(view: HostView, network: LocalNetwork) -> LocalPorts:
    """The VIFs here that frames of a network may be delivered to: its own, and first the trunks that carry its tag."""
    here = view.here(network.name)
    if network.uplink is None or not network.tag or network.service:
        return here
    return [(ofport, vif) for ofport, vif in view.trunks(network.uplink) if carries(vif.trunk, network.tag)] + here


def unlocked(vifs: LocalPorts) -> LocalPorts:
    """Those of them that could own an address which is not known."""
    return [(ofport, vif) for ofport, vif in vifs if vif.locking_mode is LockingMode.UNLOCKED]


def deliver_all(view: HostView, vifs: LocalPorts) -> Actions:
    return tuple(action for ofport, vif in vifs for action in to_vif(view, ofport, vif))


def _away(view: HostView, network: LocalNetwork) -> tuple[Actions, Actions]:
    """How a VIF's broadcast, and its unknown unicast, leave this host."""
    if network.way is Way.UPLINK:
        out = () if network.patch is None else to_uplink(network.patch, network.tag or 0, service=network.service)
        return out, out
    members = sorted(set(view.members(network.name)) - {view.me})
    suspects = view.unlocked(network.name)
    return (
        tuple(action for host in members for action in to_host(view, network, host)),
        tuple(action for host in members if host in suspects for action in to_host(view, network, host)),
    )


# Parts of UNKNOWN and of ALL_GROUPS have numbers from here, parts of FLOOD those below.
UNKNOWN_PARTS, ALL_GROUPS_PARTS = 1 << 16, 1 << 17


def segment_flood(
    view: HostView, mark: int, segment: Segment, here: LocalPorts, away: Actions, away_unknown: Actions
) -> Flows:
    """The flows of a segment: flood and unknown, each from a VIF and from elsewhere, and the parts of many VIFs.

    A segment that is masked stands for all tags nobody named, so it yields to those that are exact. The uplink comes first, then
    trunks: Open vSwitch does not see the DEI of a tag, and the tag keeps it only until a VIF gets the frame without the tag.
    """
    metadata = _metadata(segment)
    low = 100 if segment[1] is None else 80
    flows: list[Flow] = []
    for table, vifs, remote, first in (
        (Table.FLOOD, here, away, 0),
        (Table.UNKNOWN, unlocked(here), away_unknown, UNKNOWN_PARTS),
    ):
        local, parts = in_parts(view, mark, segment, vifs, first)
        flows += parts
        match = Match(metadata=metadata, reg0=From.VIF)
        flows.append(Flow(table=table, priority=low + 10, cookie=mark, match=match, actions=remote + local))
        flows.append(Flow(table=table, priority=low, cookie=mark, match=Match(metadata=metadata), actions=local))
    return tuple(flows)


def in_parts(view: HostView, mark: int, segment: Segment, vifs: LocalPorts, first: int) -> tuple[Actions, Flows]:
    """Delivers to VIFs here: the actions, and the flows of the parts that many are divided into, whose numbers go on from `first`."""
    parts = parts_of(view, vifs)
    if parts is None:
        return deliver_all(view, vifs), ()
    low = 100 if segment[1] is None else 80
    numbers = [first + part for part in parts.members]
    flows = (
        Flow(table=Table.FLOOD_PART, priority=low, cookie=mark, match=Match(metadata=_metadata(segment), reg6=number),
             actions=deliver_all(view, members))
        for number, members in zip(numbers, parts.members.values(), strict=True)
    )  # fmt: skip
    return tuple(action for number in numbers for action in (act.SetField(REG_PART, number), parts.ask)), tuple(flows)


def carries(trunk: Trunk | None, tag: int) -> bool:
    """Whether a trunk lets a tag through."""
    return trunk is not None and (not trunk.tags or tag in trunk.tags)


def trunk_flows(view: HostView, name: str, _: str) -> Flows:
    """The tags that trunk VIFs carry and that no network of this host names: they exist on this uplink all the same."""
    trunks, uplink = view.trunks(name), view.uplink(name)
    if uplink is None or uplink.patch is None:
        return ()
    mark, base, patch = cookie(Category.TRUNK, name), uplink.base, uplink.patch
    flows = [*_service_tags(view, name, patch, mark)]
    if not trunks:
        return tuple(flows)
    named = {network.tag for network in view.uplink_networks(name) if not network.is_service}
    told_in = _told_in(view, name)
    mirrored = any(view.mirrors_to(each.name) for each in view.uplink_networks(name) if each.tag == 0)
    following = Table.MIRROR_PASSED if mirrored else Table.LOOKUP
    named |= view.numbers_of_service_tags(name)
    for tag in sorted({tag for _, vif in trunks if vif.trunk for tag in vif.trunk.tags} - named):
        here = [(ofport, vif) for ofport, vif in trunks if carries(vif.trunk, tag)]
        out = to_uplink(patch, tag)
        flows += from_uplink(patch, tag, base | tag, mark, told_in=told_in, following=following)
        flows += segment_flood(view, mark, (base | tag, None), here, out, out)
    every = [(ofport, vif) for ofport, vif in trunks if vif.trunk and not vif.trunk.tags]
    if every:
        match = Match(in_port=patch, vlan_tci=(TAGGED, TAGGED))
        actions = (*tag_to_segment(base), act.SetField(REG_FROM, From.UPLINK), goto(following))
        flows.append(Flow(table=told_in, priority=90, cookie=mark, match=match, actions=actions))
        any_tag = (*segment_to_tag(), act.Output(patch), act.PopVlan())
        flows += segment_flood(view, mark, (base, ANY_TAG), every, any_tag, any_tag)
    return tuple(flows)


def tag_to_segment(base: int) -> Actions:
    """Takes the tag off a frame and makes it the segment's low bits."""
    return (act.SetField("metadata", base), act.Move(TAG_OF_FRAME, TAG_OF_SEGMENT), *untag())


def segment_to_tag() -> Actions:
    """Puts the tag that the segment stands for on a frame."""
    return (act.PushVlan(), act.Move(TAG_OF_SEGMENT, TAG_OF_FRAME), act.Move(PRIORITY_KEPT, PRIORITY_OF_FRAME))


def read_anew(table: Table) -> Actions:
    """On to a table where the frame is seen as it is by now: Open vSwitch reads one tag, and none that is below it.

    It reads a frame anew, of whatever type, before the look-up that follows an MPLS label's removal (xlate_table_action). The label that is pushed for that cancels
    out: the frame never has it. The type that it leaves is of no meaning.
    """
    return (act.PushMpls(), act.PopMpls(ETH_IPV4), goto(table))


def untag() -> Actions:
    """Takes the tag off a frame and keeps its priority."""
    return (act.Move(PRIORITY_OF_FRAME, PRIORITY_KEPT), act.PopVlan())


def tag_with(tag: int, tag_type: int = CUSTOMER_TAG) -> Actions:
    """Puts a tag on a frame, with the priority of the one that it came with."""
    return (act.PushVlan(tag_type), act.SetField("vlan_vid", TAGGED | tag), act.Move(PRIORITY_KEPT, PRIORITY_OF_FRAME))


def carried_segments(own: int, vif: Vif | None) -> list[tuple[Segment, Actions]]:
    """The segments that a VIF's frames may be on, each with the actions that put its tag on a frame: its network's own, and its
    trunk's tags."""
    segments: list[tuple[Segment, Actions]] = [((own, None), ())]
    if vif is None or vif.trunk is None:
        return segments
    if not vif.trunk.tags:
        return [*segments, ((own, ANY_TAG), segment_to_tag())]
    return segments + [((own | tag, None), tag_with(tag)) for tag in vif.trunk.tags]


def _rank(priority: int, segment: Segment) -> int:
    """A segment that stands for all tags yields to those that are exact."""
    return priority if segment[1] is None else priority - 5


def _tagged(tag: Actions, out: Actions) -> Actions:
    """`out` with a tag on the frame, which is afterwards as it was; nothing where there is no way out."""
    return (*tag, *out, act.PopVlan()) if tag and out else out


def lookup_flows(view: HostView, vif_id: str, network_name: str) -> Flows:
    """Where unicast to one VIF goes from this host, whatever the VIF's state and place."""
    network, place = view.network(network_name), view.location(network_name, vif_id)
    if network is None or network.segment is None:
        return ()
    return (*ways_to(view, vif_id, network_name), *_from_superseded(view, network, network.segment, vif_id, place))


def ways_to(view: HostView, vif_id: str, network_name: str, mac: str | None = None) -> Flows:
    """Where unicast to a VIF goes from this host. mac: one behind it; left out, its own."""
    network = view.network(network_name)
    if network is None or network.segment is None:
        return ()
    vif = view.vif(vif_id, network_name)  # none where it has left this network, and its old binding has not gone yet
    role = view.role(vif) if vif else VifRole.ABSENT
    ofport = view.ofport(vif) if vif else None
    place = view.location(network_name, vif_id)
    if vif is not None and ofport is not None and role in (VifRole.ACTIVE, VifRole.INCOMING):
        macs = (mac,) if mac is not None else macs_of(vif)
        to = _to_local if role is VifRole.ACTIVE else _to_incoming
        return to(view, network, network.segment, ofport, vif, place, macs)
    return _to_remote(view, network, network.segment, vif_id, vif, place, (mac,) if mac is not None else ())


def _flow(vif: str, table: Table, priority: int, match: Match, actions: Actions) -> Flow:
    return Flow(table=table, priority=priority, cookie=cookie(Category.LOOKUP, vif), match=match, actions=actions)


def _metadata(segment: Segment) -> int | tuple[int, int]:
    return segment[0] if segment[1] is None else (segment[0], segment[1])


def _to_local(
    view: HostView, network: LocalNetwork, segment: int, ofport: int, vif: Vif, place: Location, macs: Sequence[str]
) -> Flows:
    """The VIF runs here. While it moves away, its destination gets a copy of what this host's VIFs send it, and on a VLAN
    network of what the physical switches still bring here."""
    deliver = to_vif(view, ofport, vif)
    flows = []
    moving = place.incoming
    copy = to_host(view, network, moving.host) if moving else ()
    if copy and view.copies_got(network.name, vif.id):
        copy = marked(copy)
    senders = (From.VIF, From.UPLINK) if network.way is Way.UPLINK else (From.VIF,)
    for (own, tag), mac in product(carried_segments(segment, vif), macs):
        mine: Fields = {"metadata": _metadata(own), "eth_dst": mac}
        flows.append(_flow(vif.id, Table.LOOKUP, _rank(100, own), Match(**mine), deliver))
        for source in senders if copy else ():
            match = Match(reg0=source, **mine)
            flows.append(_flow(vif.id, Table.LOOKUP, _rank(110, own), match, deliver + _tagged(tag, copy)))
    return tuple(flows)


def _to_incoming(
    view: HostView, network: LocalNetwork, segment: int, ofport: int, vif: Vif, place: Location, macs: Sequence[str]
) -> Flows:
    """The VIF is moving here: its port gets a frame only once it is open; till then local senders' frames go where it runs.

    From the uplink it takes frames only once it is active: before, its old host relays them, and a physical switch that
    floods would make two of one.
    """
    ask: Actions = (act.SetField(REG_PORT, ofport), *ASK_GATE)
    current = place.current
    if network.way is Way.UPLINK:
        elsewhere = (
            () if network.patch is None else to_uplink(network.patch, network.tag or 0, service=network.service)
        )  # of a trunk: 0
        relayed = current is not None and bool(to_host(view, network, current.host))
    else:
        elsewhere = to_host(view, network, current.host) if current else ()
        relayed = False
    flows = []
    for own, tag in carried_segments(segment, vif):
        for mac in macs:
            match = Match(metadata=_metadata(own), eth_dst=mac)
            flows.append(_flow(vif.id, Table.LOOKUP, _rank(100, own), match, (*ask, goto(Table.HELD))))
        match = Match(metadata=_metadata(own), reg0=From.VIF, reg2=ofport)
        flows.append(_flow(vif.id, Table.HELD, _rank(50, own), match, _tagged(tag, elsewhere)))
    deliver: Actions = (goto(Table.GATED),)
    open_for_uplink = OPEN_BOTH if relayed else OPEN_IN

    def held(priority: int, actions: Actions, **match: int | tuple[int, int]) -> Flow:
        return _flow(vif.id, Table.HELD, priority, Match(reg2=ofport, **match), actions)

    flows.append(held(100, deliver, reg0=From.VIF, reg5=(OPEN_IN, OPEN_IN)))
    flows.append(held(100, deliver, reg0=From.TUNNEL))
    flows.append(held(100, deliver, reg0=From.UPLINK, reg5=(open_for_uplink, open_for_uplink)))
    return tuple(flows)


def _to_remote(
    view: HostView,
    network: LocalNetwork,
    segment: int,
    vif_id: str,
    vif: Vif | None,
    place: Location,
    macs: Sequence[str],
) -> Flows:
    """The VIF is on other hosts: where it runs and, while it moves, where it goes."""
    targets = [b for b in (place.current, place.incoming) if b is not None and b.host != view.me]
    ways = [to_host(view, network, binding.host) for binding in targets]
    if place.incoming is not None and len(ways) == 2 and view.copies_got(network.name, vif_id):
        out = to_both(place.incoming, *ways)
    else:
        out = tuple(action for way in ways for action in way)
    if not out:
        return ()
    macs = macs or macs_of(targets[0])
    if network.way is Way.TUNNEL:
        matches = [Match(metadata=segment, eth_dst=mac, reg0=From.VIF) for mac in macs]
        return tuple([_flow(vif_id, Table.LOOKUP, 100, match, out) for match in matches])
    if place.current is None or all(binding.host != view.me for binding in place.superseded):
        return ()
    # The VIF ran here, so the physical switches may still send to this host, and this host's own uplink bridge may still take
    # the VIF's MAC for a local one: until the binding is released everything goes through the relay. A host that the VIF left
    # before sends by its own relay; what it sent here is late, and its copy is where the VIF is by now.
    flows = []
    for (own, tag), mac in product(carried_segments(segment, vif), macs):
        mine: Fields = {"metadata": _metadata(own), "eth_dst": mac}
        flows.append(_flow(vif_id, Table.LOOKUP, _rank(100, own), Match(**mine), _tagged(tag, out)))
        flows.append(_flow(vif_id, Table.LOOKUP, _rank(110, own), Match(reg0=From.TUNNEL, **mine), ()))
    return tuple(flows)


def _from_superseded(view: HostView, network: LocalNetwork, segment: int, vif: str, place: Location) -> Flows:
    """A host that the VIF has left may not have heard. Frames that it still sends through tunnels as that VIF are dropped, also
    where the VIF runs now."""
    if network.way is not Way.TUNNEL:
        return ()
    flows = []
    for binding in place.superseded:
        if binding.host != view.me and (tun := tunnel_source(view, network, binding.host)):
            for mac in macs_of(binding):
                match = Match(metadata=segment, reg0=From.TUNNEL, eth_src=mac, **tun)
                flows.append(_flow(vif, Table.GUARD, 200, match, ()))
    return tuple(flows)


def tunnel_source(view: HostView, network: LocalNetwork, host: str) -> Fields:
    """Matches what another host sends through the network's tunnels; nothing if it can send nothing."""
    if network.encrypted:
        inner = view.inner(host)
        return {"tun_ipv6_src": (inner, HOST_BITS)} if inner is not None else {}
    vtep = view.vtep(host)
    if vtep is None:
        return {}
    return {"tun_ipv6_src" if ":" in vtep else "tun_src": vtep}
