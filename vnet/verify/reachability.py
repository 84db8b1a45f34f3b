"""Reachability between all VIFs of a pool, by equivalence classes. The result equals that of trying every pair."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from vnet.objects import Protocol, Vif
from vnet.sim.fabric import Fabric
from vnet.verify.equivalence_classes import EquivalenceClasses


@dataclass(frozen=True, slots=True)
class ReachabilityClass:
    """VIFs that reach the same VIFs and are reached by the same, in order of their names. hosts: those where they run."""

    network: str
    hosts: tuple[str, ...]
    vifs: tuple[str, ...]

    @property
    def name(self) -> str:
        """A short name: of a single VIF its own."""
        if len(self.vifs) == 1:
            return self.vifs[0]
        place = f" on {self.hosts[0]}" if len(self.hosts) == 1 else ""
        return f"{self.network}{place} ({len(self.vifs)}: {self.vifs[0]}, ...)"


class Reachability:
    """The answers for one pool, one protocol and one port, computed on demand.

    equivalence: the pool's classes, to share between several ports.
    """

    def __init__(
        self,
        pool: Fabric,
        protocol: Protocol = Protocol.ICMP,
        port: int = 0,
        equivalence: EquivalenceClasses | None = None,
    ) -> None:
        self.pool = pool
        self.protocol = protocol
        self.port = port
        self.equivalence = equivalence or EquivalenceClasses(pool)
        self._members: list[list[Vif]] = []
        self._classes: tuple[ReachabilityClass, ...] | None = None

    def reaches(self, source: Vif, target: Vif) -> bool:
        """Whether a conversation from one VIF to another works. A VIF reaches itself."""
        return source.id == target.id or self._answers([(source, target)])[0]

    def _answers(self, pairs: list[tuple[Vif, Vif]]) -> list[bool]:
        return self.equivalence.answers([(*pair, (self.protocol, self.port)) for pair in pairs])

    @property
    def classes(self) -> tuple[ReachabilityClass, ...]:
        """The classes of VIFs; split by host where the answer depends on whether two VIFs share one."""
        if self._classes is None:
            split = self._split_by_host()
            parts = [
                part
                for eq_class in self.equivalence.all
                for part in (eq_class.by_host.values() if id(eq_class) in split else [eq_class.vifs()])
            ]
            self._members = [sorted(part, key=self.pool.label) for part in parts]
            self._classes = tuple(
                ReachabilityClass(
                    part[0].network,
                    tuple(sorted({host for v in part if (host := self.pool.runs_on(v)) is not None})),
                    tuple(map(self.pool.label, part)),
                )
                for part in self._members
            )
        return self._classes

    def _split_by_host(self) -> set[int]:
        """The classes whose VIFs reach some VIFs of another class and not others, depending on the hosts."""
        ends = [(a, b) for classes in self.equivalence.by_domain.values() for a in classes for b in classes]
        pairs = [list(self.equivalence.pairs(*classes)) for classes in ends]
        answers = iter(self._answers([pair for of_ends in pairs for pair in of_ends]))
        split: set[int] = set()
        for classes, of_ends in zip(ends, pairs, strict=True):
            if len(set(islice(answers, len(of_ends)))) > 1:
                split |= set(map(id, classes))
        return split

    def between(self, source: int, target: int) -> bool:
        """Whether members of one class reach (other) members of another, by their indices in `classes`."""
        first, others = self._members[source][0], self._members[target]
        return self.reaches(first, next((v for v in others if v.id != first.id), first))

    def matrix(self) -> list[list[bool]]:
        """Every class against every class."""
        size = len(self.classes)
        rows = [[False] * size for _ in range(size)]
        of_domain: dict[object, list[int]] = {}
        for place, members in enumerate(self._members):
            of_domain.setdefault(self.equivalence.of[members[0].id].domain, []).append(place)
        for places in of_domain.values():
            for source in places:
                for target in places:
                    rows[source][target] = self.between(source, target)
        return rows

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "protocol": self.protocol.value,
            "port": self.port or None,
            "classes": [{"network": c.network, "hosts": list(c.hosts), "vifs": list(c.vifs)} for c in self.classes],
            "reaches": self.matrix(),
        }
