"""Flows of mirrors: which frames are copied, what a mirror's filter says of the copy, and its way to the target.

One rule: one host makes a mirror's copy of a frame, and every host knows which. Of a frame of a VIF that the mirror is of, that VIF's; else the one where the
frame enters for a VIF that the mirror is of: from a VIF of a tunnel network, or where the physical network hands it in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from ovsctl.openflow import Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import ETH_IPV4, ETH_IPV6, Actions, Fields, Flows, goto
from vnet.compile.inputs import LocalNetwork
from vnet.compile.l2 import (
    ASK_GATE,
    EXACT_TAG,
    MULTICAST,
    TAGGED,
    by_tunnel,
    carried_segments,
    to_uplink,
    tunnel_source,
)
from vnet.compile.pipeline import (
    ANY_TAG,
    COPY_ENCRYPTED,
    OPEN_BOTH,
    OPEN_IN,
    REG_FROM,
    REG_MIRROR,
    REG_PORT,
    REG_SECOND,
    REG_SEEN,
    SECOND,
    Category,
    From,
    Table,
    cookie,
)
from vnet.compile.second_copies import ask_moved, heard
from vnet.compile.view import HostView, VifRole
from vnet.grammar.packet_filter import packet_filter
from vnet.objects import Binding, FrameMirror, Location, MirrorPoint, TargetType, Vif, Way
from vnet.objects.behind import known_behind
from vnet.objects.identity import macs_of
from vnet.objects.mirror import TRANSPORT
from vnet.objects.words import ip_version

KEY_MASK = COPY_ENCRYPTED - 1
GRE = 47  # the IP protocol of GRE and ERSPAN (RFC 2784 §2.1)
FIRST_RULE = 60_000  # priority of a filter's first rule; the others follow below it
NEVER_COPIED = FIRST_RULE + 1
NO_PORT = 0  # in place of in_port: Open vSwitch sends no frame out of the port that it came in by


# --- a mirror ----------------------------------------------------------------------------------------


def mirror_flows(view: HostView, name: str, _: str) -> Flows:
    """A mirror's filter, and the way from this host to its target."""
    mirror = view.mirror(name)
    if mirror is None:
        return ()
    mark = cookie(Category.MIRROR, name)
    return (*_filter(view, mirror, mark), *_way_out(view, mirror, mark))


def _flow(mark: int, table: Table, priority: int, match: Fields, *actions: act.Action) -> Flow:
    return Flow(table=table, priority=priority, cookie=mark, match=Match(**match), actions=actions)


def _filter(view: HostView, mirror: FrameMirror, mark: int) -> Iterator[Flow]:
    copy: Fields = {REG_MIRROR: (mirror.key, KEY_MASK)}
    collectors = {it.to.name for it in view.all_mirrors() if it.device is not None}
    for address in sorted(collectors):
        packet: Fields = {"eth_type": ETH_IPV4, "ip_dst": address}
        if ip_version(address) == 6:
            packet = {"eth_type": ETH_IPV6, "ipv6_dst": address}
        yield _flow(mark, Table.MIRROR_FILTER, NEVER_COPIED, copy | packet | {"nw_proto": GRE})
    rules = packet_filter(mirror.filter).rules if mirror.filter is not None else ()
    for number, rule in enumerate(rules):
        wanted = (goto(Table.MIRROR_OUT),) if rule.wanted else ()
        yield _flow(mark, Table.MIRROR_FILTER, FIRST_RULE - number, copy | dict(rule.match), *wanted)
    if mirror.filter is None:
        yield _flow(mark, Table.MIRROR_FILTER, FIRST_RULE, copy, goto(Table.MIRROR_OUT))


def _way_out(view: HostView, mirror: FrameMirror, mark: int) -> Iterator[Flow]:
    if mirror.to.type is TargetType.VIF:
        yield from _to_vif(view, mirror, mark)
        return
    copy: Fields = {REG_MIRROR: mirror.key}  # a copy of an encrypted network matches nothing, and ends here
    if mirror.to.type is TargetType.VLAN:
        uplink = view.uplink(mirror.to.name)
        if uplink is None or uplink.patch is None:
            return
        out = to_uplink(uplink.patch, mirror.to.id)
        comes_back: Fields = {"in_port": uplink.patch, "vlan_tci": (TAGGED | mirror.to.id, EXACT_TAG)}
        yield _flow(mark, Table.CLASSIFY, 170, comes_back)
    else:
        port = view.device(mirror.device or "")
        if port is None:
            return
        out = (act.Output(port),)
    yield _flow(mark, Table.MIRROR_OUT, 100, copy, act.SetField("in_port", NO_PORT), *out)


