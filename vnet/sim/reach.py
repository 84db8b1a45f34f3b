"""Who reaches whom in a pool, by classes of equal VIFs.

One rule: VIFs are alike if their flows are the same up to names: of themselves, and of hosts that are alike. So one
conversation between VIFs of two kinds that share a host, and one between two that do not, answer for every such pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from vnet.model import Location, Protocol, Vif
from vnet.sim.conntrack import Tracker
from vnet.sim.errors import NotPlugged, SimError
from vnet.sim.pool import SimPool
from vnet.sim.talk import Party, party, plan, version_of


@dataclass(frozen=True, slots=True)
class Class:
    """VIFs that reach the same, and are reached by the same, in order of their names. hosts: where they run."""

    network: str
    hosts: tuple[str, ...]
    vifs: tuple[str, ...]

    @property
    def name(self) -> str:
        """A short name: the VIF's where there is one only."""
        if len(self.vifs) == 1:
            return self.vifs[0]
        where = f" on {self.hosts[0]}" if len(self.hosts) == 1 else ""
        return f"{self.network}{where} ({len(self.vifs)}: {self.vifs[0]}, ...)"


def _host_kind(pool: SimPool, name: str | None) -> tuple[object, ...]:
    """What tells hosts apart for the VIFs on them, other than their names."""
    row = pool.state.hosts.get(name) if name is not None else None
    if row is None or name is None:
        return ()
    version = ip_address(row.address).version if row.address is not None else 0
    uplinks = tuple((u, bool(bond.alive)) for u, bond in sorted(pool.hosts[name].bonds.items()))
    return version, uplinks, pool.is_cut(name)


def _moving(vif: Vif, where: Location) -> bool:
    return vif.incoming is not None or where.incoming is not None or bool(where.superseded)


Cidrs = list[IPv4Network | IPv6Network]


def _cidrs(pool: SimPool) -> Cidrs:
    """The ranges that rules name."""
    named = {rule.cidr for group in pool.state.groups.values() for rule in group.rules if rule.cidr is not None}
    return [ip_network(cidr) for cidr in sorted(named)]


def _within(pool: SimPool, vif: Vif, cidrs: Cidrs) -> tuple[tuple[bool, ...], ...]:
    """Which of the ranges that rules name each of a VIF's addresses is in."""
    addresses = map(ip_address, party(pool, vif).addresses)
    return tuple(tuple(address in cidr for cidr in cidrs) for address in addresses) if cidrs else ()


def _kind(
    pool: SimPool, vif: Vif, where: Location, macs: Mapping[tuple[str, str], int], cidrs: Cidrs
) -> tuple[object, ...]:
    """What tells VIFs apart, other than their names, addresses and hosts' names. One that moves is its own kind."""
    moving = _moving(vif, where)
    families = (any(":" not in a for a in vif.addresses), any(":" in a for a in vif.addresses))
    alone = vif.id if moving or macs[vif.network, vif.mac] > 1 else ""
    bound = where.current is not None and (where.current.unlocked, where.current.host == pool.where(vif))
    plugged = pool.where(vif) is not None
    host = _host_kind(pool, pool.where(vif))
    policy = vif.groups, _within(pool, vif, cidrs)
    return (
        vif.network,
        vif.locking_mode,
        families,
        vif.trunk,
        alone,
        bound,
        plugged,
        host,
        vif.id in pool.paused,
        policy,
    )


