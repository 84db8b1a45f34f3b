"""Flows of policy: packets that VIFs in security groups may send (egress) and receive (ingress), always on the VIF's own host.

Both directions have the same tables (docs/pipeline.md): the connection tracker, the connection's state, the peer's groups,
the rules of each of the VIF's groups, the verdict of all of them, and what the tracker then lets through. One rule: a packet, whichever way it goes, is judged by the
first packet of its connection, so an answer passes as long as that may still begin one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address, ip_network

from ovsctl.openflow import Action, Ct, Flow, Match
from ovsctl.openflow import actions as act
from vnet.compile.flows import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_RARP,
    ICMP,
    ICMPV6,
    IN_THE_DATAPATH,
    TCP,
    UDP,
    Actions,
    Fields,
    Flows,
    ask_as_begun,
    goto,
)
from vnet.compile.pipeline import (
    COPY,
    DECIDED,
    GROUP_NUMBER,
    MANDATORY,
    REG_ALLOWING,
    REG_COPY,
    REG_DROPPING,
    REG_GROUP,
    REG_LOG,
    REG_PEER,
    REG_REJECTING,
    REG_VERDICT,
    STEP_ENDS,
    Category,
    Finding,
    From,
    Table,
    cookie,
    following,
)
from vnet.compile.view import HostView
from vnet.objects import Direction, IcmpType, Protocol, Rule, SecurityGroup, Verdict, Vif
from vnet.objects.identity import Identity, macs_of, own_identities
from vnet.objects.limits import SCTP
from vnet.objects.link_local import LinkLocal, link_local
from vnet.objects.tiers import Tier, steps_of
from vnet.objects.values import port_masks

TRACKED = {ETH_IPV4: (TCP, UDP, ICMP, SCTP), ETH_IPV6: (TCP, UDP, ICMPV6, SCTP)}  # protocols that Open vSwitch follows
# How a VIF finds its neighbours and its address passes whatever its groups say, as ARP does, and only as those protocols need it.
# The types of ICMPv6 messages, with the hop limit that they have as long as no router has sent them on.
ON_LINK: Fields = {"nw_ttl": 255}  # RFC 4861 §6.1, §7.1
LISTENERS: Fields = {"nw_ttl": 1, "ipv6_dst": ("ff00::", "ff00::")}  # RFC 2710 §3, RFC 3810 §5
NEIGHBOURS = {**dict.fromkeys((133, 134, 135, 136), ON_LINK), **dict.fromkeys((130, 131, 132, 143), LISTENERS)}
DHCP: dict[int, tuple[int, int]] = {ETH_IPV4: (68, 67), ETH_IPV6: (546, 547)}  # client's and server's port
DHCP_SERVERS: dict[int, Fields] = {  # where a client sends to: RFC 2131 §4.1, RFC 8415 §7.1
    ETH_IPV4: {"eth_dst": "ff:ff:ff:ff:ff:ff", "ip_dst": "255.255.255.255"},
    ETH_IPV6: {"eth_dst": "33:33:00:01:00:02", "ipv6_dst": "ff02::1:2"},
}

# What is for a group or for everybody: the answer comes from another address, so no tracker would know it.
MANY: dict[int, tuple[Fields, ...]] = {
    ETH_IPV4: ({"ip_dst": ("224.0.0.0", "240.0.0.0")}, {"eth_dst": "ff:ff:ff:ff:ff:ff"}),  # RFC 5771, RFC 919 §7
    ETH_IPV6: ({"ipv6_dst": ("ff00::", "ff00::")},),  # RFC 4291 §2.7
}

NEW, RELATED, REPLY, INVALID, IS_TRACKED = 1, 4, 8, 16, 32  # bits of ct_state, ovs-fields(7)
SYN = 2  # bit of tcp_flags
ENDS = 65000  # priority of the flow that ends copies
WHOLE: Fields = {"ip_frag": "no"}
FRAGMENT: Fields = {"ip_frag": "yes"}
LATER: Fields = {"ip_frag": "later"}
NOT_LATER: Fields = {"ip_frag": "not_later"}
MIDSTREAM: Fields = {"nw_proto": TCP, "tcp_flags": (0, SYN)}
# Ports of services: those that need privileges, then those below the ones that clients take (RFC 6335 §6; Linux begins at 32768).
PRIVILEGED, SERVICE, CLIENT = (0, 0xFC00), (0, 0x8000), (0x8000, 0x8000)
LISTENING = 1024, 32768  # the same as numbers: a port below listens, where the other end's is not
FOUND_BITS, TURNED_SHIFT, STANDING_SHIFT = 5, 16, 21
FOUND = (1 << FOUND_BITS) - 1  # bits of Finding: what rules say
TURNED = FOUND << TURNED_SHIFT  # and what those of the other direction say

ICMP_TYPES = {
    IcmpType.ECHO_REQUEST: {ETH_IPV4: 8, ETH_IPV6: 128},  # RFC 792, RFC 4443 §4.1
    IcmpType.TIMESTAMP_REQUEST: {ETH_IPV4: 13},  # RFC 792; ICMPv6 has none
    IcmpType.ECHO_REPLY: {ETH_IPV4: 0, ETH_IPV6: 129},
    IcmpType.TIMESTAMP_REPLY: {ETH_IPV4: 14},
    IcmpType.DESTINATION_UNREACHABLE: {ETH_IPV4: 3, ETH_IPV6: 1},  # IPv4: also that a packet is too big (RFC 1191)
    IcmpType.PACKET_TOO_BIG: {ETH_IPV6: 2},
    IcmpType.TIME_EXCEEDED: {ETH_IPV4: 11, ETH_IPV6: 3},
    IcmpType.PARAMETER_PROBLEM: {ETH_IPV4: 12, ETH_IPV6: 4},
}
PORTED: dict[Protocol | int, tuple[int, str, str]] = {
    Protocol.TCP: (TCP, "tcp_dst", "tcp_src"),
    Protocol.UDP: (UDP, "udp_dst", "udp_src"),
    SCTP: (SCTP, "sctp_dst", "sctp_src"),
}

# Of one group a rule that drops wins over one that rejects, that over one that allows, and all over the default.
PRIORITIES = {Verdict.DROP: 300, Verdict.REJECT: 250, Verdict.ALLOW: 200}
DEFAULT = 100
FOUND_BY_RULE = {Verdict.DROP: Finding.DROP, Verdict.REJECT: Finding.REJECT, Verdict.ALLOW: Finding.ALLOW}
LOGGED = {
    Verdict.DROP: (Finding.LOG_DROP, REG_DROPPING),
    Verdict.REJECT: (Finding.LOG_REJECT, REG_REJECTING),
    Verdict.ALLOW: (Finding.LOG_ALLOW, REG_ALLOWING),
}
LOGS = Finding.LOG_DROP | Finding.LOG_REJECT | Finding.LOG_ALLOW
TAG_MASK = 2**32 - 1
FOUND_BY_DEFAULT = {Verdict.DROP: Finding.DEFAULT_DROP, Verdict.REJECT: Finding.DEFAULT_REJECT}


@dataclass(frozen=True, slots=True)
class Side:
    """The tables of one direction, and which fields are the VIF's own port, the peer's MAC and addresses."""

    direction: Direction
    track: Table
    neighbour: Table
    state: Table
    peer: Table
    sets: Table
    rules: Table
    monitor: Table
    verdict: Table
    committed: Table
    reject: Table
    log: Table
    port: str
    zone: str
    mac: str
    ip: str
    ipv6: str

    @property
    def onward(self) -> Action:
        """On to the stage after policy."""
        return goto(following(self.track))


EGRESS = Side(
    Direction.EGRESS, Table.EGRESS, Table.EGRESS_NEIGHBOUR, Table.EGRESS_STATE, Table.EGRESS_PEER, Table.EGRESS_SETS, Table.EGRESS_RULES, Table.EGRESS_MONITOR,
    Table.EGRESS_VERDICT, Table.EGRESS_COMMITTED, Table.EGRESS_REJECT, Table.EGRESS_LOG,
    "in_port", "in_port", "eth_dst", "ip_dst", "ipv6_dst",
)  # fmt: skip
INGRESS = Side(
    Direction.INGRESS, Table.INGRESS, Table.INGRESS_NEIGHBOUR, Table.INGRESS_STATE, Table.INGRESS_PEER, Table.INGRESS_SETS, Table.INGRESS_RULES, Table.INGRESS_MONITOR,
    Table.INGRESS_VERDICT, Table.INGRESS_COMMITTED, Table.INGRESS_REJECT, Table.INGRESS_LOG,
    "reg2", "reg2[0..15]", "eth_src", "ip_src", "ipv6_src",
)  # fmt: skip
SIDES = (EGRESS, INGRESS)
DIRECTIONS: Mapping[int, Direction] = {side.rules: side.direction for side in SIDES}  # by the table of rules


def _flow(mark: int, table: Table, priority: int, match: Fields, *actions: Action) -> Flow:
    return Flow(table=table, priority=priority, cookie=mark, match=Match(**match), actions=actions)


def _ct(state: int, without: int = 0) -> Fields:
    return {"ct_state": (state, state | without)}


# For every VIF in a group


@cache
def policy_flows() -> Flows:
    """The part of policy that is of no VIF and no rule."""
    mark = cookie(Category.BASE, "")
    sides = [
        flow
        for side in SIDES
        for flow in (*_track(mark, side), *_by_state(mark, side), *_monitored(mark, side), *_verdicts(mark, side))
    ]
    return (*sides, *_turn(mark), *_listener(mark))


def _track(mark: int, side: Side) -> Iterator[Flow]:
    """Through the connection tracker, in the VIF's own zone; messages that find neighbours and addresses pass untracked.

    A later fragment of IPv6 does not say its protocol, so all fragments of IPv6 go there. What is for many begins no connection:
    a zone of each receiver would have to remember it, and nothing would ever answer it there.
    """
    onward, to_state = side.onward, goto(side.state)
    for eth_type in (ETH_ARP, ETH_RARP):
        yield _flow(mark, side.track, 200, {"eth_type": eth_type}, onward)
    for number, link_only in NEIGHBOURS.items():
        # A table of its own matches the hop limit: here it would give each hop limit of any IPv6 packet a megaflow.
        message: Fields = {"eth_type": ETH_IPV6, "nw_proto": ICMPV6, "icmpv6_type": number}
        yield _flow(mark, side.track, 200, message | WHOLE, goto(side.neighbour))
        yield _flow(mark, side.neighbour, 100, message | link_only, onward)
    for eth_type in DHCP:
        match = _asking(eth_type) if side is EGRESS else _answering(eth_type) | {"reg0": From.UPLINK}
        yield _flow(mark, side.track, 200, match, onward)
    # A copy that is only judged has ended where its frame would go on.
    yield _flow(mark, following(side.track), ENDS, {REG_COPY: (COPY, COPY)})
    track = Ct(table=side.state, zone=side.zone)
    yield _flow(mark, side.track, 150, {"eth_type": ETH_IPV6, **FRAGMENT}, track)
    for eth_type, many in MANY.items():
        for match in many:
            yield _flow(mark, side.track, 120, {"eth_type": eth_type, **match, **WHOLE}, to_state)
    for eth_type, protocols in TRACKED.items():
        for protocol in protocols:
            yield _flow(mark, side.track, 100, {"eth_type": eth_type, "nw_proto": protocol}, track)
    yield _flow(mark, side.track, 50, {}, to_state)


def _asking(eth_type: int) -> Fields:
    """The messages of a DHCP client to whoever serves. What it sends to a server's own address is for its groups to judge: a lease
    that they let nobody renew is rebound by one of these (RFC 2131 §4.4.5, RFC 8415 §18.2.5)."""
    client, server = DHCP[eth_type]
    ports: Fields = {"eth_type": eth_type, "nw_proto": UDP, "udp_src": client, "udp_dst": server}
    return ports | WHOLE | DHCP_SERVERS[eth_type]


def _answering(eth_type: int) -> Fields:
    """The messages of a DHCP server to a client."""
    client, server = DHCP[eth_type]
    return {"eth_type": eth_type, "nw_proto": UDP, "udp_src": server, "udp_dst": client, **WHOLE}


def server_flows(view: HostView, vif_id: str, network_name: str) -> Flows:
    """The answers of a VIF that is a DHCP server: they pass into VIFs in groups, as those of the physical network do."""
    network, place = view.network(network_name), view.location(network_name, vif_id)
    found = place.current or place.incoming
    if network is None or network.segment is None or found is None or not found.dhcp_server:
        return ()
    mark = cookie(Category.LOOKUP, vif_id)
    return tuple(
        _flow(
            mark,
            INGRESS.track,
            200,
            {"metadata": network.segment, "eth_src": mac, **_answering(eth_type)},
            INGRESS.onward,
        )
        for mac in macs_of(found)
        for eth_type in DHCP
    )


def _by_state(mark: int, side: Side) -> Iterator[Flow]:
    """Drops a packet that fits no connection and can begin none: one of TCP begins with SYN. A later fragment waits in the tracker
    for its first one.

    The tracker says invalid, and not tracked, of fragments whose packet was not complete in time.
    """
    yield _flow(mark, side.state, 300, _ct(INVALID))
    for eth_type in TRACKED:
        yield _flow(mark, side.state, 250, {"eth_type": eth_type, **_ct(IS_TRACKED), **LATER}, _commit(side))
        yield _flow(mark, side.state, 170, {"eth_type": eth_type, **_ct(IS_TRACKED | NEW), **MIDSTREAM})


def _commit(side: Side) -> Action:
    """Enters a packet's connection in the tracker; a fragment waits there until all of its packet have come to this point."""
    return Ct(commit=True, zone="ct_zone", table=side.committed)


