"""Equivalence classes of a pool's VIFs; one conversation answers for all pairs of VIFs from two classes.

One rule: two VIFs are equivalent if their flows are equal up to names: of themselves, of equivalent networks, of equivalent
hosts. Classes are compared by content, so an answer holds for every network of a pool, and in another pool too.
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
from vnet.objects.isolation import isolation_of
from vnet.objects.labels import LABEL, NETWORK, as_remotes
from vnet.objects.tiers import all_obeyed
from vnet.sim.conversation import party, plan, version_of
from vnet.sim.errors import SimError
from vnet.sim.fabric import Fabric
from vnet.util.given_up import check_awaited
from vnet.verify.change_scope import domains

Content = tuple[object, ...]


class _Key(NamedTuple):
    """The properties that VIFs of one class share, see EquivalenceClass."""

    network: str
    rest: int
    groups: tuple[str, ...]
    within: tuple[frozenset[str], ...]


class Relation(NamedTuple):
    """The part of an answer that the two classes do not decide: whether the VIFs share a host and a network.

    hosts: the two hosts themselves if one of the VIFs is migrating.
    """

    hosts: object
    one_network: bool


Service = tuple[Protocol, int]  # and the port, 0 for a ping


class PairQuery(NamedTuple):
    """A pair to try: the numbers of both classes for a service, and the relation of the two VIFs."""

    source: int
    target: int
    relation: Relation
    service: Service


@dataclass(frozen=True, slots=True)
class EquivalenceClass:
    """Equivalent VIFs of one network, by the hosts where they run.

    rest: the number of their properties besides policy, equal across equivalent networks. within: for each of their addresses,
    the ranges named in rules that contain it.
    """

    network: str
    domain: object
    rest: int
    groups: tuple[str, ...]
    within: tuple[frozenset[str], ...]
    by_host: Mapping[str, list[Vif]]

    def vifs(self) -> list[Vif]:
        return [vif for vifs in self.by_host.values() for vif in vifs]


class AnswerCache:
    """The answers that are known. Several pools may share one cache: an equivalent pair is tried once."""

    def __init__(self) -> None:
        self.known: dict[PairQuery, bool] = {}
        self._numbers: dict[object, int] = {}

    def number(self, content: object) -> int:
        """A number for a content, equal for equal contents: contents are long, and compared often."""
        return self._numbers.setdefault(content, len(self._numbers))


class EquivalenceClasses:
    """The equivalence classes of a pool's VIFs."""

    def __init__(self, pool: Fabric, answers: AnswerCache | None = None) -> None:
        self.pool = pool
        self._answers = answers or AnswerCache()
        self.known = self._answers.known
        self._facts = _Facts(pool, self._answers)
        found: dict[_Key, dict[str, list[Vif]]] = {}
        for vif in sorted(pool.state.vifs.values(), key=pool.label):
            found.setdefault(self._facts.key(vif), {}).setdefault(pool.runs_on(vif) or "", []).append(vif)
        domain_of = self._facts.domain_of
        self.all = [
            EquivalenceClass(key.network, domain_of.get(key.network), *key[1:], hosts) for key, hosts in found.items()
        ]
        self.of = {vif.id: eq_class for eq_class in self.all for vif in eq_class.vifs()}
        self.by_domain: dict[object, list[EquivalenceClass]] = defaultdict(list)
        for eq_class in self.all:
            self.by_domain[eq_class.domain].append(eq_class)
        self._numbers_of: dict[tuple[int, Service], int] = {}

    def answers(self, asked: list[tuple[Vif, Vif, Service]]) -> list[bool]:
        """Whether a conversation works, for each pair of VIFs; unknown pairs are tried together. Raises GivenUp."""
        check_awaited()
        queries = [self._query(*one) for one in asked]
        missing = {
            query: one
            for query, one in zip(queries, asked, strict=True)
            if query not in self.known and self.of[one[0].id].domain == self.of[one[1].id].domain
        }
        if missing:
            with self.pool.only(
                {name for one in missing.values() for vif in one[:2] for name in self._facts.same_mac(vif)}
            ):
                for query, (source, target, service) in missing.items():
                    self.known[query] = self._try(source, target, *service)
        # Frames do not leave the networks that share their tag and uplink.
        return [self.known.get(query, False) for query in queries]

    def _query(self, source: Vif, target: Vif, service: Service) -> PairQuery:
        seen = self.number_of(self.of[source.id], service), self.number_of(self.of[target.id], service)
        return PairQuery(*seen, self.relation(source, target), service)

    def number_of(self, eq_class: EquivalenceClass, service: Service) -> int:
        """The number of a class for one service: rules and ranges about others do not count."""
        found = self._numbers_of.get((id(eq_class), service))
        if found is None:
            rules, ranges = self._facts.policy(eq_class.groups, service), self._facts.ranges(service)
            within = tuple(found & ranges for found in eq_class.within)
            found = self._numbers_of[id(eq_class), service] = self._answers.number((eq_class.rest, rules, within))
        return found

    def relation(self, source: Vif, target: Vif) -> Relation:
        a, b = self.pool.runs_on(source), self.pool.runs_on(target)
        moves = self._facts.moves(source) or self._facts.moves(target)
        return Relation((a, b) if moves else a == b, source.network == target.network)

    def moves(self, vif: str) -> bool:
        """Whether a VIF, by its id, is migrating: then each pair of hosts is a case of its own."""
        row = self.pool.state.vifs.get(vif)
        return row is not None and self._facts.moves(row)

    def pairs(self, source: EquivalenceClass, target: EquivalenceClass) -> Iterator[tuple[Vif, Vif]]:
        """Two VIFs of two classes in every relation that occurs."""
        if any(self._facts.moves(vifs[0]) for eq_class in (source, target) for vifs in eq_class.by_host.values()):
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

    def _moving_pairs(self, source: EquivalenceClass, target: EquivalenceClass) -> Iterator[tuple[Vif, Vif]]:
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
        except SimError:
            return False

    @contextmanager
    def _nothing_tracked(self, *vifs: Vif) -> Iterator[None]:
        """Empty connection trackers on the VIFs' hosts for a while: an answer must not depend on earlier ones."""
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
    """The properties that distinguish the VIFs of a pool."""

    def __init__(self, pool: Fabric, answers: AnswerCache) -> None:
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
        self._obeyed = all_obeyed(state)
        named = (name for group in state.groups.values() for name in group.named())
        self._named = frozenset(name for name in named if name.startswith(LABEL))
        self._hosts = {name: self._host(name) for name in state.hosts}
        self._networks = {name: self._network(name) for name in state.networks}
        self._ranges: dict[Service, frozenset[str]] = {}
        self._policies: dict[tuple[tuple[str, ...], Service], int] = {}

    def key(self, vif: Vif) -> _Key:
        """All properties of a VIF that matter to others, but for its name, its addresses, and the names of its network and host."""
        location = self._located.get(vif.id, Location())
        families = (any(":" not in a for a in vif.addresses), any(":" in a for a in vif.addresses))
        runs = self.pool.runs_on(vif)
        current = location.current
        bound = current is not None and (
            current.unlocked, current.host == runs, current.moved, current.groups, current.dhcp_server, current.isolation,
            current.also, current.vrrp, self._labels(current),
            current.addresses == vif.addresses
        )  # fmt: skip
        twins = self._same_mac[self.domain_of.get(vif.network), vif.mac]
        alone: Content = ()
        if self.moves(vif) or len(twins) > 1:
            named = sorted(twins, key=lambda twin: twin.id)
            alone = (vif.id, *named, *(b for twin in named for b in sorted(self._bindings[twin.id], key=_place)))
        rest = self._answers.number((
            self._networks.get(vif.network), self._hosts.get(runs or ""), vif.locking_mode, vif.router, vif.dhcp_server,
            self._isolation(vif), vif.also, vif.vrrp, self._labels(vif), vif.groups,
            families, vif.trunk,
            bound, runs is not None, vif.id in self.pool.paused, alone,
        ))  # fmt: skip
        return _Key(vif.network, rest, self._obeyed[vif.id], self._within(vif))

    def _labels(self, member: Vif | Binding) -> frozenset[str]:
        """The labels that rules name."""
        network = self.pool.state.networks.get(member.network)
        return (
            as_remotes(member, network.labels if network is not None else ()) & self._named
            if self._named
            else frozenset()
        )

    def _isolation(self, vif: Vif) -> str:
        network = self.pool.state.networks.get(vif.network)
        return isolation_of(vif.isolation, network.isolation if network is not None else None)

    def moves(self, vif: Vif) -> bool:
        """Whether a VIF is migrating: then each pair of hosts is a case of its own."""
        location = self._located.get(vif.id, Location())
        return vif.incoming is not None or location.incoming is not None or bool(location.superseded)

    def same_mac(self, vif: Vif) -> Iterator[str]:
        """The ids of all VIFs with a VIF's MAC, its own included: frames to it may depend on them."""
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

    def policy(self, groups: tuple[str, ...], service: Service) -> int:
        """The number of the groups' rules about a service."""
        found = self._policies.get((groups, service))
        if found is None:
            rules = tuple(_rules_about(self.pool.state, self.pool.state.groups.get(name), service) for name in groups)
            found = self._policies[groups, service] = self._answers.number((groups, rules))
        return found

    def ranges(self, service: Service) -> frozenset[str]:
        """The address ranges in rules about a service."""
        found = self._ranges.get(service)
        if found is None:
            rules = ((group, rule) for group in self.pool.state.groups.values() for rule in group.rules)
            found = frozenset(
                cidr
                for group, rule in rules
                if _concerns(group, rule, service)
                for cidr in _ranges(self.pool.state, rule)
            )
            self._ranges[service] = found
        return found

    def _within(self, vif: Vif) -> tuple[frozenset[str], ...]:
        if not self._cidrs:
            return ()
        addresses = map(ip_address, party(self.pool, vif).addresses)
        return tuple(frozenset(name for name, cidr in self._cidrs if address in cidr) for address in addresses)


