"""Flows of a network: which frames are on it, and where unicast, unknown and broadcast frames go.

Each function returns the flows of one source and reads nothing but the view.
"""

from __future__ import annotations

from functools import cache, lru_cache

from ovsctl.openflow import Action, Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import Actions, Flows, goto
from vnet.compile.pipeline import (
    ANY_TAG,
    OPEN_BOTH,
    OPEN_IN,
    REG_FROM,
    REG_OPEN,
    REG_PORT,
    Category,
    From,
    Table,
    cookie,
)
from vnet.compile.view import HostView, Role, patch_device
from vnet.objects import Location, LockingMode, Network, Trunk, Vif, Way

MULTICAST = ("01:00:00:00:00:00", "01:00:00:00:00:00")  # the group bit, 802-2014 §8.2.2
RESERVED = ("01:80:c2:00:00:00", "ff:ff:ff:ff:ff:f0")  # never forwarded by a bridge, 802.1Q-2018 table 8-1
TAGGED = 0x1000  # vlan_tci: a tag is present
EXACT_TAG = 0x1FFF
TAG_OF_FRAME, TAG_OF_SEGMENT = "vlan_tci[0..11]", "metadata[0..11]"


@cache
def base_flows() -> Flows:
    """What holds for every network: misses are drops that can be counted, and no reserved or forged group addresses pass."""
    mark = cookie(Category.BASE, "")

    def flow(table: Table, priority: int, match: Match, *actions: Action) -> Flow:
        return Flow(table=table, priority=priority, cookie=mark, match=match, actions=actions)

    return (
        *(flow(table, 0, Match()) for table in Table if table is not Table.LOOKUP),
        flow(Table.GUARD, 300, Match(eth_dst=RESERVED)),
        flow(Table.GUARD, 300, Match(eth_src=MULTICAST)),
        flow(Table.GUARD, 50, Match(reg0=From.TUNNEL), goto(Table.LOOKUP)),
        flow(Table.LOOKUP, 50, Match(eth_dst=MULTICAST), goto(Table.FLOOD)),
        flow(Table.LOOKUP, 0, Match(), goto(Table.UNKNOWN)),
    )


def classified(source: From, segment: int, table: Table) -> Actions:
    """Marks a frame with where it came from and its segment, and sends it on."""
    return (act.SetField(REG_FROM, source), act.SetField("metadata", segment), goto(table))


def network_flows(view: HostView, network: Network) -> Flows:
    """Frames that reach this host on a network from its tunnel or its uplink."""
    segment = view.segment(network)
    if segment is None:
        return ()
    mark = cookie(Category.NETWORK, network.name)
    flows = []
    if (tunnel := view.tunnel_port(network)) is not None and network.key is not None:
        match = Match(in_port=tunnel, tun_id=network.key)
        flows.append(Flow(table=Table.CLASSIFY, priority=100, cookie=mark, match=match,
                          actions=classified(From.TUNNEL, segment, Table.GUARD)))  # fmt: skip
    if (uplink := view.uplink_port(network)) is not None:
        flows.append(from_uplink(uplink, network.tag or 0, segment, mark))
    return tuple(flows)


def from_uplink(ofport: int, tag: int, segment: int, mark: int) -> Flow:
    """A frame of one VLAN, or with tag 0 an untagged one, as the physical network hands it in."""
    vlan = (TAGGED | tag, EXACT_TAG) if tag else 0
    pop: Actions = (act.PopVlan(),) if tag else ()
    actions = (*pop, *classified(From.UPLINK, segment, Table.LOOKUP))
    return Flow(
        table=Table.CLASSIFY, priority=100, cookie=mark, match=Match(in_port=ofport, vlan_tci=vlan), actions=actions
    )


def to_uplink(ofport: int, tag: int) -> Actions:
    """Out to the physical network, tagged; the frame is left as it was."""
    if not tag:
        return (act.Output(ofport),)
    return (act.PushVlan(), act.SetField("vlan_vid", TAGGED | tag), act.Output(ofport), act.PopVlan())


def to_vif(view: HostView, vif: Vif) -> Actions:
    """To a VIF here, by way of its groups; to the port of one that is moving here only if that is open."""
    port = act.SetField(REG_PORT, view.ports[vif.id])
    if view.role(vif) is Role.INCOMING:
        return (port, *ASK_GATE, goto(Table.GATED))
    return (port, goto(after_gate(vif)))


