"""Security groups: the connections that VIFs may have. One rule: the order of rules means nothing; drop wins over reject, reject over allow.

A VIF that is in groups obeys the rules of all of them together. A packet that no rule matches is dropped where one of its groups
says so by default. A VIF in no group is not filtered. Rules are stateful: the replies to what they allow pass; unless all groups of the VIF
say `stateful: false`: then each packet is judged by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import ClassVar

import msgspec

from vnet.grammar.declare import Declared, Derived, Flaw, InvalidValue, SetBy, StructOf, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Boolean, Choice, Column, ListOf, Scalar, choice
from vnet.objects.enums import IcmpType, Owner, Protocol
from vnet.objects.impact import NOTHING, Cost, Disruption, Usage, plugged
from vnet.objects.labels import LABELS, NETWORK, Labels
from vnet.objects.limits import MAX_RULES, SCTP
from vnet.objects.tiers import Tier, steps_of
from vnet.objects.values import PortRange, port_masks
from vnet.objects.words import (
    CIDR,
    GROUP_NAME,
    GROUP_REF,
    NAME_KIND,
    NETWORK_REF,
    NUMBER,
    OWNER,
    SET_REF,
    PortRanges,
    Remotes,
    RuleProtocol,
)


class Direction(Enum):
    """As the VM sees it: ingress is what it receives."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Verdict(Enum):
    ALLOW = "allow"
    DROP = "drop"
    REJECT = "reject"


class PolicyMode(Enum):
    """Whether a group's rules decide, or are only asked."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class _Mode(Choice[PolicyMode]):
    """A row of a database that had no such column yet has an empty text there."""

    @property
    def column(self) -> Column:  # type: ignore[override]
        return Column(
            {"type": "string"},
            encode=lambda mode: mode.value,
            decode=lambda text: PolicyMode(text) if text else PolicyMode.ENFORCE,
        )


_VERDICT: Choice[Verdict] = choice(
    "an action",
    Verdict,
    dict.fromkeys(("accept", "permit", "pass", "true"), "did you mean 'allow'?")
    | dict.fromkeys(("deny", "block", "discard", "false"), "did you mean 'drop'?")
    | dict.fromkeys(("refuse", "reset", "unreachable"), "did you mean 'reject'?"),
)


_ICMP_TYPE: Choice[IcmpType] = choice(
    "an ICMP message",
    IcmpType,
    dict.fromkeys(("8", "128", "echo", "ping", "request"), "did you mean 'echo-request'?")
    | dict.fromkeys(("13", "timestamp"), "did you mean 'timestamp-request'?")
    | dict.fromkeys(("0", "129", "reply"), "did you mean 'echo-reply'?")
    | dict.fromkeys(("3", "1", "unreachable", "fragmentation-needed"), "did you mean 'destination-unreachable'?")
    | dict.fromkeys(("11", "ttl-exceeded"), "did you mean 'time-exceeded'?"),
)
_REPLIES = (IcmpType.ECHO_REPLY, IcmpType.TIMESTAMP_REPLY)


def _is_stateful(text: str) -> bool:
    """A row of a database that had no such column yet has an empty text there."""
    if text not in ("", "stateful", "stateless"):
        raise ValueError(f"{text!r} is neither stateful nor stateless")
    return text != "stateless"


class _TierWord(Choice[Tier]):
    """The database has an empty text for the VIF's tier: hosts ask for the rows of all others by that."""

    @property
    def column(self) -> Column:  # type: ignore[override]
        return Column(
            "string",
            encode=lambda tier: "" if tier is Tier.VIF else tier.value,
            decode=lambda text: Tier(text) if text else Tier.VIF,
        )


class _Stateful(Boolean):
    column = Column("string", encode=lambda stateful: "stateful" if stateful else "stateless", decode=_is_stateful)


@dataclass(frozen=True, slots=True)
class Begun:
    """The beginning of an IP connection, from one end: what the other end is; or, for a stateless group, any packet of it.
    port, source_port: of the packet, 0 without ports. icmp: the message, with ICMP.

    peer_groups: the groups and labels of the VIF on the own network whose address the peer's is; none for anybody else. And the address sets
    and networks that have the peer's address. Each as rules name it.
    """

    protocol: Protocol | int
    peer: str
    port: int = 0
    peer_groups: frozenset[str] = frozenset()
    source_port: int = 0
    icmp: IcmpType = IcmpType.ECHO_REQUEST