def _verdicts(mark: int, side: Side) -> Iterator[Flow]:
    """The verdict of all groups' rules: drop, then reject, then allow, then the groups' defaults where no rule matched.

    A TCP segment from the end that listens is judged by what may be begun the other way, and by that alone. Where nobody knows
    which end listens, both directions must allow it. Neither enters a connection, which would have its direction wrong.
    """

    def flow(priority: int, match: Fields, *actions: Action) -> Flow:
        return _flow(mark, side.verdict, priority, match, *actions)

    def found(bits: int, without: int = 0) -> Fields:
        return {REG_VERDICT: (bits, bits | without)} if bits else {}

    # A copy of its own: a meter that drops ends what is left to do with the packet for others too (docs/adr/0011).
    reject = act.Clone(IN_THE_DATAPATH, goto(side.reject))
    yield flow(640, found(Finding.TURNED_DROP))
    yield flow(630, found(Finding.TURNED_REJECT), reject)
    yield flow(620, found(Finding.TURNED_DEFAULT_DROP, without=Finding.TURNED_ALLOW))
    yield flow(610, found(Finding.TURNED_DEFAULT_REJECT, without=Finding.TURNED_ALLOW), reject)
    yield flow(600, found(Finding.LISTENER_SENDS), side.onward)
    yield flow(510, found(Finding.DROP | Finding.LOG_DROP), _log(side, Verdict.DROP))
    yield flow(500, found(Finding.DROP))
    yield flow(495, found(Finding.REJECT | Finding.LOG_REJECT), _log(side, Verdict.REJECT), reject)
    yield flow(490, found(Finding.REJECT), reject)
    yield from _logged_connections(mark, side)
    yield flow(200, found(Finding.DEFAULT_DROP))
    yield flow(190, found(Finding.DEFAULT_REJECT), reject)
    for priority, allowing in ((400, Finding.ALLOW), (100, 0)):
        yield flow(priority + 30, found(allowing | Finding.MIDSTREAM), side.onward)
        for eth_type in TRACKED:  # ct needs a match on IP (ovs-actions(7))
            ip = found(allowing) | {"eth_type": eth_type}
            yield flow(priority + 20, ip | _ct(IS_TRACKED | NEW), _commit(side))
            yield flow(priority + 10, ip | _ct(IS_TRACKED) | FRAGMENT, _commit(side))
        yield flow(priority, found(allowing), side.onward)