def after_gate(vif: Vif) -> Table:
    """Where a frame to a VIF goes once nothing but policy can be against it."""
    return Table.INGRESS if vif.groups else Table.DELIVER


ASK_GATE: Actions = (act.SetField(REG_OPEN, 0), goto(Table.GATE))  # about the port in REG_PORT


def to_host(view: HostView, network: Network, host: str) -> Actions:
    """Through the network's tunnel to another host; nothing where there is no way."""
    vtep, tunnel = view.vtep(host), view.tunnel_port(network)
    if vtep is None or tunnel is None or network.key is None:
        return ()
    field = "tun_ipv6_dst" if ":" in vtep else "tun_dst"
    return _through(tunnel, network.key, field, vtep)


@lru_cache(maxsize=4096)  # a network's VIFs elsewhere share a few hosts
def _through(tunnel: int, key: int, field: str, vtep: str) -> Actions:
    return (act.SetField("tun_id", key), act.SetField(field, vtep), act.Output(tunnel))


def flood_flows(view: HostView, network: Network) -> Flows:
    """Where broadcast, multicast and unknown unicast of a network go.

    From a VIF: every local VIF, then one copy per remote host with members, or one to the uplink. From elsewhere: local VIFs.
    """
    segment = view.segment(network)
    if segment is None:
        return ()
    here = view.here(network.name)
    if network.carrier.way is Way.UPLINK:
        untagged = network.tag == 0
        here += [] if untagged else [v for v in view.trunks(network.uplink or "") if carries(v.trunk, network.tag or 0)]
    unlocked = [vif for vif in here if vif.locking_mode is LockingMode.UNLOCKED]
    everyone, suspects = deliver_all(view, here), deliver_all(view, unlocked)
    away, away_unknown = _away(view, network)
    return segment_flood(cookie(Category.FLOOD, network.name), (segment, None), everyone, suspects, away, away_unknown)


def deliver_all(view: HostView, vifs: list[Vif]) -> Actions:
    return tuple(action for vif in vifs for action in to_vif(view, vif))


def _away(view: HostView, network: Network) -> tuple[Actions, Actions]:
    """How a VIF's broadcast, and its unknown unicast, leave this host."""
    if network.carrier.way is Way.UPLINK:
        uplink = view.uplink_port(network)
        out = () if uplink is None else to_uplink(uplink, network.tag or 0)
        return out, out
    members = sorted(set(view.members(network.name)) - {view.me})
    unlocked = view.unlocked(network.name)
    return (
        tuple(action for host in members for action in to_host(view, network, host)),
        tuple(action for host in members if host in unlocked for action in to_host(view, network, host)),
    )


def segment_flood(
    mark: int,
    segment: tuple[int, int | None],
    everyone: Actions,
    suspects: Actions,
    away: Actions,
    away_unknown: Actions,
) -> Flows:
    """The four flows of a segment (value, mask): flood and unknown, each from a VIF and from elsewhere.

    A segment that is masked stands for all tags nobody named, so it yields to those that are exact.
    """
    value, mask = segment
    metadata = value if mask is None else (value, mask)
    low = 100 if mask is None else 80
    flows = []
    for table, local, remote in ((Table.FLOOD, everyone, away), (Table.UNKNOWN, suspects, away_unknown)):
        match = Match(metadata=metadata, reg0=From.VIF)
        flows.append(Flow(table=table, priority=low + 10, cookie=mark, match=match, actions=local + remote))
        flows.append(Flow(table=table, priority=low, cookie=mark, match=Match(metadata=metadata), actions=local))
    return tuple(flows)


def carries(trunk: Trunk | None, tag: int) -> bool:
    """Whether a trunk lets a tag through."""
    return trunk is not None and (not trunk.tags or tag in trunk.tags)


