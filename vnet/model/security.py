"""Security groups: what VIFs may exchange. One rule: the order of rules means nothing; drop wins over allow.

A VIF that is in groups obeys the rules of all of them together. What no rule matches is dropped where one of its groups
says so by default. A VIF in no group is not filtered. Rules are stateful: the replies to what they allow pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network

from vnet.model.values import InvalidValue, Owner, Protocol, check_name, check_range

MAX_PORT = 65535
MAX_NUMBER = 2**24 - 1


class Direction(Enum):
    """As the VM sees it: ingress is what it receives."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Verdict(Enum):
    ALLOW = "allow"
    DROP = "drop"


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
        check_name("name", self.name)
        check_range("number", self.number, 1, MAX_NUMBER)
        names = [rule.name for rule in self.rules]
        if sorted(set(names)) != names:
            raise InvalidValue("rules", "rules stand in the order of their names, each name once")

    def default(self, direction: Direction) -> Verdict:
        return self.ingress if direction is Direction.INGRESS else self.egress
