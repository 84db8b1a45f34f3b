"""What holds while parts of a pool fail, on its twin: `vnet check --if-down`, `--if-cut`, `--each-failure`, and the same of `vnet matrix`.

One rule: the same judges ask the twin while a failure lasts. A VIF whose own host is down sends and receives nothing, so nothing is
asked of it; what is asked is whether others still reach each other. Controllers, agents and the pool database carry no packets, so no
failure of theirs is tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum

from vnet.sim import SimPool
from vnet.sim.errors import UnknownName
from vnet.topology import Document
from vnet.util.given_up import check_awaited
from vnet.verify.change_scope import joined_to, part_of
from vnet.verify.equivalence_classes import AnswerCache
from vnet.verify.expectations import Result, TwinWitness, judge, sides_of
from vnet.verify.reachability import Reachability

UNDERLAY = "underlay"


@dataclass(frozen=True, slots=True)
class Failure:
    """A host that is down, a link of a host that is cut (a NIC, an uplink with all its NICs, the underlay), or, without a host, the physical
    network behind an uplink."""

    host: str | None
    link: str | None = None

    def __str__(self) -> str:
        if self.link is None:
            return f"host {self.host} down"
        return f"{self.host}: {self.link} cut" if self.host is not None else f"{self.link} cut on every host"

    @property
    def name(self) -> str:
        """Its name for `down` or `cut`."""
        return ":".join(filter(None, (self.host, self.link)))


def down(pool: SimPool, host: str) -> Failure:
    """A host that fails. Raises UnknownName."""
    return Failure(pool.host(host).name)


def cut(pool: SimPool, name: str) -> Failure:
    """A failure by its name: `trunk0`, `xen1:trunk0`, `xen1:eth1` or `xen1:underlay`. Raises UnknownName."""
    host, colon, link = name.partition(":")
    if not colon:
        if name not in pool.physical:
            raise UnknownName("uplink", name, pool.physical)
        return Failure(None, name)
    links = links_of(pool, host)
    if link not in links:
        raise UnknownName(f"link of {host}", link, links)
    return Failure(host, link)


def links_of(pool: SimPool, host: str) -> list[str]:
    """What can be cut on a host. Raises UnknownName."""
    bonds = pool.host(host).bonds
    nics = (nic for _, bond in sorted(bonds.items()) for nic in bond.uplink.links)
    return [UNDERLAY, *sorted(bonds), *nics]


def each_failure(pool: SimPool) -> Iterator[Failure]:
    """Every single failure of a pool: each host, its way to the others, each NIC, each uplink, and the network behind each uplink."""
    for name, host in pool.hosts.items():
        yield Failure(name)
        if len(pool.hosts) > 1 and pool.state.hosts[name].address is not None:
            yield Failure(name, UNDERLAY)
        for uplink, bond in sorted(host.bonds.items()):
            yield Failure(name, uplink)
            if len(bond.uplink.links) > 1:
                yield from (Failure(name, nic) for nic in bond.uplink.links)
    yield from (Failure(None, uplink) for uplink in sorted(pool.physical))


@contextmanager
def failing(pool: SimPool, failures: Collection[Failure]) -> Iterator[frozenset[str]]:
    """Let parts of a pool fail for a while, together. Yields the ids of the VIFs that ran on hosts that are down. Raises GivenUp."""
    check_awaited()
    hosts = {failure.host for failure in failures if failure.link is None}
    links = _links(pool, failures)
    gone = frozenset(vif.id for vif in pool.state.vifs.values() if pool.runs_on(vif) in hosts)
    with pool.without(gone):
        for host_name, link in links:
            pool.cut(host_name, link)
        try:
            yield gone
        finally:
            for host_name, link in links:
                pool.heal(host_name, link)


def _links(pool: SimPool, failures: Iterable[Failure]) -> set[tuple[str, str]]:
    """The links of the pool's hosts that failures cut. Hosts that it does not have have none."""
    found: set[tuple[str, str]] = set()
    for failure in failures:
        for name in pool.hosts if failure.host is None else {failure.host} & pool.hosts.keys():
            if failure.link in (None, UNDERLAY):
                found.add((name, UNDERLAY))
            for uplink, bond in pool.hosts[name].bonds.items():
                found |= {(name, nic) for nic in bond.uplink.links if failure.link in (None, uplink, nic)}
    return found


class FailureVerdict(Enum):
    """What becomes of an expectation. GONE: each of its pairs has an end on a host that is down, so nothing was asked."""

    HOLDS = "holds"
    FAILS = "fails"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The expectations of a document while parts of its pool fail, in the document's order. failures: none for the pool as it is."""

    failures: tuple[Failure, ...]
    results: tuple[Result, ...]

    def verdicts(self) -> list[FailureVerdict]:
        return [verdict_of(result) for result in self.results]

    def __str__(self) -> str:
        return ", ".join(map(str, self.failures)) or "no failure"


def verdict_of(result: Result) -> FailureVerdict:
    if not result.asked:
        return FailureVerdict.GONE
    return FailureVerdict.HOLDS if result.holds else FailureVerdict.FAILS


def outcomes(pool: SimPool, document: Document, cases: Sequence[Sequence[Failure]]) -> Iterator[Outcome]:
    """What holds in each case. Only what the expectations are about is tried: a failure of hosts without any of it changes nothing. An answer that
    one case gives is not looked for again in the next, where the same flows and links decide."""
    part, answers = _concerned(pool, document), AnswerCache()
    whole: tuple[Result, ...] | None = None
    for failures in cases:
        if whole is None or _links(part, failures):
            with failing(part, failures) as gone:
                witness = TwinWitness(part, answers)
                results = tuple(judge(part, document, spec, witness, gone) for spec in document.expectations)
        else:
            results = whole
        if not _links(part, failures):
            whole = results
        yield Outcome(tuple(failures), results)


def _concerned(pool: SimPool, document: Document) -> SimPool:
    """The twin of the networks that a document's expectations are about, and the hosts of their VIFs. Names that there are not stay for the judge."""
    networks: set[str] = set()
    for spec in document.expectations:
        for name in (spec.from_, spec.to):
            with suppress(UnknownName):
                networks |= {vif.network for side in sides_of(pool, name) for vif in side if vif is not None}
    part = SimPool.of(part_of(pool.state, joined_to(networks, pool.state)), claim=False)  # what runs in `pool` is bound
    part.document = pool.document
    return part


Lost = dict[tuple[int, int], list[Failure]]


def lost_pairs(reach: Reachability, pool: SimPool, failures: Iterable[Failure]) -> Lost:
    """The pairs of a matrix's classes that reach each other while nothing fails, and of which some VIFs that run do not in a failure, with
    those failures."""
    whole, names = reach.matrix(), {name: row for row, found in enumerate(reach.classes) for name in found.vifs}
    lost: Lost = {}
    for failure in failures:
        with failing(pool, [failure]) as gone:
            during = Reachability(pool, reach.protocol, reach.port)
            rows, missing = during.matrix(), {pool.label(pool.state.vifs[id]) for id in gone}
            parts: dict[int, set[int]] = {}
            for column, found in enumerate(during.classes):
                for name in found.vifs:
                    if name not in missing:
                        parts.setdefault(names[name], set()).add(column)
            for source, froms in parts.items():
                for target, tos in parts.items():
                    if whole[source][target] and not all(rows[a][b] for a in froms for b in tos):
                        lost.setdefault((source, target), []).append(failure)
    return lost
