"""What a change does to who reaches whom, on which ports: exact, and told in groups that a person can read.

One rule: what is alike before and after is not tried. A pair is asked about only if something about one of its ends changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from vnet.objects import PoolState, Protocol
from vnet.sim.pool import SimPool
from vnet.verify.change_scope import affected
from vnet.verify.equivalence_classes import Answers, Kind, Kinds, What

Ports = tuple[int, int]  # first and last
FIRST_PORT, LAST_PORT = 1, 65535


@dataclass(frozen=True, slots=True)
class Difference:
    """Pairs that became reachable (gained) or unreachable: every one of `sources` with every (other) one of `targets`.

    what: "ping", or "tcp" or "udp" where that is so on any port, else with ranges of ports, as "tcp 80" or "tcp 80, 443-445".
    """

    gained: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    what: tuple[str, ...]

    def __str__(self) -> str:
        sign, verb = ("+", "reaches") if self.gained else ("-", "no longer reaches")
        return f"{sign} {_some(self.sources)} {verb} {_some(self.targets)} ({'; '.join(self.what)})"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def differences(before: PoolState, after: PoolState) -> list[Difference]:
    """Who gains and who loses a way to whom: by ping, and by TCP and UDP for each port.

    A VIF that is only in one of the pools reaches nobody in the other. Protocols without ports, ping excepted, are not looked at.
    """
    old_part, new_part = affected(before, after)
    answers = Answers()
    joint = _Joint(Kinds(SimPool.of(old_part), answers), Kinds(SimPool.of(new_part), answers))
    found: dict[_Change, dict[Protocol, list[Ports]]] = {}
    spans = [(protocol, span) for protocol, of in _spans(old_part, new_part).items() for span in of]
    told = joint.changed([(protocol, span[0]) for protocol, span in spans])
    for (protocol, span), changes in zip(spans, told, strict=True):
        for change in changes:
            found.setdefault(change, {}).setdefault(protocol, []).append(span)
    return [
        Difference(*change, tuple(_said(protocol, spans) for protocol, spans in of_change.items()))
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


def _said(protocol: Protocol, spans: Iterable[Ports]) -> str:
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
    """VIFs that are of one kind before and of one after (None: not there), by where they run before and after."""

    old: Kind | None
    new: Kind | None
    by_hosts: Mapping[Hosts, list[str]]

    @property
    def vifs(self) -> tuple[str, ...]:
        return tuple(sorted(vif for vifs in self.by_hosts.values() for vif in vifs))

    @property
    def stays(self) -> bool:
        """Whether each of them runs where it ran."""
        return all(old == new for old, new in self.by_hosts)


Pair = tuple[str, str]
_Asked = tuple[str, str, What]


class _Joint:
    """Two pools side by side."""

    def __init__(self, before: Kinds, after: Kinds) -> None:
        self._sides = before, after
        found: dict[tuple[object, ...], dict[Hosts, list[str]]] = {}
        for vif in sorted(before.of.keys() | after.of.keys()):
            hosts = _host(before, vif), _host(after, vif)
            key = before.of.get(vif), after.of.get(vif), None if hosts[0] == hosts[1] else hosts
            found.setdefault(tuple(map(id, key[:2])) + key[2:], {}).setdefault(hosts, []).append(vif)
        self._rows: dict[object, list[_Row]] = defaultdict(list)  # by domain, before or after
        for by_hosts in found.values():
            one = next(iter(by_hosts.values()))[0]
            row = _Row(before.of.get(one), after.of.get(one), by_hosts)
            for domain in {kind.domain for kind in (row.old, row.new) if kind is not None}:
                self._rows[domain].append(row)

    def changed(self, whats: list[What]) -> list[list[_Change]]:
        """For each protocol and port what is gained and lost: pairs that changed alike together."""
        asked = [list(self._touched(what)) for what in whats]
        cases = {(id(row), id(column)): self._cases(row, column) for pairs in asked for row, column in pairs}
        told = self._answers(
            [
                (*case, what)
                for what, pairs in zip(whats, asked, strict=True)
                for row, column in pairs
                for case in cases[id(row), id(column)]
            ]
        )
        return [
            _merge([
                change
                for row, column in pairs
                for change in self._between(row, column, [told[*case, what] for case in cases[id(row), id(column)]], what)
            ])
            for what, pairs in zip(whats, asked, strict=True)
        ]  # fmt: skip

    def _between(self, row: _Row, column: _Row, said: list[tuple[bool, bool]], what: What) -> Iterator[_Change]:
        """What changed from one row to another; by host, where it matters whether two VIFs share one."""
        if len(set(said)) == 1 and said[0][0] is not said[0][1]:
            yield said[0][1], row.vifs, column.vifs
        if len(set(said)) < 2:
            return
        parts = list(_by_host(row, column))
        asked = [(sources[0], next(vif for vif in targets if vif != sources[0]), what) for sources, targets in parts]
        told = self._answers(asked)
        for one, (sources, targets) in zip(asked, parts, strict=True):
            was, will = told[one]
            if was is not will:
                yield will, sources, targets

    def _touched(self, what: What) -> Iterator[tuple[_Row, _Row]]:
        """Pairs of rows of which the change concerns one at least, as far as this protocol and port go."""
        seen: set[tuple[int, int]] = set()
        for rows in self._rows.values():
            alike = {id(row) for row in rows if self._alike(row, what)}
            for row in rows:
                for column in rows:
                    if (id(row) in alike and id(column) in alike) or (id(row), id(column)) in seen:
                        continue
                    seen.add((id(row), id(column)))
                    yield row, column

    def _alike(self, row: _Row, what: What) -> bool:
        """Whether nothing about these VIFs changed that could matter to anybody."""
        if not row.stays or row.old is None or row.new is None:
            return False
        before, after = self._sides
        return before.seen(row.old, what) == after.seen(row.new, what)

    def _cases(self, row: _Row, column: _Row) -> list[Pair]:
        """Two VIFs of two rows for each way in which their places may matter."""
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
        one = next(iter(row.by_hosts.values()))[0]
        return any(side.moves(one) for side in self._sides)

    def _relations(self, source: str, target: str) -> object:
        return tuple(
            side.relation(a, b)
            if (a := side.pool.state.vifs.get(source)) is not None
            and (b := side.pool.state.vifs.get(target)) is not None
            else None
            for side in self._sides
        )

    def _answers(self, asked: list[_Asked]) -> dict[_Asked, tuple[bool, bool]]:
        """Whether each pair works, before and after."""
        told: list[dict[_Asked, bool]] = []
        for side in self._sides:
            there = side.pool.state.vifs
            known = [one for one in asked if one[0] in there and one[1] in there]
            said = side.answers([(there[a], there[b], what) for a, b, what in known])
            told.append(dict(zip(known, said, strict=True)))
        return {one: (told[0].get(one, False), told[1].get(one, False)) for one in asked}


def _merge(changes: Iterable[_Change]) -> list[_Change]:
    """Changes of the same targets by the same sources, each once, with those alike together."""
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


def _host(kinds: Kinds, vif: str) -> str | None:
    row = kinds.pool.state.vifs.get(vif)
    return kinds.pool.runs_on(row) if row is not None else None


def _flat(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted(name for part in parts for name in part))