def trunk_flows(view: HostView, uplink: str) -> Flows:
    """The tags that trunk VIFs carry and that no network of this host names: they exist on this uplink all the same."""
    trunks, patch = view.trunks(uplink), view.devices.get(patch_device(uplink))
    base = view.vlan_segment(uplink, 0)
    if not trunks or patch is None or base is None:
        return ()
    mark = cookie(Category.TRUNK, uplink)
    named = {n.tag for n in view.networks.values() if n.uplink == uplink}
    flows: list[Flow] = []
    for tag in sorted({tag for vif in trunks if vif.trunk for tag in vif.trunk.tags} - named):
        here = [vif for vif in trunks if carries(vif.trunk, tag)]
        out = to_uplink(patch, tag)
        flows.append(from_uplink(patch, tag, base | tag, mark))
        flows += _trunk_flood(view, mark, (base | tag, None), here, out)
    every = [vif for vif in trunks if vif.trunk and not vif.trunk.tags]
    if every:
        match = Match(in_port=patch, vlan_tci=(TAGGED, TAGGED))
        actions = (*tag_to_segment(base), act.SetField(REG_FROM, From.UPLINK), goto(Table.LOOKUP))
        flows.append(Flow(table=Table.CLASSIFY, priority=90, cookie=mark, match=match, actions=actions))
        flows += _trunk_flood(view, mark, (base, ANY_TAG), every, (*segment_to_tag(), act.Output(patch), act.PopVlan()))
    return tuple(flows)


def _trunk_flood(view: HostView, mark: int, segment: tuple[int, int | None], here: list[Vif], out: Actions) -> Flows:
    unlocked = [vif for vif in here if vif.locking_mode is LockingMode.UNLOCKED]
    return segment_flood(mark, segment, deliver_all(view, here), deliver_all(view, unlocked), out, out)


def tag_to_segment(base: int) -> Actions:
    """Takes the tag off a frame and makes it the segment's low bits."""
    return (act.SetField("metadata", base), act.Move(TAG_OF_FRAME, TAG_OF_SEGMENT), act.PopVlan())


def segment_to_tag() -> Actions:
    """Puts the tag that the segment stands for on a frame."""
    return (act.PushVlan(), act.Move(TAG_OF_SEGMENT, TAG_OF_FRAME))


def segments_of(view: HostView, network: Network, vif: Vif | None) -> list[tuple[int, int | None]]:
    """The segments that a VIF's MAC may be looked up on, as (value, mask): its network's, and its trunk's tags."""
    own = view.segment(network)
    if own is None:
        return []
    if vif is None or vif.trunk is None:
        return [(own, None)]
    if not vif.trunk.tags:
        return [(own, ANY_TAG)]
    return [(own, None), *((own | tag, None) for tag in vif.trunk.tags)]


def lookup_flows(view: HostView, network: Network, vif_id: str) -> Flows:
    """Where unicast to one VIF goes from this host, whatever the VIF's state and place."""
    vif = view.vifs.get(vif_id)
    if vif is not None and vif.network != network.name:
        vif = None  # it has left this network, and its old binding has not gone yet
    role = view.role(vif) if vif else Role.ABSENT
    segments = segments_of(view, network, vif if role in (Role.ACTIVE, Role.INCOMING) else None)
    if not segments:
        return ()
    where = view.location(network.name, vif_id)
    if vif is not None and role is Role.ACTIVE:
        to = _to_local(view, network, vif, where, segments)
    elif vif is not None and role is Role.INCOMING:
        to = _to_incoming(view, network, vif, where, segments)
    else:
        to = _to_remote(view, network, vif_id, where, segments[0][0])
    return (*to, *_from_superseded(view, network, vif_id, where, segments[0][0]))


def _flow(vif: str, table: Table, priority: int, match: Match, actions: Actions) -> Flow:
    return Flow(table=table, priority=priority, cookie=cookie(Category.LOOKUP, vif), match=match, actions=actions)


def _metadata(segment: tuple[int, int | None]) -> int | tuple[int, int]:
    return segment[0] if segment[1] is None else (segment[0], segment[1])


