"""Security groups: the connections that VIFs may have. One rule: the order of rules means nothing; drop wins over reject, reject over allow.

A VIF that is in groups obeys the rules of all of them together. A packet that no rule matches is dropped where one of its groups
says so by default. A VIF in no group is not filtered. Rules are stateful: the replies to what they allow pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import ClassVar

import msgspec

from vnet.grammar.declare import Declared, Derived, Flaw, InvalidValue, SetBy, StructOf, attr
from vnet.grammar.kinds import Boolean, Choice, Column, ListOf, choice
from vnet.grammar.noun import Noun
from vnet.objects.enums import IcmpType, Owner, Protocol
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage, plugged
from vnet.objects.limits import MAX_RULES, SCTP
from vnet.objects.values import PortRange, port_masks
from vnet.objects.words import GROUP_NAME, GROUP_REF, NAME_KIND, NUMBER, OWNER, PortRanges, Remotes, RuleProtocol


class Direction(Enum):
    """As the VM sees it: ingress is what it receives."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Verdict(Enum):
    ALLOW = "allow"
    DROP = "drop"
    REJECT = "reject"


_VERDICT: Choice[Verdict] = choice(
    "an action",
    Verdict,
    dict.fromkeys(("accept", "permit", "pass", "true"), "did you mean 'allow'?")
    | dict.fromkeys(("deny", "block", "discard", "false"), "did you mean 'drop'?")
    | dict.fromkeys(("refuse", "reset", "unreachable"), "did you mean 'reject'?"),
)


_ICMP_TYPE: Choice[IcmpType] = choice(
    "an ICMP message that begins a conversation",
    IcmpType,
    dict.fromkeys(("8", "128", "echo", "ping", "request"), "did you mean 'echo-request'?")
    | dict.fromkeys(("13", "timestamp"), "did you mean 'timestamp-request'?")
    | dict.fromkeys(("0", "129", "echo-reply", "14", "timestamp-reply"), "it passes with the request that it answers")
    | dict.fromkeys(
        (
            *("1", "2", "3", "4", "11", "12", "destination-unreachable", "packet-too-big", "fragmentation-needed"),
            *("time-exceeded", "parameter-problem", "unreachable"),
        ),
        "it is an error about a packet, and passes with the connection of that",
    ),
)


@dataclass(frozen=True, slots=True)
class Begun:
    """The beginning of an IP connection, from one end: what the other end is. port: of the side that answers, 0 without ports; with
    ICMP it is an echo request.

    peer_groups: the groups of the VIF on the own network whose address the peer's is; none for anybody else.
    """

    protocol: Protocol | int
    peer: str
    port: int = 0
    peer_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule(Declared):
    """A rule of a security group. The order of rules means nothing: one that drops wins over one that rejects, that over one that allows."""

    TITLE: ClassVar[str] = "a rule"

    name: str = attr(
        NAME_KIND, "Its name in the group. Plans and traces call it so.", also=("id", "description", "comment")
    )
    direction: Direction = attr(
        choice(
            "a direction",
            Direction,
            dict.fromkeys(("in", "inbound", "input", "incoming", "to", "receive"), "did you mean 'ingress'?")
            | dict.fromkeys(("out", "outbound", "output", "outgoing", "from", "send"), "did you mean 'egress'?"),
        ),
        "As the VM sees it: what it receives (ingress), or what it sends (egress). Replies pass with what they answer.",
    )
    action: Verdict = attr(
        _VERDICT,
        "What to do with it. `reject` drops it and tells its sender.",
        default=Verdict.ALLOW,
        also=("verdict", "target", "effect"),
    )
    protocol: Protocol | int | None = attr(
        RuleProtocol(),
        "Left out: any. `icmp` is ICMPv6 where packets are IPv6.",
        default=None,
        also=("proto", "ip-protocol"),
    )
    ports: tuple[PortRange, ...] = attr(
        PortRanges(),
        "With `protocol: tcp`, `udp` or `sctp`: ports of the side that answers. Left out: all.",
        default=(),
        also=("port", "dport", "dst-port", "destination-port", "port-range", "to-port", "dports"),
    )
    remote: tuple[str, ...] = attr(
        Remotes(),
        "The other side: anybody, those with an address in a range, or the members of a group on the same network; or a list of ranges and groups.",
        default=(),
        also=(
            *("cidr", "source", "destination", "src", "dst", "from", "to", "peer", "address", "remote-ip"),
            *("remote-group", "group", "security-group", "remote-ip-prefix", "remote-cidr"),
        ),
    )
    icmp: tuple[IcmpType, ...] = attr(
        ListOf(_ICMP_TYPE, "a list of ICMP types", empty="leave 'icmp' out for all", ordered=True),
        "With `protocol: icmp`: the messages that begin a conversation. Left out: all.",
        default=(),
        also=("icmp-type", "icmp-types", "icmpv6-type", "type"),
    )

    log: bool = attr(
        Boolean(),
        "Whether hosts log what it decides: what it forbids, and what begins a connection that it allows.",
        default=False,
        also=("logging", "logged"),
    )

    def flaws(self) -> Iterator[Flaw]:
        if self.ports and self.protocol not in (Protocol.TCP, Protocol.UDP, SCTP):
            message = "'ports' without 'protocol: tcp', 'udp' or 'sctp'"
            yield Flaw("rule", "ports", message, "add the protocol", relies_on=("protocol",))
        if self.icmp and self.protocol is not Protocol.ICMP:
            message = "'icmp' without 'protocol: icmp'"
            yield Flaw("rule", "icmp", message, "add the protocol", relies_on=("protocol",))

    @property
    def match_count(self) -> int:
        """The number of masked matches that it takes per IP version."""
        return (len(port_masks(self.ports)) or len(self.icmp) or 1) * (len(self.remote) or 1)

    @property
    def cidrs(self) -> tuple[str, ...]:
        """The other sides that are ranges of addresses."""
        return tuple(remote for remote in self.remote if "/" in remote)

    @property
    def groups(self) -> tuple[str, ...]:
        """The other sides that are security groups."""
        return tuple(remote for remote in self.remote if "/" not in remote)

    def matches(self, direction: Direction, begun: Begun) -> bool:
        """Whether a VIF's connection in that direction is one that the rule is about."""
        if self.direction is not direction or self.protocol not in (None, begun.protocol):
            return False
        if self.ports and not any(span.first <= begun.port <= span.last for span in self.ports):
            return False
        if self.icmp and IcmpType.ECHO_REQUEST not in self.icmp:
            return False
        address = ip_address(begun.peer)
        within = any(net.version == address.version and address in net for net in map(ip_network, self.cidrs))
        return not self.remote or within or not begun.peer_groups.isdisjoint(self.groups)