def _monitored(mark: int, side: Side) -> Iterator[Flow]:
    """What a group in monitor mode would forbid, and the groups that enforce do not, goes to the agent with the tag of the rule."""
    F = Finding
    for priority, standing, without in (
        (400, F.STANDING_DROP, 0), (390, F.STANDING_REJECT, 0),
        (380, F.STANDING_DEFAULT_DROP, F.STANDING_ALLOW), (370, F.STANDING_DEFAULT_REJECT, F.STANDING_ALLOW),
    ):  # fmt: skip
        yield _flow(mark, side.monitor, priority, {REG_VERDICT: (standing, standing | without)})
    for priority, found, without, tag in (
        (300, F.DROP, 0, REG_DROPPING), (290, F.REJECT, 0, REG_REJECTING),
        (200, F.DEFAULT_DROP, F.ALLOW, None), (190, F.DEFAULT_REJECT, F.ALLOW, None),
    ):  # fmt: skip
        name = act.SetField(REG_LOG, 0) if tag is None else act.Move(f"{tag}[0..31]", f"{REG_LOG}[0..31]")
        seen = act.SetField(REG_VERDICT, (F.MONITORED, F.MONITORED))
        match: Fields = {REG_VERDICT: (found, found | without)}
        yield _flow(mark, side.monitor, priority, match, act.Clone(IN_THE_DATAPATH, name, seen, goto(side.log)))