def _to_local(
    view: HostView, network: Network, vif: Vif, where: Location, segments: list[tuple[int, int | None]]
) -> Flows:
    """The VIF runs here. While it moves away, its destination gets a copy of what this host's VIFs send it, and on a VLAN
    network of what the physical switches still bring here."""
    deliver = to_vif(view, vif)
    flows = [_flow(vif.id, Table.LOOKUP, 100, Match(metadata=_metadata(s), eth_dst=vif.mac), deliver) for s in segments]
    moving = where.incoming
    copy = to_host(view, network, moving.host) if moving else ()
    if copy:
        senders = (From.VIF, From.UPLINK) if network.carrier.way is Way.UPLINK else (From.VIF,)
        for source in senders:
            match = Match(metadata=segments[0][0], eth_dst=vif.mac, reg0=source)
            flows.append(_flow(vif.id, Table.LOOKUP, 110, match, deliver + copy))
    return tuple(flows)


def _to_incoming(
    view: HostView, network: Network, vif: Vif, where: Location, segments: list[tuple[int, int | None]]
) -> Flows:
    """The VIF is moving here: its port gets a frame only once it is open; till then local senders' frames go where it runs.

    From the uplink it takes frames only once it is active: before, its old host relays them, and a physical switch that
    floods would make two of one.
    """
    ofport = view.ports[vif.id]
    ask: Actions = (act.SetField(REG_PORT, ofport), *ASK_GATE)
    current = where.current
    if network.carrier.way is Way.UPLINK:
        uplink = view.uplink_port(network)
        elsewhere = () if uplink is None else to_uplink(uplink, network.tag or 0)
        relayed = current is not None and bool(to_host(view, network, current.host))
    else:
        elsewhere = to_host(view, network, current.host) if current else ()
        relayed = False
    flows = []
    for segment in segments:
        match = Match(metadata=_metadata(segment), eth_dst=vif.mac)
        flows.append(_flow(vif.id, Table.LOOKUP, 100, match, (*ask, goto(Table.HELD))))
    deliver: Actions = (goto(Table.GATED),)
    open_for_uplink = OPEN_BOTH if relayed else OPEN_IN

    def held(priority: int, actions: Actions, **match: int | tuple[int, int]) -> Flow:
        return _flow(vif.id, Table.HELD, priority, Match(reg2=ofport, **match), actions)

    flows.append(held(100, deliver, reg0=From.VIF, reg5=(OPEN_IN, OPEN_IN)))
    flows.append(held(100, deliver, reg0=From.TUNNEL))
    flows.append(held(100, deliver, reg0=From.UPLINK, reg5=(open_for_uplink, open_for_uplink)))
    flows.append(held(50, elsewhere, reg0=From.VIF))
    return tuple(flows)


def _to_remote(view: HostView, network: Network, vif: str, where: Location, segment: int) -> Flows:
    """The VIF is on other hosts: where it runs and, while it moves, where it goes."""
    flows: list[Flow] = []
    targets = [b for b in (where.current, where.incoming) if b is not None and b.host != view.me]
    if not targets:
        return ()
    mac = targets[0].mac
    if network.carrier.way is Way.TUNNEL:
        out = tuple(action for binding in targets for action in to_host(view, network, binding.host))
        if out:
            match = Match(metadata=segment, eth_dst=mac, reg0=From.VIF)
            flows.append(_flow(vif, Table.LOOKUP, 100, match, out))
    elif any(binding.host == view.me for binding in where.superseded) and where.current is not None:
        # The VIF ran here, so the physical switches may still send to this host, and this host's own uplink bridge may
        # still take the VIF's MAC for a local one: until the binding is released everything goes through the relay.
        relay = to_host(view, network, where.current.host)
        flows += [_flow(vif, Table.LOOKUP, 100, Match(metadata=segment, eth_dst=mac), relay)] if relay else []
    return tuple(flows)


def _from_superseded(view: HostView, network: Network, vif: str, where: Location, segment: int) -> Flows:
    """Hosts that the VIF has left may not have heard: what they still send through tunnels as that VIF is dropped, also where
    it runs now."""
    if network.carrier.way is not Way.TUNNEL:
        return ()
    flows = []
    for binding in where.superseded:
        if binding.host != view.me and (vtep := view.vtep(binding.host)) is not None:
            tun = {"tun_ipv6_src" if ":" in vtep else "tun_src": vtep}
            match = Match(metadata=segment, reg0=From.TUNNEL, eth_src=binding.mac, **tun)
            flows.append(_flow(vif, Table.GUARD, 200, match, ()))
    return tuple(flows)
