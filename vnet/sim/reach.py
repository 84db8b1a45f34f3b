"""Who reaches whom in a pool, by classes of equal VIFs.

One rule: VIFs are in one class only if their flows are the same up to their own names (network, host, what they may send, which
IP versions, trunk, migration), so that one conversation between two classes answers for every pair of their members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vnet.model import Protocol, Vif
from vnet.sim.errors import NotPlugged, SimError
from vnet.sim.pool import SimPool
from vnet.sim.talk import Party, party, plan, version_of


@dataclass(frozen=True, slots=True)
class Class:
    """Equal VIFs, in order of their names. host: where they run, "" for nowhere."""

    network: str
    host: str
    vifs: tuple[str, ...]

    @property
    def name(self) -> str:
        """A short name: the VIF's where there is one only."""
        if len(self.vifs) == 1:
            return self.vifs[0]
        return f"{self.network} on {self.host or 'no host'} ({len(self.vifs)}: {self.vifs[0]}, ...)"


def signature(pool: SimPool, vif: Vif, macs: Mapping[tuple[str, str], int]) -> tuple[object, ...]:
    """What decides which class a VIF is in."""
    where = pool.state.location(vif.id)
    bindings = [b for b in (where.current, where.incoming, *where.superseded) if b is not None]
    families = (any(":" not in a for a in vif.addresses), any(":" in a for a in vif.addresses))
    alone = vif.id if macs[vif.network, vif.mac] > 1 else ""
    moving = tuple((b.host, b.state, b.unlocked) for b in bindings)
    return vif.network, pool.where(vif) or "", vif.locking_mode, families, vif.trunk, vif.incoming, moving, alone


class Reachability:
    """The answers for one pool, one protocol and one port; each is worked out when it is first asked for."""

    def __init__(self, pool: SimPool, protocol: Protocol = Protocol.ICMP, port: int = 0) -> None:
        self.pool = pool
        self.protocol = protocol
        self.port = port
        by_signature: dict[tuple[object, ...], list[Vif]] = {}
        macs = Counter((vif.network, vif.mac) for vif in pool.state.vifs.values())
        for vif in sorted(pool.state.vifs.values(), key=pool.label):
            by_signature.setdefault(signature(pool, vif, macs), []).append(vif)
        self._members = list(by_signature.values())
        self.classes = tuple(
            Class(vifs[0].network, pool.where(vifs[0]) or "", tuple(map(pool.label, vifs))) for vifs in self._members
        )
        self._class_of = {vif.id: number for number, vifs in enumerate(self._members) for vif in vifs}
        self._known: dict[tuple[int, int], bool] = {}
        self._hears: dict[tuple[int, int], frozenset[str]] = {}

    def reaches(self, source: Vif, target: Vif) -> bool:
        """Whether a conversation from one VIF to another works. A VIF reaches itself."""
        if source.id == target.id:
            return True
        return self.between(self._class_of[source.id], self._class_of[target.id])

    def between(self, source: int, target: int) -> bool:
        """Whether members of one class reach (other) members of another, by their places in `classes`."""
        known = self._known.get((source, target))
        if known is None:
            known = self._known[source, target] = self._try(source, target)
        return known

    def _try(self, source: int, target: int) -> bool:
        one = self._members[source][0]
        others = self._members[target]
        if source == target and len(others) == 1:
            return True
        a, b = party(self.pool, one), party(self.pool, others[1 if source == target else 0])
        version = version_of(a, b)
        if version is None or b.name not in self._heard(source, a, b, version):
            return False
        try:
            return all(
                receiver.delivery in self.pool.send(sender.where, frame).to
                for _, sender, receiver, frame in plan(a, b, self.protocol, self.port)[1:]
            )
        except (NotPlugged, SimError):
            return False

    def _heard(self, source: int, a: Party, b: Party, version: int) -> frozenset[str]:
        """Who gets the source's question for a MAC, which goes to everybody: asked once for all targets."""
        heard = self._hears.get((source, version))
        if heard is None:
            try:
                frame = plan(a, b, self.protocol, self.port)[0][3]
                heard = frozenset(self.pool.send(a.where, frame).to)
            except NotPlugged:
                heard = frozenset()
            self._hears[source, version] = heard
        return heard

    def matrix(self) -> list[list[bool]]:
        """Every class against every class."""
        size = range(len(self.classes))
        return [[self.between(source, target) for target in size] for source in size]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "protocol": self.protocol.value,
            "port": self.port or None,
            "classes": [{"network": c.network, "host": c.host or None, "vifs": list(c.vifs)} for c in self.classes],
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
        place = (before._class_of.get(vif), after._class_of.get(vif))
        classes.setdefault(place, []).append(vif)
    return [(old, new, tuple(vifs)) for (old, new), vifs in classes.items()]


def _between(reach: Reachability, source: int, target: int, vifs: tuple[str, ...], targets: tuple[str, ...]) -> bool:
    if source == target and vifs == targets and len(vifs) == 1:
        return True
    return reach.between(source, target)


def _names(joint: _Joint, rows: Iterable[int]) -> tuple[str, ...]:
    return tuple(sorted(name for row in rows for name in joint[row][2]))
