"""Desired against actual. Rule: what is not ours is neither changed nor deleted; it becomes a `RowConflict` instead.

We own whole rows with our mark (see `snapshot.OwnerMark`), a bridge's local port with the bridge, interfaces with their
port. In external_ids only the keys we put there are ours. Bridges, ports, mirrors, controllers, managers and the
collectors hang in sets in which others have rows too, so those sets are changed by member, never written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from ovsctl.vswitch.changes import (
    AddRow,
    Change,
    ColumnChange,
    MoveRow,
    Ref,
    RemoveRow,
    Resolved,
    RowConflict,
    RowPlan,
    Unresolved,
    UpdateRow,
)
from ovsctl.vswitch.rows import (
    BRIDGE_PARTS,
    REFERENCES,
    ROOT,
    SAMPLE_SETS,
    RowId,
    RowUnit,
    Value,
    WantedRow,
    is_default,
    wanted_units,
)
from ovsctl.vswitch.snapshot import FoundRow, OwnerMark, Snapshot, Tables
from ovsctl.vswitch.values import VSwitch

_PARENT_COLUMN = {**BRIDGE_PARTS, "Bridge": "bridges", "Port": "ports", "Manager": "manager_options"}
_USERS = {"QoS": ("Port", "qos"), "Queue": ("QoS", "queues")}
"""Tables whose rows stay when nobody refers to them, and who may. Users before the used, see `_Removals.find`."""


def plan(desired: VSwitch, actual: Tables, owner: OwnerMark = OwnerMark()) -> RowPlan:  # noqa: B008 - frozen
    """The changes that make `actual` have what is `desired`, and nothing else that bears the owner's mark.

    `actual`: see `Snapshot`, whose `IncompleteSnapshot` it raises. Pure; applied as planned, a second plan is empty.
    """
    snapshot = Snapshot(actual, owner)
    units = tuple(wanted_units(desired))
    wanted = frozenset(row.id for unit in units for row in unit.rows)
    obstacles = _Obstacles(snapshot, units, wanted)
    blocked = obstacles.find()
    active = [unit for unit in units if unit.head.id not in blocked]
    removals = _Removals(snapshot, active, wanted, obstacles.kept)
    early, late = removals.find()
    additions = _Additions(snapshot, active, removals.going)
    changes = [change for unit in active for change in additions.of_unit(unit)]
    conflicts = [*(RowConflict(row, reason) for row, reason in blocked.items()), *removals.conflicts]
    return RowPlan((*changes, *early), late, tuple(conflicts), tuple(additions.unresolved))


@dataclass(slots=True)
class _Obstacles:
    """Why a unit cannot be planned. One that cannot may stand in the way of another, hence the fixpoint."""

    snapshot: Snapshot
    units: tuple[RowUnit, ...]
    wanted: frozenset[RowId]
    kept: Mapping[RowId, str] = field(default_factory=dict)

    def find(self) -> Mapping[RowId, str]:
        blocked: Mapping[RowId, str] = {}
        while True:
            self.kept = self._kept_bridges(blocked)
            now = {unit.head.id: reason for unit in self.units if (reason := self._obstacle(unit, blocked))}
            if now.keys() == blocked.keys():
                return now
            blocked = now

    def _kept_bridges(self, blocked: Mapping[RowId, str]) -> Mapping[RowId, str]:
        """Bridges of ours that nobody wants, but that hold ports which have to stay: those ports' names."""
        stay: dict[RowId, list[str]] = {}
        for found in self.snapshot:
            if found.id.table != "Port" or found.parent is None or found.parent in self.wanted:
                continue
            if not found.ours or found.id in blocked:
                stay.setdefault(found.parent, []).append(str(found.id.key[0]))
        return {bridge: ", ".join(sorted(ports)) for bridge, ports in stay.items() if self.snapshot[bridge].ours}

    def _obstacle(self, unit: RowUnit, blocked: Mapping[RowId, str]) -> str | None:
        if unit.parent in blocked:
            return f"{unit.parent} is in conflict"
        if unit.parent not in self.wanted and unit.parent != ROOT:
            holder = self.snapshot.get(unit.parent)
            if holder is None:
                return f"there is no {unit.parent} to put it on"
            if holder.ours:
                return f"{unit.parent} is ours and goes away: list it among the bridges, or leave its ports out"
        reasons = (self._taken(unit, row.id, blocked) for row in unit.rows)
        return next(filter(None, reasons), None)

    def _taken(self, unit: RowUnit, row_id: RowId, blocked: Mapping[RowId, str]) -> str | None:
        found = self.snapshot.get(row_id)
        if found is None or found.parent is None:
            return None
        if not found.ours:
            what = "" if row_id == unit.head.id else f"{row_id} "
            where = f" (it is in {found.parent})" if found.parent.key else ""
            return f"{what}is not ours{where}: remove it, or choose another name"
        holder = _holder(found, unit)
        if holder in blocked:
            return f"{row_id} is still in {holder}, which is in conflict"
        bridge = _local_bridge(self.snapshot, holder) if holder else None
        if bridge and bridge in self.kept:
            return f"{row_id} is still {bridge}'s own, which has to stay: it holds {self.kept[bridge]}"
        return None