def _log(side: Side, verdict: Verdict) -> Action:
    """Has the rule that came to a verdict log the packet: in a copy, as what is rejected."""
    _, tag = LOGGED[verdict]
    return act.Clone(IN_THE_DATAPATH, act.Move(f"{tag}[0..31]", f"{REG_LOG}[0..31]"), goto(side.log))


def _logged_connections(mark: int, side: Side) -> Iterator[Flow]:
    """What is allowed and logged: the first packet of a connection, and each of a protocol without connections."""
    bits, log = Finding.ALLOW | Finding.LOG_ALLOW, _log(side, Verdict.ALLOW)
    begun: Fields = {REG_VERDICT: (bits, bits | Finding.MIDSTREAM)}
    for eth_type in TRACKED:
        ip = begun | {"eth_type": eth_type}
        yield _flow(mark, side.verdict, 425, ip | _ct(IS_TRACKED | NEW), log, _commit(side))
    yield _flow(mark, side.verdict, 405, begun | _ct(0, IS_TRACKED), log, side.onward)


def _turn(mark: int) -> Iterator[Flow]:
    """Exchanges the two ends of a TCP segment: rules of the other direction match it as they match its answer."""
    for eth_type, ends in ((ETH_IPV4, ("ip_src", "ip_dst")), (ETH_IPV6, ("ipv6_src", "ipv6_dst"))):
        exchange = [action for pair in (ends, ("tcp_src", "tcp_dst")) for action in _exchange(*pair)]
        yield _flow(mark, Table.TURN, 100, {"eth_type": eth_type, "nw_proto": TCP}, *exchange)


