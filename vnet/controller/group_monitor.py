"""What a security group in monitor mode would have forbidden, on all hosts together, and the rules that would allow it.

One rule: at most MONITORED_OF_GROUP kinds of connections are kept, the most frequent ones: what hosts say may come from hostile traffic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from vnet import api
from vnet.controller.admission import find
from vnet.controller.endpoint import Call
from vnet.controller.group_counters import ask
from vnet.controller.presenters import timestamp
from vnet.db.rule_queries import MonitoredConnection, RuleReply
from vnet.db.view import PoolView
from vnet.grammar.declare import plain
from vnet.objects import SecurityGroup, Vif
from vnet.objects.limits import MAC, MAX_PORT, MONITORED_OF_GROUP, NAME
from vnet.objects.link_local import link_local
from vnet.objects.tiers import applied, obeyed
from vnet.objects.words import RuleProtocol, is_range
from vnet.plan.suggestion import SeenConnections, suggestion

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}


async def monitored(call: Call[None]) -> api.Monitored:
    """What a group in monitor mode would have forbidden, and the rules that would allow it.

    Raises Invalid, NotFound, Unavailable.
    """
    view = call.service.view()
    group = find("security-group", call.id, view.state.groups)
    replies, missing = await ask(call, view, group.name)
    connections = sorted(_counted(view, group, replies), key=lambda each: each.rank)[:MONITORED_OF_GROUP]
    peers = [_peer(view, each) for each in connections]
    seen = [_seen(each, peer) for each, peer in zip(connections, peers, strict=True)]
    wanted = suggestion(group, seen)
    return api.Monitored(
        security_group=group.name,
        mode=group.mode.value,
        connections=[_shown(each, peer) for each, peer in zip(connections, peers, strict=True)],
        vifs=list(_sums(replies)),
        suggested=[msgspec.convert(plain(rule, document=False), api.Rule) for rule in wanted.rules],
        notes=list(wanted.notes),
        hosts=sorted(replies.keys() - missing.keys()),
        missing=missing,
    )


def _counted(view: PoolView, group: SecurityGroup, replies: Mapping[str, RuleReply]) -> Iterator[MonitoredConnection]:
    """The connections of VIFs that are in the group, summed over the hosts on which a VIF has been."""
    state = view.state
    everywhere = list(applied(state.groups.values()))
    counts: Counter[tuple[object, ...]] = Counter()
    newest: dict[tuple[object, ...], MonitoredConnection] = {}
    for each in (each for reply in replies.values() for each in reply.connections[:MONITORED_OF_GROUP]):
        vif = state.vifs.get(each.vif)
        if vif is None or not _is_sound(each):
            continue
        if group.name not in obeyed(vif, state.networks.get(vif.network), everywhere):
            continue
        kind = (each.vif, each.direction, each.protocol, each.port, each.peer, each.mac, each.rule, each.answers)
        counts[kind] += each.count
        if kind not in newest or newest[kind].last < each.last:
            newest[kind] = each
    for key, each in newest.items():
        yield msgspec.structs.replace(each, count=counts[key])


def _is_sound(each: MonitoredConnection) -> bool:
    """Whether an answer can be true: a host may write what it likes."""
    address = each.protocol < 0 or (is_range(each.peer) and "/" not in each.peer and "%" not in each.peer)
    numbers = -1 <= each.protocol <= 255 and 0 <= each.port <= MAX_PORT and 0 < each.count < 2**53
    return (
        address
        and numbers
        and MAC.fullmatch(each.mac) is not None
        and (not each.rule or NAME.fullmatch(each.rule) is not None)
    )


def _peer(view: PoolView, each: MonitoredConnection) -> Vif | None:
    """The VIF at the other end, by its MAC, and by its addresses where they are known."""
    network = view.state.vifs[each.vif].network
    for vif in (view.state.vifs[name] for name in view.index.by_mac.get(each.mac, ())):
        if vif.network != network:
            continue
        own = (*vif.addresses, link_local(vif.mac))
        if not vif.addresses or not each.peer or each.peer in own:
            return vif
    return None


def _seen(each: MonitoredConnection, peer: Vif | None) -> SeenConnections:
    groups = frozenset(peer.groups) if peer is not None else frozenset()
    return SeenConnections(
        each.direction, each.protocol, each.port, each.peer, groups, each.rule, each.count, each.answers
    )


def _shown(each: MonitoredConnection, peer: Vif | None) -> api.MonitoredConnection:
    known = _PROTOCOLS.get(each.protocol)
    number = f"ethertype 0x{each.port:04x}" if each.protocol < 0 else str(RuleProtocol().plain(each.protocol))
    return api.MonitoredConnection(
        vif=each.vif,
        direction=each.direction.value,
        protocol=known or number,
        port=each.port if each.protocol >= 0 else None,
        peer=peer.id if peer is not None else each.peer or each.mac,
        address=each.peer,
        rule=each.rule,
        count=each.count,
        last=timestamp(each.last) or "",
        answers=each.answers,
    )


def _sums(replies: Mapping[str, RuleReply]) -> Iterator[api.MonitoredCount]:
    begun: Counter[tuple[str, str]] = Counter()
    running: Counter[tuple[str, str]] = Counter()
    for each in (each for reply in replies.values() for each in reply.monitored):
        begun[each.vif, each.direction.value] += each.begun
        running[each.vif, each.direction.value] += each.running
    for vif, direction in sorted(begun):
        yield api.MonitoredCount(
            vif=vif, direction=direction, begun=begun[vif, direction], running=running[vif, direction]
        )