@dataclass(frozen=True, slots=True)
class Rule(Declared):
    """A rule of a security group. The order of rules means nothing: one that drops wins over one that rejects, that over one that allows."""

    TITLE: ClassVar[str] = "a rule"
    ORDER: ClassVar[tuple[str, ...]] = (
        "name",
        "direction",
        "protocol",
        "icmp",
        "ports",
        "source-ports",
        "remote",
        "action",
    )

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
        "With `protocol: tcp`, `udp` or `sctp`: ports of the side that answers; in a stateless group a packet's destination port. Left out: all.",
        default=(),
        also=("port", "dport", "dst-port", "destination-port", "port-range", "to-port", "dports"),
    )
    remote: tuple[str, ...] = attr(
        Remotes(),
        "The other side: anybody, those with an address in a range, an address set or the subnets of a network (`network:NAME`), or those on the same network that "
        "are in a group or have a label (`label:KEY=VALUE`); or a list of these.",
        default=(),
        also=(
            *("cidr", "source", "destination", "src", "dst", "from", "to", "peer", "address", "remote-ip"),
            *("remote-group", "group", "security-group", "remote-ip-prefix", "remote-cidr"),
        ),
    )
    icmp: tuple[IcmpType, ...] = attr(
        ListOf(_ICMP_TYPE, "a list of ICMP types", empty="leave 'icmp' out for all", ordered=True),
        "With `protocol: icmp`: the messages that begin a conversation; in a stateless group any. Left out: all.",
        default=(),
        also=("icmp-type", "icmp-types", "icmpv6-type", "type"),
    )

    log: bool = attr(
        Boolean(),
        "Whether hosts log what it decides: what it forbids, and what begins a connection that it allows.",
        default=False,
        also=("logging", "logged"),
    )

    source_ports: tuple[PortRange, ...] = attr(
        PortRanges(),
        "In a stateless group, with `protocol: tcp`, `udp` or `sctp`: a packet's source port. Left out: all.",
        default=(),
        also=("source-port", "sport", "sports", "src-port", "from-port", "from-ports"),
    )

    mandatory: bool = attr(
        Boolean(),
        "In a group of a tier above the VIF's: whether nothing below overrides it. Else it decides only where no rule below matches.",
        default=False,
        also=("enforced", "final"),
    )

    def flaws(self) -> Iterator[Flaw]:
        for field, spans in (("ports", self.ports), ("source_ports", self.source_ports)):
            if spans and self.protocol not in (Protocol.TCP, Protocol.UDP, SCTP):
                message = f"'{field.replace('_', '-')}' without 'protocol: tcp', 'udp' or 'sctp'"
                yield Flaw("rule", field, message, "add the protocol", relies_on=("protocol",))
        if self.icmp and self.protocol is not Protocol.ICMP:
            message = "'icmp' without 'protocol: icmp'"
            yield Flaw("rule", "icmp", message, "add the protocol", relies_on=("protocol",))

    @property
    def match_count(self) -> int:
        """The number of masked matches that it takes per IP version."""
        ports = (len(port_masks(self.ports)) or 1) * (len(port_masks(self.source_ports)) or 1)
        return ports * (len(self.icmp) or 1) * (len(self.remote) or 1)

    @property
    def is_partial(self) -> bool:
        """Whether it asks for what a later fragment does not say: ports, or the type of a message."""
        return bool(self.ports or self.source_ports or self.icmp)

    @property
    def cidrs(self) -> tuple[str, ...]:
        """The other sides that are ranges of addresses."""
        return tuple(remote for remote in self.remote if "/" in remote)

    @property
    def groups(self) -> tuple[str, ...]:
        """The other sides that are no ranges: security groups, address sets, and networks and labels with their prefix."""
        return tuple(remote for remote in self.remote if "/" not in remote)

    def matches(self, direction: Direction, begun: Begun) -> bool:
        """Whether a VIF's connection in that direction is one that the rule is about."""
        if self.direction is not direction or self.protocol not in (None, begun.protocol):
            return False
        if self.ports and not any(span.first <= begun.port <= span.last for span in self.ports):
            return False
        if self.source_ports and not any(span.first <= begun.source_port <= span.last for span in self.source_ports):
            return False
        if self.icmp and begun.icmp not in self.icmp:
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
    source_ports: tuple[tuple[int, int], ...] = ()
    mandatory: bool = False


_RULE = msgspec.json.Decoder(_RuleText)