def _exchange(left: str, right: str) -> Actions:
    return act.Push(left), act.Push(right), act.Pop(left), act.Pop(right)


def _listener(mark: int) -> Iterator[Flow]:
    """Finds the end that listens. What goes there is judged as what begins a connection, so what was found of its answer is dropped."""
    sends = act.SetField(REG_VERDICT, (Finding.LISTENER_SENDS, Finding.LISTENER_SENDS))
    begins = act.SetField(REG_VERDICT, (0, TURNED | Finding.MIDSTREAM))
    for eth_type in TRACKED:
        tcp: Fields = {"eth_type": eth_type, "nw_proto": TCP}
        yield _flow(mark, Table.LISTENER, 300, tcp | {"tcp_src": PRIVILEGED, "tcp_dst": PRIVILEGED})
        for near, far, action in (("tcp_src", "tcp_dst", sends), ("tcp_dst", "tcp_src", begins)):
            yield _flow(mark, Table.LISTENER, 200, tcp | {near: PRIVILEGED}, action)
            yield _flow(mark, Table.LISTENER, 100, tcp | {near: SERVICE, far: CLIENT}, action)


# A VIF, a peer, a rule


def judge_flows(view: HostView, vif: Vif, ofport: int, mark: int) -> list[Flow]:
    """Asks the rules of each of a VIF's groups about the packets that it sends and receives.

    The tracker knows the first packet of a connection: the rules of its direction are asked about that. A packet that goes the
    same way has that one's own headers, unless it is an error about an answer.
    A packet from the tracker must be of the VIF's own zone: together with one of this VIF the userspace datapath may release
    fragments that waited in another zone.
    """
    binding = view.binding(vif.network, vif.id, view.me)
    groups = [row for name in vif.groups if (row := view.group(name, vif.network)) is not None]
    numbers = [group for group in groups if group.enforces]
    monitors = [group for group in groups if not group.enforces]
    zone: Fields = {"ct_zone": ofport}
    flows = []
    for side, other in (SIDES, SIDES[::-1]):
        own: Fields = {side.port: ofport}
        begin: Actions = (act.SetField(REG_VERDICT, 0), act.SetField(REG_PEER, 0), goto(side.peer))
        if view.named_sets(vif.network):
            begin = (*begin, goto(side.sets))
        verdict = goto(side.verdict)
        for priority, match, asked in (
            (200, zone | _ct(IS_TRACKED | REPLY), ask_as_begun(other.rules)),
            (150, zone | _ct(IS_TRACKED | RELATED), ask_as_begun(side.rules)),
            (100, zone | _ct(IS_TRACKED), goto(side.rules)),
            (100, _ct(0, IS_TRACKED), goto(side.rules)),
        ):
            asks = (*begin, *_ask(asked, numbers), *_ask_monitors(side, asked, monitors, numbers), verdict)
            flows.append(_flow(mark, side.state, priority, own | match, *asks))
        if binding is not None and binding.moved:
            asks = (*begin, *_ask_midstream(side, other, numbers), verdict)
            for eth_type in TRACKED:
                match = own | zone | _ct(IS_TRACKED | NEW) | {"eth_type": eth_type} | MIDSTREAM | WHOLE
                flows.append(_flow(mark, side.state, 180, match, *asks))
        flows.append(_flow(mark, side.committed, 100, own | zone | _ct(IS_TRACKED, INVALID), side.onward))
        if groups and not any(group.stateful for group in groups):
            forget = (act.CtClear(),) if side is INGRESS else ()  # what the zone of a sender here made of it
            flows.append(_flow(mark, side.track, 160, own, *forget, goto(side.state)))
        if monitors and not numbers:
            flows.append(_only_watched(mark, side, own))
    return flows