class _RuleText(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A rule as the JSON in its row; its name is the key there."""

    direction: Direction
    action: Verdict = Verdict.ALLOW
    protocol: Protocol | int | None = None
    icmp: tuple[IcmpType, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    cidr: str | None = None
    group: str | None = None
    remotes: tuple[str, ...] = ()  # where they are several
    log: bool = False


_RULE = msgspec.json.Decoder(_RuleText)


def _rule_of(name: str, text: str) -> Rule:
    try:
        row = _RULE.decode(text)
        ports = tuple(PortRange(*span) for span in row.ports)
        remote = row.remotes or tuple(one for one in (row.cidr, row.group) if one is not None)
        rule = Rule(name, row.direction, row.action, row.protocol, ports, remote, row.icmp, row.log)
        if not row.remotes and (rule.cidrs, rule.groups) != (_some(row.cidr), _some(row.group)):
            raise InvalidValue("remote", f"no such other side: cidr {row.cidr!r}, group {row.group!r}")
        return rule
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError, ValueError) as error:
        raise InvalidValue("rules", f"rule {name!r}: {error}") from None


def _text_of(rule: Rule) -> str:
    ports = tuple((span.first, span.last) for span in rule.ports)
    row = _RuleText(rule.direction, rule.action, rule.protocol, rule.icmp, ports, log=rule.log)
    if len(rule.remote) > 1:
        row = msgspec.structs.replace(row, remotes=rule.remote)
    elif rule.remote:
        row = msgspec.structs.replace(row, **{"cidr" if rule.cidrs else "group": rule.remote[0]})
    return msgspec.json.encode(row).decode()


def _some(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


class _Rules(ListOf[Rule]):
    """Rules in the order of their names; their row has them in a map from name to JSON."""

    column = Column(
        "string",
        "string",
        many=True,
        encode=lambda rules: {rule.name: _text_of(rule) for rule in rules},
        decode=lambda texts: tuple(_rule_of(name, texts[name]) for name in sorted(texts)),
    )

    def _value(self, values: list[Rule]) -> tuple[Rule, ...]:
        return tuple(sorted(values, key=lambda rule: rule.name))


def _cost(usage: Usage, old: SecurityGroup, narrower: bool) -> Cost:
    count = usage.in_group[old.name]
    if not count:
        return Disruption.NONE, "no VIF in it is plugged"
    if narrower:
        return Disruption.VIF, f"connections that it no longer allows are cut: {plugged(count)}"
    return Disruption.FLOWS, "nothing that passed is dropped"


def _rules(usage: Usage, _: str, old: SecurityGroup, new: SecurityGroup) -> Cost:
    allows_less = not _covered(_allowing(old), _allowing(new))
    return _cost(usage, old, allows_less or not _covered(_forbidding(new), _forbidding(old)))


def _allowing(group: SecurityGroup) -> list[Rule]:
    return [rule for rule in group.rules if rule.action is Verdict.ALLOW]


def _forbidding(group: SecurityGroup) -> list[Rule]:
    return [rule for rule in group.rules if rule.action is not Verdict.ALLOW]


def _covered(rules: list[Rule], by: list[Rule]) -> bool:
    """Whether each of the rules matches nothing that one of the others does not match too."""
    return all(any(_covers(wide, rule) for wide in by) for rule in rules)


def _covers(wide: Rule, rule: Rule) -> bool:
    if wide.direction is not rule.direction or wide.protocol not in (None, rule.protocol):
        return False
    if wide.ports and not (
        rule.ports and all(any(w.first <= r.first and r.last <= w.last for w in wide.ports) for r in rule.ports)
    ):
        return False
    if wide.icmp and not (rule.icmp and set(rule.icmp) <= set(wide.icmp)):
        return False
    if not wide.remote:
        return True
    outer = tuple(map(ip_network, wide.cidrs))
    inner = tuple(map(ip_network, rule.cidrs))
    within = all(any(o.version == i.version and i.subnet_of(o) for o in outer) for i in inner)  # type: ignore[arg-type]  # of one version
    return bool(rule.remote) and within and set(rule.groups) <= set(wide.groups)


@dataclass(frozen=True, slots=True)
class SecurityGroup(Declared):
    """Rules that the VIFs in it obey. They are stateful: replies to what they allow pass."""

    NOUN: ClassVar[Noun] = Noun(
        "security-group", "security-groups", "security group", "SecurityGroup", "groups",
        doc="Rules of who may talk to whom, by name.", replaced=True,
        unique=("number",), held=True,
        also=("groups", "security-group", "policies", "firewall", "acls"),
    )  # fmt: skip
    TITLE: ClassVar[str] = "a security group"
    MAPS: ClassVar[Mapping[tuple[str, ...], tuple[str, str, tuple[str, ...]]]] = {
        ("default",): (
            "default",
            "What happens to a new connection that no rule of the VIF's groups matches. Of several groups, one that drops wins, then one that rejects.",
            ("defaults", "policy"),
        )
    }
    DERIVED: ClassVar[tuple[Derived, ...]] = (
        Derived("remotes", ListOf(GROUP_REF, "a list of security groups", as_set=True), lambda group: group.remotes()),
    )

    name: str = attr(GROUP_NAME, "Its name.", set_by=SetBy.NAME)
    number: int = attr(
        NUMBER, "The number by which flows tell groups apart, unique in the pool, kept for the group's life.",
        set_by=SetBy.RUNTIME, allocated=True,
    )  # fmt: skip
    ingress: Verdict = attr(
        _VERDICT,
        "To a connection that comes to the VM.",
        default=Verdict.DROP,
        also=("in", "inbound"),
        at=("default",),
        change=lambda usage, _, old, new: _cost(usage, old, new.ingress is not Verdict.ALLOW),
    )
    egress: Verdict = attr(
        _VERDICT,
        "To a connection that the VM begins.",
        default=Verdict.ALLOW,
        also=("out", "outbound"),
        at=("default",),
        change=lambda usage, _, old, new: _cost(usage, old, new.egress is not Verdict.ALLOW),
    )
    rules: tuple[Rule, ...] = attr(
        _Rules(StructOf(Rule), "a list of rules", unique=False, most=MAX_RULES, named=True),
        "Its rules, in any order.",
        default=(),
        also=("rule",),
        change=_rules,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME, change=NOTHING
    )  # fmt: skip

    def flaws(self) -> Iterator[Flaw]:
        counts = Counter(rule.name for rule in self.rules)
        for name in sorted(name for name, count in counts.items() if count > 1):
            hint = "each rule of a group has a name of its own"
            yield Flaw("twice", "rules", f"rule {name} stands there twice", hint, (name, "name"))

    def default(self, direction: Direction) -> Verdict:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def action(self, rule: str, direction: Direction) -> Verdict:
        """The action of the rule of that name, or with an empty one the default."""
        return next((found.action for found in self.rules if found.name == rule), self.default(direction))

    def remotes(self) -> frozenset[str]:
        """The groups that its rules name."""
        return frozenset(group for rule in self.rules for group in rule.groups)

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        count = f"{len(self.rules)} rule{'s' if len(self.rules) != 1 else ''}"
        return f"{count}, else ingress {self.ingress.value}, egress {self.egress.value}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return Disruption.NONE, "VIFs that leave it are listed themselves"


def judge(groups: Iterable[SecurityGroup], direction: Direction, begun: Begun | None) -> Verdict:
    """The verdict on a connection of a VIF in these groups, by all their rules together. None: it is no IP.

    The flows of `vnet.compile` do the same in a switch, and tests hold them against this.
    """
    groups = tuple(groups)
    verdicts = {
        rule.action for group in groups for rule in group.rules if begun is not None and rule.matches(direction, begun)
    } or {group.default(direction) for group in groups}
    return next((verdict for verdict in (Verdict.DROP, Verdict.REJECT) if verdict in verdicts), Verdict.ALLOW)
