"""Rules that would allow the connections which a group in monitor mode has seen, and would forbid.

One rule: a suggestion allows what was seen and as little else as rules can say; nobody but people puts it into a group.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import count

from vnet.objects import Direction, IcmpType, PortRange, Protocol, Rule, SecurityGroup, Verdict
from vnet.objects.limits import MAX_REMOTES, MAX_RULES, SCTP

_PORTED: Mapping[int, Protocol | int] = {6: Protocol.TCP, 17: Protocol.UDP, SCTP: SCTP}
_ICMP = (1, 58)
_ICMP_TYPES = {
    (1, 8): IcmpType.ECHO_REQUEST, (58, 128): IcmpType.ECHO_REQUEST, (1, 13): IcmpType.TIMESTAMP_REQUEST,
    (1, 0): IcmpType.ECHO_REPLY, (58, 129): IcmpType.ECHO_REPLY, (1, 14): IcmpType.TIMESTAMP_REPLY,
    (1, 3): IcmpType.DESTINATION_UNREACHABLE, (58, 1): IcmpType.DESTINATION_UNREACHABLE, (58, 2): IcmpType.PACKET_TOO_BIG,
    (1, 11): IcmpType.TIME_EXCEEDED, (58, 3): IcmpType.TIME_EXCEEDED,
    (1, 12): IcmpType.PARAMETER_PROBLEM, (58, 4): IcmpType.PARAMETER_PROBLEM,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SeenConnections:
    """Connections of one kind that a group would forbid. peer: the other end's address; groups: those of the VIF that has it, on the same
    network. protocol: -1 without IP. port: of the side that answers, with ICMP the message's type. rule: "" for the default. answers: packets from that port,
    of a stateless group."""

    direction: Direction
    protocol: int
    port: int
    peer: str
    groups: frozenset[str]
    rule: str
    count: int
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Rules to add to a group, and in words what rules cannot do."""

    rules: tuple[Rule, ...]
    notes: tuple[str, ...]


_Service = tuple[Direction, Protocol | int, IcmpType | None, bool]  # and whether its ports are sources
_Peers = tuple[str, ...]


def suggestion(group: SecurityGroup, seen: Iterable[SeenConnections]) -> Suggestion:
    """The rules that a group needs so that it forbids nothing of what was seen."""
    peers: dict[tuple[_Service, int | None], dict[str, frozenset[str]]] = defaultdict(dict)
    forbidding: Counter[str] = Counter()
    foreign = 0
    for each in seen:
        if each.protocol < 0:
            foreign += each.count
        elif each.rule and group.action(each.rule, each.direction) is not Verdict.ALLOW:
            forbidding[each.rule] += each.count
        else:
            peers[_service(group, each)][each.peer] = each.groups
    ports: dict[tuple[_Service, _Peers], set[int]] = defaultdict(set)
    for (service, port), others in peers.items():
        ports[service, _remotes(others)] |= set() if port is None else {port}
    taken = {rule.name for rule in group.rules}
    names = (name for number in count(1) if (name := f"seen-{number}") not in taken)
    found = [_rule(next(names), *key, ports[key]) for key in sorted(ports, key=_order)]
    room = MAX_RULES - len(group.rules)
    return Suggestion(tuple(found[:room]), tuple(_notes(group, forbidding, foreign, len(found) - room)))


def _service(group: SecurityGroup, each: SeenConnections) -> tuple[_Service, int | None]:
    if (ported := _PORTED.get(each.protocol)) is not None:
        return (each.direction, ported, None, each.answers), each.port
    if each.protocol in _ICMP:
        message = _ICMP_TYPES.get((each.protocol, each.port))
        known = message if message is not None and (message.begins or not group.stateful) else None
        return (each.direction, Protocol.ICMP, known, False), None
    return (each.direction, each.protocol, None, False), None


def _remotes(peers: Mapping[str, frozenset[str]]) -> _Peers:
    """Groups that have as many of the peers as can be, and the addresses of the others; none for anybody, where these are too many."""
    left, found = dict(peers), []
    while members := Counter(group for groups in left.values() for group in groups):
        best = min(members, key=lambda name: (-members[name], name))
        found.append(best)
        left = {peer: groups for peer, groups in left.items() if best not in groups}
    found += [f"{peer}/{ip_address(peer).max_prefixlen}" for peer in left]
    return tuple(sorted(found)) if len(found) <= MAX_REMOTES else ()


def _rule(name: str, service: _Service, remotes: _Peers, ports: set[int]) -> Rule:
    direction, protocol, icmp, answers = service
    spans = PortRange.merged([PortRange(port, port) for port in ports])
    rule = Rule(name, direction, Verdict.ALLOW, protocol, remote=remotes, icmp=() if icmp is None else (icmp,))
    return replace(rule, source_ports=spans) if answers else replace(rule, ports=spans)


def _order(key: tuple[_Service, _Peers]) -> tuple[str, ...]:
    (direction, protocol, icmp, answers), remotes = key
    return direction.value, str(protocol), icmp.value if icmp is not None else "", str(answers), *remotes


def _notes(group: SecurityGroup, forbidding: Counter[str], foreign: int, left_out: int) -> Iterator[str]:
    for name, number in sorted(forbidding.items()):
        yield f"rule {name} forbids {number} of what was seen, and wins over any rule that allows: change it, or take it away"
    if foreign:
        yield f"{foreign} frames are no IP: no rule allows them, only a default of 'allow'"
    if left_out > 0:
        yield f"{left_out} rules more would be needed: a group has at most {MAX_RULES}"