@dataclass(slots=True)
class _Additions:
    """Rows to insert, update and move."""

    snapshot: Snapshot
    units: list[RowUnit]
    going: Set[RowId]
    unresolved: list[Unresolved] = field(default_factory=list)
    new: frozenset[RowId] = frozenset()

    def __post_init__(self) -> None:
        self.new = frozenset(row.id for unit in self.units for row in unit.rows if self.snapshot.get(row.id) is None)

    def of_unit(self, unit: RowUnit) -> Iterator[Change]:
        for row in unit.parts:
            yield from self._of_row(row, None)
        yield from self._of_row(unit.head, unit)

    def _of_row(self, row: WantedRow, unit: RowUnit | None) -> Iterator[Change]:
        references = {name: row.columns[name] for name in REFERENCES.get(row.id.table, ()) if name in row.columns}
        resolved = {name: self._resolve(row.id, name, value) for name, value in references.items()}
        columns: dict[str, Any] = {**row.columns, **resolved}
        found = self.snapshot.get(row.id)
        if found is None:
            columns = {name: value for name, value in columns.items() if not is_default(name, value)}
            columns["external_ids"] = self.snapshot.owner.marked(row.external_ids)
            parent = self._ref(unit.parent) if unit and unit.column else None
            yield AddRow(Ref(row.id, None), columns, parent, unit.column if unit else "")
            return
        if unit and found.parent and found.parent != unit.parent:
            yield MoveRow(Ref(row.id, found.uuid), self._ref(found.parent), self._ref(unit.parent), unit.column)
        update = self._update(found, row, columns)
        if update.columns or update.set_ids or update.delete_ids:
            yield update

    def _update(self, found: FoundRow, row: WantedRow, columns: Mapping[str, Resolved]) -> UpdateRow:
        references = REFERENCES.get(row.id.table, ())
        changed = []
        for name, new in columns.items():
            if (row.id.table, name) in self.snapshot.absent:
                old = new if is_default(name, new) else None
            elif name in references:
                old = _map_atoms(found.row[name], lambda uuid: Ref(self.snapshot.name(uuid), uuid))
            else:
                old = found.row[name]
            if old != new:
                changed.append(ColumnChange(name, old, new))
        owner = self.snapshot.owner
        have, want = found.row["external_ids"], owner.marked(row.external_ids)
        set_ids = tuple(sorted((key, value) for key, value in want.items() if have.get(key) != value))
        delete_ids = tuple(sorted((owner.own_keys(found.row) & have.keys()) - want.keys()))
        return UpdateRow(Ref(found.id, found.uuid), tuple(changed), set_ids, delete_ids)

    def _resolve(self, row: RowId, column: str, value: Value) -> Resolved:
        if row.table == "Mirror":
            value = self._without_missing(row, column, value)
        return _map_atoms(value, self._ref)

    def _without_missing(self, row: RowId, column: str, value: Value) -> Value:
        """A mirror's ports that are there and stay.

        One that goes in the same transaction has to be left out, or ovsdb-server 3.1 keeps a reference to nothing.
        """
        ports = {port for port in (value if isinstance(value, frozenset) else {value}) if isinstance(port, RowId)}
        missing = {port for port in ports if not self._stays(port)}
        self.unresolved += [Unresolved(row, column, port) for port in sorted(missing, key=str)]
        if not missing:
            return value
        return frozenset(ports - missing) if isinstance(value, frozenset) else None

    def _stays(self, port: RowId) -> bool:
        return port in self.new or (self.snapshot.get(port) is not None and port not in self.going)

    def _ref(self, row_id: RowId) -> Ref:
        found = self.snapshot.get(row_id)
        return Ref(row_id, found.uuid if found else None)