def _rule_of(name: str, text: str) -> Rule:
    try:
        row = _RULE.decode(text)
        ports = tuple(PortRange(*span) for span in row.ports)
        remote = row.remotes or tuple(one for one in (row.cidr, row.group) if one is not None)
        source_ports = tuple(PortRange(*span) for span in row.source_ports)
        matches = (row.protocol, ports, remote, row.icmp, row.log, source_ports)
        rule = Rule(name, row.direction, row.action, *matches, row.mandatory)
        if not row.remotes and (rule.cidrs, rule.groups) != (_some(row.cidr), _some(row.group)):
            raise InvalidValue("remote", f"no such other side: cidr {row.cidr!r}, group {row.group!r}")
        return rule
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError, ValueError) as error:
        raise InvalidValue("rules", f"rule {name!r}: {error}") from None


def _text_of(rule: Rule) -> str:
    ports, source_ports = (tuple((s.first, s.last) for s in spans) for spans in (rule.ports, rule.source_ports))
    row = _RuleText(
        rule.direction, rule.action, rule.protocol, rule.icmp, ports,
        log=rule.log, source_ports=source_ports, mandatory=rule.mandatory,
    )  # fmt: skip
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


def _network_range(text: str) -> str:
    network, _, cidr = text.partition(" ")
    return f"{NETWORK_REF.parse(network)} {CIDR.parse(cidr)}"


def _network_ranges(usage: Usage, _: str, old: SecurityGroup, new: SecurityGroup) -> Cost:
    return _cost(usage, old, new.enforces and set(old.network_ranges) != set(new.network_ranges))


def _cost(usage: Usage, old: SecurityGroup, narrower: bool) -> Cost:
    count = usage.in_group[old.name]
    if not count:
        return Disruption.NONE, "no VIF in it is plugged"
    if narrower:
        return Disruption.VIF, f"connections that it no longer allows are cut: {plugged(count)}"
    return Disruption.FLOWS, "nothing that passed is dropped"


def _rules(usage: Usage, _: str, old: SecurityGroup, new: SecurityGroup) -> Cost:
    allows_less = not _covered(_allowing(old), _allowing(new))
    narrower = allows_less or not _covered(_forbidding(new), _forbidding(old))
    return _cost(usage, old, new.enforces and narrower)


def _tracking(usage: Usage, old: SecurityGroup, new: SecurityGroup) -> Cost:
    cost = _cost(usage, old, new.enforces)
    if cost[0] is not Disruption.VIF:
        return cost
    lost = (
        "what no rule allows in its direction is cut, answers too"
        if old.stateful
        else "TCP connections whose listening end the ports do not tell are cut"
    )
    return Disruption.VIF, f"{lost}: {plugged(usage.in_group[old.name])}"


def _allowing(group: SecurityGroup) -> list[Rule]:
    return [rule for rule in group.rules if rule.action is Verdict.ALLOW]


def _forbidding(group: SecurityGroup) -> list[Rule]:
    return [rule for rule in group.rules if rule.action is not Verdict.ALLOW]


def _covered(rules: list[Rule], by: list[Rule]) -> bool:
    """Whether each of the rules matches nothing that one of the others does not match too."""
    return all(any(_covers(wide, rule) for wide in by) for rule in rules)