def _to_vif(view: HostView, mirror: FrameMirror, mark: int) -> Iterator[Flow]:
    """To a VIF as any frame goes to one: while it moves to both of its hosts, and there to its port only once that is open."""
    network_name = view.target_network(mirror)
    network = view.network(network_name) if network_name is not None else None
    if network is None or mirror.target is None:
        return
    vif = view.vif(mirror.target, network.name)
    place = view.location(network.name, mirror.target)
    role = view.role(vif) if vif is not None else VifRole.ABSENT
    ofport = view.ofport(vif) if vif is not None else None
    tunnel = view.device(TRANSPORT.device)
    here: Actions = ()
    if ofport is not None and role in (VifRole.ACTIVE, VifRole.INCOMING):
        yield from _out_of_port(view, mirror, mark, ofport, role, place, tunnel)
        here = (goto(Table.MIRROR_HERE),)
        if role is VifRole.INCOMING:
            here = (act.SetField(REG_PORT, ofport), *ASK_GATE, *here)
        if tunnel is not None:
            came: Fields = {"in_port": tunnel, "tun_id": mirror.key}
            marked = (act.SetField(REG_FROM, From.TUNNEL), act.SetField(REG_MIRROR, mirror.key))
            yield _flow(mark, Table.CLASSIFY, 120, came, *marked, *here)
    ends = [place.incoming] if role is VifRole.ACTIVE else [place.current, place.incoming] if not here else []
    for encrypted in (False, True):
        copy: Fields = {REG_MIRROR: mirror.key | COPY_ENCRYPTED * encrypted}
        sent = tuple(
            action
            for binding in ends
            if binding is not None and binding.host != view.me
            for action in by_tunnel(view, tunnel, mirror.key, binding.host, encrypted=encrypted)
        )
        local = (act.SetField(REG_FROM, From.VIF), *here) if here else ()
        if local or sent:
            away = act.Clone(act.SetField("in_port", NO_PORT), *sent)
            yield _flow(mark, Table.MIRROR_OUT, 100, copy, *((away,) if sent else ()), *local)


def _out_of_port(
    view: HostView, mirror: FrameMirror, mark: int, ofport: int, role: VifRole, place: Location, tunnel: int | None
) -> Iterator[Flow]:
    copy: Fields = {REG_MIRROR: (mirror.key, KEY_MASK)}
    out = (act.SetField("in_port", NO_PORT), act.Output(ofport))
    yield _flow(mark, Table.MIRROR_HERE, 120, copy | {"in_port": ofport})  # its own frames
    if role is VifRole.ACTIVE:
        yield _flow(mark, Table.MIRROR_HERE, 100, copy, *out)
        return
    yield _flow(mark, Table.MIRROR_HERE, 110, copy | {"reg5": (OPEN_IN, OPEN_IN)}, *out)
    for encrypted in (False, True) if place.current is not None else ():
        sent = by_tunnel(view, tunnel, mirror.key, place.current.host, encrypted=encrypted) if place.current else ()
        made_here: Fields = {REG_MIRROR: mirror.key | COPY_ENCRYPTED * encrypted, REG_FROM: From.VIF}
        if sent:
            yield _flow(mark, Table.MIRROR_HERE, 100, made_here, act.SetField("in_port", NO_PORT), *sent)


# --- a VIF -------------------------------------------------------------------------------------------


def mirrored_flows(view: HostView, vif_id: str, network_name: str) -> Flows:
    """Copies of what a VIF here sends and gets, and how frames to it and from it are told by their MACs, wherever it is."""
    if not view.has_mirrors(network_name):
        return ()
    network = view.network(network_name)
    if network is None or network.segment is None:
        return ()
    mark = cookie(Category.MIRRORED, vif_id)
    mirrors = view.mirrors_of(network_name, vif_id)
    vif = view.vif(vif_id, network_name)
    ofport = view.ofport(vif) if vif is not None else None
    flows: list[Flow] = []
    if vif is not None and ofport is not None and view.role(vif) in (VifRole.ACTIVE, VifRole.INCOMING):
        flows += _at_port(view, vif, ofport, network, network.segment, mirrors, mark)
    got = [it for it in mirrors if it.policy is MirrorPoint.AFTER and it.copies_got]
    if got:
        if vif is not None and ofport is not None and view.role(vif) in (VifRole.ACTIVE, VifRole.INCOMING):
            flows += _got_at_port(view, vif, ofport, network, network.segment, got, mark)
        place = view.location(network.name, vif_id)
        if place.incoming is not None and place.incoming.host != view.me:
            flows += _heard_elsewhere(view, network, network.segment, vif, place, place.incoming, mark)
    if mirrors:
        flows += _by_macs(view, vif_id, vif, ofport, network, network.segment, mirrors, mark)
    return tuple(flows)


