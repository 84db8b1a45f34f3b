"""VIFs of a pool that are alike, and one conversation that answers for all pairs of two kinds.

One rule: VIFs are alike if their flows are the same up to names: of themselves, of networks that are alike, of hosts that are
alike. What is alike is compared by content, so an answer holds for every network of a pool, and in another pool too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from ovsctl.datapath.conntrack import Tracker
from vnet.objects import Binding, Location, PoolState, Protocol, Rule, SecurityGroup, Vif, Way
from vnet.sim.conversation import party, plan, version_of
from vnet.sim.errors import NotPlugged, SimError
from vnet.sim.fabric import Fabric
from vnet.verify.change_scope import domains

Content = tuple[object, ...]


class _Key(NamedTuple):
    """What VIFs of one kind have in common, see Kind."""

    network: str
    rest: int
    groups: tuple[str, ...]
    within: tuple[frozenset[str], ...]


class Relation(NamedTuple):
    """What decides an answer besides the two kinds: whether the VIFs share a host and a network; with one that moves, which hosts."""

    hosts: object
    one_network: bool


What = tuple[Protocol, int]  # and the port, 0 for a ping


class Question(NamedTuple):
    """Who would reach whom: kinds by the numbers of what they come to for this protocol and port."""

    source: int
    target: int
    relation: Relation
    what: What


@dataclass(frozen=True, slots=True)
class Kind:
    """VIFs of one network that are alike, by where they run.

    rest: the number of what makes them so besides policy, equal for VIFs of networks that are alike. within: for each of
    their addresses, the ranges it is in of those that rules name.
    """

    network: str
    domain: object
    rest: int
    groups: tuple[str, ...]
    within: tuple[frozenset[str], ...]
    by_host: Mapping[str, list[Vif]]

    def vifs(self) -> list[Vif]:
        return [vif for vifs in self.by_host.values() for vif in vifs]


class Answers:
    """What is known so far of who reaches whom. The kinds of several pools may share one: what is alike is asked once."""

    def __init__(self) -> None:
        self.known: dict[Question, bool] = {}
        self._numbers: dict[object, int] = {}

    def number(self, content: object) -> int:
        """A number for a content, the same for what is equal: contents are long, and compared often."""
        return self._numbers.setdefault(content, len(self._numbers))


class Kinds:
    """The kinds of a pool's VIFs."""

    def __init__(self, pool: Fabric, answers: Answers | None = None) -> None:
        self.pool = pool
        self._answers = answers or Answers()
        self.known = self._answers.known
        self._facts = _Facts(pool, self._answers)
        found: dict[_Key, dict[str, list[Vif]]] = {}
        for vif in sorted(pool.state.vifs.values(), key=pool.label):
            found.setdefault(self._facts.key(vif), {}).setdefault(pool.runs_on(vif) or "", []).append(vif)
        domain_of = self._facts.domain_of
        self.all = [Kind(key.network, domain_of.get(key.network), *key[1:], hosts) for key, hosts in found.items()]
        self.of = {vif.id: kind for kind in self.all for vif in kind.vifs()}
        self.by_domain: dict[object, list[Kind]] = defaultdict(list)
        for kind in self.all:
            self.by_domain[kind.domain].append(kind)
        self._seen: dict[tuple[int, What], int] = {}

    def answers(self, asked: list[tuple[Vif, Vif, What]]) -> list[bool]:
        """Whether a conversation works from one VIF to another; those not known yet are tried together."""
        questions = [self._question(*one) for one in asked]
        missing = {
            question: one
            for question, one in zip(questions, asked, strict=True)
            if question not in self.known and self.of[one[0].id].domain == self.of[one[1].id].domain
        }
        if missing:
            with self.pool.only(
                {name for one in missing.values() for vif in one[:2] for name in self._facts.company(vif)}
            ):
                for question, (source, target, what) in missing.items():
                    self.known[question] = self._try(source, target, *what)
        # Frames do not leave the networks that share their tag and uplink.
        return [self.known.get(question, False) for question in questions]

    def _question(self, source: Vif, target: Vif, what: What) -> Question:
        seen = self.seen(self.of[source.id], what), self.seen(self.of[target.id], what)
        return Question(*seen, self.relation(source, target), what)

    def seen(self, kind: Kind, what: What) -> int:
        """The number of what a kind comes to where only this protocol and port are asked about."""
        found = self._seen.get((id(kind), what))
        if found is None:
            rules, ranges = self._facts.policy(kind.groups, what), self._facts.ranges(what)
            within = tuple(found & ranges for found in kind.within)
            found = self._seen[id(kind), what] = self._answers.number((kind.rest, rules, within))
        return found

    def relation(self, source: Vif, target: Vif) -> Relation:
        a, b = self.pool.runs_on(source), self.pool.runs_on(target)
        moves = self._facts.moves(source) or self._facts.moves(target)
        return Relation((a, b) if moves else a == b, source.network == target.network)

    def moves(self, vif: str) -> bool:
        """Whether a VIF, by its id, is between two hosts: then each pair of hosts is a case of its own."""
        row = self.pool.state.vifs.get(vif)
        return row is not None and self._facts.moves(row)

    def pairs(self, source: Kind, target: Kind) -> Iterator[tuple[Vif, Vif]]:
        """Two VIFs of two kinds in every relation that there is."""
        if any(self._facts.moves(vifs[0]) for kind in (source, target) for vifs in kind.by_host.values()):
            yield from self._moving_pairs(source, target)
            return
        for host, vifs in source.by_host.items():
            if (other := _other(vifs[0], target.by_host.get(host, ()))) is not None:
                yield vifs[0], other
                break
        for host, vifs in source.by_host.items():
            elsewhere = next((others for at, others in target.by_host.items() if at != host), None)
            if elsewhere is not None:
                yield vifs[0], elsewhere[0]
                break

    def _moving_pairs(self, source: Kind, target: Kind) -> Iterator[tuple[Vif, Vif]]:
        for vifs in source.by_host.values():
            for others in target.by_host.values():
                if (other := _other(vifs[0], others)) is not None:
                    yield vifs[0], other

    def _try(self, source: Vif, target: Vif, protocol: Protocol, port: int) -> bool:
        a, b = party(self.pool, source), party(self.pool, target)
        if version_of(a, b) is None:
            return False
        try:
            with self._nothing_tracked(source, target):
                return all(
                    packet.receiver.delivery in self.pool.send(packet.sender.endpoint, packet.frame).to
                    for packet in plan(a, b, protocol, port)
                )
        except (NotPlugged, SimError):
            return False

    @contextmanager
    def _nothing_tracked(self, *vifs: Vif) -> Iterator[None]:
        """While no connection is known on these VIFs' hosts: the answer must not depend on what was asked before."""
        switches = {self.pool.hosts[host].bridge for vif in vifs if (host := self.pool.runs_on(vif)) in self.pool.hosts}
        kept = [(switch, switch.tracker) for switch in switches]
        for switch in switches:
            switch.tracker = Tracker()
        try:
            yield
        finally:
            for switch, tracker in kept:
                switch.tracker = tracker