def _only_watched(mark: int, side: Side, own: Fields) -> Flow:
    """Has a copy of each frame judged, and the frame go on: nothing that the tracker does to the copy, as to keep a fragment, costs a VIF
    anything whose groups are all in monitor mode."""
    judged = act.Clone(IN_THE_DATAPATH, act.SetField(REG_COPY, (COPY, COPY)), goto(side.track))
    return _flow(mark, side.track, 300, own | {REG_COPY: (0, COPY)}, judged, side.onward)


def _ask_monitors(
    side: Side, asked: Action, groups: Sequence[SecurityGroup], others: Sequence[SecurityGroup]
) -> Actions:
    """Asks each group in monitor mode by itself, beside the groups that enforce: what it alone would change. Where there are several steps,
    those groups are asked again with it."""
    if not groups:
        return ()
    kept = act.Move(
        f"{REG_VERDICT}[0..{FOUND_BITS - 1}]", f"{REG_VERDICT}[{STANDING_SHIFT}..{STANDING_SHIFT + FOUND_BITS - 1}]"
    )
    return (kept, *(act.Clone(*_beside(asked, group, others), goto(side.monitor)) for group in groups))


def _beside(asked: Action, group: SecurityGroup, others: Sequence[SecurityGroup]) -> Actions:
    if all(each.tier is Tier.VIF for each in (group, *others)):
        return _ask(asked, [group])
    anew = act.SetField(REG_VERDICT, (0, FOUND | LOGS))
    return (anew, *_ask(asked, [group, *others]), act.SetField(REG_GROUP, group.number))


def _ask(asked: Action, groups: Sequence[SecurityGroup]) -> Actions:
    """Asks groups step by step. Of the VIF's tier alone: there is one step. A step that decides has what follows ask nothing."""
    if all(group.tier is Tier.VIF for group in groups):
        return tuple(action for group in groups for action in (act.SetField(REG_GROUP, group.number), asked))
    steps = steps_of(groups)
    actions: list[Action] = [act.SetField(REG_GROUP, 0)]
    for at, step in enumerate(steps):
        if at:
            ended = next(each for each in (*steps[at - 1], *step) if each.group.tier is not Tier.VIF)
            actions += [_number(ended.group, STEP_ENDS), asked]
        for group, mandatory in step:
            actions += [_number(group, MANDATORY * mandatory), asked]
    return tuple(actions)


def _number(group: SecurityGroup, bits: int) -> Action:
    """Names a group, and leaves whether something is decided."""
    return act.SetField(REG_GROUP, (group.number | bits, GROUP_NUMBER | MANDATORY | STEP_ENDS))


