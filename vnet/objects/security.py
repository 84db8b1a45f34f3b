"""Security groups: what VIFs may exchange. One rule: the order of rules means nothing; drop wins over allow.

A VIF that is in groups obeys the rules of all of them together. What no rule matches is dropped where one of its groups
says so by default. A VIF in no group is not filtered. Rules are stateful: the replies to what they allow pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network

from vnet.objects.values import InvalidValue, Owner, Protocol, check_name, check_range

MAX_PORT = 65535
MAX_NUMBER = 2**24 - 1
ANY = "any"  # everybody, as the other side of a rule
# The groups that rules on one network may name: packets carry one bit for each while they are looked at.
MAX_REMOTE_GROUPS = 128


class Direction(Enum):
    """As the VM sees it: ingress is what it receives."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Verdict(Enum):
    ALLOW = "allow"
    DROP = "drop"


def check_group_name(where: str, name: str) -> None:
    """Refuse what a rule's other side could take for something else."""
    check_name(where, name)
    if name == ANY:
        raise InvalidValue(where, f"no security group is named {ANY!r}: it is everybody, in rules")
    try:
        ip_address(name)
    except ValueError:
        return
    raise InvalidValue(where, f"no security group is named {name!r}, like an address")


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """TCP or UDP ports from `first` to `last`, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        check_range("ports", self.first, 0, MAX_PORT)
        check_range("ports", self.last, 0, MAX_PORT)
        if self.first > self.last:
            raise InvalidValue("ports", f"{self.first}-{self.last} ends before it begins")

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @classmethod
    def merged(cls, ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
        """The same ports in order, as ranges that do not touch."""
        kept: list[PortRange] = []
        for span in sorted(ranges):
            if kept and span.first <= kept[-1].last + 1:
                kept[-1] = cls(kept[-1].first, max(kept[-1].last, span.last))
            else:
                kept.append(span)
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class Begun:
    """The beginning of an IP connection, from one end: what the other end is. port: of the side that answers, 0 without ports.

    peer_groups: the groups of the VIF on the own network whose address the peer's is; none for anybody else.
    """

    protocol: Protocol | int
    peer: str
    port: int = 0
    peer_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a group. Its name is unique in the group.

    protocol: None for any, a number (0..255) for one without a name; ICMP means ICMPv6 where packets are IPv6.
    ports: of the side that answers, as ranges in order that do not touch; empty for all. TCP and UDP only.
    The other side is a `cidr`, the members of a `group` on the VIF's own network, or with neither anybody.
    """

    name: str
    direction: Direction
    action: Verdict = Verdict.ALLOW
    protocol: Protocol | int | None = None
    ports: tuple[PortRange, ...] = ()
    cidr: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if isinstance(self.protocol, int):
            check_range("protocol", self.protocol, 0, 255)
            if self.protocol in (1, 6, 17, 58):
                raise InvalidValue("protocol", f"write {self.protocol} by its name: tcp, udp or icmp")
        if self.ports and self.protocol not in (Protocol.TCP, Protocol.UDP):
            raise InvalidValue("ports", "only tcp and udp have ports")
        for low, high in zip(self.ports, self.ports[1:], strict=False):
            if high.first <= low.last + 1:
                raise InvalidValue("ports", "ranges stand in order, and do not touch")
        if self.cidr is not None and self.group is not None:
            raise InvalidValue("group", "the other side is a CIDR or a group, not both")
        if self.cidr is not None:
            try:
                canonical = str(ip_network(self.cidr))
            except ValueError as error:
                raise InvalidValue("cidr", f"{self.cidr!r}: {error}") from None
            if canonical != self.cidr:
                raise InvalidValue("cidr", f"write {self.cidr!r} as {canonical}")
        if self.group is not None:
            check_group_name("group", self.group)

    @property
    def remote(self) -> str:
        """The other side in one word: a CIDR, a group's name, or any. No group's name looks like another of these."""
        return self.cidr or self.group or ANY

    def matches(self, direction: Direction, begun: Begun) -> bool:
        """Whether a VIF's connection in that direction is one that the rule is about."""
        if self.direction is not direction or self.protocol not in (None, begun.protocol):
            return False
        if self.ports and not any(span.first <= begun.port <= span.last for span in self.ports):
            return False
        if self.group is not None:
            return self.group in begun.peer_groups
        if self.cidr is None:
            return True
        net, address = ip_network(self.cidr), ip_address(begun.peer)
        return net.version == address.version and address in net


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """Rules that VIFs obey, and what happens where none matches. `rules` are kept in the order of their names.

    number: 1..2^24-1, unique in the pool, allocated once and kept.
    """

    name: str
    number: int
    ingress: Verdict = Verdict.DROP
    egress: Verdict = Verdict.ALLOW
    rules: tuple[Rule, ...] = ()
    owner: Owner = Owner.DOCUMENT

    def __post_init__(self) -> None:
        check_group_name("name", self.name)
        check_range("number", self.number, 1, MAX_NUMBER)
        names = [rule.name for rule in self.rules]
        if sorted(set(names)) != names:
            raise InvalidValue("rules", "rules stand in the order of their names, each name once")

    def default(self, direction: Direction) -> Verdict:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def remotes(self) -> frozenset[str]:
        """The groups that its rules name."""
        return frozenset(rule.group for rule in self.rules if rule.group is not None)


def judge(groups: Iterable[SecurityGroup], direction: Direction, begun: Begun | None) -> Verdict:
    """What becomes of a connection of a VIF in these groups: what all their rules mean together. None: it is no IP.

    The flows of `vnet.compile` do the same in a switch, and tests hold them against this.
    """
    groups = tuple(groups)
    said = {
        rule.action for group in groups for rule in group.rules if begun is not None and rule.matches(direction, begun)
    } or {group.default(direction) for group in groups}
    return Verdict.DROP if Verdict.DROP in said else Verdict.ALLOW


def crowded_networks(
    members: Iterable[tuple[str, Iterable[str]]], remotes: Mapping[str, frozenset[str]]
) -> dict[str, int]:
    """The networks on which rules name more than MAX_REMOTE_GROUPS groups, with how many.

    members: the network and the groups of each VIF. remotes: the groups that each group's rules name.
    """
    used: dict[str, set[str]] = defaultdict(set)
    for network, groups in members:
        used[network].update(groups)
    counts = {
        network: len(frozenset().union(*(remotes.get(name, frozenset()) for name in names)))
        for network, names in used.items()
    }
    return {network: count for network, count in counts.items() if count > MAX_REMOTE_GROUPS}