@dataclass(slots=True)
class _Removals:
    """Rows of ours that nobody wants any more."""

    snapshot: Snapshot
    units: list[RowUnit]
    wanted: frozenset[RowId]
    kept: Mapping[RowId, str]
    conflicts: list[RowConflict] = field(default_factory=list)
    going: set[RowId] = field(default_factory=set)

    def find(self) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
        """Those that have to go along with the additions, and those that can go later."""
        unwanted = [found for found in self.snapshot if found.ours and found.id not in self.wanted]
        removed = [found for found in unwanted if found.id.table not in _USERS and self._removable(found)]
        removed.reverse()  # what hangs in a row before the row itself
        self.going.update(found.id for found in removed)
        for table in _USERS:  # QoS rows go once their ports do, queues once their QoS rows do
            free = self._unused(table, [found for found in unwanted if found.id.table == table])
            self.going.update(found.id for found in free)
            removed += free
        reused = self._reused()
        first = {found.id for found in removed if {found.id, found.parent} & reused or _keeps_a_bridge(found)}
        early = tuple(self._remove(found) for found in removed if found.id in first)
        late = tuple(self._remove(found) for found in removed if found.id not in first)
        return early, late

    def _removable(self, found: FoundRow) -> bool:
        match found.id.table:
            case "Interface":
                return False  # goes with its port, or by the port's `interfaces`
            case "IPFIX" if found.parent is not None and found.parent.table == SAMPLE_SETS:
                return False  # goes with its set of collectors
            case "Port":
                return _local_bridge(self.snapshot, found.id) not in self.kept
            case "Bridge" if found.id in self.kept:
                reason = f"is to be removed, but holds ports that have to stay: {self.kept[found.id]}"
                self.conflicts.append(RowConflict(found.id, reason))
                return False
        return True

    def _unused(self, table: str, unwanted: list[FoundRow]) -> list[FoundRow]:
        """Those that no row refers to any more once the plan is carried out."""
        if not unwanted:
            return []
        users = self.snapshot.users(*_USERS[table])
        released = self.going | {row.id for unit in self.units for row in unit.rows}
        free = []
        for found in unwanted:
            staying = [
                user for user in users.get(found.uuid, ()) if not {user, _local_bridge(self.snapshot, user)} & released
            ]
            if staying:
                reason = f"is to be removed, but is used by {', '.join(sorted(map(str, staying)))}"
                self.conflicts.append(RowConflict(found.id, reason))
            else:
                free.append(found)
        return free

    def _reused(self) -> frozenset[RowId]:
        """Ports and bridges that lose an interface or their local port to another port."""
        holders = {
            holder
            for unit in self.units
            for row in unit.rows
            if (found := self.snapshot.get(row.id)) and (holder := _holder(found, unit))
        }
        bridges = {bridge for holder in holders if (bridge := _local_bridge(self.snapshot, holder))}
        return frozenset(holders | bridges)

    def _remove(self, found: FoundRow) -> RemoveRow:
        row = Ref(found.id, found.uuid)
        if found.parent is None or found.id.table == SAMPLE_SETS:
            return RemoveRow(row)
        parent = self.snapshot[found.parent]
        return RemoveRow(row, Ref(parent.id, parent.uuid), _PARENT_COLUMN[found.id.table])


def _keeps_a_bridge(found: FoundRow) -> bool:
    """Whether a row keeps a bridge that Open_vSwitch has no more, whose name is taken as long."""
    return found.id.table == SAMPLE_SETS and found.parent is None


def _local_bridge(snapshot: Snapshot, row_id: RowId) -> RowId | None:
    """A bridge itself, or the bridge whose local port this is."""
    if row_id.table == "Bridge":
        return row_id
    found = snapshot.get(row_id)
    is_local = found and row_id.table == "Port" and found.parent and found.parent.key == row_id.key
    return found.parent if found and is_local else None


def _holder(found: FoundRow, unit: RowUnit) -> RowId | None:
    """The port, or the bridge by its local port, that has to give up a row for `unit` to have it."""
    if found.id.table == "Interface" and found.parent != unit.head.id:
        return found.parent
    if found.id.table == "Port" and found.parent and found.parent != unit.parent:
        return found.parent if found.parent.key == found.id.key else None
    return None


def _map_atoms(value: Any, change: Callable[[Any], Any]) -> Resolved:
    """The same optional, set or map with each atom (of a map, each value) changed."""
    if value is None:
        return None
    if isinstance(value, frozenset):
        return frozenset(map(change, value))
    if isinstance(value, Mapping):
        return {key: change(item) for key, item in value.items()}
    atom: Resolved = change(value)
    return atom