def _copied(network: LocalNetwork, mirror: FrameMirror) -> int:
    """The register of a mirror's copy of a frame of a network."""
    return mirror.key | (COPY_ENCRYPTED if network.encrypted else 0)


def _at_port(
    view: HostView, vif: Vif, ofport: int, network: LocalNetwork, own: int, mirrors: list[FrameMirror], mark: int
) -> Iterator[Flow]:
    """Each copy in a clone, with the tag that the VIF's port has on the frame."""
    early = [it for it in mirrors if it.policy is MirrorPoint.BEFORE and it.copies_sent]
    late = [it for it in mirrors if it.policy is MirrorPoint.AFTER and it.copies_sent]
    asked = [it for it in view.mirrors_to(network.name) if it not in early and it.target != vif.id]

    def copy(mirror: FrameMirror, *actions: act.Action) -> act.Action:
        return act.Clone(act.SetField(REG_MIRROR, _copied(network, mirror)), *actions)

    to_filter = goto(Table.MIRROR_FILTER)
    for (segment, mask), tag in carried_segments(own, vif):
        metadata = segment if mask is None else (segment, mask)
        rank = 100 if mask is None else 90
        sent: Fields = {"in_port": ofport, "metadata": metadata}
        if early:
            copies = [copy(mirror, *tag, to_filter) for mirror in early]
            yield _flow(mark, Table.MIRROR_SENT, rank, sent, *copies, goto(view.onward(Table.MIRROR_SENT, vif)))
        copies = [copy(mirror, *tag, to_filter) for mirror in late]
        copies += [copy(mirror, goto(Table.MIRROR_TO)) for mirror in asked]
        if copies:
            yield _flow(mark, Table.MIRROR_PASSED, rank, sent, *copies, goto(Table.LOOKUP))


def _got_at_port(
    view: HostView, vif: Vif, ofport: int, network: LocalNetwork, own: int, mirrors: list[FrameMirror], mark: int
) -> Iterator[Flow]:
    """Copies of what goes out of a VIF's port. While it moves both its hosts deliver: of two frames for its MACs the one with the mark is
    not shown. Of what is for many, or was flooded, each host has one without a mark: the old one shows it until it hears the VIF from the
    new one, and that from the announcement on which opens the port."""
    onward = goto(Table.DELIVER)
    yield _flow(mark, Table.MIRROR_GOT, 120, {"reg2": ofport, REG_SECOND: (SECOND, SECOND)}, onward)
    active, to = view.role(vif) is VifRole.ACTIVE, view.location(network.name, vif.id).incoming
    moving = to is not None or not active
    to_many: Fields = {} if active else {"reg5": (OPEN_BOTH, OPEN_BOTH)}
    ask = ask_moved(to) if to is not None and active else ()
    for (segment, mask), tag in carried_segments(own, vif):
        received: Fields = {"reg2": ofport, "metadata": segment if mask is None else (segment, mask)}
        rank = 100 if mask is None else 90

        def copies(*asked: act.Action, tag: Actions = tag) -> Actions:
            on = (goto(Table.MIRROR_FROM), *asked, *tag, goto(Table.MIRROR_FILTER))
            return (*(act.Clone(act.SetField(REG_MIRROR, _copied(network, it)), *on) for it in mirrors), onward)

        yield _flow(mark, Table.MIRROR_GOT, rank, received | to_many, *copies(*ask))
        for mac in (*macs_of(vif), *view.behind(vif)) if moving else ():
            yield _flow(mark, Table.MIRROR_GOT, rank + 5, received | {"eth_dst": mac}, *copies())


def _heard_elsewhere(
    view: HostView, network: LocalNetwork, own: int, vif: Vif | None, place: Location, to: Binding, mark: int
) -> Iterator[Flow]:
    """A frame that a VIF has sent from the host that it moves to says that it runs there by now."""
    learn, on = heard(to), goto(Table.LOOKUP)
    tunnel = tunnel_source(view, network, to.host) if network.way is Way.TUNNEL else {}
    leaving = place.current is not None and place.current.host == view.me
    for ((segment, mask), _), mac in product(carried_segments(own, vif), macs_of(to)):
        sent: Fields = {"metadata": segment if mask is None else (segment, mask), "eth_src": mac}
        rank = 85 if mask is None else 84
        if tunnel:
            yield _flow(mark, Table.GUARD, rank, sent | {"reg0": From.TUNNEL} | tunnel, learn, on)
        elif network.way is Way.UPLINK and leaving:
            copies = _copies_of_what_came(view, network)
            yield _flow(mark, Table.MIRROR_PASSED, rank, sent | {"reg0": From.UPLINK}, learn, *copies, on)