class Reachability:
    """The answers for one pool, one protocol and one port; each is worked out when it is first asked for."""

    def __init__(self, pool: SimPool, protocol: Protocol = Protocol.ICMP, port: int = 0) -> None:
        self.pool = pool
        self.protocol = protocol
        self.port = port
        kinds: dict[tuple[object, ...], dict[str, list[Vif]]] = {}
        macs = Counter((vif.network, vif.mac) for vif in pool.state.vifs.values())
        located, nowhere, cidrs = pool.state.locations(), Location(), _cidrs(pool)
        for vif in sorted(pool.state.vifs.values(), key=pool.label):
            kinds.setdefault(_kind(pool, vif, located.get(vif.id, nowhere), macs, cidrs), {}).setdefault(
                pool.where(vif) or "", []
            ).append(vif)
        self._kinds = list(kinds.values())  # VIFs by host, of each kind
        self._kind_of = {v.id: n for n, by_host in enumerate(self._kinds) for vifs in by_host.values() for v in vifs}
        self._moving = {vif.id for vif in pool.state.vifs.values() if _moving(vif, located.get(vif.id, nowhere))}
        self._known: dict[tuple[int, int, object], bool] = {}
        self._hears: dict[tuple[str, int], frozenset[str]] = {}
        self._classes: list[Class] | None = None
        self._members: list[list[Vif]] = []
        self._class_of: dict[str, int] = {}

    def reaches(self, source: Vif, target: Vif) -> bool:
        """Whether a conversation from one VIF to another works. A VIF reaches itself."""
        if source.id == target.id:
            return True
        relation = self._relation(source, target)
        return self._between(self._kind_of[source.id], self._kind_of[target.id], relation, (source, target))

    def _relation(self, source: Vif, target: Vif) -> object:
        """What decides an answer besides the two kinds: whether they share a host; with one that moves, which hosts."""
        a, b = self.pool.where(source), self.pool.where(target)
        return (a, b) if source.id in self._moving or target.id in self._moving else a == b

    def _between(self, source: int, target: int, relation: object, pair: tuple[Vif, Vif]) -> bool:
        known = self._known.get((source, target, relation))
        if known is None:
            known = self._known[source, target, relation] = self._try(*pair)
        return known

    def _try(self, source: Vif, target: Vif) -> bool:
        a, b = party(self.pool, source), party(self.pool, target)
        version = version_of(a, b)
        if version is None or b.name not in self._heard(a, b, version):
            return False
        try:
            with self._nothing_tracked(source, target):
                return all(
                    receiver.delivery in self.pool.send(sender.where, frame).to
                    for _, sender, receiver, frame in plan(a, b, self.protocol, self.port)[1:]
                )
        except (NotPlugged, SimError):
            return False

    @contextmanager
    def _nothing_tracked(self, *vifs: Vif) -> Iterator[None]:
        """While no connection is known on these VIFs' hosts: the answer must not depend on what was asked before."""
        switches = {self.pool.hosts[host].bridge for vif in vifs if (host := self.pool.where(vif)) in self.pool.hosts}
        kept = [(switch, switch.tracker) for switch in switches]
        for switch in switches:
            switch.tracker = Tracker()
        try:
            yield
        finally:
            for switch, tracker in kept:
                switch.tracker = tracker

    def _heard(self, a: Party, b: Party, version: int) -> frozenset[str]:
        """Who gets the source's question for a MAC, which goes to everybody: asked once for all targets."""
        heard = self._hears.get((a.name, version))
        if heard is None:
            try:
                frame = plan(a, b, self.protocol, self.port)[0][3]
                heard = frozenset(self.pool.send(a.where, frame).to)
            except (NotPlugged, SimError):
                heard = frozenset()
            self._hears[a.name, version] = heard
        return heard

    def _pairs(self, source: int, target: int) -> dict[object, tuple[Vif, Vif]]:
        """Two VIFs of two kinds in every relation that there is."""
        found: dict[object, tuple[Vif, Vif]] = {}
        for vifs in self._kinds[source].values():
            for targets in self._kinds[target].values():
                other = next((v for v in targets[:2] if v.id != vifs[0].id), None)
                if other is not None:
                    found.setdefault(self._relation(vifs[0], other), (vifs[0], other))
            if True in found and False in found:
                break  # there are no more between VIFs that do not move
        return found

    @property
    def classes(self) -> tuple[Class, ...]:
        """VIFs of one kind; by host, where it matters whether two VIFs share one."""
        return tuple(self._split())

    def _split(self) -> list[Class]:
        if self._classes is not None:
            return self._classes
        by_host: set[int] = set()
        for source in range(len(self._kinds)):
            for target in range(len(self._kinds)):
                answers = {
                    self._between(source, target, relation, pair)
                    for relation, pair in self._pairs(source, target).items()
                }
                if len(answers) > 1:
                    by_host |= {source, target}
        for kind, hosts in enumerate(self._kinds):
            parts = list(hosts.values()) if kind in by_host else [[v for vifs in hosts.values() for v in vifs]]
            self._members += [sorted(part, key=self.pool.label) for part in parts]
        self._classes = [
            Class(
                part[0].network,
                tuple(sorted({host for v in part if (host := self.pool.where(v)) is not None})),
                tuple(map(self.pool.label, part)),
            )
            for part in self._members
        ]
        self._class_of = {vif.id: number for number, part in enumerate(self._members) for vif in part}
        return self._classes

    def class_of(self, vif: str) -> int | None:
        """The place of a VIF's class in `classes`, by its id; None if the pool has no such VIF."""
        self._split()
        return self._class_of.get(vif)

    def between(self, source: int, target: int) -> bool:
        """Whether members of one class reach (other) members of another, by their places in `classes`."""
        self._split()
        one = self._members[source][0]
        other = next((v for v in self._members[target] if v.id != one.id), one)
        return self.reaches(one, other)

    def matrix(self) -> list[list[bool]]:
        """Every class against every class."""
        size = range(len(self.classes))
        return [[self.between(source, target) for target in size] for source in size]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "protocol": self.protocol.value,
            "port": self.port or None,
            "classes": [{"network": c.network, "hosts": list(c.hosts), "vifs": list(c.vifs)} for c in self.classes],
            "reaches": self.matrix(),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Pairs that became reachable (gained) or unreachable: every one of `sources` with every one of `targets`."""

    gained: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    protocol: Protocol
    port: int

    def __str__(self) -> str:
        what = f"{self.protocol.value} {self.port}" if self.port else "ping"
        sign, verb = ("+", "reaches") if self.gained else ("-", "no longer reaches")
        return f"{sign} {_some(self.sources)} {verb} {_some(self.targets)} ({what})"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def differences(before: Reachability, after: Reachability) -> list[Difference]:
    """What a change does to who reaches whom. A VIF that is only in one of the pools reaches nobody in the other.

    VIFs that are of one class in both pools are compared once; pairs that changed alike are told together.
    """
    joint = _joint(before, after)
    changed: dict[tuple[int, bool], list[int]] = {}
    for row, (old, new, vifs) in enumerate(joint):
        for column, (old_target, new_target, targets) in enumerate(joint):
            if row == column and len(vifs) == 1:
                continue
            was = old is not None and old_target is not None and _between(before, old, old_target, vifs, targets)
            will = new is not None and new_target is not None and _between(after, new, new_target, vifs, targets)
            if was is not will:
                changed.setdefault((row, will), []).append(column)
    merged: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
    for (row, gained), columns in changed.items():
        merged.setdefault((gained, tuple(columns)), []).append(row)
    return [
        Difference(gained, _names(joint, rows), _names(joint, columns), after.protocol, after.port)
        for (gained, columns), rows in merged.items()
    ]


_Joint = list[tuple[int | None, int | None, tuple[str, ...]]]


def _joint(before: Reachability, after: Reachability) -> _Joint:
    classes: dict[tuple[int | None, int | None], list[str]] = {}
    states = (before.pool.state.vifs, after.pool.state.vifs)
    for vif in sorted(states[0].keys() | states[1].keys()):
        place = (before.class_of(vif), after.class_of(vif))
        classes.setdefault(place, []).append(vif)
    return [(old, new, tuple(vifs)) for (old, new), vifs in classes.items()]


def _between(reach: Reachability, source: int, target: int, vifs: tuple[str, ...], targets: tuple[str, ...]) -> bool:
    if source == target and vifs == targets and len(vifs) == 1:
        return True
    return reach.between(source, target)


def _names(joint: _Joint, rows: Iterable[int]) -> tuple[str, ...]:
    return tuple(sorted(name for row in rows for name in joint[row][2]))