def _other(vif: Vif, among: Collection[Vif]) -> Vif | None:
    return next((other for other in among if other.id != vif.id), None)


class _Facts:
    """What tells the VIFs of a pool apart."""

    def __init__(self, pool: Fabric, answers: Answers) -> None:
        self.pool = pool
        self._answers = answers
        state = pool.state
        self.domain_of = {name: next(iter(found)) for name, found in domains(state).items()}
        self._located = state.locations()
        self._same_mac: dict[tuple[object, str], list[Vif]] = defaultdict(list)
        self._bindings: dict[str, list[Binding]] = defaultdict(list)
        for vif in state.vifs.values():
            self._same_mac[self.domain_of.get(vif.network), vif.mac].append(vif)
        for binding in state.bindings.values():
            self._bindings[binding.vif].append(binding)
        self._cidrs = _cidrs(state)
        self._hosts = {name: self._host(name) for name in state.hosts}
        self._networks = {name: self._network(name) for name in state.networks}
        self._ranges: dict[What, frozenset[str]] = {}
        self._policies: dict[tuple[tuple[str, ...], What], int] = {}

    def key(self, vif: Vif) -> _Key:
        """What makes a VIF what it is to others, but for its name, its addresses, and the names of its network and host."""
        where = self._located.get(vif.id, Location())
        families = (any(":" not in a for a in vif.addresses), any(":" in a for a in vif.addresses))
        runs = self.pool.runs_on(vif)
        current = where.current
        bound = current is not None and (
            current.unlocked, current.host == runs, current.moved, current.groups, current.addresses == vif.addresses
        )  # fmt: skip
        twins = self._same_mac[self.domain_of.get(vif.network), vif.mac]
        alone: Content = ()
        if self.moves(vif) or len(twins) > 1:
            named = sorted(twins, key=lambda twin: twin.id)
            alone = (vif.id, *named, *(b for twin in named for b in sorted(self._bindings[twin.id], key=_place)))
        rest = self._answers.number((
            self._networks.get(vif.network), self._hosts.get(runs or ""), vif.locking_mode, families, vif.trunk,
            bound, runs is not None, vif.id in self.pool.paused, alone,
        ))  # fmt: skip
        return _Key(vif.network, rest, vif.groups, self._within(vif))

    def moves(self, vif: Vif) -> bool:
        """Whether a VIF is between two hosts: then each pair of hosts is a case of its own."""
        where = self._located.get(vif.id, Location())
        return vif.incoming is not None or where.incoming is not None or bool(where.superseded)

    def company(self, vif: Vif) -> Iterator[str]:
        """A VIF's id, and of those that claim its MAC: what frames to it may depend on."""
        return (twin.id for twin in self._same_mac[self.domain_of.get(vif.network), vif.mac])

    def _host(self, name: str) -> Content:
        row = self.pool.state.hosts[name]
        version = ip_address(row.address).version if row.address is not None else 0
        uplinks = tuple((u, bool(bond.alive)) for u, bond in sorted(self.pool.hosts[name].bonds.items()))
        return version, uplinks, self.pool.is_cut(name)

    def _network(self, name: str) -> Content:
        network = self.pool.state.networks[name]
        if network.carrier.way is not Way.UPLINK:
            return network.type, network.mtu
        domain = self.domain_of[name]
        shared = sum(other == domain for other in self.domain_of.values()) > 1  # with other tags, for a trunk
        return network.type, network.mtu, network.uplink, name if shared else bool(network.tag)

    def policy(self, groups: tuple[str, ...], what: What) -> int:
        """The number of what these groups say about a protocol and port."""
        found = self._policies.get((groups, what))
        if found is None:
            said = tuple(_said(self.pool.state.groups.get(name), what) for name in groups)
            found = self._policies[groups, what] = self._answers.number((groups, said))
        return found

    def ranges(self, what: What) -> frozenset[str]:
        """The ranges of addresses that rules about a protocol and port name."""
        found = self._ranges.get(what)
        if found is None:
            rules = (rule for group in self.pool.state.groups.values() for rule in group.rules)
            found = frozenset(rule.cidr for rule in rules if rule.cidr is not None and _about(rule, what))
            self._ranges[what] = found
        return found

    def _within(self, vif: Vif) -> tuple[frozenset[str], ...]:
        if not self._cidrs:
            return ()
        addresses = map(ip_address, party(self.pool, vif).addresses)
        return tuple(frozenset(name for name, cidr in self._cidrs if address in cidr) for address in addresses)


def _said(group: SecurityGroup | None, what: What) -> object:
    return group and (group.ingress, group.egress, tuple(rule for rule in group.rules if _about(rule, what)))


def _about(rule: Rule, what: What) -> bool:
    """Whether a rule looks at packets of a conversation by this protocol and port."""
    protocol, port = what
    if rule.protocol is not None and rule.protocol is not protocol:
        return False
    return not rule.ports or any(ports.first <= port <= ports.last for ports in rule.ports)


def _cidrs(state: PoolState) -> list[tuple[str, IPv4Network | IPv6Network]]:
    named = {rule.cidr for group in state.groups.values() for rule in group.rules if rule.cidr is not None}
    return [(cidr, ip_network(cidr)) for cidr in sorted(named)]


def _place(binding: Binding) -> str:
    return binding.host