def _covers(wide: Rule, rule: Rule) -> bool:
    if (
        wide.mandatory is not rule.mandatory
        or wide.direction is not rule.direction
        or wide.protocol not in (None, rule.protocol)
    ):
        return False
    for outside, inside in ((wide.ports, rule.ports), (wide.source_ports, rule.source_ports)):
        if outside and not (
            inside and all(any(w.first <= r.first and r.last <= w.last for w in outside) for r in inside)
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


def _needs_stateless(rule: Rule) -> Iterator[Flaw]:
    """The parts of a rule for which packets must be judged by themselves."""
    if rule.source_ports:
        message = f"'source-ports' of rule {rule.name} in a group that tracks connections"
        hint = "say 'stateful: false', or leave them out: clients take any port"
        yield Flaw("rule", "rules", message, hint, (rule.name, "source-ports"), relies_on=("stateful",))
    for answer in (message_type for message_type in rule.icmp if not message_type.begins):
        message = f"'icmp: {answer.value}' of rule {rule.name} in a group that tracks connections"
        cause = "the request that it answers" if answer in _REPLIES else "the connection of the packet that it is about"
        path = (rule.name, "icmp", answer.value)
        yield Flaw("rule", "rules", message, f"it passes with {cause}", path, relies_on=("stateful",))


@dataclass(frozen=True, slots=True)
class SecurityGroup(Declared):
    """Rules that the VIFs in it obey. Unless the group is stateless, replies to what they allow pass."""

    NOUN: ClassVar[Noun] = Noun(
        "security-group", "security-groups", "security group", "SecurityGroup", "groups",
        doc="Rules of who may talk to whom, by name.", replaced=True,
        unique=("number",), held=True,
        also=("groups", "security-group", "policies", "firewall", "acls"),
    )  # fmt: skip
    TITLE: ClassVar[str] = "a security group"
    ORDER: ClassVar[tuple[str, ...]] = ("mode", "stateful", "tier", "selector", "default")
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
        change=lambda usage, _, old, new: _cost(usage, old, new.enforces and new.ingress is not Verdict.ALLOW),
    )
    egress: Verdict = attr(
        _VERDICT,
        "To a connection that the VM begins.",
        default=Verdict.ALLOW,
        also=("out", "outbound"),
        at=("default",),
        change=lambda usage, _, old, new: _cost(usage, old, new.enforces and new.egress is not Verdict.ALLOW),
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
    mode: PolicyMode = attr(
        _Mode(
            "a mode: enforce, monitor",
            PolicyMode,
            dict.fromkeys(("enforcing", "enforced", "on"), "did you mean 'enforce'?")
            | dict.fromkeys(("monitoring", "permissive", "log", "learn", "dry-run", "off"), "did you mean 'monitor'?"),
        ),
        "Whether its rules decide. `monitor` drops nothing: what the group would drop is counted and logged.",
        default=PolicyMode.ENFORCE,
        change=lambda usage, _, old, new: _cost(usage, old, new.enforces),
    )

    stateful: bool = attr(
        _Stateful(),
        "Whether replies pass with what they answer. `false`: each packet is judged by itself, both ways, and no connection is tracked.",
        default=True,
        also=("tracked", "connection-tracking", "stateless"),
        change=lambda usage, _, old, new: _tracking(usage, old, new),
    )

    tier: Tier = attr(
        _TierWord(
            "a tier: pool, network, vm, vif",
            Tier,
            dict.fromkeys(("global", "cluster", "admin"), "did you mean 'pool'?")
            | dict.fromkeys(("default", "interface", "port"), "did you mean 'vif'?"),
        ),
        "Where its rules stand: above those of narrower tiers where they are mandatory, else below. A group of tier `pool` holds for every VIF, others for the VIFs, VMs and networks "
        "that name them. Above `vif` a group has no `default`.",
        default=Tier.VIF,
        change=lambda usage, _, old, new: _cost(usage, new, new.enforces),
    )
    selector: Labels = attr(
        LABELS,
        "In a tier above `vif`: the labels of the VIFs that it holds for besides those that name it. Left out in tier `pool`: of all.",
        default=(),
        also=("match-labels", "for", "applies-to"),
        change=lambda usage, _, old, new: _cost(usage, new, new.enforces),
    )
    network_ranges: tuple[str, ...] = attr(
        ListOf(Scalar("a network and a range", {"type": "string"}, _network_range), "a list of ranges", ordered=True),
        "The ranges of the networks that its rules name, as NETWORK CIDR.",
        default=(),
        set_by=SetBy.RUNTIME,
        allocated=True,
        change=_network_ranges,
    )
    address_sets: frozenset[str] = attr(
        ListOf(SET_REF, "a list of address sets", as_set=True),
        "The address sets that its rules name.",
        default=frozenset(),
        set_by=SetBy.RUNTIME,
        change=NOTHING,
    )

    def flaws(self) -> Iterator[Flaw]:
        counts = Counter(rule.name for rule in self.rules)
        for name in sorted(name for name, count in counts.items() if count > 1):
            hint = "each rule of a group has a name of its own"
            yield Flaw("twice", "rules", f"rule {name} stands there twice", hint, (name, "name"))
        if self.tier is Tier.VIF:
            for rule in (rule for rule in self.rules if rule.mandatory):
                message = f"rule {rule.name} is mandatory, and its group of tier vif"
                hint = "nothing is below a VIF's own groups: leave it out, or say 'tier: pool', 'network' or 'vm'"
                yield Flaw("tier", "rules", message, hint, (rule.name, "mandatory"), relies_on=("tier",))
            if self.selector:
                message, hint = (
                    "a group of tier vif selects no VIFs: they name it",
                    "say 'tier: vm', or leave 'selector' out",
                )
                yield Flaw("tier", "selector", message, hint, relies_on=("tier",))
        elif (self.ingress, self.egress) != (Verdict.DROP, Verdict.ALLOW):
            field = "egress" if self.egress is not Verdict.ALLOW else "ingress"
            message, hint = f"a group of tier {self.tier.value} has no default", "write a rule that is not mandatory"
            yield Flaw("tier", field, message, hint, relies_on=("tier",))
        for rule in self.rules if self.stateful else ():
            yield from _needs_stateless(rule)

    @property
    def decides_tracked(self) -> bool:
        """Whether its rules decide about packets by their connections."""
        return self.enforces and self.stateful

    @property
    def enforces(self) -> bool:
        """Whether its rules decide about packets."""
        return self.mode is PolicyMode.ENFORCE

    def is_asked_in(self, tier: Tier, *, mandatory: bool) -> bool:
        """Whether it has rules of that step. In the VIF's tier also without any: it has defaults."""
        return self.tier is tier and (tier is Tier.VIF or any(rule.mandatory is mandatory for rule in self.rules))

    def default(self, direction: Direction) -> Verdict:
        if self.tier is not Tier.VIF:
            return Verdict.ALLOW
        return self.ingress if direction is Direction.INGRESS else self.egress

    def action(self, rule: str, direction: Direction) -> Verdict:
        """The action of the rule of that name, or with an empty one the default."""
        return next((found.action for found in self.rules if found.name == rule), self.default(direction))

    def step_of(self, rule: str) -> str:
        """The step in which the rule of that name, or with an empty one the default, decides: as "pool, mandatory"."""
        mandatory = any(found.mandatory for found in self.rules if found.name == rule)
        return f"{self.tier.value}, mandatory" if mandatory else self.tier.value

    def remotes(self) -> frozenset[str]:
        """The groups that its rules name."""
        return frozenset(name for name in self.named() - self.address_sets if ":" not in name)

    def networks(self) -> frozenset[str]:
        """The networks that its rules name."""
        return frozenset(name.removeprefix(NETWORK) for name in self.named() if name.startswith(NETWORK))

    def ranges_of_networks(self) -> dict[str, tuple[str, ...]]:
        """The ranges of the networks that its rules name, by the names that rules have for them."""
        found: dict[str, tuple[str, ...]] = {NETWORK + name: () for name in self.networks()}
        for network, _, cidr in (text.partition(" ") for text in self.network_ranges):
            found[NETWORK + network] = (*found.get(NETWORK + network, ()), cidr)
        return found

    def named(self) -> frozenset[str]:
        """The groups, address sets, networks and labels that its rules name."""
        return frozenset(group for rule in self.rules for group in rule.groups)

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        count = f"{len(self.rules)} rule{'s' if len(self.rules) != 1 else ''}"
        mode = "" if self.enforces else ", in monitor mode"
        stateless = "" if self.stateful else ", stateless"
        if self.tier is not Tier.VIF:
            chosen = f" for {', '.join(self.selector)}" if self.selector else ""
            return f"{count}, tier {self.tier.value}{chosen}{stateless}{mode}"
        return f"{count}, else ingress {self.ingress.value}, egress {self.egress.value}{stateless}{mode}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        count = usage.applies_to(self)
        if not count:
            return NOTHING
        if self.enforces and _forbidding(self):
            return Disruption.VIF, f"connections that it forbids are cut: {plugged(count)}"
        return Disruption.FLOWS, "nothing that passed is dropped"

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        count = usage.applies_to(self)
        if not count:
            return Disruption.NONE, "VIFs that leave it are listed themselves"
        if self.enforces and _allowing(self):
            return Disruption.VIF, f"connections that only it allows are cut: {plugged(count)}"
        return Disruption.FLOWS, "nothing that passed is dropped"


def judge(groups: Iterable[SecurityGroup], direction: Direction, begun: Begun | None) -> Verdict:
    """The verdict on a connection of a VIF in these groups, or on a packet if they are stateless, by all rules of those that enforce. None: it is no IP.

    The flows of `vnet.compile` do the same in a switch, and tests hold them against this.
    """
    groups = tuple(group for group in groups if group.enforces)
    for step in steps_of(groups):
        rules = (rule for group, mandatory in step for rule in group.rules if rule.mandatory is mandatory)
        if verdicts := {rule.action for rule in rules if begun is not None and rule.matches(direction, begun)}:
            return _strictest(verdicts)
    return _strictest({group.default(direction) for group in groups})


def _strictest(verdicts: Collection[Verdict]) -> Verdict:
    return next((verdict for verdict in (Verdict.DROP, Verdict.REJECT) if verdict in verdicts), Verdict.ALLOW)