def _ask_midstream(side: Side, other: Side, groups: Sequence[SecurityGroup]) -> Actions:
    """Asks about a TCP segment whose connection the tracker did not see begin: the rules of both directions, and which end listens."""
    return (
        act.SetField(REG_VERDICT, Finding.MIDSTREAM),
        goto(Table.TURN), *_ask(goto(other.rules), groups), goto(Table.TURN),
        act.Move(f"{REG_VERDICT}[0..{FOUND_BITS - 1}]", f"{REG_VERDICT}[{TURNED_SHIFT}..{TURNED_SHIFT + FOUND_BITS - 1}]"),
        act.SetField(REG_VERDICT, (0, FOUND | LOGS)),
        goto(Table.LISTENER),
        *_ask(goto(side.rules), groups),
    )  # fmt: skip


def peer_flows(view: HostView, vif_id: str, network_name: str) -> Flows:
    """The groups of a VIF that rules here name, as bits of REG_PEER, by the VIF's MAC and its addresses."""
    network, peer = view.network(network_name), view.peer(network_name, vif_id)
    if network is None or network.segment is None or peer is None:
        return ()
    binding, bits = peer
    mark, action = cookie(Category.PEER, vif_id), act.SetField(REG_PEER, bits)
    return tuple(
        _flow(mark, side.peer, 100, {"metadata": network.segment, side.mac: identity.mac, **address}, action)
        for side in SIDES
        for identity in own_identities(binding)
        for address in _addresses(identity, binding.link_locals if identity.mac == binding.mac else (), side)
    )


def _addresses(peer: Identity, chosen: Iterable[LinkLocal], side: Side) -> Iterator[Fields]:
    """A VIF whose addresses are known is itself with those only: packets that it forwards for others are not its own."""
    if not peer.addresses:
        yield {}
    for address in peer.addresses:
        four = ip_address(address).version == 4
        yield {"eth_type": ETH_IPV4, side.ip: address} if four else {"eth_type": ETH_IPV6, side.ipv6: address}
    if any(":" in address for address in peer.addresses):
        yield {"eth_type": ETH_IPV6, side.ipv6: link_local(peer.mac)}
    for entry in chosen:
        yield {"eth_type": ETH_IPV6, side.ipv6: entry.address}


def group_flows(view: HostView, name: str, network_name: str) -> Flows:
    """The rules of a group that VIFs of a network here are in, and its defaults. Cookies tell the rules apart.

    Where two rules match the same packets the flow is that of the first by name.
    """
    network, group = view.network(network_name), view.group(name, network_name)
    if group is None or network is None or network.segment is None:
        return ()
    bits = view.peer_bits(network_name)
    if not bits.keys() >= group.named():  # VIFs in it stay silent (HostView.role)
        return ()
    own: Fields = {"metadata": network.segment, REG_GROUP: group.number}
    found = list(_step_ends(group, own)) if group.tier is not Tier.VIF else []
    found += [
        _flow(rule_cookie(group), side.rules, DEFAULT, own, act.SetField(REG_VERDICT, (bit, bit)))
        for side in SIDES
        if (bit := FOUND_BY_DEFAULT.get(group.default(side.direction))) is not None
    ]
    found += [flow for rule in group.rules for flow in _rule(bits, group, rule, own)]
    return tuple({flow.key: flow for flow in reversed(found)}.values())


def _step_ends(group: SecurityGroup, own: Fields) -> Iterator[Flow]:
    """Says at the end of a step that a rule has decided."""
    decided = act.SetField(REG_GROUP, (DECIDED, DECIDED))
    for verdict, bit in FOUND_BY_RULE.items():
        match: Fields = own | {REG_GROUP: group.number | STEP_ENDS, REG_VERDICT: (bit, bit)}
        for side in SIDES:
            yield _flow(rule_cookie(group), side.rules, PRIORITIES[verdict], match, decided)


def rule_cookie(group: SecurityGroup, rule: Rule | None = None) -> int:
    """The cookie of a rule's flows, or without one of the group's defaults."""
    return cookie(Category.GROUP, group.name if rule is None else f"{group.name}/{rule.name}")


def rule_tag(group: SecurityGroup, rule: Rule) -> int:
    """The tag by which a packet's registers name a rule that logs, or forbids: the last bits of its cookie."""
    return rule_cookie(group, rule) & TAG_MASK


