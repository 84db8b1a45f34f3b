"""The pairs of VIFs that a change makes reachable or unreachable, with the ports: exact, and grouped for people.

One rule: only a pair of which at least one end changed is tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from vnet.objects import PoolState, Protocol
from vnet.sim.pool import SimPool
from vnet.verify.change_scope import affected
from vnet.verify.equivalence_classes import AnswerCache, EquivalenceClass, EquivalenceClasses, Service

Ports = tuple[int, int]  # first and last
FIRST_PORT, LAST_PORT = 1, 65535


@dataclass(frozen=True, slots=True)
class ReachabilityChange:
    """Pairs that became reachable (gained) or unreachable: each of `sources` with each other one of `targets`.

    services: "ping"; "tcp" or "udp" for all ports, else with ranges of ports, as "tcp 80" or "tcp 80, 443-445".
    """

    gained: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    services: tuple[str, ...]

    def __str__(self) -> str:
        sign, verb = ("+", "reaches") if self.gained else ("-", "no longer reaches")
        return f"{sign} {_some(self.sources)} {verb} {_some(self.targets)} ({'; '.join(self.services)})"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def differences(before: PoolState, after: PoolState) -> list[ReachabilityChange]:
    """The pairs that are reachable in one of two pools only: by ping, and by TCP and UDP for each port.

    A VIF that one of the pools does not have reaches nobody there. Other protocols are not tried.
    """
    old_part, new_part = affected(before, after)
    answers = AnswerCache()
    joint = _Joint(EquivalenceClasses(SimPool.of(old_part), answers), EquivalenceClasses(SimPool.of(new_part), answers))
    found: dict[_Change, dict[Protocol, list[Ports]]] = {}
    spans = [(protocol, span) for protocol, of in _spans(old_part, new_part).items() for span in of]
    changed = joint.changed([(protocol, span[0]) for protocol, span in spans])
    for (protocol, span), changes in zip(spans, changed, strict=True):
        for change in changes:
            found.setdefault(change, {}).setdefault(protocol, []).append(span)
    return [
        ReachabilityChange(*change, tuple(_service(protocol, spans) for protocol, spans in of_change.items()))
        for change, of_change in found.items()
    ]


_Change = tuple[bool, tuple[str, ...], tuple[str, ...]]  # gained or lost, sources, targets


def _spans(*states: PoolState) -> dict[Protocol, list[Ports]]:
    """Ranges of ports that every rule takes as a whole or not at all."""
    groups = {group for state in states for group in state.groups.values()}
    found: dict[Protocol, list[Ports]] = {Protocol.ICMP: [(0, 0)]}
    for protocol in (Protocol.TCP, Protocol.UDP):
        begins = {FIRST_PORT}
        for rule in (rule for group in groups for rule in group.rules if rule.protocol is protocol):
            begins |= {edge for ports in rule.ports for edge in (ports.first, ports.last + 1)}
        starts = sorted(begin for begin in begins if FIRST_PORT <= begin <= LAST_PORT)
        found[protocol] = [(start, end - 1) for start, end in zip(starts, [*starts[1:], LAST_PORT + 1], strict=True)]
    return found


def _service(protocol: Protocol, spans: Iterable[Ports]) -> str:
    if protocol is Protocol.ICMP:
        return "ping"
    ports = _merged(spans)
    if ports == ((FIRST_PORT, LAST_PORT),):
        return str(protocol.value)
    return f"{protocol.value} " + ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ports)


def _merged(spans: Iterable[Ports]) -> tuple[Ports, ...]:
    merged: list[Ports] = []
    for first, last in sorted(spans):
        if merged and merged[-1][1] + 1 == first:
            merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    return tuple(merged)


Hosts = tuple[str | None, str | None]  # before and after


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """VIFs of one class before and one class after (None: not there), by the hosts before and after."""

    old: EquivalenceClass | None
    new: EquivalenceClass | None
    by_hosts: Mapping[Hosts, list[str]]

    @property
    def vifs(self) -> tuple[str, ...]:
        return tuple(sorted(vif for vifs in self.by_hosts.values() for vif in vifs))

    @property
    def stays(self) -> bool:
        """Whether each of them runs where it ran."""
        return all(old == new for old, new in self.by_hosts)


Pair = tuple[str, str]
_Query = tuple[str, str, Service]


class _Joint:
    """Two pools side by side."""

    def __init__(self, before: EquivalenceClasses, after: EquivalenceClasses) -> None:
        self._sides = before, after
        found: dict[tuple[object, ...], dict[Hosts, list[str]]] = {}
        for vif in sorted(before.of.keys() | after.of.keys()):
            hosts = _host(before, vif), _host(after, vif)
            key = before.of.get(vif), after.of.get(vif), None if hosts[0] == hosts[1] else hosts
            found.setdefault(tuple(map(id, key[:2])) + key[2:], {}).setdefault(hosts, []).append(vif)
        self._rows: dict[object, list[_Row]] = defaultdict(list)  # by domain, before or after
        for by_hosts in found.values():
            first = next(iter(by_hosts.values()))[0]
            row = _Row(before.of.get(first), after.of.get(first), by_hosts)
            for domain in {eq_class.domain for eq_class in (row.old, row.new) if eq_class is not None}:
                self._rows[domain].append(row)

    def changed(self, services: list[Service]) -> list[list[_Change]]:
        """The changes of each service; pairs with the same change are grouped."""
        asked = [list(self._touched(service)) for service in services]
        cases = {(id(row), id(column)): self._cases(row, column) for pairs in asked for row, column in pairs}
        answers = self._answers(
            [
                (*case, service)
                for service, pairs in zip(services, asked, strict=True)
                for row, column in pairs
                for case in cases[id(row), id(column)]
            ]
        )
        return [
            _merge([
                change
                for row, column in pairs
                for change in self._between(
                    row, column, [answers[*case, service] for case in cases[id(row), id(column)]], service
                )
            ])
            for service, pairs in zip(services, asked, strict=True)
        ]  # fmt: skip

    def _between(self, row: _Row, column: _Row, cases: list[tuple[bool, bool]], service: Service) -> Iterator[_Change]:
        """The changes from one row to another; split by host if the answer depends on whether two VIFs share one."""
        if len(set(cases)) == 1 and cases[0][0] is not cases[0][1]:
            yield cases[0][1], row.vifs, column.vifs
        if len(set(cases)) < 2:
            return
        parts = list(_by_host(row, column))
        asked = [(sources[0], next(vif for vif in targets if vif != sources[0]), service) for sources, targets in parts]
        answers = self._answers(asked)
        for query, (sources, targets) in zip(asked, parts, strict=True):
            was, will = answers[query]
            if was is not will:
                yield will, sources, targets

    def _touched(self, service: Service) -> Iterator[tuple[_Row, _Row]]:
        """Pairs of rows of which the change concerns at least one for this service."""
        seen: set[tuple[int, int]] = set()
        for rows in self._rows.values():
            alike = {id(row) for row in rows if self._alike(row, service)}
            for row in rows:
                for column in rows:
                    if (id(row) in alike and id(column) in alike) or (id(row), id(column)) in seen:
                        continue
                    seen.add((id(row), id(column)))
                    yield row, column

    def _alike(self, row: _Row, service: Service) -> bool:
        """Whether the VIFs of a row have the same class number before and after."""
        if not row.stays or row.old is None or row.new is None:
            return False
        before, after = self._sides
        return before.number_of(row.old, service) == after.number_of(row.new, service)

    def _cases(self, row: _Row, column: _Row) -> list[Pair]:
        """Two VIFs of two rows for each relation of their hosts that may matter."""
        found: dict[object, Pair] = {}
        plain = row.stays and column.stays and not any(map(self._moving, (row, column)))
        for hosts, vifs in row.by_hosts.items():
            near = [column.by_hosts[hosts]] if plain and hosts in column.by_hosts else []
            far = (others for at, others in column.by_hosts.items() if at != hosts)
            for others in (*near, *islice(far, 1)) if plain else column.by_hosts.values():
                other = next((vif for vif in others if vif != vifs[0]), None)
                if other is not None:
                    found.setdefault(self._relations(vifs[0], other), (vifs[0], other))
            if plain and len(found) > 1:
                break
        return list(found.values())

    def _moving(self, row: _Row) -> bool:
        first = next(iter(row.by_hosts.values()))[0]
        return any(side.moves(first) for side in self._sides)

    def _relations(self, source: str, target: str) -> object:
        return tuple(
            side.relation(a, b)
            if (a := side.pool.state.vifs.get(source)) is not None
            and (b := side.pool.state.vifs.get(target)) is not None
            else None
            for side in self._sides
        )

    def _answers(self, asked: list[_Query]) -> dict[_Query, tuple[bool, bool]]:
        """Whether each pair works, before and after."""
        answers: list[dict[_Query, bool]] = []
        for side in self._sides:
            there = side.pool.state.vifs
            known = [query for query in asked if query[0] in there and query[1] in there]
            found = side.answers([(there[a], there[b], service) for a, b, service in known])
            answers.append(dict(zip(known, found, strict=True)))
        return {query: (answers[0].get(query, False), answers[1].get(query, False)) for query in asked}


def _merge(changes: Iterable[_Change]) -> list[_Change]:
    """Changes with the same sources and targets once, those with the same targets together."""
    of_sources: dict[tuple[tuple[str, ...], bool], set[tuple[str, ...]]] = defaultdict(set)
    for gained, sources, targets in changes:
        of_sources[sources, gained].add(targets)
    merged: dict[tuple[bool, tuple[tuple[str, ...], ...]], list[tuple[str, ...]]] = defaultdict(list)
    for (sources, gained), those in of_sources.items():
        merged[gained, tuple(sorted(those))].append(sources)
    return [(gained, _flat(sources), _flat(targets)) for (gained, targets), sources in merged.items()]


def _by_host(row: _Row, column: _Row) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for vifs in row.by_hosts.values():
        for others in column.by_hosts.values():
            if vifs != others or len(vifs) > 1:
                yield tuple(vifs), tuple(others)


def _host(classes: EquivalenceClasses, vif: str) -> str | None:
    row = classes.pool.state.vifs.get(vif)
    return classes.pool.runs_on(row) if row is not None else None


def _flat(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted(name for part in parts for name in part))
