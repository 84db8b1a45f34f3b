"""Who reaches whom in a pool, by classes of equal VIFs: exactly what trying every pair gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from vnet.objects import Protocol, Vif
from vnet.sim.fabric import Fabric
from vnet.verify.equivalence_classes import Kinds


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


class Reachability:
    """The answers for one pool, one protocol and one port; each is worked out when it is first asked for.

    kinds: those of the pool, for who asks about more than one port.
    """

    def __init__(
        self, pool: Fabric, protocol: Protocol = Protocol.ICMP, port: int = 0, kinds: Kinds | None = None
    ) -> None:
        self.pool = pool
        self.protocol = protocol
        self.port = port
        self.kinds = kinds or Kinds(pool)
        self._members: list[list[Vif]] = []
        self._classes: tuple[Class, ...] | None = None

    def reaches(self, source: Vif, target: Vif) -> bool:
        """Whether a conversation from one VIF to another works. A VIF reaches itself."""
        return source.id == target.id or self._answers([(source, target)])[0]

    def _answers(self, pairs: list[tuple[Vif, Vif]]) -> list[bool]:
        return self.kinds.answers([(*pair, (self.protocol, self.port)) for pair in pairs])

    @property
    def classes(self) -> tuple[Class, ...]:
        """VIFs of one kind; by host, where it matters whether two VIFs share one."""
        if self._classes is None:
            torn = self._where_hosts_matter()
            parts = [
                part
                for kind in self.kinds.all
                for part in (kind.by_host.values() if id(kind) in torn else [kind.vifs()])
            ]
            self._members = [sorted(part, key=self.pool.label) for part in parts]
            self._classes = tuple(
                Class(
                    part[0].network,
                    tuple(sorted({host for v in part if (host := self.pool.runs_on(v)) is not None})),
                    tuple(map(self.pool.label, part)),
                )
                for part in self._members
            )
        return self._classes

    def _where_hosts_matter(self) -> set[int]:
        """The kinds whose VIFs reach some of another kind and not others, by where those run."""
        ends = [(a, b) for kinds in self.kinds.by_domain.values() for a in kinds for b in kinds]
        pairs = [list(self.kinds.pairs(*kinds)) for kinds in ends]
        said = iter(self._answers([pair for of_ends in pairs for pair in of_ends]))
        torn: set[int] = set()
        for kinds, of_ends in zip(ends, pairs, strict=True):
            if len(set(islice(said, len(of_ends)))) > 1:
                torn |= set(map(id, kinds))
        return torn

    def between(self, source: int, target: int) -> bool:
        """Whether members of one class reach (other) members of another, by their places in `classes`."""
        one, others = self._members[source][0], self._members[target]
        return self.reaches(one, next((v for v in others if v.id != one.id), one))

    def matrix(self) -> list[list[bool]]:
        """Every class against every class."""
        size = len(self.classes)
        rows = [[False] * size for _ in range(size)]
        of_domain: dict[object, list[int]] = {}
        for place, members in enumerate(self._members):
            of_domain.setdefault(self.kinds.of[members[0].id].domain, []).append(place)
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