def _rule(bits: Mapping[str, int], group: SecurityGroup, rule: Rule, own: Fields) -> Iterator[Flow]:
    mark = rule_cookie(group, rule)
    side = EGRESS if rule.direction is Direction.EGRESS else INGRESS
    bit, priority = FOUND_BY_RULE[rule.action], PRIORITIES[rule.action]
    logs, register = LOGGED[rule.action]
    tagged: Actions = ()
    if rule.log or rule.action is not Verdict.ALLOW:  # a group in monitor mode names the rule that would forbid
        tagged = (act.SetField(register, mark & TAG_MASK),)
    if rule.log:
        bit |= logs
    if rule.mandatory:
        own = own | {REG_GROUP: group.number | MANDATORY}
    matches = _matches(bits, rule, side) if group.stateful else _stateless_matches(bits, rule, side)
    for match in matches:
        yield _flow(mark, side.rules, priority, own | match, act.SetField(REG_VERDICT, (bit, bit)), *tagged)


def _stateless_matches(bits: Mapping[str, int], rule: Rule, side: Side) -> Iterator[Fields]:
    """As _matches, for packets that no tracker puts together: a later fragment says no ports and no type of message, with IPv6 not even the
    protocol. It passes only if it would whatever these are: so rules that forbid match it, and rules that allow do not."""
    whole = NOT_LATER if rule.is_partial else {}
    for match in _matches(bits, rule, side):
        yield match | whole
    if rule.action is Verdict.ALLOW or rule.protocol is None:
        return
    for match in _matches(bits, replace(rule, ports=(), source_ports=(), icmp=()), side):
        if match["eth_type"] == ETH_IPV6:
            yield {field: value for field, value in match.items() if field != "nw_proto"} | LATER
        elif rule.is_partial:
            yield match | LATER


def _matches(bits: Mapping[str, int], rule: Rule, side: Side) -> Iterator[Fields]:
    """The fields that a rule matches besides the VIF's own group: for each IP version, other side and message or ports."""
    for eth_type, ip in ((ETH_IPV4, side.ip), (ETH_IPV6, side.ipv6)):
        others: list[Fields] = [] if rule.remote else [{}]
        for net in map(ip_network, rule.cidrs):
            if (net.version == 4) == (eth_type == ETH_IPV4):
                others.append({ip: (str(net.network_address), str(net.netmask))})
        others += [{REG_PEER: (1 << bits[group], 1 << bits[group])} for group in rule.groups]
        for other in others:
            for message in _messages(rule, eth_type):
                yield {"eth_type": eth_type, **other, **message}


def _messages(rule: Rule, eth_type: int) -> Iterator[Fields]:
    """The protocol of a rule in one IP version, with each masked match of its ports or each type of its messages."""
    match rule.protocol:
        case None:
            yield {}
        case Protocol.ICMP:
            number, field = (ICMP, "icmp_type") if eth_type == ETH_IPV4 else (ICMPV6, "icmpv6_type")
            if not rule.icmp:
                yield {"nw_proto": number}
            for kind in rule.icmp:
                if eth_type in ICMP_TYPES[kind]:
                    yield {"nw_proto": number, field: ICMP_TYPES[kind][eth_type]}
        case int(number) if number not in PORTED:
            yield {"nw_proto": number}
        case protocol:
            number, target, source = PORTED[protocol]
            for ports in port_masks(rule.ports) or (None,):
                for source_ports in port_masks(rule.source_ports) or (None,):
                    found: Fields = {"nw_proto": number} if ports is None else {"nw_proto": number, target: ports}
                    yield found if source_ports is None else found | {source: source_ports}


def zones_of(flows: Iterable[Flow]) -> dict[int, int]:
    """The connection tracking zones that flows use, each with the cookie of its VIF. A VIF's zone is the ofport of its port."""
    return {
        flow.match["in_port"].value: flow.cookie
        for flow in flows
        if flow.table == Table.EGRESS_STATE and "in_port" in flow.match
    }


def segments_of(flows: Iterable[Flow]) -> dict[int, int]:
    """The segments of the VIFs in zones of the connection tracker, by zone: that of the frames that DELIVER lets out of their ports."""
    return {
        flow.match["reg2"].value: flow.match["metadata"].value
        for flow in flows
        if flow.table == Table.DELIVER and "reg2" in flow.match and "metadata" in flow.match
    }