def _rules_about(state: PoolState, group: SecurityGroup | None, service: Service) -> object:
    if group is None:
        return None
    rules = tuple((rule, tuple(_ranges(state, rule))) for rule in group.rules if _concerns(group, rule, service))
    return group.enforces, group.stateful, group.tier, group.ingress, group.egress, rules


def _ranges(state: PoolState, rule: Rule) -> Iterator[str]:
    """The ranges of addresses that a rule names, and those of the address sets that it does."""
    yield from rule.cidrs
    for name in rule.groups:
        if name in state.address_sets:
            yield from state.address_sets[name].addresses
        elif name.startswith(NETWORK):
            yield from next(
                (found[name] for g in state.groups.values() if name in (found := g.ranges_of_networks())), ()
            )


def _concerns(group: SecurityGroup, rule: Rule, service: Service) -> bool:
    """Whether a rule concerns packets of a service; in a stateless group also its answers, whose ports are the other way round."""
    protocol, port = service
    if rule.protocol is not None and rule.protocol is not protocol:
        return False
    return not group.stateful or not rule.ports or any(ports.first <= port <= ports.last for ports in rule.ports)


def _cidrs(state: PoolState) -> list[tuple[str, IPv4Network | IPv6Network]]:
    named = {cidr for group in state.groups.values() for rule in group.rules for cidr in _ranges(state, rule)}
    return [(cidr, ip_network(cidr)) for cidr in sorted(named)]


def _place(binding: Binding) -> str:
    return binding.host