def _by_macs(
    view: HostView,
    vif_id: str,
    vif: Vif | None,
    ofport: int | None,
    network: LocalNetwork,
    own: int,
    mirrors: list[FrameMirror],
    mark: int,
) -> Iterator[Flow]:
    place = view.location(network.name, vif_id)
    of = vif or place.current or place.incoming
    if of is None:
        return
    behind = [entry.mac for entry in known_behind(view.bindings_of(network.name, vif_id))]
    macs = list(dict.fromkeys((*macs_of(of), *behind)))
    for mirror, ((segment, mask), tag), mac in product(mirrors, carried_segments(own, vif), macs):
        rank = 100 if mask is None else 90
        copy: Fields = {REG_MIRROR: _copied(network, mirror), "metadata": segment if mask is None else (segment, mask)}
        if mirror.copies_sent:
            yield _flow(mark, Table.MIRROR_FROM, rank, copy | {"eth_src": mac}, act.SetField(REG_MIRROR, 0))
        if mirror.copies_got and mirror.policy is MirrorPoint.BEFORE:
            to: Fields = copy | {"eth_dst": mac}
            role = view.role(vif) if vif is not None else VifRole.ABSENT
            for source, actions in _entering(view, network, role, ofport, place):
                yield _flow(mark, Table.MIRROR_TO, rank, to | {"reg0": source}, *tag, *actions)


def _entering(
    view: HostView, network: LocalNetwork, role: VifRole, ofport: int | None, place: Location
) -> Iterator[tuple[From, Actions]]:
    """Where frames for a VIF enter for whose copies this host is to see, each with the way of the copy."""
    here: Actions = (goto(Table.MIRROR_FILTER),)
    if network.way is not Way.UPLINK:
        yield From.VIF, here
        return
    # What another host's VIF sends it comes by the physical network, and is copied where that hands it in.
    left = place.current is not None and any(binding.host == view.me for binding in place.superseded)
    if role is VifRole.ACTIVE or left:
        yield From.VIF, here
        yield From.UPLINK, here
    elif role is VifRole.INCOMING and ofport is not None:
        ask: Actions = (act.SetField(REG_PORT, ofport), *ASK_GATE, goto(Table.MIRROR_OPEN))
        yield From.VIF, ask
        yield From.UPLINK, ask


# --- a network ---------------------------------------------------------------------------------------


def mirrored_network_flows(view: HostView, name: str, _: str) -> Flows:
    """What the physical network hands in, and frames to many, of which one host makes a copy where some of them are sources."""
    mirrors = view.mirrors_to(name)
    network = view.network(name)
    if not mirrors or network is None or network.segment is None:
        return ()
    mark, flows = cookie(Category.MIRRORED_NETWORK, name), []
    if network.way is Way.UPLINK:
        copies = _copies_of_what_came(view, network)
        # On an untagged network of trunks also frames on tags that no network here has.
        segments: list[tuple[int, Fields]] = [(80, {"metadata": network.segment})]
        if network.tag == 0:
            segments.append((70, {"metadata": (network.segment, ANY_TAG)}))
        for rank, segment in segments:
            came: Fields = segment | {"reg0": From.UPLINK}
            flows.append(_flow(mark, Table.MIRROR_PASSED, rank, came, *copies, goto(Table.LOOKUP)))
    hosts = view.mirror_hosts(name)
    for mirror in mirrors:
        having = hosts.get(mirror.name, ())
        # On a VLAN each host gets the frame: the first of those with sources copies it.
        if having and (network.way is not Way.UPLINK or min(having) == view.me):
            many: Fields = {REG_MIRROR: _copied(network, mirror), "metadata": network.segment, "eth_dst": MULTICAST}
            flows.append(_flow(mark, Table.MIRROR_TO, 50, many, goto(Table.MIRROR_FILTER)))
    return tuple(flows)


def _copies_of_what_came(view: HostView, network: LocalNetwork) -> Actions:
    """Of a frame that the physical network hands in, a copy for each mirror whose sources it may be for."""
    return tuple(
        act.Clone(act.SetField(REG_MIRROR, _copied(network, it)), goto(Table.MIRROR_FROM), goto(Table.MIRROR_TO))
        for it in view.mirrors_to(network.name)
    )


def base_mirror_flows() -> Flows:
    """For every mirror: of what enters for a VIF that is moving here, copies only while its port takes it; and none of a probe's frames, which
    are for no guest."""
    mark = cookie(Category.BASE, "")
    opened = (
        _flow(mark, Table.MIRROR_OPEN, 100, {"reg0": source, "reg5": (open, open)}, goto(Table.MIRROR_FILTER))
        for source, open in ((From.VIF, OPEN_IN), (From.UPLINK, OPEN_BOTH))
    )
    return (_flow(mark, Table.MIRROR_FILTER, NEVER_COPIED + 1, {REG_SEEN: 1}), *opened)
